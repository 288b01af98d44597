"""Redundancy measured: what is known by construction is found, baselines are chance, every task's checkpoint works."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import NEWEST, Run
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner
from ultralytics import YOLO
from ultralytics.utils import ASSETS

from ghost_yolo import host
from ghost_yolo.cli import app
from ghost_yolo.ghostify.part import fingerprint
from ghost_yolo.models import path_of
from ghost_yolo.photos import find_photos
from ghost_yolo.redundancy import cheap, plots, survey
from ghost_yolo.redundancy.maps import Photos, first_stage, layers_of, look, open_checkpoint, pick
from ghost_yolo.redundancy.pairs import opposites, pairs
from ghost_yolo.redundancy.report import drawn_summary
from ghost_yolo.redundancy.survey import Settings, fit_numbers, positions, shuffler
from ghost_yolo.registry import UserError

TASKS = ("yolov8n", "yolov8n-obb", "yolov8n-cls", "yolo11n-seg")
NEWER = ("yolo26n-pose", "yolo26n-cls") if NEWEST else ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four crops of the host's own photograph, in a folder."""
    place = tmp_path_factory.mktemp("photos")
    photo = cv2.imread(str(ASSETS / "bus.jpg"))
    for number in range(4):
        cv2.imwrite(str(place / f"{number}.png"), photo[100 + 150 * number :, 50 * number :][:400, :500])
    return place


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ours, untrained."""
    file = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    YOLO(str(path_of("yolov8n-ghost"))).save(file)
    return file


def known_maps(seed: int) -> torch.Tensor:
    """Return maps (6, 40, 40): noise, the same filtered 3x3 and moved, another noise, a third, a copy negated, a constant."""
    torch.manual_seed(seed)
    noise = torch.randn(3, 40, 40)
    kernel = torch.tensor([[[[0.1, -0.2, 0.1], [0.0, 1.0, 0.3], [-0.1, 0.2, 0.1]]]])
    filtered = F.conv2d(noise[:1, None], kernel, padding=1)[0] + 5
    return torch.cat((noise[:1], filtered, noise[1:], -2 * noise[1:2] + 1, torch.full((1, 40, 40), 3.0)))


def learned(change: Any = survey.keep) -> tuple[cheap.Partners, cheap.Moments]:
    """Return the accumulators after two sweeps over four images of known maps."""
    found = cheap.Partners(6)
    moments = None
    for sweep in (1, 2):
        for number in range(4):
            maps = change(known_maps(number), (0, number))
            fit, test = positions(maps.shape, number, 4, (0, number))
            if sweep == 1:
                found.add(maps, fit)
            else:
                moments = moments or survey.chosen(found, (0,), 0)
                moments.add(maps, fit, test)
    assert moments is not None
    return found, moments


def test_a_filtered_copy_is_found_with_its_kernel() -> None:
    """The filtered map's partner is its source, the error is zero from 3x3 on, and the kernel is the one that made it."""
    found, moments = learned()
    partner, _, dead = found.find()
    bias, taps = moments.kernels(3)[1, -1], moments.kernels(3)[1, :-1]

    assert partner[:2].tolist() == [1, 0] and dead.tolist() == [False] * 5 + [True]
    assert moments.targets.tolist() == [0, 1, 2, 3, 4]
    assert taps.tolist() == pytest.approx([0.1, -0.2, 0.1, 0.0, 1.0, 0.3, -0.1, 0.2, 0.1], abs=1e-5)
    assert float(bias) == pytest.approx(5, abs=1e-5)
    assert all(float(moments.errors(d)[1][1]) < 1e-9 for d in (3, 5, 7))
    assert float(moments.errors(1)[1][1]) > 0.05


def test_shares_count_copies_and_not_noise() -> None:
    """Two exact pairs, one of them needing 3x3 one way only, and a lone noise map give the shares by hand."""
    found, moments = learned()
    shares = survey.shares(found, moments, 0.01)

    assert shares.dead == 1 and shares.sampled == 5
    assert shares.share[1] == pytest.approx(2 / 5)  # the negated copy, both ways
    assert shares.share[3] == pytest.approx(3 / 5)  # and the filtered one
    assert shares.removable == pytest.approx(2 / 5)  # of two negated copies one must stay
    assert float(moments.errors(7)[1][3]) > 0.9


def test_one_tap_gives_one_minus_the_squared_correlation() -> None:
    """On the positions that it is learned from, a 1x1 kernel with a bias leaves what correlation does not explain."""
    found, moments = learned()
    moments.test = moments.fit
    _, correlation, _ = found.find()

    assert moments.errors(1)[1].tolist() == pytest.approx((1 - correlation[moments.targets] ** 2).tolist(), abs=1e-9)


def test_least_squares_are_torchs() -> None:
    """Moments and sub-matrices give what an explicit least-squares problem gives."""
    maps = known_maps(0)[[0, 2]].double()
    every = torch.arange(1600)
    moments = cheap.Moments(torch.tensor([1]), torch.tensor([0]))
    moments.add(maps, every, every)
    taps = F.unfold(maps[None, :1], 5, padding=2)[0].T
    wanted = torch.linalg.lstsq(F.pad(taps, (0, 1), value=1.0), maps[1].reshape(-1, 1)).solution[:, 0]
    residual = F.pad(taps, (0, 1), value=1.0) @ wanted - maps[1].flatten()

    assert moments.kernels(5)[0].tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
    assert float(moments.errors(5)[0][0]) == pytest.approx(float(residual.square().mean()), rel=1e-6)


def test_shuffled_maps_cannot_be_made() -> None:
    """The same maps shuffled in space keep their values, and no kernel makes one from another."""
    maps = known_maps(0)
    mixed = shuffler(0)(maps, (0, 0))
    shares = survey.shares(*learned(shuffler(0)), 0.5)

    assert torch.equal(mixed.flatten(1).sort().values, maps.flatten(1).sort().values)
    assert torch.equal(mixed, shuffler(0)(maps, (0, 0))) and not torch.equal(mixed[:5], shuffler(1)(maps, (0, 0))[:5])
    assert shares.share == {1: 0.0, 3: 0.0, 5: 0.0, 7: 0.0}
    assert all(value is not None and value > 0.95 for value in shares.median.values())


def test_held_out() -> None:
    """One image is cut in two halves; of several, each is learned from or tested on; few positions are enough for few taps."""
    shape = torch.Size((3, 8, 10))
    fit, test = positions(shape, 0, 1, (0,))
    moments = cheap.Moments(torch.tensor([1]), torch.tensor([0]))
    moments.add(torch.randn(shape), fit, test)

    assert (fit % 10 < 5).all() and (test % 10 >= 5).all() and len(fit) == len(test) == 40
    assert [len(part) for part in positions(shape, 0, 3, (0,))] == [80, 0]
    assert [len(part) for part in positions(shape, 1, 3, (0,))] == [0, 80]
    assert list(fit_numbers(3)) == [0, 2]
    assert [moments.enough(d) for d in cheap.SIZES] == [
        True,
        False,
        False,
        False,
    ]  # 40 positions for 2, 10, 26, 50 unknowns
    assert len(positions(torch.Size((1, 200, 200)), 0, 2, (0,))[0]) == survey.POSITIONS


def test_opposite_filters_by_hand() -> None:
    """A filter and its negation are at -1, others at their cosine, and one without direction is left out."""
    weight = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0], [1.0, 1.0]])[:, :, None, None]
    filters, partner, cosine = opposites(weight)

    assert filters.tolist() == [0, 1, 3] and partner.tolist() == [1, 0, 1]
    assert cosine.tolist() == pytest.approx([-1, -1, -(0.5**0.5)])
    assert len(opposites(weight[2:])[0]) == 0


def test_random_filters_are_what_chance_says() -> None:
    """Two Gaussian filters of D weights have a cosine of mean 0 and variance 1 / D; more filters are more opposite."""
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3) for _ in range(400)), nn.Conv2d(2, 64, 3))
    found = pairs(model, 0)
    cosines = np.array([item.random[:, 0] for item in found[:-1]])

    assert abs(cosines.mean()) < 4 / (18 * cosines.size) ** 0.5
    assert cosines.var() == pytest.approx(1 / 18, rel=0.06)
    assert found[-1].random.mean() < -0.4
    assert [item.random.tolist() for item in pairs(model, 0)] == [item.random.tolist() for item in found]
    assert found[0].random.tolist() != pairs(model, 1)[0].random.tolist()


def test_random_draws_are_summed_up() -> None:
    """Of two draws by hand: mean of all, the sd of their means, the mean of their least values."""
    told = drawn_summary(np.array([[-0.5, -0.3], [-0.3, -0.1]]))

    assert [told[key] for key in ("mean", "sd", "least")] == pytest.approx([-0.3, 0.02**0.5, -0.4])
    assert set(drawn_summary(np.empty((20, 0))).values()) == {None}


@pytest.mark.parametrize("name", [*TASKS, *NEWER])
def test_every_task(name: str, folder: Path) -> None:
    """Maps of all layers of any task's model are measured, and its filters compared."""
    model = YOLO(f"{name}.yaml").model.float().eval()
    result = survey.survey(model, find_photos([folder])[:2], None, True, Settings(imgsz=64))

    assert result.drawn.layer.index == 2
    assert len(result.rows) >= 8 and result.maps.shape[0] == result.drawn.layer.channels
    assert all(row.shuffled.share[1] is None or row.shuffled.share[1] < 0.2 for row in result.rows[:4])
    assert not any(module._forward_hooks for module in model.modules()) and not model.training
    assert len(pairs(model, 0)) > 20


@pytest.mark.parametrize("count", [1, 2, 3])
def test_maps_are_drawn_on_a_photograph_to_test_on(count: int, checkpoint: Path, folder: Path) -> None:
    """The kernels were not learned on the photograph that is drawn, where there is another; the figure says which it is."""
    model, paths = open_checkpoint(checkpoint, "cpu"), find_photos([folder])[:count]
    result = survey.survey(model, paths, 2, False, Settings(imgsz=64))
    image = Photos(paths, 64, 32).open(result.number)
    title = plots.pairs_figure(result.drawn, result.maps, result.number).get_suptitle()

    assert result.number == min(1, count - 1) and (count == 1 or result.number not in fit_numbers(count))
    assert torch.equal(result.maps, survey.maps_of(model, image, result.drawn.layer))
    assert f"drawn on photograph {result.number + 1};" in title


def test_the_same_seed_gives_the_same_figures(checkpoint: Path, folder: Path) -> None:
    """Measuring twice changes nothing, another seed does, and torch's own random state is left alone."""
    model = open_checkpoint(checkpoint, "cpu")
    paths = find_photos([folder])[:2]
    state = torch.get_rng_state()
    first, again, other = (survey.survey(model, paths, 2, False, Settings(seed=s, imgsz=64)).rows for s in (0, 0, 1))

    assert [row.layer.index for row in first] == [2]
    assert repr(first) == repr(again) != repr(other)
    assert torch.equal(state, torch.get_rng_state())


def test_layers_without_maps_are_refused(checkpoint: Path, folder: Path) -> None:
    """Upsample, the head and what does not exist are answered with the layers that work."""
    model = open_checkpoint(checkpoint, "cpu")
    found = layers_of(model, Photos(find_photos([folder]), 64, 32).open(0))
    layers = [layer for layer in found if not layer.part]

    assert first_stage(model, layers).module == "C2f_GhostBottleneck"
    for number in (10, 22, 99, -1):
        with pytest.raises(UserError, match=r"take one of 0 \(Conv\), 1 \(Conv\), 2 \(C2f_GhostBottleneck\)"):
            pick(layers, number)


def test_what_cannot_be_is_said(tmp_path: Path, folder: Path, checkpoint: Path) -> None:
    """Bad images, settings, checkpoints and models without convolutions are named, with what would work."""
    model = open_checkpoint(checkpoint, "cpu")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    for given, words in (([], "No image"), ([tmp_path / "none.jpg"], "not exist"), ([tmp_path / "e"], "no image")):
        (tmp_path / "e").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=words):
            find_photos(given)
    with pytest.raises(UserError, match=r"broken\.jpg cannot be read as an image"):
        survey.survey(model, [broken], None, True, Settings(imgsz=64))
    for settings, words in (
        (Settings(within=1.0), "within"),
        (Settings(seed=-1), "seed"),
        (Settings(imgsz=70), "imgsz"),
    ):
        with pytest.raises(UserError, match=words):
            survey.survey(model, find_photos([folder]), None, True, settings)
    with pytest.raises(UserError, match="no convolution"):
        pairs(nn.Sequential(nn.Linear(3, 4), nn.Conv2d(3, 1, 1)), 0)
    with pytest.raises(UserError, match=r"give a trained model's \.pt file"):
        open_checkpoint(Path("yolov8n.yaml"))
    with pytest.raises(UserError, match="--device nonsense"):
        open_checkpoint(checkpoint, "nonsense")


def test_a_model_without_maps_is_said() -> None:
    """A network of flat layers has nothing to look at, and its hooks are taken off again."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    flat.model = list(flat)

    with pytest.raises(UserError, match="No layer of this model makes feature maps"):
        layers_of(flat, torch.zeros(1, 3, 2, 2))
    with pytest.raises(RuntimeError):
        look(flat, torch.zeros(1, 3, 2, 3), lambda *_: None)
    assert not any(module._forward_hooks for module in flat.modules())


def test_the_untrained_network_is_the_yamls(checkpoint: Path) -> None:
    """The baseline has the checkpoint's shapes and other weights, the same ones for the same seed."""
    model = open_checkpoint(checkpoint, "cpu")
    first, again = (host.untrained(model, 3).state_dict() for _ in range(2))
    own = model.state_dict()

    assert {key: value.shape for key, value in first.items()} == {key: value.shape for key, value in own.items()}
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["model.0.conv.weight"], own["model.0.conv.weight"])


def read(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def test_ghosts_writes_its_folder(run: Run, checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    """`ghost-yolo ghosts` prints a table and writes figures, CSV and JSON that agree."""
    words = ("ghost-yolo", "ghosts", checkpoint, "--image", folder, "--layer", "4", "--all", "--imgsz", "64")
    shown = run(*words, "--format", "json", "-o", "out").stdout
    out, told = tmp_path / "out", json.loads(shown)
    layers, mse = read(out / "layers.csv"), read(out / "pairs.csv")

    assert shown == (out / "ghosts.json").read_text(encoding="utf-8")
    assert {file.name for file in out.iterdir()} == {
        *("ghosts.json", "layers.csv", "pairs.csv", "redundancy.png", "layer04-maps.png", "layer04-pairs.png")
    }
    assert [int(row["index"]) for row in layers] == [row["index"] for row in told["rows"]]
    assert layers[-1]["trained_share_d7"] == "" and told["rows"][-1]["trained"]["share_d7"] is None
    assert float(layers[0]["trained_median_d3"]) == told["rows"][0]["trained"]["median_d3"]
    assert told["settings"] == {
        "model": str(checkpoint),
        "weights": fingerprint([checkpoint]),
        "images": 4,
        "within": 0.1,
        "seed": 0,
        "imgsz": 64,
        "inner": False,
    }
    assert [float(row["mse_d3"]) for row in mse] == [pair["mse_d3"] for pair in told["pairs"]] and len(mse) > 9


def test_one_layer_alone(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    """A single layer has no picture by depth; without any copy the shares' axis still goes up to 0.1."""
    words = [
        "ghosts",
        str(checkpoint),
        "--image",
        str(folder),
        "--layer",
        "4",
        "--imgsz",
        "64",
        "-o",
        str(tmp_path / "o"),
    ]
    done = CliRunner().invoke(app, words)
    result = survey.survey(
        open_checkpoint(checkpoint, "cpu"), find_photos([folder]), 4, False, Settings(1e-9, imgsz=64)
    )

    assert done.exit_code == 0
    first = result.drawn.trained.pairs[0]
    told = f"{first.map} {first.partner} {first.correlation:+.3f} {first.mse[1]:.3g} {first.mse[3]:.3g}"
    assert told in " ".join(re.sub(r"[^\w.+-]+", " ", done.stdout).split())
    assert {file.name for file in (tmp_path / "o").iterdir()} == {
        *("ghosts.json", "layers.csv", "pairs.csv", "layer04-maps.png", "layer04-pairs.png")
    }
    assert plots.depth_figure(result.rows, 1e-9).axes[0].get_ylim()[1] >= 0.1


def test_pairs_writes_its_folder(checkpoint: Path, tmp_path: Path) -> None:
    """`ghost-yolo pairs` prints a table and writes a figure, CSV and JSON; what is already there is kept."""
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["pairs", str(checkpoint), "-o", str(out)])
    again = CliRunner().invoke(app, ["pairs", str(checkpoint), "-o", str(out)])
    filters = [row for row in read(out / "filters.csv") if row["convolution"] == "model.0.conv"]
    told = json.loads((out / "pairs.json").read_text(encoding="utf-8"))["rows"][0]

    assert done.exit_code == 0 and "model.0.conv" in done.stdout
    assert {file.name for file in out.iterdir()} == {"pairs.png", "pairs.json", "filters.csv", "convolutions.csv"}
    assert len(filters) == told["filters"] == 16 and told["shape"] == "16x3x3x3"
    assert np.mean([float(row["cosine"]) for row in filters]) == pytest.approx(told["cosine"]["mean"])
    assert told["random"]["mean"] < 0 < told["random"]["sd"] < 0.1 and told["random"]["least"] < told["random"]["mean"]
    assert isinstance(again.exception, UserError) and "already exists" in str(again.exception)


def test_inner_convolutions(folder: Path) -> None:
    """With `inner` the 3x3 convolutions of the stock C2f rows are measured too, and the layers' own figures stay."""
    model = YOLO("yolov8n.yaml").model.float().eval()
    paths = find_photos([folder])[:2]
    inner, plain = (survey.survey(model, paths, 4, False, Settings(imgsz=64, inner=given)) for given in (True, False))

    assert [row.layer.module for row in inner.inner] == ["m.0.cv1", "m.0.cv2", "m.1.cv1", "m.1.cv2"]
    assert [(row.layer.key, row.layer.channels) for row in inner.inner] == [((4, part), 32) for part in (1, 2, 3, 4)]
    assert repr(inner.rows) == repr(plain.rows) and plain.inner == []

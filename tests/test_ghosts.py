"""`ghosts` and `pairs`: every task's checkpoint works, the folder's files agree, what cannot be is said."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from factories import NEWEST, Run
from torch import nn
from typer.testing import CliRunner
from ultralytics import YOLO
from ultralytics.utils import ASSETS

from ghost_yolo import host
from ghost_yolo.cli import app
from ghost_yolo.data.images import find_images
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import path_of
from ghost_yolo.model.checkpoint import build_from_yaml, open_checkpoint
from ghost_yolo.redundancy import plots, survey
from ghost_yolo.redundancy.filters import pairs
from ghost_yolo.redundancy.maps import Photos, first_stage, layers_of, look, pick
from ghost_yolo.redundancy.survey import Settings, fit_numbers
from ghost_yolo.utils.files import fingerprint

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


@pytest.mark.parametrize("name", [*TASKS, *NEWER])
def test_every_task(name: str, folder: Path) -> None:
    """Maps of all layers of any task's model are measured, and its filters compared."""
    opened = build_from_yaml(f"{name}.yaml", 80)
    model = opened.model
    result = survey.survey(opened, find_images([folder])[:2], None, True, Settings(imgsz=64))

    assert result.drawn.layer.index == 2
    assert len(result.rows) >= 8 and result.maps.shape[0] == result.drawn.layer.channels
    assert all(row.shuffled.share[1] is None or row.shuffled.share[1] < 0.2 for row in result.rows[:4])
    assert not any(module._forward_hooks for module in model.modules()) and not model.training
    assert len(pairs(model, 0)) > 20


@pytest.mark.parametrize("count", [1, 2, 3])
def test_maps_are_drawn_on_a_photograph_to_test_on(count: int, checkpoint: Path, folder: Path) -> None:
    """The kernels were not learned on the photograph that is drawn, where there is another; the figure says which it is."""
    opened, paths = open_checkpoint(checkpoint), find_images([folder])[:count]
    result = survey.survey(opened, paths, 2, False, Settings(imgsz=64))
    image = Photos(paths, 64, 32).open(result.number)
    title = plots.pairs_figure(result.drawn, result.maps, result.number).get_suptitle()

    assert result.number == min(1, count - 1) and (count == 1 or result.number not in fit_numbers(count))
    assert torch.equal(result.maps, survey.maps_of(opened.model, image, result.drawn.layer))
    assert f"drawn on photograph {result.number + 1};" in title


def test_the_same_seed_gives_the_same_figures(checkpoint: Path, folder: Path) -> None:
    """Measuring twice changes nothing, another seed does, and torch's own random state is left alone."""
    opened = open_checkpoint(checkpoint)
    paths = find_images([folder])[:2]
    state = torch.get_rng_state()
    first, again, other = (survey.survey(opened, paths, 2, False, Settings(seed=s, imgsz=64)).rows for s in (0, 0, 1))

    assert [row.layer.index for row in first] == [2]
    assert repr(first) == repr(again) != repr(other)
    assert torch.equal(state, torch.get_rng_state())


def test_layers_without_maps_are_refused(checkpoint: Path, folder: Path) -> None:
    """Upsample, the head and what does not exist are answered with the layers that work."""
    opened = open_checkpoint(checkpoint)
    model = opened.model
    found = layers_of(model, Photos(find_images([folder]), 64, 32).open(0))
    layers = [layer for layer in found if not layer.part]

    assert first_stage(model, layers).module == "C2f_GhostBottleneck"
    for number in (10, 22, 99, -1):
        with pytest.raises(UserError, match=r"take one of 0 \(Conv\), 1 \(Conv\), 2 \(C2f_GhostBottleneck\)"):
            pick(layers, number)


def test_what_cannot_be_is_said(tmp_path: Path, folder: Path, checkpoint: Path) -> None:
    """Bad images, settings, checkpoints and models without convolutions are named, with what would work."""
    opened = open_checkpoint(checkpoint)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    for given, words in (([], "No image"), ([tmp_path / "none.jpg"], "not exist"), ([tmp_path / "e"], "no image")):
        (tmp_path / "e").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=words):
            find_images(given)
    with pytest.raises(UserError, match=r"broken\.jpg cannot be read as an image"):
        survey.survey(opened, [broken], None, True, Settings(imgsz=64))
    for settings, words in (
        (Settings(within=1.0), "within"),
        (Settings(seed=-1), "seed"),
        (Settings(imgsz=70), "imgsz"),
    ):
        with pytest.raises(UserError, match=words):
            survey.survey(opened, find_images([folder]), None, True, settings)
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
    opened = open_checkpoint(checkpoint)
    model = opened.model
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
    result = survey.survey(open_checkpoint(checkpoint), find_images([folder]), 4, False, Settings(1e-9, imgsz=64))

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
    opened = build_from_yaml("yolov8n.yaml", 80)
    paths = find_images([folder])[:2]
    inner, plain = (survey.survey(opened, paths, 4, False, Settings(imgsz=64, inner=given)) for given in (True, False))

    assert [row.layer.module for row in inner.inner] == ["m.0.cv1", "m.0.cv2", "m.1.cv1", "m.1.cv2"]
    assert [(row.layer.key, row.layer.channels) for row in inner.inner] == [((4, part), 32) for part in (1, 2, 3, 4)]
    assert repr(inner.rows) == repr(plain.rows) and plain.inner == []

"""`ghosts` and `pairs`: every task's checkpoint works, the files of a folder agree, invalid input is refused."""

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
from ghost_yolo.redundancy.filters import analyze_filters
from ghost_yolo.redundancy.maps import SurveyImages, capture_maps, find_sources, first_stage, select_layer
from ghost_yolo.redundancy.survey import SurveySettings
from ghost_yolo.redundancy.two_pass import fit_indices
from ghost_yolo.utils.files import fingerprint

TASKS = ("yolov8n", "yolov8n-obb", "yolov8n-cls", "yolo11n-seg")
NEWER = ("yolo26n-pose", "yolo26n-cls") if NEWEST else ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four crops of an image of the host, in a folder."""
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
    """Maps of all layers of any task's model are measured, and its filters are compared."""
    opened = build_from_yaml(f"{name}.yaml", 80)
    model = opened.model
    result = survey.survey(opened, find_images([folder])[:2], SurveySettings(imgsz=64))

    assert result.plotted.source.index == 2
    assert len(result.layers) >= 8 and result.maps.shape[0] == result.plotted.source.channels
    assert all(row.shuffled.share[1] is None or row.shuffled.share[1] < 0.2 for row in result.layers[:4])
    assert not any(module._forward_hooks for module in model.modules()) and not model.training
    assert len(analyze_filters(model, 0)) > 20


@pytest.mark.parametrize("count", [1, 2, 3])
def test_maps_are_plotted_on_a_held_out_image(count: int, checkpoint: Path, folder: Path) -> None:
    """With several images, the plotted one was not used to fit the kernels; the title has its number."""
    opened, paths = open_checkpoint(checkpoint), find_images([folder])[:count]
    result = survey.survey(opened, paths, SurveySettings(imgsz=64), 2, all_layers=False)
    image = SurveyImages(paths, 64, 32).load(result.image_index)
    title = plots.pairs_figure(result.plotted, result.maps, result.image_index).get_suptitle()

    assert result.image_index == min(1, count - 1) and (count == 1 or result.image_index not in fit_indices(count))
    assert torch.equal(result.maps, survey.feature_maps(opened.model, image, result.plotted.source))
    assert f"image {result.image_index + 1}" in title


def test_the_same_seed_gives_the_same_figures(checkpoint: Path, folder: Path) -> None:
    """The same seed gives the same result, another seed another one, and torch's random state is unchanged."""
    opened = open_checkpoint(checkpoint)
    paths = find_images([folder])[:2]
    state = torch.get_rng_state()
    first, again, other = (
        survey.survey(opened, paths, SurveySettings(seed=seed, imgsz=64), 2, all_layers=False).layers
        for seed in (0, 0, 1)
    )

    assert [row.source.index for row in first] == [2]
    assert repr(first) == repr(again) != repr(other)
    assert torch.equal(state, torch.get_rng_state())


def test_layers_without_maps_are_refused(checkpoint: Path, folder: Path) -> None:
    """For Upsample, the head and unknown indices the error lists the valid layers."""
    opened = open_checkpoint(checkpoint)
    model = opened.model
    sources = find_sources(model, SurveyImages(find_images([folder]), 64, 32).load(0))
    layers = [source for source in sources if not source.conv]

    assert first_stage(model, layers).module == "C2f_GhostBottleneck"
    for number in (10, 22, 99, -1):
        with pytest.raises(UserError, match=rf"{number}.*2 \(C2f_GhostBottleneck\)"):
            select_layer(layers, number)


@pytest.mark.parametrize("given", [[], ["none.jpg"], ["empty"]])
def test_missing_images_are_refused(given: list[str], tmp_path: Path) -> None:
    """No image, a missing file and an empty folder are errors that name the path."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=given[0] if given else "image"):
        find_images([tmp_path / name for name in given])


@pytest.mark.parametrize(
    "settings, value",
    [
        (SurveySettings(within=1.0), "--within 1.0"),
        (SurveySettings(seed=-1), "--seed -1"),
        (SurveySettings(imgsz=70), "--imgsz 70"),
    ],
)
def test_invalid_settings_are_refused(settings: SurveySettings, value: str) -> None:
    """The error names the option and its value."""
    with pytest.raises(UserError, match=value):
        settings.validate(32)


def test_invalid_inputs_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    """A broken image, a model without convolutions, a YAML in place of a checkpoint and an unknown device are errors."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        survey.survey(open_checkpoint(checkpoint), [broken], SurveySettings(imgsz=64))
    with pytest.raises(UserError, match="convolution"):
        analyze_filters(nn.Sequential(nn.Linear(3, 4), nn.Conv2d(3, 1, 1)), 0)
    with pytest.raises(UserError, match="-1"):
        analyze_filters(nn.Conv2d(3, 4, 1), -1)
    with pytest.raises(UserError, match=r"yolov8n\.yaml"):
        open_checkpoint(Path("yolov8n.yaml"))
    with pytest.raises(UserError, match="--device nonsense"):
        open_checkpoint(checkpoint, "nonsense")


def test_a_model_without_maps_is_refused() -> None:
    """A network of linear layers has no feature maps, and its hooks are removed."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    flat.model = list(flat)

    with pytest.raises(UserError, match="feature maps"):
        find_sources(flat, torch.zeros(1, 3, 2, 2))
    with pytest.raises(RuntimeError):
        capture_maps(flat, torch.zeros(1, 3, 2, 3), lambda *_: None)
    assert not any(module._forward_hooks for module in flat.modules())


def test_the_untrained_network_is_built_from_the_yaml(checkpoint: Path) -> None:
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
    arguments = ("ghost-yolo", "ghosts", checkpoint, "--image", folder, "--layer", "4", "--all", "--imgsz", "64")
    shown = run(*arguments, "--format", "json", "-o", "out").stdout
    out, report = tmp_path / "out", json.loads(shown)
    layers, mse = read(out / "layers.csv"), read(out / "pairs.csv")

    assert shown == (out / "ghosts.json").read_text(encoding="utf-8")
    assert {file.name for file in out.iterdir()} == {
        *("ghosts.json", "layers.csv", "pairs.csv", "redundancy.png", "layer04-maps.png", "layer04-pairs.png")
    }
    assert [int(row["index"]) for row in layers] == [row["index"] for row in report["rows"]]
    assert layers[-1]["trained_share_d7"] == "" and report["rows"][-1]["trained"]["share_d7"] is None
    assert float(layers[0]["trained_median_d3"]) == report["rows"][0]["trained"]["median_d3"]
    assert report["settings"] == {
        "model": str(checkpoint),
        "weights": fingerprint([checkpoint]),
        "images": 4,
        "within": 0.1,
        "seed": 0,
        "imgsz": 64,
        "inner": False,
    }
    assert [float(row["mse_d3"]) for row in mse] == [pair["mse_d3"] for pair in report["pairs"]] and len(mse) > 9


def test_one_layer_alone(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    """A single layer has no plot by depth, the axis of shares goes up to 0.1, and a file that is no image is counted."""
    (tmp_path / "a.jpg").write_text("no image")
    arguments = ["ghosts", str(checkpoint), "--image", str(tmp_path / "a.jpg"), "--image", str(folder)]
    arguments += ["--layer", "4", "--imgsz", "64", "-o", str(tmp_path / "o")]
    done = CliRunner().invoke(app, arguments)
    result = survey.survey(
        open_checkpoint(checkpoint), find_images([folder]), SurveySettings(1e-9, imgsz=64), 4, all_layers=False
    )

    assert done.exit_code == 0 and "(1 unreadable file skipped)" in done.stdout
    assert json.loads((tmp_path / "o/ghosts.json").read_text())["skipped"] == [str(tmp_path / "a.jpg")]
    first = result.plotted.trained.pairs[0]
    cells = f"{first.map} {first.partner} {first.correlation:+.3f} {first.mse[1]:.3g} {first.mse[3]:.3g}"
    assert cells in " ".join(re.sub(r"[^\w.+-]+", " ", done.stdout).split())
    assert {file.name for file in (tmp_path / "o").iterdir()} == {
        *("ghosts.json", "layers.csv", "pairs.csv", "layer04-maps.png", "layer04-pairs.png")
    }
    assert plots.depth_figure(result.layers, 1e-9).axes[0].get_ylim()[1] >= 0.1


def test_pairs_writes_its_folder(checkpoint: Path, tmp_path: Path) -> None:
    """`ghost-yolo pairs` prints a table and writes a figure, CSV and JSON; an existing folder is never overwritten."""
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["pairs", str(checkpoint), "-o", str(out)])
    again = CliRunner().invoke(app, ["pairs", str(checkpoint), "-o", str(out)])
    filters = [row for row in read(out / "filters.csv") if row["convolution"] == "model.0.conv"]
    report = json.loads((out / "pairs.json").read_text(encoding="utf-8"))["rows"][0]

    assert done.exit_code == 0 and "model.0.conv" in done.stdout
    assert {file.name for file in out.iterdir()} == {"pairs.png", "pairs.json", "filters.csv", "convolutions.csv"}
    assert len(filters) == report["filters"] == 16 and report["shape"] == "16x3x3x3"
    assert np.mean([float(row["cosine"]) for row in filters]) == pytest.approx(report["cosine"]["mean"])
    assert (
        report["random"]["mean"] < 0 < report["random"]["std"] < 0.1
        and report["random"]["min"] < report["random"]["mean"]
    )
    assert isinstance(again.exception, UserError) and str(out) in str(again.exception)


def test_inner_convolutions(folder: Path) -> None:
    """With `inner` the 3x3 convolutions of the stock C2f rows are measured too, and the layers' own figures stay."""
    opened = build_from_yaml("yolov8n.yaml", 80)
    paths = find_images([folder])[:2]
    inner, plain = (
        survey.survey(opened, paths, SurveySettings(imgsz=64, inner=given), 4, all_layers=False)
        for given in (True, False)
    )

    assert [row.source.module for row in inner.inner] == ["m.0.cv1", "m.0.cv2", "m.1.cv1", "m.1.cv2"]
    assert [(row.source.key, row.source.channels) for row in inner.inner] == [((4, conv), 32) for conv in (1, 2, 3, 4)]
    assert repr(inner.layers) == repr(plain.layers) and plain.inner == []

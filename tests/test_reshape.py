"""Another activation or width for a trained model: the YAML, the fit of all rows, and the whole run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from factories import (
    GHOST,
    SMALL_RUN,
    TASK_MODELS,
    Run,
    calibrated,
    interrupt,
    outputs,
    refused,
    run_folder,
    stock,
    write_data_yaml,
)
from ultralytics import YOLO

from ghost_yolo import host
from ghost_yolo.data import smear
from ghost_yolo.errors import SwapError, UserError
from ghost_yolo.ghostify import Delivery, Settings, fitting, ghostify
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.reshape import parse_shares, plan_widths, require_least, reshape_yaml, round_width
from ghost_yolo.model.forward import forward_until

QUICK = Settings(reconstruct_steps=1, distill_steps=1)
FAMILIES = ["v8/yolov8", "11/yolo11", *TASK_MODELS]
WEEKLY_FAMILIES = [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.weekly]) for name in FAMILIES[2:]]


@pytest.mark.parametrize(
    ("channels", "share", "width"),
    [(16, 0.5, 8), (64, 0.5, 32), (128, 0.625, 80), (64, 0.3, 16), (16, 0.1, 8), (24, 1, 24)],
)
def test_widths_are_multiples(channels: int, share: float, width: int) -> None:
    """Of 16, of 8 below 32; at least 8, and at most what there is."""
    assert round_width(channels, share) == width


@pytest.mark.parametrize(
    ("imgsz", "images", "samples"), [(640, 1000, 96), (320, 1000, 160), (224, 1008, 326), (224, 50, 96), (16, 200, 200)]
)
def test_small_images_are_fitted_on_more_samples(imgsz: int, images: int, samples: int) -> None:
    """Until the coarsest level has positions enough, and never on fewer than before; a classifier's image may be tiny."""
    assert fitting.wanted_samples(imgsz, images) == samples


def test_a_width_that_leaves_nothing_of_a_row() -> None:
    """Is refused with the row, and with what is possible."""
    model = host.build(stock("v8/yolov8"))
    with refused(SwapError, "Row 0, Conv, has 16 channels", "--width 0.1 leaves 1.6", "give 0.25 or more"):
        plan_widths(model, (0.1, 0.5), {})
    assert plan_widths(model, (0.25,), {})[0].channels == 8
    row: Any = SimpleNamespace(i=0, type="Conv")
    with refused(SwapError, "give 0.084 or more"):
        require_least(row, 48, 0.0833)
    require_least(row, 48, 0.084)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_yaml_builds_the_planned_widths(name: str) -> None:
    """Every row has the channels that were planned, inside too, and stock Ultralytics reads the YAML."""
    model = host.build(stock(name))
    widths = plan_widths(model, (0.5, 0.625), {})
    narrow = host.build(reshape_yaml(model, model.yaml, widths, "relu"))
    last = len(narrow.model) - 1
    maps = forward_until(narrow, torch.zeros(1, 3, 64, 64), last, widths)[1]

    assert {row: maps[row].shape[1] for row in widths} == {row: width.channels for row, width in widths.items()}
    hidden = {row: width.hidden for row, width in widths.items() if width.hidden}
    assert {row: narrow.model[row].c for row in hidden} == hidden
    assert not any(width.kept for width in widths.values())
    assert {m.act.__class__.__name__ for m in narrow.modules() if hasattr(m, "act")} <= {"ReLU", "Identity"}


@pytest.mark.parametrize("name", FAMILIES[:1])
def test_the_same_shape_gives_the_same_model(name: str, image_folder: Path, tmp_path: Path) -> None:
    """A model fitted with the activation that it has computes what it computed, up to half precision."""
    model = calibrated(stock(name), image_folder)
    host.save(model, tmp_path / "best.pt", {"imgsz": 64, "task": host.task_of(model)})
    settings, widths = Settings(distill_steps=0), plan_widths(model, (1.0,), {})
    ghostify(tmp_path / "best.pt", [image_folder], tmp_path / "same.pt", act="silu", settings=settings)
    last, x = len(model.model) - 1, CalibrationImages(sorted(image_folder.iterdir()), 64).batch(range(8), augment=False)
    with torch.inference_mode():
        maps = [forward_until(host.load(tmp_path / file), x, last, widths)[1] for file in ("same.pt", "best.pt")]

    for row in [*widths][:5]:  # half precision in both files, whose rounding random weights amplify from row to row
        y, expected = (rows[row] for rows in maps)
        assert (y - expected).square().sum() < 0.05 * expected.square().sum()


@pytest.mark.parametrize("name", [*FAMILIES[1:2], *WEEKLY_FAMILIES])
def test_narrow_models_of_all_tasks(name: str, image_folder: Path, tmp_path: Path) -> None:
    """Activation and width together: outputs keep their shapes, and the YAML in the checkpoint builds every tensor."""
    model = calibrated(stock(name), image_folder)
    host.save(model, tmp_path / "best.pt", {"imgsz": 64, "task": host.task_of(model)})
    out = tmp_path / "fast.pt"
    report = ghostify(tmp_path / "best.pt", [image_folder], out, act="relu", width=(0.5, 0.625), settings=QUICK)
    fast, x = YOLO(out), torch.zeros(1, 3, 64, 64)
    rebuilt = host.build(copy.deepcopy(fast.model.yaml))
    whole = json.loads(out.with_suffix(".json").read_text())["whole"]

    assert fast.task == host.task_of(model) and whole["gflops_after"] < 0.6 * whole["gflops_before"]
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in fast.model.state_dict().items()
    }
    assert all(row["error"] is None or row["error"] < 1 for row in report.rows)
    with torch.inference_mode():
        shapes = [outputs(m.float().eval()(x))[0].shape for m in (fast.model, model)]
    assert shapes[0] == shapes[1]


def test_with_another_block(best: Path, image_folder: Path, tmp_path: Path) -> None:
    """Blocks, activation and width together: swapped rows are learned, and the head's new class branch, too."""
    out = tmp_path / "fast.pt"
    ghostify(best, [image_folder], out, [GHOST], "all", settings=QUICK, act="relu", width=(0.5,))
    model = host.load(out)

    assert [row[2] for row in model.yaml["backbone"] + model.yaml["head"]].count(f"ghost_yolo.{GHOST}") == 3
    assert model.model[-1].type.endswith("LightDetect") and "ReLU" in model.yaml["activation"]


def test_resumed_run_is_equal(best: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run interrupted between two rows gives the weights of an uninterrupted one."""
    arguments = {"act": "relu", "width": (0.5,), "settings": QUICK}
    ghostify(best, [image_folder], tmp_path / "whole.pt", **arguments)
    finish = fitting._finish
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "_finish", lambda *given: (interrupt if given[1].i == 2 else finish)(*given))
        with pytest.raises(KeyboardInterrupt):
            ghostify(best, [image_folder], tmp_path / "cut.pt", **arguments)
    assert (tmp_path / "cut.pt.part").exists()
    ghostify(best, [image_folder], tmp_path / "cut.pt", **arguments)
    first, second = (host.load(tmp_path / name).state_dict() for name in ("whole.pt", "cut.pt"))

    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"act": "swish"}, "--act swish"),
        ({"width": (0.0,)}, "--width 0"),
        ({"width": (1.5,)}, "--width 1.5"),
        ({"width": (0.5, 0.5, 0.5)}, "--width 0.5,0.5,0.5"),
        ({"act": "relu", "budget": 0.5}, "--budget"),
        ({"act": "relu", "where": "neck"}, "--where neck"),
        ({"act": "relu", "delivery": Delivery(baseline=("ncnn", "fp32"))}, "--baseline ncnn:fp32"),
        ({"act": "relu", "delivery": Delivery(split="test")}, "--split test"),
    ],
)
def test_impossible_arguments(
    arguments: dict[str, Any], said: str, best: Path, image_folder: Path, tmp_path: Path
) -> None:
    """They are refused before any work, with what is right."""
    with refused(UserError, said):
        ghostify(best, [image_folder], tmp_path / "fast.pt", **arguments)
    assert not list(tmp_path.iterdir())
    with refused(UserError, "--width half"):
        parse_shares("half")


def test_a_row_without_a_closed_form(image_folder: Path, tmp_path: Path) -> None:
    """It keeps its width, and so does the row that feeds it; the one behind becomes narrower."""
    rows = [[-1, 1, "ADown", [32]], [-1, 1, "Conv", [32, 3, 1]]]
    config = {"nc": 3, "backbone": [[-1, 1, "Conv", [32, 3, 4]], *rows], "head": [[[2, 2], 1, "Detect", ["nc"]]]}
    model = calibrated(config, image_folder)
    host.save(model, tmp_path / "best.pt", {"imgsz": 64})
    plan = plan_widths(model, (0.5,), {})
    assert [plan[row].channels for row in range(3)] == [32, 32, 16]
    assert (plan[0].kept, plan[2].kept) == ("row 1 keeps its width", "") and "ADown" in plan[1].kept
    ghostify(tmp_path / "best.pt", [image_folder], tmp_path / "fast.pt", width=(0.5,), settings=QUICK)
    assert [layer.conv.out_channels for layer in host.load(tmp_path / "fast.pt").model[:3:2]] == [32, 16]


def test_what_feeds_a_row_through_others_keeps_its_width() -> None:
    """Through a concatenation too, and what is added to keeps the width of what it is added to."""
    rows = [[-1, 1, "C2PSA", [128]], [[-1, 0], 1, "Concat", [1]], [-1, 1, "SCDown", [64, 3, 2]]]
    backbone = [[-1, 1, "Conv", [32, 3, 8]], [-1, 1, "Conv", [128, 3, 1]], *rows, [-1, 1, "Conv", [64, 3, 2]]]
    model = host.build({"nc": 3, "backbone": backbone, "head": [[[5, 5], 1, "Detect", ["nc"]]]})
    plan = plan_widths(model, (0.5,), {})
    assert {row: width.channels for row, width in plan.items()} == {0: 32, 1: 128, 2: 128, 4: 64, 5: 32}


@pytest.mark.slow
@pytest.mark.weekly
def test_the_host_alone_trains_it(best: Path, image_folder: Path, tmp_path: Path, run: Run) -> None:
    """By the command; then `yolo train` transfers every tensor."""
    fast = tmp_path / "fast.pt"
    words = ["--images", image_folder, "--act", "relu", "--width", "0.5,0.625", "-o", fast, "--distill-steps", "2"]
    run("python", "-m", "ghost_yolo", "ghostify", best, *words)
    smear.prepare(tmp_path / "smear")
    data = write_data_yaml(tmp_path, names=["Platelets", "RBC", "WBC"], path=str(tmp_path / "smear"))
    trained = run("yolo", "train", f"model={fast}", f"data={data}", "epochs=1", *run_folder(tmp_path, "t"), *SMALL_RUN)
    moved = next(line for line in trained.stdout.splitlines() if "Transferred" in line).split()[1].split("/")

    assert moved[0] == moved[1]

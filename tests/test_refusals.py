"""What ghostify refuses: each with one clear error, before any work, and nothing written."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import GHOST, QUICK, refused, stock

from ghost_yolo import host
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import Settings, config, ghostify, pipeline
from ghost_yolo.ghostify.calibration import Pictures
from ghost_yolo.ghostify.student import student_of
from ghost_yolo.model.swap import plan_swap
from ghost_yolo.utils import files


def bad_images(tmp_path: Path) -> Path:
    """Return a folder in which nothing can be read."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").write_text("no image")
    return tmp_path / "bad"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no block": ({"blocks": []}, "--block"),
    "unknown block": ({"blocks": ["C2f_Gost"]}, "C2f_Gost"),
    "not like a C2f": ({"blocks": ["Fire"]}, "Fire"),
    "several without a budget": ({"blocks": [GHOST, "NarrowELAN"]}, "--budget"),
    "budget above one": ({"budget": 1.5}, "1.5"),
    "a block for the head": ({"where": "head", "budget": 0.9}, "--block"),
    "no steps": ({"settings": Settings(steps=0)}, "step"),
    "wrong size": ({"settings": Settings(imgsz=100)}, "100"),
    "no cache": ({"settings": Settings(steps=2, cache=1e-6)}, "--cache"),
    "no number for the cache": ({"settings": Settings(cache=float("nan"))}, "--cache nan"),
    "not a checkpoint's name": ({"out": "light.onnx"}, "light.onnx"),
    "no such folder": ({"out": "nowhere/light.pt"}, "nowhere"),
    "no such model": ({"model": "missing.pt"}, "missing.pt"),
    "foreign file": ({"model": "foreign.pt"}, "foreign.pt"),
    "no image": ({"images": "bad"}, "image"),
    "empty folder": ({"images": "empty"}, "empty"),
    "output exists": ({"out": "there.pt"}, "there.pt"),
    "damaged part": ({"out": "damaged.pt"}, "damaged.pt.part"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, best: Path, photos: Path, tmp_path: Path) -> None:
    """Each says what is wrong, and writes nothing."""
    bad_images(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("foreign.pt", "there.pt", "damaged.pt.part"):
        (tmp_path / name).write_text("something else")
    given, name = REFUSED[case]
    given = {"model": best, "images": photos, "out": "light.pt", "blocks": [GHOST], "settings": QUICK} | given
    before = sorted(tmp_path.rglob("*"))
    images = [tmp_path / given.pop("images")]
    model, out = tmp_path / given.pop("model"), tmp_path / given.pop("out")
    with refused(UserError, name):
        ghostify(model, images, out, **given)
    assert sorted(tmp_path.rglob("*")) == before


def test_changed_models_are_refused(teacher: Any, photos: Path, tmp_path: Path) -> None:
    """A fused model, one with a layer changed by hand, and one without a C2f: the row is named."""
    fused, pruned = host.untrained(teacher, 0).fuse(verbose=False), host.untrained(teacher, 0)
    pruned.model[3].conv = torch.nn.Conv2d(32, 64, 1)
    with refused(UserError, "row 0", "Conv"):
        student_of(fused, plan_swap(fused.yaml, "backbone", GHOST))
    with refused(UserError, "row 3", "Conv"):
        student_of(pruned, plan_swap(pruned.yaml, "backbone", GHOST))
    host.save(student_of(teacher, plan_swap(teacher.yaml, "all", GHOST)), tmp_path / "light.pt", {"imgsz": 64})
    with refused(UserError, "light.pt", "backbone"):
        ghostify(tmp_path / "light.pt", [photos], tmp_path / "again.pt", [GHOST], settings=QUICK)


def test_other_architectures_are_refused(teacher: Any, photos: Path, tmp_path: Path) -> None:
    """What has no C2f is named with file and rows; what runs in a way of its own, as RT-DETR, with its kind."""
    host.save(host.build(stock("v5/yolov5")), tmp_path / "v5.pt", {"imgsz": 64})
    with refused(UserError, "v5.pt", "Conv (row 0)", "C3 (row 2)"):
        ghostify(tmp_path / "v5.pt", [photos], tmp_path / "light.pt", [GHOST], settings=QUICK)
    other = copy.copy(teacher)
    other.__class__ = type("RTDETRDetectionModel", (type(teacher),), {})
    with refused(UserError, "RTDETRDetectionModel", "DetectionModel"):
        student_of(other, plan_swap(teacher.yaml, "backbone", GHOST))


def test_nowhere_to_write_is_said_before_any_work(
    best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without leave to write, a disk without room, a cache that holds nothing: before anything is timed or fitted."""
    monkeypatch.setattr(pipeline, "trade_of", None)
    words = {"blocks": [GHOST], "budget": 0.9}
    with refused(UserError, "--cache"):
        ghostify(best, [photos], tmp_path / "light.pt", **words, settings=Settings(cache=1e-6))
    monkeypatch.setattr(config, "COPIES", 10**12)
    with refused(UserError, "--out", tmp_path):
        ghostify(best, [photos], tmp_path / "light.pt", **words)
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with refused(UserError, "light.pt"):
        ghostify(best, [photos], tmp_path / "light.pt", **words)
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_said_before_reading(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs that memory would not hold are not read."""
    with refused(UserError, "GiB"):
        Pictures(sorted(photos.iterdir()), 2**22)

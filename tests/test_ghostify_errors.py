"""Invalid input of ghostify: one clear error before any work, and nothing written."""

from __future__ import annotations

import copy
import hashlib
import io
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from factories import GHOST, QUICK, stock, write_data_yaml

from ghost_yolo import host
from ghost_yolo.errors import ModelError, SwapError, UserError
from ghost_yolo.ghostify import Delivery, Settings, ghostify, pipeline, state
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.student import build_student
from ghost_yolo.model.swap import plan_swap
from ghost_yolo.utils import files

# The arguments of a call, and what its error names
INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "no block": ({"blocks": []}, "--block"),
    "unknown block": ({"blocks": ["C2f_Gost"]}, "C2f_Gost.*C2f_GhostBottleneck"),
    "not like a C2f": ({"blocks": ["Fire"]}, "Fire.*Conv"),
    "several without a budget": ({"blocks": [GHOST, "NarrowELAN"]}, "--block.*NarrowELAN.*--budget"),
    "budget above one": ({"budget": 1.5}, "--budget 1.5"),
    "a block for the head": ({"where": "head", "budget": 0.9}, "--block"),
    "unknown part": ({"where": "tail"}, "tail"),
    "no steps": ({"settings": Settings(reconstruct_steps=0)}, "--reconstruct-steps 0"),
    "negative steps": ({"settings": Settings(distill_steps=-1)}, "--distill-steps -1"),
    "too few rounds": ({"settings": Settings(rounds=1)}, "--rounds 1"),
    "wrong size": ({"settings": Settings(imgsz=100)}, "imgsz=100"),
    "small cache": ({"settings": Settings(cache=1e-6)}, "--cache 1e-06"),
    "a weight below 0": ({"settings": Settings(maps_weight=-1)}, "--maps-weight -1"),
    "no number for a weight": ({"settings": Settings(maps_weight=float("nan"))}, "--maps-weight nan"),
    "a precision of no steps": (
        {"settings": Settings(distill_steps=0, mixed_precision=True)},
        "--mixed-precision with --distill-steps 0",
    ),
    "a weight that counts nowhere": ({"settings": Settings(maps_weight=3)}, "--maps-weight 3: only --act"),
    "no number for the cache": ({"settings": Settings(cache=float("nan"))}, "--cache nan"),
    "not a checkpoint's name": ({"out": "light.onnx"}, r"light\.onnx.*\.pt"),
    "no such folder": ({"out": "nowhere/light.pt"}, "nowhere"),
    "no such model": ({"model": "missing.pt"}, r"missing\.pt"),
    "foreign file": ({"model": "foreign.pt"}, r"foreign\.pt"),
    "no image": ({"images": "bad"}, r"bad.a\.png"),
    "empty folder": ({"images": "empty"}, "empty"),
    "output exists": ({"out": "there.pt"}, r"there\.pt"),
    "damaged resume file": ({"out": "damaged.pt"}, r"damaged\.pt\.part"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_arguments(case: str, best: Path, image_folder: Path, tmp_path: Path) -> None:
    """Each error names the value, and nothing is written."""
    for name in ("bad", "empty"):
        (tmp_path / name).mkdir()
    for name in ("foreign.pt", "there.pt", "damaged.pt.part", "bad/a.png"):
        (tmp_path / name).write_text("something else")
    given, message = INVALID[case]
    given = {"model": best, "images": image_folder, "out": "light.pt", "blocks": [GHOST], "settings": QUICK} | given
    before = sorted(tmp_path.rglob("*"))
    images = [tmp_path / given.pop("images")]
    model, out = tmp_path / given.pop("model"), tmp_path / given.pop("out")
    with pytest.raises(UserError, match=message):
        ghostify(model, images, out, **given)
    assert sorted(tmp_path.rglob("*")) == before


def test_changed_models(teacher: Any, image_folder: Path, tmp_path: Path) -> None:
    """A fused model, one with a layer changed by hand, and one without a C2f: the error names the row or the file."""
    fused, pruned = host.untrained(teacher, 0).fuse(verbose=False), host.untrained(teacher, 0)
    pruned.model[3].conv = torch.nn.Conv2d(32, 64, 1)
    for model, row in ((fused, "Row 0"), (pruned, "Row 3")):
        with pytest.raises(ModelError, match=f"{row}.*Conv"):
            build_student(model, plan_swap(model.yaml, "backbone", GHOST))
    host.save(build_student(teacher, plan_swap(teacher.yaml, "all", GHOST)), tmp_path / "light.pt", {"imgsz": 64})
    with pytest.raises(UserError, match=r"light\.pt.*backbone"):
        ghostify(tmp_path / "light.pt", [image_folder], tmp_path / "again.pt", [GHOST], settings=QUICK)


def test_other_architectures(teacher: Any, image_folder: Path, tmp_path: Path) -> None:
    """Without a C2f the error names file and rows; a model with a forward of its own, such as RT-DETR, is named."""
    host.save(host.build(stock("v5/yolov5")), tmp_path / "v5.pt", {"imgsz": 64})
    with pytest.raises(UserError, match=r"v5\.pt.*C3 \(row 2\)"):
        ghostify(tmp_path / "v5.pt", [image_folder], tmp_path / "light.pt", [GHOST], settings=QUICK)
    other = copy.copy(teacher)
    other.__class__ = type("RTDETRDetectionModel", (type(teacher),), {})
    with pytest.raises(SwapError, match="RTDETRDetectionModel"):
        build_student(other, plan_swap(teacher.yaml, "backbone", GHOST))


def test_no_room_is_an_error_before_any_work(
    best: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that is too small, a full disk and a read-only folder are errors before anything is measured."""
    monkeypatch.setattr(pipeline, "select_blocks", None)
    call = {"blocks": [GHOST], "budget": 0.9}
    with pytest.raises(UserError, match="--cache"):
        ghostify(best, [image_folder], tmp_path / "light.pt", **call, settings=Settings(cache=1e-6))
    monkeypatch.setattr(state, "COPIES", 10**12)
    with pytest.raises(UserError, match=r"--out.*GiB"):
        ghostify(best, [image_folder], tmp_path / "light.pt", **call)
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"light\.pt"):
        ghostify(best, [image_folder], tmp_path / "light.pt", **call)
    assert not list(tmp_path.iterdir())


def test_images_that_do_not_fit_into_memory(image_folder: Path) -> None:
    """They are an error before any image is read."""
    with pytest.raises(UserError, match=f"imgsz={2**22}.*GiB"):
        CalibrationImages(sorted(image_folder.iterdir()), 2**22)


def test_a_teacher_that_is_not_finite(best: Path, image_folder: Path, tmp_path: Path) -> None:
    """A NaN in one weight of the trained model is named, and nothing is written."""
    content = torch.load(best, weights_only=False)
    content["model"].model[3].cv1.conv.weight.data[0] = float("nan")
    torch.save(content, tmp_path / "best.pt")

    with pytest.raises(UserError, match=r"best\.pt.*model\.3\.cv1\.conv\.weight"):
        ghostify(tmp_path / "best.pt", [image_folder], tmp_path / "light.pt", [GHOST], settings=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign", "empty"])
def test_damaged_resume_files(damage: str, best: Path, image_folder: Path, tmp_path: Path) -> None:
    """A resume file with a wrong checksum is refused by its name."""
    part = tmp_path / "light.pt.part"
    buffer = io.BytesIO()
    torch.save({"config": {}, "results": 5}, buffer)
    data = buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest()
    part.write_bytes(
        {"flipped": data[:50] + bytes([data[50] ^ 1]) + data[51:], "cut": data[:-7], "foreign": data, "empty": b""}[
            damage
        ]
    )

    with pytest.raises(UserError, match=r"light\.pt\.part"):
        ghostify(best, [image_folder], tmp_path / "light.pt", [GHOST], settings=QUICK)


@pytest.mark.parametrize(
    ("content", "split", "message"),
    [
        ({"path": "nowhere"}, "val", "cannot be validated.*nowhere"),
        ({}, "test", "no test split"),
        ({"names": ["lion"]}, "val", "lion"),
    ],
)
def test_labels_that_are_not_there_are_told_before_any_work(
    content: dict[str, Any], split: str, message: str, best: Path, image_folder: Path, tmp_path: Path
) -> None:
    """They would be needed only at the end, when all minutes are spent."""
    (tmp_path / "images" / "val").mkdir(parents=True)
    names = [*host.load(best).names.values()]
    data = write_data_yaml(tmp_path, **{"path": str(tmp_path), "names": names, **content})
    delivery = Delivery(data=str(data), split=split)
    with (
        patch("ghost_yolo.ghostify.pipeline.prepare", side_effect=AssertionError("work has begun")),
        pytest.raises(UserError, match=message),
    ):
        ghostify(best, [image_folder], tmp_path / "light.pt", [GHOST], settings=QUICK, delivery=delivery)

"""Outputs of an exported file are compared with PyTorch's number by number, or box by box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import newest_only, refused
from test_run_parity import model_of

from ghost_yolo import host
from ghost_yolo.bench.exporting import describe_exported
from ghost_yolo.bench.plan import ModelInfo
from ghost_yolo.errors import UserError
from ghost_yolo.export.any_file import require_comparable, verify_file
from ghost_yolo.export.files import export_fp32
from ghost_yolo.export.outputs import OutputCheck, compare, differences
from ghost_yolo.export.verify import Verification
from ghost_yolo.model.checkpoint import open_checkpoint


def test_differences_are_those_of_boxes_and_scores() -> None:
    """Boxes are the first four rows of a detector, everything else counts as scores; NaN never passes."""
    a = np.zeros((1, 6, 5), np.float32)
    b = a.copy()
    b[0, 3, 2], b[0, 5, 1] = 0.25, -0.125

    assert differences([a], [b], nc=2) == (0.25, 0.125)
    assert differences([a[:, :, 0]], [b[:, :, 1]], nc=6) == (0, 0.125)
    assert not OutputCheck((64, 64), "noise", float("nan"), 0).passed
    assert "nothing is compared" in str(OutputCheck((64, 64), "noise", 0, 0, compared=0))
    assert str(OutputCheck((64, 64), "image", 0, 0, compared=3)).endswith("of 3 boxes")
    with refused(UserError, "(1, 6, 5)"):
        compare([a], [a, b], 2, (64, 64), "noise")


def test_files_that_cannot_be_verified(best: Path, tmp_path: Path) -> None:
    """One that takes batches, and one that is damaged, are refused in a line."""
    pytest.importorskip("onnxruntime")
    opened = open_checkpoint(best)
    info = ModelInfo("x.onnx", opened.task, "", opened.nc, 3, batch=4)
    with refused(UserError, "x.onnx", "batches of 4"):
        require_comparable(opened, info, Path("x.onnx"))
    require_comparable(opened, replace(info, dynamic=True), Path("x.onnx"))
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x07\x12")
    with refused(UserError, "cut.onnx", "cannot be read"):
        describe_exported(tmp_path / "cut.onnx", "onnx")


def test_false_positives_of_an_int8_file_count() -> None:
    """Boxes of which PyTorch is confident are compared, and the scores of those of which the file is; NaN never passes."""
    expected = np.zeros((1, 6, 5), np.float32)
    expected[0, 4, 0] = 0.8
    wrong, invented, vague = (expected.copy() for _ in range(3))
    wrong[0, 0, 0], invented[0, 5, 3], vague[0, :4, 3] = 9, 0.5, 90

    checks = [compare([one], [expected], 2, (64, 64), "image", "int8") for one in (expected, wrong, invented, vague)]
    assert [(check.passed, check.compared) for check in checks] == [(True, 1), (False, 1), (False, 2), (True, 1)]
    assert (checks[1].boxes, checks[2].scores) == (9, 0.5)
    invented[0, 5, 3] = np.nan
    assert not compare([invented], [expected], 2, (64, 64), "image", "int8").passed


def test_boxes_of_an_end_to_end_head_are_paired() -> None:
    """In whatever order they are; one that is missing, invented, of another class, or not a number is found."""
    rows = [[0, 0, 9, 9, 0.9, 0], [0, 0, 9, 9, 0.9, 1], [20, 20, 40, 40, 0.5, 1], [50, 50, 60, 60, 0.1, 0]]
    expected = np.array([rows], np.float32)

    def check(*changes: tuple[int, int, float], order: Sequence[int] = (0, 1, 2, 3), precision: str = "fp32") -> Any:
        found = expected.copy()
        for row, column, value in changes:
            found[0, row, column] = value
        return compare([found[:, order]], [expected], 2, (64, 64), "image", precision, end2end=True)

    assert check(order=(1, 0, 2, 3)).passed
    assert check(order=(1, 0, 2, 3)).compared == 4
    assert check((2, 0, 20.25)).boxes == 0.25
    assert check((2, 4, 0.75)).scores == 0.25
    assert not check((2, 5, 0)).passed
    assert not check((1, 4, float("nan"))).passed
    assert check((0, 5, 2)).boxes == float("inf")
    assert check((2, 0, 21), (3, 0, 99), precision="int8").passed  # a score of 0.1 is not compared there
    assert check((3, 0, 99)).compared == 3  # it may have been cut off at the end of the list
    assert not check((3, 0, 99), (3, 4, 0.5)).passed
    assert not check((3, 0, 99), (3, 4, 0.6), precision="int8").passed
    points = [np.concatenate([expected, np.full((1, 4, 1), x, np.float32)], 2) for x in (0, 5)]
    assert compare(
        points[:1], points[1:], 2, (64, 64), "image", "int8", end2end=True
    ).passed  # keypoints have no tolerance
    assert not compare(points[:1], points[1:], 2, (64, 64), "image", end2end=True).passed


@pytest.mark.slow
@newest_only
@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb"])
@pytest.mark.parametrize("end2end", [True, False])
def test_both_branches_of_an_end_to_end_head(task: str, end2end: bool, image_folder: Path, tmp_path: Path) -> None:
    """A file has the boxes that the head picked, or the raw ones of its other branch; both are verified."""
    model = model_of(f"{task}-end2end", image_folder)
    host.save(model, tmp_path / "best.pt", {"imgsz": 64, "task": task})
    file = export_fp32(tmp_path / "best.pt", tmp_path, "onnx", (64, 64), **({"nms": False} if end2end else {}))

    verified = verify_file(file, tmp_path / "best.pt", sorted(image_folder.iterdir()))

    described = describe_exported(file, "onnx")
    assert described.end2end is end2end and described.kpt_shape == (
        [*model.model[-1].kpt_shape] if task == "pose" else None
    )
    assert verified.passed, str(verified)
    model.model[-1].one2one_cv3[0][-1].bias.data += 2
    model.model[-1].cv3[0][-1].bias.data += 2
    host.save(model, tmp_path / "other.pt", {"imgsz": 64, "task": task})
    assert not verify_file(file, tmp_path / "other.pt").passed


def test_a_verification_that_compared_nothing_is_none() -> None:
    """It says so, and does not pass."""
    sizes = [OutputCheck((64, 64), "image", 0, 0, compared=compared) for compared in (0, 1)]
    nothing = Verification(Path("a.onnx"), sizes[:1])
    assert not nothing.passed and "--image" in str(nothing)
    assert Verification(Path("a.onnx"), sizes).passed

"""What a report is made of: accuracy records, the quick bench and its end by Ctrl-C, names, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import ACCURACY_RECORD as RECORD

from ghost_yolo.errors import SourceError, UserError
from ghost_yolo.model.catalog import labels
from ghost_yolo.report import collect as collecting
from ghost_yolo.report.collect import collect


def test_labels_tell_models_apart() -> None:
    """A name is as short as it can be, and Ultralytics' own Ghost model is named as such."""
    names = ["a/best.pt", "b/best.pt", "yolov8n.yaml", "yolov8n-ghost.yaml", "cfg/yolov8n-ghost.yaml", "x.onnx"]

    assert list(labels(names).values()) == [
        "a/best",
        "b/best",
        "yolov8n",
        "yolov8n-ghost (host's)",
        "cfg/yolov8n-ghost",
        "x.onnx",
    ]


@pytest.mark.parametrize("content,says", [
    ("{", "is not JSON"), ("[]", "its list is empty"), ("3", "holds no accuracy record"), ("[{}]", "has no 'model'"),
    (json.dumps(RECORD | {"map50": 82.1}), "map50 is 82.1, which is not between 0 and 1"), (None, "cannot be read"),
])  # fmt: skip
def test_foreign_accuracies(content: str | None, says: str, tmp_path: Path) -> None:
    """A file without records is refused with a reason, before anything is counted."""
    file = tmp_path / "accuracy.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SourceError, match=says):
        collect([], [file], ["n"], 640)


@pytest.mark.parametrize("scales,imgsz,says", [
    (["q"], 640, "--scales q: give some of n,s,m,l,x"), (["n", "n"], 640, "each once"), (["n"], 100, "--imgsz 100: give a multiple"),
])  # fmt: skip
def test_arguments_that_cannot_be(scales: list[str], imgsz: int, says: str) -> None:
    """What cannot be is said before anything is counted."""
    with pytest.raises(UserError, match=says):
        collect([], [], scales, imgsz)


def test_ctrl_c_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench that was interrupted makes no report."""
    monkeypatch.setattr(collecting, "bench", lambda plan: type("Stopped", (), {"interrupted": True}))
    with pytest.raises(KeyboardInterrupt):
        collecting.quick_bench(64)


@pytest.mark.slow
def test_the_quick_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without files the report times models of ours under the names that the comparison uses, with interval and profile."""
    monkeypatch.setattr(collecting, "installed", lambda: ("pytorch",))
    monkeypatch.setattr(collecting, "QUICK", ("yolov8n.yaml", "cfg/yolov8n-ghost.yaml"))
    (group,) = collecting.quick_bench(64).groups

    assert [row.model for row in group.rows] == list(collecting.QUICK) == list(group.profile) and group.failed == []
    assert all(row.ratio_low and row.gflops for row in group.rows)
    assert [row.model for row in group.rows if row.stock] == ["yolov8n.yaml"]

"""The data of a report: accuracy records, the quick benchmark, labels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import ACCURACY_RECORD, ROOT, refused

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
        "yolov8n-ghost (Ultralytics)",
        "cfg/yolov8n-ghost",
        "x.onnx",
    ]


@pytest.mark.parametrize("content,named", [
    ("{", "JSON"), ("[]", "empty"), ("3", "accuracy.json"), ("[{}]", "'map50_95'"),
    (json.dumps(ACCURACY_RECORD | {"map50": 82.1}), "map50 is 82.1"), (None, "accuracy.json"),
    (json.dumps(ACCURACY_RECORD | {"map50": float("nan")}), "map50 is nan"),
    (json.dumps(ACCURACY_RECORD | {"map50_95_low": 0.1}), "map50_95_low"),
    (json.dumps(ACCURACY_RECORD | {"map50_95_low": 0.9, "map50_95_high": 0.1}), "map50_95_low is 0.9"),
    (json.dumps(ACCURACY_RECORD | {"epochs": "60"}), "epochs is '60'"), (json.dumps(ACCURACY_RECORD | {"epochs": True}), "True"),
    ("[" * 100_000, "JSON"), ("[" * 500 + "]" * 500, "levels"), ('{"model": ' + "9" * 9999 + "}", "accuracy.json"),
])  # fmt: skip
def test_foreign_accuracies(content: str | None, named: str, tmp_path: Path) -> None:
    """A file without records is refused with a reason, before any model is profiled."""
    file = tmp_path / "accuracy.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SourceError, match=named):
        collect([], [file], ["n"], 640)


@pytest.mark.parametrize(
    "scales,imgsz,named", [(["q"], 640, "--scales q"), (["n", "n"], 640, "--scales n,n"), (["n"], 100, "--imgsz 100")]
)
def test_invalid_arguments(scales: list[str], imgsz: int, named: str) -> None:
    """Invalid arguments are an error before any model is profiled."""
    with pytest.raises(UserError, match=named):
        collect([], [], scales, imgsz)


def test_ratios_across_runtimes_are_refused(tmp_path: Path) -> None:
    """The report's ratios are within a runtime."""
    bench = json.loads((ROOT / "results/ghostfast-int8.json").read_text())
    bench["conditions"]["ratios"] = "across runtimes"
    (tmp_path / "bench.json").write_text(json.dumps(bench))
    with refused(UserError, "bench.json", "--mixed"):
        collect([tmp_path / "bench.json"], [], ["n"], 64)


def test_ctrl_c_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted benchmark gives no report."""
    monkeypatch.setattr(collecting, "bench", lambda plan: type("Stopped", (), {"interrupted": True}))
    with pytest.raises(KeyboardInterrupt):
        collecting.quick_bench(64)


@pytest.mark.slow
@pytest.mark.weekly
def test_the_quick_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without files the report times models under the names that the comparison uses, with interval and profile."""
    monkeypatch.setattr(collecting, "installed", lambda: ("pytorch",))
    monkeypatch.setattr(collecting, "QUICK_MODELS", ("yolov8n.yaml", "cfg/yolov8n-ghost.yaml"))
    result = collecting.quick_bench(64)

    assert [row.model for row in result.rows] == list(collecting.QUICK_MODELS) and result.failed == []
    assert all(row.ratio_low and row.gflops and row.operators for row in result.rows)

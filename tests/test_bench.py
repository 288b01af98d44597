"""The benchmark runner: order of its rounds, failures, Ctrl-C, and a real run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from factories import ROOT, TINY, Run

from ghost_yolo import cli
from ghost_yolo.bench import BenchPlan, BenchRow, bench, runner
from ghost_yolo.bench.exporting import prepare
from ghost_yolo.bench.tables import render
from ghost_yolo.cli.common import Format
from ghost_yolo.errors import UserError, WorkerError

FACTS = {"task": "detect", "scale": "n", "nc": 80, "channels": 3, "gflops": 8.0, "file_mb": 6.0, "file": "x.pt"}


class Fake:
    """A worker that answers at once; `answer` may replace an answer or raise."""

    calls: list[tuple[str, Any]]
    answer: Callable[[str, Sequence[Any]], Any]

    def __init__(self, log: Path, threads: int) -> None:
        """Start nothing."""
        self.file = ""

    def call(self, name: str, *arguments: Any) -> Any:
        """Answer as a process whose models all take the same time."""
        self.file = str(arguments[1]) if name == "open" else self.file
        Fake.calls.append((name, arguments[0] if name in {"prepare", "export"} else self.file))
        answers = {
            "prepare": FACTS | {"file": f"{arguments[0]}.pt"},
            "export": str(Path(__file__)),
            "time": {"ms": [2.0, 1.0, 9.0], "memory_mb": 50.0},
            "profile_operators": {"Conv": 1.5, "Add": 0.5},
        }
        given = Fake.answer(name, (self.file, *arguments))
        return answers.get(name) if given is None else given

    def close(self) -> None:
        """End nothing."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """Replace the worker processes by the fake."""
    Fake.calls, Fake.answer = [], staticmethod(lambda name, arguments: None)
    monkeypatch.setattr(runner, "Worker", Fake)
    return Fake


def test_models_take_turns(fake: type[Fake]) -> None:
    """Every model is timed once per round, in orders that differ, and only after all were warmed up."""
    result = bench(BenchPlan(("a.yaml", "b.yaml", "c.yaml"), rounds=8))
    turns = [file for name, file in fake.calls if name == "time"]
    rounds = [turns[n : n + 3] for n in range(0, len(turns), 3)]

    assert all(sorted(files) == ["a.yaml.pt", "b.yaml.pt", "c.yaml.pt"] for files in rounds)
    assert len({tuple(files) for files in rounds}) > 1
    assert [name for name, _ in fake.calls[:6]] == ["prepare"] * 3 + ["open"] * 3
    assert [row.times for row in result.rows] == [[2.0] * 8] * 3 and result.failed == []


def test_the_precision_that_openvino_chooses_is_a_row(fake: type[Fake]) -> None:
    """Beside float32, and of no other runtime; that is not called unavailable."""
    pytest.importorskip("openvino")
    result = bench(BenchPlan(("a.yaml",), ("pytorch", "openvino"), ("fp32", "default"), rounds=1))

    assert [row.backend for row in result.rows] == ["PyTorch fp32", "OpenVINO fp32", "OpenVINO default"]
    assert result.unavailable == []


def test_the_way_to_boxes_is_timed_in_parts(fake: type[Fake], tmp_path: Path) -> None:
    """The median of each part in each round; the network's is the row's time."""
    part = {"letterbox": 0.5, "network": 2.0, "nms": 0.25}
    answer = {"ms": [2.0], "memory_mb": 50.0, "parts": [part, part]}
    fake.answer = staticmethod(lambda name, arguments: answer if name == "time" else None)
    (tmp_path / "photo.jpg").touch()
    result = bench(BenchPlan(("a.yaml",), rounds=3, photo=tmp_path / "photo.jpg"))
    text = render(result, "text")

    assert result.rows[0].parts == {name: [ms] * 3 for name, ms in part.items()}
    assert all(word in text for word in ("letterbox ms", "0.50", "0.25", "2.75", "photo.jpg"))
    assert BenchRow.from_dict(result.rows[0].to_dict()) == result.rows[0]


@pytest.mark.slow
@pytest.mark.weekly
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_a_real_way_to_boxes(run: Run, tmp_path: Path, image_folder: Path) -> None:
    """In PyTorch and ONNX Runtime, for a task with masks too; a classifier has no boxes."""
    pytest.importorskip("onnxruntime")
    size = ["--imgsz", "64", "--threads", "1", "--rounds", "1", "--passes", "1", "--runtimes", "pytorch,onnx"]
    for name, ok in (("yolov8n", True), ("yolov8n-seg", True), ("yolov8n-cls", False)):
        options = ["--end-to-end", "--image", str(image_folder / "0.png"), "--format", "json", "-o", "out.json"]
        run("ghost-yolo", "bench", f"{name}.yaml", *size, *options, ok=ok)
        rows = json.loads((tmp_path / "out.json").read_text())["rows"]
        assert [sorted(row["parts"]) for row in rows] == [["letterbox", "network", "nms"] if ok else []] * 2


@pytest.mark.parametrize("where", ["prepare", "export", "open", "time"])
def test_a_failure_is_one_row(where: str, fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that fails at any step keeps its reason; the others are measured."""

    def answer(name: str, arguments: Sequence[Any]) -> Any:
        if name == where and any("bad" in str(argument) for argument in arguments):
            raise WorkerError("it broke")
        return arguments[1] if name == "export" else None

    fake.answer = staticmethod(answer)
    monkeypatch.setattr("ghost_yolo.bench.runtimes.find_spec", lambda name: object())
    monkeypatch.setattr(runner, "file_mb", lambda file: 1.0)
    result = bench(BenchPlan(("good.yaml", "bad.yaml", "fine.yaml"), ("onnx",), rounds=2))
    good, bad, fine = result.rows

    assert good.error is fine.error is None and "it broke" in (bad.error or "")
    assert [row.rounds for row in result.rows] == [2, 0, 2]


def test_another_task_and_another_size_are_refused(fake: type[Fake]) -> None:
    """A model of another task than the first, and a file exported for another size, are rows with a reason."""
    facts = {
        "seg.pt": FACTS | {"task": "segment"},
        "small_ncnn_model": FACTS | {"imgsz": [320, 320], "batch": 1, "precision": "fp32"},
    }
    fake.answer = staticmethod(lambda name, arguments: facts.get(arguments[1]) if name == "prepare" else None)
    result = bench(BenchPlan(("a.yaml", "seg.pt", "small_ncnn_model"), rounds=1))

    assert [row.measured for row in result.rows] == [True, False, False]
    assert all(part in result.failed[0] for part in ("seg.pt", "segment", "detect"))
    assert all(part in result.failed[1] for part in ("small_ncnn_model", "imgsz=320,320", "batch=1", "--imgsz"))


@pytest.mark.parametrize("given,built", [(None, 3), (5, 5)])
def test_classes_of_a_yaml(given: int | None, built: int, fake: type[Fake], tmp_path: Path) -> None:
    """A YAML is built with its own number of classes, unless another one is given."""
    file = tmp_path / "tiny-yolov8n.yaml"
    file.write_text(yaml.safe_dump(TINY))
    asked = list[Any]()
    fake.answer = staticmethod(lambda name, arguments: asked.append(arguments[3]) if name == "prepare" else None)
    cli.bench([str(file)], runtimes="pytorch", rounds=1, out=tmp_path / "out.txt", **({"nc": given} if given else {}))

    assert asked == [given] and prepare(str(file), tmp_path / "new", given, 32).nc == built


def test_a_missing_runtime_says_what_to_install(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that is not installed names its extra, and the others' rows are measured."""
    monkeypatch.setattr("ghost_yolo.bench.runtimes.find_spec", lambda name: None if name == "openvino" else object())
    result = bench(BenchPlan(("a.yaml",), ("pytorch", "openvino"), rounds=1))

    assert [row.measured for row in result.rows] == [True, False]
    assert all(part in result.failed[0] for part in ("a.yaml, OpenVINO fp32", "ghost-yolo[openvino]"))


def stop_in_round(number: int) -> Callable[..., Iterator[Any]]:
    """Return a progress bar during which Ctrl-C is pressed."""

    def progress(items: Sequence[Any], text: str) -> Iterator[Any]:
        for n, item in enumerate(items):
            if text.startswith("Timing OpenVINO" if number < 0 else "Timing") and n == abs(number):
                raise KeyboardInterrupt
            yield item

    return progress


def test_ctrl_c_keeps_the_rounds(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C writes what was measured, whole, and exits with 130."""
    monkeypatch.setattr(runner, "progress", stop_in_round(3))
    out = tmp_path / "out.json"
    with pytest.raises(typer.Exit) as stopped:
        cli.bench(["a.yaml", "b.yaml"], runtimes="pytorch", style=Format.json, out=out)

    assert stopped.value.exit_code == 130
    assert [(row["rounds"], row["error"]) for row in json.loads(out.read_text())["rows"]] == [(3, None), (3, None)]


def test_ctrl_c_before_the_first_round(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that was never timed has an error."""
    monkeypatch.setattr(runner, "progress", stop_in_round(0))

    assert [row.error for row in bench(BenchPlan(("a.yaml",))).rows] == [runner.INTERRUPTED]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a terminal's Ctrl-C is another thing there")
def test_a_real_ctrl_c(tmp_path: Path) -> None:
    """A terminal's Ctrl-C in the middle of the rounds: status 130, and the rounds so far are in the report."""
    program = [sys.executable, "-m", "ghost_yolo", "bench", "yolov8n.yaml", "--imgsz", "32", "--runtimes", "pytorch"]
    options = ["--rounds", "5000", "--passes", "1", "--format", "json", "-o", "out.json"]
    with subprocess.Popen(
        [*program, *options],
        cwd=tmp_path,
        env=os.environ | {"FORCE_COLOR": "1", "COLUMNS": "100", "PYTHONWARNINGS": ""},  # the bar is drawn on a pipe too
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        output = b""
        while not re.search(rb"Timing[^\r\n]*[1-9]\d*%", output):
            more = os.read(process.stderr.fileno(), 1 << 16)
            assert more, output.decode()
            output += more
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()

    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert process.returncode == 130 and b"Traceback" not in rest
    assert 0 < row["rounds"] < 5000 and row["median_ms"] > 0 and row["error"] is None


def test_a_report_that_cannot_be_written_is_printed(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results are not lost where the disk is full at the end."""

    def full(file: Path, text: str) -> None:
        raise OSError("No space left")

    monkeypatch.setattr("ghost_yolo.utils.files.write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        cli.bench(["a.yaml"], runtimes="pytorch", rounds=1, style=Format.csv, out=tmp_path / "out.csv")

    assert capsys.readouterr().out.startswith("model,scale")


@pytest.mark.parametrize(
    "setting,value,named",
    [
        ("models", (), "models"),
        ("models", ("a.yaml", "a.yaml"), "a.yaml a.yaml"),
        ("runtimes", ("tensorrt",), "--runtimes tensorrt"),
        ("precisions", ("fp64",), "--precisions fp64"),
        ("precisions", ("int8",), "PyTorch int8"),
        ("precisions", ("fp16",), "PyTorch fp16"),
        ("rounds", 0, "--rounds 0"),
        ("imgsz", -32, "--imgsz -32"),
        ("threads", -1, "--threads -1"),
        ("device", "gpu", "--device gpu"),
        ("keep", ROOT, f"--keep {ROOT}"),
        ("keep", ROOT / "README.md", "README.md"),
    ],
)
def test_invalid_settings(setting: str, value: Any, named: str) -> None:
    """A setting out of its range is an error before any work."""
    with pytest.raises(UserError, match=re.escape(named)):
        bench(BenchPlan(**{"models": ("a.yaml",), setting: value}))


def test_an_unwritable_target_is_an_error_at_once(run: Run) -> None:
    """A report that could not be written is refused before the work, in one line."""
    for option, value in {"-o": "no/such/folder/x.txt", "--keep": str(ROOT)}.items():
        error = run("ghost-yolo", "bench", "yolov8n.yaml", option, value, ok=False).stderr

        assert error.startswith("ghost-yolo: ") and value in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_real_run(run: Run, tmp_path: Path) -> None:
    """Two YAMLs, a model of another task, a truncated checkpoint and a missing file, in PyTorch and ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 no more")
    models = ["yolov8n.yaml", str(ROOT / "cfg/yolov8n-ghost.yaml"), "yolov8n-seg.yaml", "cut.pt", "missing.pt"]
    size = ["--imgsz", "64", "--threads", "1", "--rounds", "5", "--passes", "1", "--format", "json", "-o", "out.json"]
    options = ["--runtimes", "pytorch,onnx", "--keep", "kept", "--profile"]
    error = run("ghost-yolo", "bench", *models, *size, *options, ok=False).stderr
    document = json.loads((tmp_path / "out.json").read_text())
    rows = document["rows"]

    assert [row["runtime"] for row in rows] == ["pytorch"] * 5 + ["onnx"] * 5
    assert [row["rounds"] for row in rows] == [5, 5, 0, 0, 0] * 2
    assert all(
        row["median_ms"] > 0 and row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        for row in rows
        if not row["error"]
    )
    assert rows[1]["gflops"] < rows[0]["gflops"] and rows[6]["file_mb"] < rows[5]["file_mb"]
    assert rows[5]["peak_memory_mb"] < rows[0]["peak_memory_mb"] / 2  # no torch in ONNX Runtime's process
    assert all(part in error for part in ("segment", "cut.pt", "missing.pt"))
    assert [bool(row["operators"]) for row in rows] == [True, True, False, False, False] * 2
    assert rows[5]["operators"]["Conv"] > 0.1 * sum(rows[5]["operators"].values())

    kept = "kept/1-yolov8n/onnx-fp32/yolov8n.onnx"
    run("ghost-yolo", "bench", kept, *size)
    (again,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (again["runtime"], again["precision"], again["rounds"], again["nc"]) == ("onnx", "fp32", 5, 80)
    assert again["file_mb"] == rows[5]["file_mb"] and again["gflops"] is None

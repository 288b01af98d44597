"""The bench: the order of its rounds, what it does with whatever fails, Ctrl-C, and a real run."""

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
from factories import BENCH_FACTS as FACTS
from factories import ROOT, Run

from ghost_yolo import cli
from ghost_yolo.bench import runner as benching
from ghost_yolo.bench.plan import Plan
from ghost_yolo.bench.runner import INTERRUPTED, bench
from ghost_yolo.cli.common import Format
from ghost_yolo.errors import UserError, WorkerError


class Fake:
    """A worker that answers at once; `says` may replace an answer or raise."""

    calls: list[tuple[str, Any]]
    says: Callable[[str, Sequence[Any]], Any]

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
            "operators": {"Conv": 1.5, "Add": 0.5},
        }
        said = Fake.says(name, (self.file, *arguments))
        return answers.get(name) if said is None else said

    def close(self) -> None:
        """End nothing."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """Put the fake in the place of the processes."""
    Fake.calls, Fake.says = [], staticmethod(lambda name, arguments: None)
    monkeypatch.setattr(benching, "Worker", Fake)
    return Fake


def test_models_take_turns(fake: type[Fake]) -> None:
    """Every model has one turn a round, in orders that differ, and only after all were warmed up."""
    result = bench(Plan(("a.yaml", "b.yaml", "c.yaml"), rounds=8))
    turns = [file for name, file in fake.calls if name == "time"]
    rounds = [turns[n : n + 3] for n in range(0, len(turns), 3)]

    assert all(sorted(files) == ["a.yaml.pt", "b.yaml.pt", "c.yaml.pt"] for files in rounds)
    assert len({tuple(files) for files in rounds}) > 1
    assert [name for name, _ in fake.calls[:6]] == ["prepare"] * 3 + ["open"] * 3
    assert [row.times for row in result.candidates] == [[2.0] * 8] * 3 and result.failed == []


@pytest.mark.parametrize("where", ["prepare", "export", "open", "time"])
def test_what_fails_is_one_row(where: str, fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that fails at any step keeps its reason; the others are measured."""

    def says(name: str, arguments: Sequence[Any]) -> Any:
        if name == where and any("bad" in str(argument) for argument in arguments):
            raise WorkerError("it broke")
        return arguments[1] if name == "export" else None

    fake.says = staticmethod(says)
    monkeypatch.setattr("ghost_yolo.bench.runtimes.find_spec", lambda name: object())
    monkeypatch.setattr(benching, "file_mb", lambda file: 1.0)
    result = bench(Plan(("good.yaml", "bad.yaml", "fine.yaml"), ("onnx",), rounds=2))
    good, bad, fine = result.candidates

    assert good.failed is fine.failed is None and "it broke" in bad.failed
    assert [len(row.times) for row in result.candidates] == [2, 0, 2]


def test_another_task_and_another_size_are_refused(fake: type[Fake]) -> None:
    """A model of another task than the first's, and a file exported for another size, are rows with a reason."""
    facts = {
        "seg.pt": FACTS | {"task": "segment"},
        "small_ncnn_model": FACTS | {"imgsz": [320, 320], "batch": 1, "precision": "fp32"},
    }
    fake.says = staticmethod(lambda name, arguments: facts.get(arguments[1]) if name == "prepare" else None)
    result = bench(Plan(("a.yaml", "seg.pt", "small_ncnn_model"), rounds=1))

    assert [bool(row.times) for row in result.candidates] == [True, False, False]
    assert "seg.pt: its task is segment, that of a.yaml is detect" in result.failed[0]
    assert "exported for imgsz=320,320 and batch=1; give --imgsz" in result.failed[1]


def test_a_missing_runtime_says_what_to_install(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that is not installed names its extra, and the others' rows are measured."""
    monkeypatch.setattr("ghost_yolo.bench.runtimes.find_spec", lambda name: None if name == "openvino" else object())
    result = bench(Plan(("a.yaml",), ("pytorch", "openvino"), rounds=1))

    assert [bool(row.times) for row in result.candidates] == [True, False]
    assert result.failed == [
        "a.yaml, OpenVINO fp32: openvino is not installed; install with pip install 'ghost-yolo[openvino]'"
    ]


def stop_in_round(number: int) -> Callable[..., Iterator[Any]]:
    """Return a progress bar during which somebody presses Ctrl-C."""

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
    monkeypatch.setattr(benching, "progress", stop_in_round(3))
    out = tmp_path / "out.json"
    with pytest.raises(typer.Exit) as stopped:
        cli.bench(["a.yaml", "b.yaml"], runtimes="pytorch", style=Format.json, out=out)

    assert stopped.value.exit_code == 130
    assert [(row["rounds"], row["error"]) for row in json.loads(out.read_text())["rows"]] == [(3, None), (3, None)]


def test_ctrl_c_before_the_first_round(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """A row whose turn never came says so."""
    monkeypatch.setattr(benching, "progress", stop_in_round(0))

    assert [row.error for row in bench(Plan(("a.yaml",))).candidates] == [INTERRUPTED]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a terminal's Ctrl-C is another thing there")
def test_a_real_ctrl_c(tmp_path: Path) -> None:
    """A terminal's Ctrl-C in the middle of the rounds: status 130, and the rounds so far are in the report."""
    program = [sys.executable, "-m", "ghost_yolo", "bench", "yolov8n.yaml", "--imgsz", "32", "--runtimes", "pytorch"]
    words = ["--rounds", "5000", "--passes", "1", "--format", "json", "-o", "out.json"]
    with subprocess.Popen(
        [*program, *words],
        cwd=tmp_path,
        env=os.environ | {"FORCE_COLOR": "1", "COLUMNS": "100", "PYTHONWARNINGS": ""},  # the bar is drawn on a pipe too
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        said = b""
        while not re.search(rb"Timing[^\r\n]*[1-9]\d*%", said):
            more = os.read(process.stderr.fileno(), 1 << 16)
            assert more, said.decode()
            said += more
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()

    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert process.returncode == 130 and b"Traceback" not in rest
    assert 0 < row["rounds"] < 5000 and row["median_ms"] > 0 and row["error"] is None


def test_a_report_that_cannot_be_written_is_printed(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was measured is not lost with a disk that is full at the end."""

    def full(file: Path, text: str) -> None:
        raise OSError("No space left")

    monkeypatch.setattr("ghost_yolo.utils.files.write_whole", full)
    with pytest.raises(OSError, match="No space"):
        cli.bench(["a.yaml"], runtimes="pytorch", rounds=1, style=Format.csv, out=tmp_path / "out.csv")

    assert capsys.readouterr().out.startswith("model,scale")


@pytest.mark.parametrize(
    "words,says",
    [
        ({"models": ()}, "give one model or more"),
        ({"models": ("a.yaml", "a.yaml")}, "each once"),
        ({"runtimes": ("tensorrt",)}, "--runtimes tensorrt: give some of pytorch,onnx,openvino,ncnn"),
        ({"precisions": ("fp64",)}, "--precisions fp64: give some of fp32,fp16,int8"),
        ({"precisions": ("int8",)}, "on device cpu there is no PyTorch int8"),
        ({"precisions": ("fp16",)}, "on device cpu there is no PyTorch fp16"),
        ({"rounds": 0}, "--rounds 0: give 1 or more"),
        ({"imgsz": -32}, "--imgsz -32"),
        ({"threads": -1}, "--threads -1"),
        ({"device": "gpu"}, "--device gpu: give cpu, or the number of a GPU"),
        ({"keep": ROOT}, "is not an empty folder"),
        ({"keep": ROOT / "README.md"}, "is not an empty folder; name a new one"),
    ],
)
def test_a_plan_that_cannot_be(words: dict[str, Any], says: str) -> None:
    """What cannot be is said before any work."""
    with pytest.raises(UserError, match=says):
        bench(Plan(**{"models": ("a.yaml",)} | words))


def test_an_unwritable_target_is_said_at_once(run: Run) -> None:
    """A report that could not be written is refused before the work, in one line."""
    for words, says in {
        ("-o", "no/such/folder/x.txt"): "--out no/such/folder/x.txt: there is no folder no/such/folder.",
        ("--keep", str(ROOT)): f"--keep {ROOT} exists and is not an empty folder; name a new one",
    }.items():
        error = run("ghost-yolo", "bench", "yolov8n.yaml", *words, ok=False).stderr

        assert error == f"ghost-yolo: {says}\n"


@pytest.mark.slow
def test_a_real_run(run: Run, tmp_path: Path) -> None:
    """Two YAMLs, a model of another task, a truncated checkpoint and a missing file, in PyTorch and ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 no more")
    models = ["yolov8n.yaml", str(ROOT / "cfg/yolov8n-ghost.yaml"), "yolov8n-seg.yaml", "cut.pt", "missing.pt"]
    size = ["--imgsz", "64", "--threads", "1", "--rounds", "5", "--passes", "1", "--format", "json", "-o", "out.json"]
    words = ["--runtimes", "pytorch,onnx", "--keep", "kept", "--profile"]
    error = run("ghost-yolo", "bench", *models, *size, *words, ok=False).stderr
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
    assert all(
        word in error for word in ("its task is segment", "cut.pt is not a checkpoint", "missing.pt does not exist")
    )
    assert {row["runtime"] for row in document["profile"]} == {"pytorch", "onnx"}
    assert any(row["operator"] == "Conv" and row["percent"] > 10 for row in document["profile"])

    kept = "kept/1-yolov8n/onnx-fp32/yolov8n.onnx"
    run("ghost-yolo", "bench", kept, *size)
    (again,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (again["runtime"], again["precision"], again["rounds"], again["nc"]) == ("onnx", "fp32", 5, 80)
    assert again["file_mb"] == rows[5]["file_mb"] and again["gflops"] is None

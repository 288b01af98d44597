"""The bench: its arithmetic, the order of its rounds, what it does with whatever fails, and real runs in each runtime."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from conftest import ROOT, Run, newest_only

from ghost_yolo import cli
from ghost_yolo.cli.common import Format
from ghost_yolo.deploy import bench as benching
from ghost_yolo.deploy.bench import INTERRUPTED, Measured, bench
from ghost_yolo.deploy.machine import default_threads
from ghost_yolo.deploy.operators import by_kind
from ghost_yolo.deploy.plan import Candidate, Plan, Subject
from ghost_yolo.deploy.runtimes import RUNTIMES, Setup, file_mb, runtime_of
from ghost_yolo.deploy.worker import Worker, WorkerError
from ghost_yolo.registry import UserError
from ghost_yolo.report.latency import CONVENTIONS, confidence, profile_table, render, rows_of
from ghost_yolo.report.render import FORMATS

FACTS = {"task": "detect", "scale": "n", "nc": 80, "channels": 3, "gflops": 8.0, "file_mb": 6.0, "file": "x.pt"}
KEYS = [
    "model",
    "scale",
    "nc",
    "imgsz",
    "batch",
    "runtime",
    "precision",
    "device",
    "threads",
    "median_ms",
    "q25",
    "q75",
    "rounds",
    "ratio",
    "ratio_low",
    "ratio_high",
    "gflops",
    "realised_gain",
    "peak_memory_mb",
    "file_mb",
    "error",
]


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


def candidate(name: str, times: list[float], gflops: float | None = 8.0, **more: Any) -> Candidate:
    """Return a row that was timed."""
    return Candidate(Subject(name, Path(), FACTS | {"gflops": gflops}), "pytorch", "fp32", times=times, **more)


def measured(*rows: Candidate, **plan: Any) -> Measured:
    """Return what a run with these rows gives."""
    names = tuple(dict.fromkeys(row.subject.name for row in rows))
    return Measured(Plan(names, **plan), list(rows), {"cpu": "some", "threads": 2}, {"torch": "2"}, interrupted=False)


def test_ratio_and_gain_by_hand() -> None:
    """Half the time is ratio 0.5; with half the GFLOPs all of the saving is realised, with a quarter half of it."""
    stock = candidate("a", [10.0, 20.0, 30.0, 40.0, 50.0])
    rows = rows_of(measured(stock, *(candidate(f"b{g}", [5.0, 10.0, 15.0, 20.0, 25.0], g) for g in (4.0, 2.0))))

    assert [(r.median_ms, r.q25, r.q75) for r in rows] == [(30, 20, 40), (15, 10, 20), (15, 10, 20)]
    assert [(r.ratio, r.ratio_low, r.ratio_high) for r in rows] == [(1, 1, 1), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)]
    assert [r.realised_gain for r in rows] == [1, 1, 0.5]


def test_rounds_are_paired() -> None:
    """A machine that slows down for both changes the times and not the ratio; rounds without a partner do not count."""
    rows = rows_of(measured(candidate("a", [1.0, 100.0, 7.0]), candidate("b", [2.0, 200.0])))

    assert rows[1].ratio == 2 and rows[1].rounds == 2 and rows[1].ratio_low is None


def test_nothing_is_made_up() -> None:
    """Without the first model's times there is no ratio, without GFLOPs no gain."""
    failed = candidate("a", [], error="broken")
    exported = candidate("c.onnx", [1.0], None)
    rows = rows_of(measured(failed, candidate("b", [2.0]), exported))

    assert [(r.median_ms, r.ratio, r.realised_gain) for r in rows] == [
        (None, None, None),
        (2, None, None),
        (1, None, None),
    ]
    assert rows[0].error == "broken"


def test_the_interval_covers_the_median() -> None:
    """The interval lies around the median, is the same each time, and is narrow where rounds agree."""
    noisy, calm = (np.array([1 + spread * (n % 7 - 3) for n in range(50)]) for spread in (0.1, 0.001))
    (low, high), (lower, higher) = confidence(noisy), confidence(calm)

    assert low <= lower <= 1 <= higher <= high
    assert high - low > 0.05 and higher - lower < 0.01
    assert confidence(noisy) == (low, high)
    assert confidence(noisy[:4]) == (None, None)


@pytest.mark.parametrize("style", FORMATS)
def test_every_format_has_every_row(style: str) -> None:
    """A measured row shows its time, a failed one its reason, in each format."""
    text = render(measured(candidate("a.yaml", [1.25]), candidate("b.yaml", [], error="no such thing")), style)

    assert all(word in text for word in ("a.yaml", "1.25", "b.yaml", "no such thing"))
    if style == "csv":
        assert [list(row) for row in csv.DictReader(io.StringIO(text))] == [KEYS, KEYS]
    if style == "json":
        document = json.loads(text)
        assert list(document) == ["conventions", "versions", "conditions", "rows"]
        assert [list(row) for row in document["rows"]] == [KEYS, KEYS]
        assert {name for names in CONVENTIONS for name in names.split(", ")} <= set(KEYS)


def test_operator_kinds_add_up() -> None:
    """Each node counts with its median pass; small kinds are put together, and the shares are those of the sum."""
    kinds = by_kind(
        [("c1", "Conv", 4.0), ("c1", "Conv", 2.0), ("c1", "Conv", 99.0), ("c2", "Conv", 1.0), ("a", "Add", 0.02)]
    )
    rows = [candidate("a", [1.0], operators=kinds), candidate("b", [1.0], operators={"Conv": 3.0, "Pool": 1.0})]
    _, lines = profile_table("PyTorch fp32", rows)

    assert kinds == {"Conv": 5.0, "Add": 0.02}
    assert lines == [
        ["Conv", "5.000", "99.6", "3.000", "75.0"],
        ["Pool", "0.000", "0.0", "1.000", "25.0"],
        ["all others", "0.020", "0.4", "0.000", "0.0"],
        ["sum", "5.020", "100.0", "4.000", "100.0"],
    ]


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
    monkeypatch.setattr("ghost_yolo.deploy.runtimes.find_spec", lambda name: object())
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
    monkeypatch.setattr("ghost_yolo.deploy.runtimes.find_spec", lambda name: None if name == "openvino" else object())
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


def test_a_report_that_cannot_be_written_is_printed(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was measured is not lost with a disk that is full at the end."""

    def full(file: Path, text: str) -> None:
        raise OSError("No space left")

    monkeypatch.setattr("ghost_yolo.files.write_whole", full)
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
    ],
)
def test_a_plan_that_cannot_be(words: dict[str, Any], says: str) -> None:
    """What cannot be is said before any work."""
    with pytest.raises(UserError, match=says):
        bench(Plan(**{"models": ("a.yaml",)} | words))


def test_an_unwritable_target_is_said_at_once(run: Run) -> None:
    """A report that could not be written is refused before the work, in one line."""
    error = run("ghost-yolo", "bench", "yolov8n.yaml", "-o", "no/such/folder/x.txt", ok=False).stderr

    assert "there is no folder no/such/folder" in error and "Traceback" not in error


@pytest.mark.parametrize("runtime,says", [
    ("pytorch", "sees no GPU 99"), ("onnx", "has no CUDA"), ("openvino", "on the CPU only"), ("ncnn", "on the CPU only"),
])  # fmt: skip
def test_a_gpu_that_is_not_there(runtime: str, says: str) -> None:
    """A device that a runtime cannot use is said before the file is opened."""
    if RUNTIMES[runtime].missing("fp32", exporting=False):
        pytest.skip("not installed")
    with pytest.raises(UserError, match=says):
        RUNTIMES[runtime].open(Path("x"), Setup(1, 64, 3, "fp32", "99", 1))


def test_runtimes_and_their_files() -> None:
    """Exported files are told by their endings, and every row's extra is one of the project's."""
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert [runtime_of(name) for name in ("m.onnx", "m_int8_openvino_model/", "m_ncnn_model", "m.pt", "m.yaml")] == [
        "onnx", "openvino", "ncnn", "", "",
    ]  # fmt: skip
    assert all(f"\n{row.extra} = [" in extras for row in RUNTIMES.values() if row.extra)
    assert default_threads() >= 1


def test_a_process_that_dies_is_an_error_and_the_next_call_works(tmp_path: Path) -> None:
    """A crash names the exit status and the last line printed; the call after it has a new process."""
    worker = Worker(tmp_path / "log.txt", 1)
    worker.close()
    code = "import sys; sys.stdin.readline(); print('out of luck', file=sys.stderr); sys.exit(3)"
    with (tmp_path / "log.txt").open("ab") as log:
        worker.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    with pytest.raises(WorkerError, match="ended with status 3; it last said: out of luck"):
        worker.call("time", 1)
    with pytest.raises(WorkerError, match="AttributeError"):
        worker.call("time", 1)  # nothing was opened in the new one
    worker.close()


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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Any]]:
    """A process that has prepared a model, and what it said of it."""
    folder = tmp_path_factory.mktemp("prepared")
    worker = Worker(folder / "log.txt", 1)
    yield worker, worker.call("prepare", "yolov8n.yaml", folder / "n", 80, 64)
    worker.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "runtime,precision,pixels,share",
    [
        ("onnx", "fp32", 0.05, 1.0),
        ("openvino", "fp32", 0.05, 1.0),
        pytest.param("ncnn", "fp32", 0.05, 1.0, marks=newest_only),  # the oldest host downloads the converter
        pytest.param("onnx", "int8", np.inf, 0.3, marks=newest_only),  # the oldest exports none
        ("openvino", "int8", np.inf, 0.3),  # untrained weights and noise: what int8 gives is far from float32
    ],
)
def test_what_is_timed_is_the_network(
    runtime: str, precision: str, pixels: float, share: float, prepared: tuple[Worker, Any], tmp_path: Path
) -> None:
    """The exported float32 file computes PyTorch's boxes in that runtime, and each is as small as its precision says."""
    missing = RUNTIMES[runtime].missing(precision)
    if missing:
        pytest.skip(f"{missing} is not installed")
    worker, facts = prepared
    data = str(ROOT / "datasets/smear.yaml")
    file = worker.call("export", facts["file"], tmp_path / "made", runtime, precision, 64, 1, data)
    setup = Setup(1, 64, 3, precision, "cpu", 1)
    expected = RUNTIMES["pytorch"].open(Path(facts["file"]), setup)()[0]
    (found,) = RUNTIMES[runtime].open(Path(file), setup)()

    assert np.abs(np.array(found).reshape(84, -1) - expected[0].numpy())[:4].max() < pixels
    assert file_mb(Path(file)) == pytest.approx(2 * facts["file_mb"] * share, rel=0.2)  # the checkpoint is fp16

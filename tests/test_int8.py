"""INT8 files from images alone: names of modules, what is refused, and real files in both runtimes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from factories import SIDE, calibrated, refused, save_sure, stock
from ultralytics import YOLO

from ghost_yolo.accuracy import AgreementSet
from ghost_yolo.bench import exporting
from ghost_yolo.bench.runtimes import RUNTIMES, installed
from ghost_yolo.errors import OutputExistsError, UserError
from ghost_yolo.export import any_file, float32_parts, int8
from ghost_yolo.export.float32_parts import choose_exclusions, time_variants, write_best
from ghost_yolo.export.int8 import Int8Exporter, is_constant
from ghost_yolo.export.quantizers import (
    decode_nodes,
    decode_operations,
    excluded,
    onnx_module,
    openvino_module,
    to_input,
)

needs_onnx = pytest.mark.skipif("onnx" not in installed(), reason="ONNX Runtime is not installed")


@pytest.fixture
def exporter(sure: Path, squares: list[Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """An exporter whose files are texts: only what is around the export is under test."""

    def quantize(fp32: Path, made: Path, images: list[torch.Tensor], exclude: list[str]) -> None:
        made.write_text(f"{fp32.read_text()} {to_input(images[0]).shape} {' '.join(exclude)}")

    def export(_: Path, folder: Path, *__: object) -> Path:
        file = folder / "model.onnx"
        file.write_text("float32")
        return file

    boxes = np.random.default_rng(0).random((4, 3, 6), dtype=np.float32)
    monkeypatch.setattr(int8, "export_fp32", export)
    monkeypatch.setitem(int8.QUANTIZE, "onnx", quantize)
    monkeypatch.setattr(int8, "find", lambda *_: list(boxes))
    with Int8Exporter(sure, squares, SIDE, "onnx") as opened:
        yield opened


@pytest.mark.parametrize(
    "node,module",
    [
        ("/model.0/conv/Conv", "model.0.conv"),
        ("/model.22/cv3.0/cv3.0.2/Conv", "model.22.cv3.0.2"),
        ("/model.22/cv3.0/cv3.0.1/conv/Conv", "model.22.cv3.0.1.conv"),
        ("/model.2/m.0/cv1/conv/Conv", "model.2.m.0.cv1.conv"),
    ],
)
def test_nodes_are_found_by_module(node: str, module: str) -> None:
    """A node's module is named as torch names it, in both formats."""
    assert onnx_module(node) == module
    assert openvino_module(f"__module.{module}/aten::_convolution/Convolution") == module
    assert openvino_module("ShapeOf_10318") == ""


def test_modules_are_excluded_whole() -> None:
    """A name means that module with all in it, and not one whose name begins alike."""
    modules = {"a": "model.2.cv1.conv", "b": "model.2.cv2.conv", "c": "model.22.cv2.0.conv", "d": ""}

    assert excluded(modules, ["model.2"]) == {"a", "b"}
    assert excluded(modules, ["model.2.cv1", "model.22"]) == {"a", "c"}
    assert excluded(modules, []) == set()
    with refused(UserError, "model.3", "model.2, model.22"):
        excluded(modules, ["model.3"])


def test_decode_is_the_heads_own() -> None:
    """The decode is what the head itself computes, its distributions and all sigmoids; not its convolutions."""
    names = {"__module.model.9.attn/Sigmoid": "Sigmoid", "__module.model.22.cv2.0/Convolution": "Convolution"}
    decode = {"__module.model.22.dfl/Softmax": "Softmax", "__module.model.22/aten::sigmoid/Sigmoid": "Sigmoid"}

    assert decode_operations(names | decode) == {*decode, "__module.model.9.attn/Sigmoid"}
    assert decode_operations({"__module.model.9.linear/MatMul": "MatMul"}) == set()


def test_decode_of_onnx_is_what_the_last_module_computes() -> None:
    """Its branches' nodes are not among it, and names that torch did not give do not matter."""
    names = [
        "/model.0/conv/Conv",
        "/model.22/cv2.0/cv2.0.2/Conv",
        "/model.22/dfl/conv/Conv",
        "/model.22/Concat",
        "Cast",
    ]

    assert decode_nodes({name: onnx_module(name) for name in names}) == set(names[2:4])


@needs_onnx
def test_file_is_written_whole_or_not_at_all(exporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An existing file and a wrong name are refused; a file that is refused is not there."""
    out = tmp_path / "a.onnx"

    assert exporter.write(out, ["model.0"]) == out
    assert out.read_text() == f"float32 (1, 3, {SIDE}, {SIDE}) model.0"
    with refused(OutputExistsError, out):
        exporter.write(out)
    with refused(UserError, "a.bin", ".onnx"):
        exporter.write(tmp_path / "a.bin")
    found, nothing, same = (
        [np.full((n, 6), k, np.float32) for k in ks] for n, ks in ((1, (0, 1)), (0, (0, 0)), (1, (2, 2)))
    )
    for wrong, words in (
        (nothing, ("nothing", "float32 finds 2", "model.5", "model.3 differs")),
        (same, ("same result", "model.0, model.5", "model.3 differs")),
    ):
        monkeypatch.setattr(any_file, "first_difference", lambda *_: "model.3 differs")
        monkeypatch.setattr(int8, "find", lambda file, *_, wrong=wrong: wrong if file.name == "b.onnx" else found)
        with refused(UserError, *words):
            exporter.write(tmp_path / "b.onnx")
        assert not (tmp_path / "b.onnx").exists()


def refuse(*arguments: Any) -> None:
    """Stand for a file that is refused."""
    raise UserError("refused")


def test_constant_results() -> None:
    """The same boxes in every image are constant; no boxes at all, or a single image, are not."""
    box, other, none = np.ones((1, 6)), np.zeros((1, 6)), np.zeros((0, 6))

    assert is_constant([box, box])
    assert not is_constant([box, other]) and not is_constant([box, none])
    assert not is_constant([none, none]) and not is_constant([box])


def scored(*scores: float) -> Any:
    """Return a set of images on which files have these scores, one after another: that of float32 first."""
    rest = iter(scores)
    return SimpleNamespace(score=lambda file, resamples: SimpleNamespace(map50_95=next(rest)))


def taking(monkeypatch: pytest.MonkeyPatch, *milliseconds: float) -> None:
    """Replace the timing of INT8 files: they take these times, in the order in which they were made."""
    monkeypatch.setattr(float32_parts, "time_variants", lambda files, *_: dict(zip(files, milliseconds, strict=True)))


@needs_onnx
@pytest.mark.parametrize(
    ("milliseconds", "exclude", "agreement"),
    [
        ((1.0, 1.1, 1.3, 1.4), ("model.0",), 0.77),
        ((1.0, 1.1, 1.1, 1.2), ("model.0", "model.5"), 0.78),
        ((1.0, 1.6, 1.6, 2.0), (), 0.75),
    ],
)
def test_an_exception_must_be_worth_its_time(
    milliseconds: tuple[float, ...],
    exclude: tuple[str, ...],
    agreement: float,
    exporter: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tenth more time is spent for 0.005 of agreement, and not for less."""
    taking(monkeypatch, *milliseconds)
    chosen, variants = choose_exclusions(exporter, scored(0.95, 0.75, 0.77, 0.755, 0.78))

    assert (chosen.exclude, chosen.agreement) == (exclude, agreement)
    assert [variant.exclude for variant in variants] == [(), ("model.0",), ("model.5",), ("model.0", "model.5")]


@needs_onnx
def test_an_exception_keeps_a_target(exporter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is worth its time is not taken where it would miss the target."""
    taking(monkeypatch, 1.0, 1.1, 1.1, 1.2)
    chosen, _ = choose_exclusions(exporter, scored(0.95, 0.75, 0.77, 0.755, 0.78), slack=1.15)
    assert (chosen.exclude, chosen.agreement) == (("model.0",), 0.77)


def test_files_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round runs every file once, and the first rounds do not count."""
    ran, clock = list[str](), iter(range(1000))
    runtime = replace(RUNTIMES["onnx"], open=lambda file, config: lambda: ran.append(f"{file} {config.threads}"))
    monkeypatch.setitem(RUNTIMES, "onnx", runtime)
    monkeypatch.setattr(float32_parts, "time", SimpleNamespace(perf_counter=lambda: next(clock) / 1000))

    assert time_variants([Path("a"), Path("b")], "onnx", (64, 96), 3) == pytest.approx({Path("a"): 1.0, Path("b"): 1.0})
    assert ran == ["a 3", "b 3"] * (float32_parts.WARMUP + float32_parts.ROUNDS)


@needs_onnx
def test_an_untrained_file_may_find_nothing(exporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its time is wanted; a trained one that finds nothing where float32 finds something is refused."""
    monkeypatch.setattr(int8, "find", lambda file, *_: [np.ones((int(file == exporter.fp32), 6))] * 4)
    assert exporter.write(tmp_path / "a.onnx", untrained=True).exists()
    monkeypatch.setattr(Int8Exporter, "_first_difference", lambda *_: "row 0")
    with refused(UserError, "finds nothing"):
        exporter.write(tmp_path / "b.onnx")


@needs_onnx
def test_a_refused_file_is_not_chosen(exporter: Any, tmp_path: Path) -> None:
    """Its agreement is 0, and where all are refused nothing is written."""
    exporter.write = refuse
    assert [variant.agreement for variant in choose_exclusions(exporter, scored(0.9))[1]] == [0, 0, 0, 0]
    with refused(UserError, "refused"):
        write_best(exporter, scored(0.9), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@needs_onnx
@pytest.mark.parametrize(
    ("scores", "count"), [((0.9, 0.899), 1), ((0.9, 0.8, 0.91), 2), ((0.9, 0.8, 0.8, 0.8, 0.8), 4)]
)
def test_no_more_files_are_made_than_needed(
    scores: tuple[float, ...], count: int, exporter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first variant that is as good as float32 ends the search, and its file is the one that is delivered."""
    made, quantize = list[Path](), int8.QUANTIZE["onnx"]

    def count_files(fp32: Path, file: Path, *arguments: Any) -> None:
        made.append(file)
        quantize(fp32, file, *arguments)

    monkeypatch.setitem(int8.QUANTIZE, "onnx", count_files)
    taking(monkeypatch, *[1.0] * count)
    chosen = write_best(exporter, scored(*scores), tmp_path / "a.onnx")
    assert len(made) == count and (tmp_path / "a.onnx").read_text().endswith(f"{SIDE}) {' '.join(chosen.exclude)}")


@needs_onnx
def test_bad_input(sure: Path, tiny_model: Any, squares: list[Path], tmp_path: Path) -> None:
    """No image that can be read, a runtime without INT8, a side that does not fit, a model that is not for RGB."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    with refused(UserError, "broken.png"), Int8Exporter(sure, [tmp_path / "broken.png"], SIDE, "onnx"):
        pass
    with refused(UserError, "none of the 0"), Int8Exporter(sure, [], SIDE, "onnx"):
        pass
    with refused(UserError, "tensorrt", "openvino, onnx"):
        Int8Exporter(sure, squares, SIDE, "tensorrt")
    with refused(UserError, "imgsz=65"):
        Int8Exporter(sure, squares, (64, 65), "onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the exporters
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("name", ["tiny", "v8/yolov8-cls"])
def test_real_files(
    runtime: str,
    name: str,
    sure: Path,
    squares: list[Path],
    tmp_path: Path,
) -> None:
    """A file is opened by the host, says that it is INT8, is smaller, and agrees with its checkpoint better than chance."""
    if runtime == "openvino":
        pytest.importorskip("nncf")
    model = shutil.copy(sure, tmp_path / "best.pt") if name == "tiny" else None
    if model is None:
        model = save_sure(calibrated(stock(name), squares[0].parent), tmp_path / "best.pt")
    out = tmp_path / f"best_int8{RUNTIMES[runtime].suffix}"
    with (
        Int8Exporter(Path(model), squares, SIDE, runtime) as exporter,
        AgreementSet(Path(model), squares, SIDE) as truth,
    ):
        exporter.write(out)
        head = exporter.write(tmp_path / f"head_int8{RUNTIMES[runtime].suffix}", [exporter.parts["head"]])
        full, quantized, excepted = (truth.score(Path(file), 0).map50_95 for file in (exporter.fp32, out, head))
        fp32_mb, mb, head_mb = (exporting.file_mb(file) for file in (exporter.fp32, out, head))
        with refused(UserError, "model.99"):
            exporter.write(tmp_path / f"none{RUNTIMES[runtime].suffix}", ["model.99"])

    assert exporting.describe_exported(out, runtime).precision == "int8"
    assert len(YOLO(str(out)).predict(str(squares[0]), imgsz=SIDE, verbose=False)) == 1
    assert mb < head_mb < fp32_mb
    assert full / 3 < quantized <= 1 and excepted > full / 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["best.pt", out.name, head.name])

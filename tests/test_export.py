"""ONNX export is verified against PyTorch; a wrong file is detected."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from factories import ROOT, SIDE, TINY, Run, build, every_block, randomise, refused, stock
from ultralytics import YOLO

from ghost_yolo import host
from ghost_yolo.cli.export import parse_sides, verify
from ghost_yolo.errors import UserError
from ghost_yolo.export import verify as verifying
from ghost_yolo.export.files import export_file, file_name
from ghost_yolo.export.outputs import OutputCheck
from ghost_yolo.export.verify import (
    Verification,
    dynamic_sizes,
    export_and_verify,
    make_inputs,
    parse_arguments,
    validate_arguments,
    verify_outputs,
)
from ghost_yolo.model.catalog import families, path_of, with_scale
from ghost_yolo.registry import Block

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
EXPORT = ROOT / "export.py"
SIDES = {"x": {2: "height", 3: "width"}}
traced = pytest.mark.filterwarnings("ignore")  # torch warns about tracing and about every shape it sees


def checkpoint(folder: Path, name: str) -> Path:
    """Save a model whose weights and BN statistics make every branch count."""
    torch.manual_seed(0)
    yolo = YOLO(str(path_of(name)), verbose=False)
    randomise(yolo.model)
    yolo.save(folder / f"{name}.pt")
    return folder / f"{name}.pt"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,options,sizes",
    [
        ("yolov8n-ghostv3", ["--dynamic"], ["640x640", "480x640", "32x320", "32x32"]),
        *((f"yolov8n-{name}", ["--imgsz", "480,640"], ["480x640"]) for name in ("ghost", "ghostv2")),
        ("yolov8n-gghost", [], ["640x640"]),
        *(pytest.param(f"yolov8n-{name}", [], ["640x640"], marks=pytest.mark.weekly) for name in ("ghost", "ghostv2")),
        pytest.param("yolov8n-gghost", ["--imgsz", "480,640"], ["480x640"], marks=pytest.mark.weekly),
    ],
)
def test_export_proves_itself(name: str, options: list[str], sizes: list[str], run: Run, tmp_path: Path) -> None:
    """The command's files, dynamic and static, give PyTorch's boxes and scores on noise and on an image."""
    done = run("ghost-yolo", "verify", checkpoint(tmp_path, name), *options)
    *lines, verdict = done.stdout.splitlines()

    assert [line.split()[1:3] for line in lines] == [[size, kind] for size in sizes for kind in ("noise", "image")]
    assert all(line.startswith("ok") for line in lines) and verdict.startswith(f"{tmp_path / name}.onnx: ")


@pytest.mark.slow
def test_command_and_script_do_the_same(run: Run, tmp_path: Path) -> None:
    """`ghost-yolo verify` and `export.py` print the same for the same arguments."""
    file = checkpoint(tmp_path, "yolov8n-ghost")
    by_script = run(sys.executable, EXPORT, f"model={file}", "imgsz=64,96", "simplify=False").stdout
    by_command = run("ghost-yolo", "verify", file, "simplify=False", "--imgsz", "64,96").stdout

    assert by_script.splitlines()[-3:] == by_command.splitlines() and "64x96" in by_command


@pytest.mark.slow
@pytest.mark.weekly
@traced
@pytest.mark.parametrize("name", families())
def test_a_dynamic_file_of_every_family(name: str, tmp_path: Path) -> None:
    """One dynamic file of each packaged model gives PyTorch's boxes and scores at all sizes, down to one stride."""
    verification = export_and_verify(str(checkpoint(tmp_path, with_scale(name, "n"))), dynamic=True)

    assert [check.size for check in verification.checks[::2]] == [(640, 640), (480, 640), (32, 320), (32, 32)]
    assert [check for check in verification.checks if not check.passed] == []


@pytest.mark.slow
@traced
@pytest.mark.parametrize("name", ["yolov8n-ghostv2", "yolov8n-ghostnetv2"])
def test_a_dynamic_file_that_was_traced_at_one_stride(name: str, tmp_path: Path) -> None:
    """A file that was exported where the deepest map is one pixel is right at every other size, too."""
    verification = export_and_verify(str(checkpoint(tmp_path, name)), dynamic=True, imgsz=32)

    assert [check for check in verification.checks if not check.passed] == []


@pytest.mark.slow
@traced
def test_models_of_other_strides_and_channels(tmp_path: Path) -> None:
    """A model with P6 is verified at multiples of 64, and one for grey images with grey ones."""
    torch.manual_seed(0)
    for name, key in (("yolov8-p6", {}), ("yolov8", {"channels": 1})):
        model = randomise(host.build(stock(f"v8/{name}") | key))
        host.save(model, tmp_path / "odd.pt", {"imgsz": 64})
        verification = export_and_verify(str(tmp_path / "odd.pt"), dynamic=True)
        stride = int(max(model.stride))

        assert verification.passed and verification.checks[-1].size == (stride, stride)


def test_dynamic_sizes_are_of_the_models_own_stride() -> None:
    """They reach down to one stride: 64 for a model with P6, 32 at least."""
    for strides, sizes in (
        ([8, 16, 32], [(640, 640), (480, 640), (32, 320), (32, 32)]),
        ([8, 16, 32, 64], [(640, 640), (512, 640), (64, 640), (64, 64)]),
        ([1], [(640, 640), (480, 640), (32, 320), (32, 32)]),
    ):
        assert dynamic_sizes(Namespace(stride=torch.tensor(strides))) == sizes


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_inputs_have_the_models_own_channels(channels: int) -> None:
    """Noise and image are of as many channels as the model takes."""
    pixels = np.full((40, 60, 3), (10, 20, 30), np.uint8)
    inputs = dict(make_inputs((32, 64), pixels, channels))

    assert {name: (x.shape, x.dtype, x.flags.c_contiguous) for name, x in inputs.items()} == dict.fromkeys(
        ("noise", "image"), ((1, channels, 32, 64), np.float32, True)
    )


@traced
@every_block
def test_a_dynamic_file_of_every_block(block: Block, tmp_path: Path) -> None:
    """Each block alone gives PyTorch's maps from one file: on large maps, on lines, and on one pixel."""
    module, file = build(block).eval(), tmp_path / "block.onnx"
    with torch.no_grad():
        torch.onnx.export(
            module, torch.rand(1, 16, 80, 80), str(file), dynamo=False, input_names=["x"], dynamic_axes=SIDES
        )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for height, width in ((80, 80), (60, 80), (1, 10), (7, 1), (1, 1), (3, 2)):
        x = torch.randn(1, 16, height, width)
        (y,) = session.run(None, {"x": x.numpy()})

        torch.testing.assert_close(torch.from_numpy(y), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@traced
def test_a_wrong_file_is_detected(tmp_path: Path) -> None:
    """A weight changed in the file, or a file cut short, does not pass."""
    model = YOLO(checkpoint(tmp_path, "yolov8n-ghost"))
    file = Path(model.export(format="onnx", imgsz=64))
    image = np.full((48, 64, 3), 90, np.uint8)
    assert Verification(file, verify_outputs(model.model, file, image)).passed
    graph = onnx.load(file)
    for weight in graph.graph.initializer:
        if len(weight.dims) == 4:
            weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.01)).tobytes()
    onnx.save(graph, file)

    assert not any(check.passed for check in verify_outputs(model.model, file, image))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(Exception, match=r"(?i)parse|decode|protobuf"):
        verify_outputs(model.model, file, image)


@pytest.mark.parametrize("arguments", [{"half": True}, {"nms": True}, {"format": "engine"}, {"quantize": 8}])
def test_what_cannot_be_compared_is_refused(arguments: dict[str, object]) -> None:
    """Arguments that change values or layout of the outputs are refused, with the alternative."""
    with pytest.raises(UserError, match=f"{next(iter(arguments))}.*yolo export"):
        validate_arguments(arguments)


@pytest.mark.parametrize(
    "pairs,named",
    [
        ([], "model=FILE"),
        (["model=missing.pt"], "missing.pt"),
        (["model=x.pt", "image=none.jpg"], "none.jpg"),
    ],
)
def test_bad_input_is_one_clear_line(pairs: list[str], named: str, run: Run) -> None:
    """The script prints an error of the user's as one line."""
    error = run(sys.executable, EXPORT, *pairs, ok=False).stderr

    assert named in error.splitlines()[-1] and "Traceback" not in error


def test_arguments_are_parsed() -> None:
    """Export arguments are parsed as by the `yolo` command; another form is an error that names it."""
    assert parse_arguments(["opset=17", "simplify=False"]) == {"opset": 17, "simplify": False}
    assert parse_sides("480,640") == [480, 640] and parse_sides("640") == [640]
    for wrong in ("opset", "opset="):
        with pytest.raises(UserError, match=wrong):
            parse_arguments([wrong])
    for wrong in ("0", "x", "1,2,3", "-640", ""):
        with pytest.raises(UserError, match=f"--imgsz {wrong}"):
            parse_sides(wrong)


def test_the_exit_status_tells_the_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Beyond tolerance, the command prints the difference and exits with 1."""
    checks = [OutputCheck((64, 96), "noise", 0.2, 0.0)]
    given: dict[str, object] = {}

    def answer(model: str, image: str, **arguments: object) -> Verification:
        given.update(arguments, model=model, image=image)
        return Verification(Path("best.onnx"), checks)

    monkeypatch.setattr(verifying, "export_and_verify", answer)
    with pytest.raises(typer.Exit) as stopped:
        verify("best.pt", ["opset=17"], imgsz="64,96", dynamic=True, image="photo.jpg")
    assert stopped.value.exit_code == 1 and "0.2 px" in capsys.readouterr().out
    assert given == {"model": "best.pt", "image": "photo.jpg", "imgsz": [64, 96], "dynamic": True, "opset": 17}
    checks[:] = [OutputCheck((64, 96), "noise", 0.0, 0.0)]
    verify("best.pt", image="")
    assert given["dynamic"] is False and given["image"] == ""


@pytest.mark.slow
@traced
def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good one that is there stays; a folder that may not be written to is told before the export."""
    file = checkpoint(tmp_path, "yolov8n-ghost")
    file.with_suffix(".onnx").write_text("good")
    monkeypatch.setattr(verifying, "verify_outputs", lambda *_: [OutputCheck((32, 32), "noise", 0.2, 0.0)])
    verification = export_and_verify(str(file), imgsz=32)
    assert "NOT equal to PyTorch, and not written" in str(verification)
    assert file.with_suffix(".onnx").read_text() == "good"
    monkeypatch.setattr(verifying, "verify_outputs", lambda *_: [OutputCheck((32, 32), "noise", 0.0, 0.0)])
    assert export_and_verify(str(file), imgsz=32).written and file.with_suffix(".onnx").read_bytes() != b"good"
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr(verifying, "_export", None)
    with refused(UserError, "the ONNX file", "may not write"):
        export_and_verify(str(file), imgsz=32)


def test_a_model_that_cannot_be_built_or_exported_is_refused(tmp_path: Path) -> None:
    """What the host trips over is one line, and nothing is written."""
    odd = tmp_path / "yolov8n-odd.yaml"
    odd.write_text(yaml.safe_dump(TINY | {"head": [[-1, 1, "C2f", ["wide"]], [[1, 4], 1, "Detect", ["nc"]]]}))
    file = checkpoint(tmp_path, "yolov8n-ghost")
    with refused(UserError, "yolov8n-odd.yaml"):
        export_and_verify(str(odd))
    with refused(UserError, file.stem, "ONNX"):
        export_and_verify(str(file), opset=99, imgsz=32)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, odd.name])


@pytest.mark.slow
@traced
@pytest.mark.parametrize("runtime", ["onnx", "openvino", pytest.param("ncnn", marks=pytest.mark.weekly)])
def test_a_file_of_another_checkpoint_differs_from_a_layer_on(
    runtime: str, sure: Path, squares: list[Path], tmp_path: Path, run: Run
) -> None:
    """The file is verified against its own checkpoint; against one that was trained on, the first layer is named."""
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino", "ncnn": "pnnx"}[runtime])
    file = export_file(sure, tmp_path / file_name("sure", runtime, "fp32"), [], SIDE, runtime, "fp32")
    options = ["--image", str(squares[0].parent)]
    done = run("ghost-yolo", "verify", file, "--checkpoint", sure, *options)
    assert done.stdout.count("ok") == 9  # noise and eight photographs
    changed = YOLO(str(sure)).model
    changed.model[2].conv.weight.data[3] += 0.5
    host.save(changed, tmp_path / "changed.pt", {"imgsz": SIDE, "task": "detect"})
    done = run("ghost-yolo", "verify", file, "--checkpoint", tmp_path / "changed.pt", *options, ok=False)
    assert "model.2 (Conv)" in done.stdout


def test_a_file_needs_its_checkpoint(run: Run, tmp_path: Path) -> None:
    """And a checkpoint needs a file."""
    assert "--checkpoint" in run("ghost-yolo", "verify", "model.onnx", ok=False).stderr
    assert "--checkpoint" in run("ghost-yolo", "verify", "best.pt", "--checkpoint", "best.pt", ok=False).stderr


@pytest.mark.parametrize("options", [{"imgsz": "64"}, {"dynamic": True}, {"arguments": ["simplify=False"]}])
def test_options_of_the_export_are_refused_with_a_file(options: dict[str, object]) -> None:
    """They would change nothing, and the user would believe that another size was verified."""
    with refused(UserError, "model.onnx", "--imgsz"):
        verify("model.onnx", checkpoint=Path("best.pt"), **options)

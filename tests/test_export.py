"""ONNX export is held against PyTorch; a file that is wrong is found out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import ROOT, Run, build, every_block, randomise, refused
from ultralytics import YOLO

from ghost_yolo.errors import UserError
from ghost_yolo.export.verify import Proof, differences, export, refuse
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
    "name,words,sizes",
    [
        ("yolov8n-ghostv3", ["dynamic=True"], ["640x640", "480x640"]),
        *((f"yolov8n-{name}", ["imgsz=480,640"], ["480x640"]) for name in ("ghost", "ghostv2", "gghost")),
        *((f"yolov8n-{name}", [], ["640x640"]) for name in ("ghost", "ghostv2", "gghost")),
    ],
)
def test_export_proves_itself(name: str, words: list[str], sizes: list[str], run: Run, tmp_path: Path) -> None:
    """The command's files, dynamic and static, give PyTorch's boxes and scores on noise and on a photograph."""
    done = run(sys.executable, EXPORT, f"model={checkpoint(tmp_path, name)}", *words)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok", "FAIL"))]

    assert [line.split()[1:3] for line in lines] == [[size, kind] for size in sizes for kind in ("noise", "photograph")]
    assert all(line.startswith("ok") for line in lines)


@pytest.mark.slow
@traced
@pytest.mark.parametrize("name", families())
def test_a_dynamic_file_of_every_family(name: str, tmp_path: Path) -> None:
    """One dynamic file of each packaged model gives PyTorch's boxes and scores at 640 x 640 and at 480 x 640."""
    _, proofs = export(str(checkpoint(tmp_path, with_scale(name, "n"))), dynamic=True)

    assert [proof.size for proof in proofs[::2]] == [(640, 640), (480, 640)]
    assert [proof for proof in proofs if not proof.holds] == []


@traced
@every_block
def test_a_dynamic_file_of_every_block(block: Block, tmp_path: Path) -> None:
    """Each word alone gives PyTorch's maps from one file, on those of 640 x 640 and of 480 x 640 at stride 8."""
    module, file = build(block).eval(), tmp_path / "block.onnx"
    with torch.no_grad():
        torch.onnx.export(
            module, torch.rand(1, 16, 80, 80), str(file), dynamo=False, input_names=["x"], dynamic_axes=SIDES
        )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for height in (80, 60):
        x = torch.randn(1, 16, height, 80)
        (y,) = session.run(None, {"x": x.numpy()})

        torch.testing.assert_close(torch.from_numpy(y), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@traced
def test_a_wrong_file_is_found_out(tmp_path: Path) -> None:
    """A weight changed in the file, or a file cut short, does not pass."""
    from ghost_yolo.export.verify import prove

    model = YOLO(checkpoint(tmp_path, "yolov8n-ghost"))
    file = Path(model.export(format="onnx", imgsz=64))
    photo = np.full((48, 64, 3), 90, np.uint8)
    assert all(proof.holds for proof in prove(model.model, file, photo))
    graph = onnx.load(file)
    for weight in graph.graph.initializer:
        if len(weight.dims) == 4:
            weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.01)).tobytes()
    onnx.save(graph, file)

    assert not any(proof.holds for proof in prove(model.model, file, photo))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(Exception, match=r"(?i)parse|decode|protobuf"):
        prove(model.model, file, photo)


def test_differences_are_those_of_boxes_and_scores() -> None:
    """Boxes are the first four rows of a detector, everything else counts as scores; NaN never holds."""
    a = np.zeros((1, 6, 5), np.float32)
    b = a.copy()
    b[0, 3, 2], b[0, 5, 1] = 0.25, -0.125

    assert differences([a], [b], nc=2) == (0.25, 0.125)
    assert differences([a[:, :, 0]], [b[:, :, 1]], nc=6) == (0, 0.125)
    assert not Proof((64, 64), "noise", float("nan"), 0).holds
    with pytest.raises(UserError):
        differences([a], [a, b], nc=2)


@pytest.mark.parametrize("arguments", [{"half": True}, {"nms": True}, {"format": "engine"}, {"quantize": 8}])
def test_what_cannot_be_proved_is_refused(arguments: dict[str, object]) -> None:
    """Arguments that change the numbers or the layout are refused with the way to go."""
    with refused(UserError, *arguments):
        refuse(arguments)


@pytest.mark.parametrize(
    "words,name",
    [
        ([], "model="),
        (["model=missing.pt"], "missing.pt"),
        (["model=x.pt", "image=none.jpg"], "none.jpg"),
    ],
)
def test_bad_words_are_one_clear_line(words: list[str], name: str, run: Run) -> None:
    """What the user can put right is said in one line."""
    error = run(sys.executable, EXPORT, *words, ok=False).stderr

    assert name in error.splitlines()[-1] and "Traceback" not in error


def test_a_head_that_picks_boxes_itself_is_refused() -> None:
    """The order of an end-to-end head's boxes may change with ties: it is not proved, and that is said."""
    with refused(UserError, "yolov10n"):
        export("yolov10n.yaml", imgsz=64)

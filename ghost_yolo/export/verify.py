"""ONNX export that proves itself: the file must give what PyTorch gives, on noise and on a photograph."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO
from ultralytics.utils import ASSETS

from ghost_yolo import host
from ghost_yolo.data.images import preprocess, read_image, to_float
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import resolve

BOX_TOLERANCE = 0.05  # pixels
SCORE_TOLERANCE = 1e-3  # scores, and whatever else a head gives, on its own scale
DYNAMIC_SIZES = ((640, 640), (480, 640))
UNPROVED = (
    "half",
    "int8",
    "quantize",
    "nms",
    "batch",
)  # change the numbers or the layout: nothing to hold against PyTorch

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Proof:
    """The largest differences between the ONNX file and PyTorch on one input."""

    size: tuple[int, int]  # (h, w)
    image: str
    boxes: float  # pixels
    scores: float

    @property
    def holds(self) -> bool:
        """Whether both are within tolerance; a NaN is not."""
        return self.boxes <= BOX_TOLERANCE and self.scores <= SCORE_TOLERANCE


def export(model: str, image: str = "", **arguments: Any) -> tuple[Path, list[Proof]]:
    """Export a checkpoint (or an untrained YAML) by the host's exporter and prove the file.

    Args:
        model: What `YOLO` opens.
        image: Photograph to prove with; the host's own sample where none is given.
        **arguments: The host's export arguments, `imgsz` and `dynamic` among them.

    Returns:
        The ONNX file and a proof for each input.

    Raises:
        UserError: If an argument is not one that can be proved, or the photograph cannot be read.
    """
    require_runtime()
    refuse(arguments)
    photo = read_image(Path(image) if image else ASSETS / "bus.jpg")
    if model.endswith(".pt"):
        host.load(Path(model))  # says clearly what is wrong with a file that is no checkpoint
    else:
        resolve(model)  # a YAML must say its scale
    yolo = YOLO(model)
    if getattr(yolo.model.model[-1], "one2one_cv2", None) is not None:
        raise UserError(f"{model}: its head picks the boxes itself, and ties change their order; use `yolo export`.")
    file = Path(yolo.export(format="onnx", **arguments))
    return file, prove(yolo.model, file, photo)


def require_runtime() -> None:
    """Raise an error before the work where the extra is not installed."""
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} is not installed; install it with pip install 'ghost-yolo[export]'.")


def refuse(arguments: Mapping[str, Any]) -> None:
    """Raise an error for arguments that leave nothing to prove."""
    given = [name for name in UNPROVED if arguments.get(name) and (name, arguments[name]) != ("batch", 1)]
    if arguments.get("format", "onnx") != "onnx" or given:
        what = ", ".join(given) or f"format={arguments['format']}"
        raise UserError(f"{what}: this proves float32 ONNX files only. For others use `yolo export` itself.")


def prove(model: Any, file: Path, photo: NDArray[np.uint8]) -> list[Proof]:
    """Check the file's form, then hold its outputs against the fused model's on noise and on the photograph.

    A static file is tried at its own size, a dynamic one at DYNAMIC_SIZES.
    """
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape[2:]  # numbers, or names where dynamic
    sizes = [tuple(shape)] if all(isinstance(side, int) for side in shape) else DYNAMIC_SIZES
    reference = as_exported(model)
    proofs = []
    for size in sizes:
        for name, image in inputs(size, photo):
            with torch.inference_mode():
                theirs = flatten(reference(torch.from_numpy(image)))
            ours = session.run(None, {session.get_inputs()[0].name: image})
            proofs.append(Proof(size, name, *differences(ours, theirs, len(model.names))))
    return proofs


def as_exported(model: Any) -> Any:
    """Return a fused copy whose head gives what the exporter makes it give."""
    model = copy.deepcopy(model).cpu().float().eval()
    model = model.fuse(verbose=False) if hasattr(model, "fuse") else model
    head = model.model[-1]
    head.export, head.format, head.dynamic = True, "onnx", True  # anchors anew for each size
    return model


def inputs(size: tuple[int, int], photo: NDArray[np.uint8]) -> Iterator[tuple[str, Array]]:
    """Yield seeded noise and the letterboxed photograph, each (1, 3, h, w) in 0..1."""
    yield "noise", np.random.RandomState(0).rand(1, 3, *size).astype(np.float32)
    yield "photograph", to_float(preprocess(photo, size))[None].numpy()


def flatten(output: Any) -> list[Array]:
    """Return the tensors of a model's output in order, as arrays."""
    if isinstance(output, torch.Tensor):
        return [output.numpy()]
    return [array for item in output for array in flatten(item)]


def differences(ours: Sequence[Array], theirs: Sequence[Array], nc: int) -> tuple[float, float]:
    """Return the largest difference of boxes in pixels and of everything else.

    The first output of a detector is (1, 4 + nc + ..., anchors), boxes first; a classifier's is (1, nc).
    """
    if [a.shape for a in ours] != [b.shape for b in theirs]:
        raise UserError(f"the file gives {[a.shape for a in ours]}, PyTorch {[b.shape for b in theirs]}")
    boxes = 4 if ours[0].ndim == 3 and ours[0].shape[1] >= 4 + nc else 0
    first = np.abs(ours[0] - theirs[0])
    rest = [first[:, boxes:], *(np.abs(a - b) for a, b in zip(ours[1:], theirs[1:], strict=True))]
    return float(first[:, :boxes].max(initial=0)), float(max(part.max(initial=0) for part in rest))

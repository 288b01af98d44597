"""Export a model to ONNX and verify that the file computes what PyTorch computes, on noise and on an image."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO
from ultralytics.cfg import parse_key_value_pair
from ultralytics.utils import ASSETS

from ghost_yolo import host
from ghost_yolo.accuracy.validate import first_line
from ghost_yolo.bench.exporting import describe_exported
from ghost_yolo.bench.runtimes import disable_telemetry
from ghost_yolo.data.images import preprocess, read_image, to_float
from ghost_yolo.errors import UserError
from ghost_yolo.export.files import publish
from ghost_yolo.export.outputs import Array, OutputCheck, compare
from ghost_yolo.model.checkpoint import build_from_yaml, open_checkpoint
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.files import require_writable, temporary_folder

NOT_COMPARED = "NOT verified: no box to compare; give images that show what the model was trained for (--image)"
DYNAMIC_SIDES = ((640, 640), (480, 640))  # a dynamic file is also run at sides of one stride, where maps have one pixel
MIN_STRIDE = 32  # the host exports no model for smaller multiples
# these change values or layout of the output, which can then not be compared with PyTorch's
UNSUPPORTED = ("half", "int8", "quantize", "nms", "batch")


@dataclass(frozen=True)
class Verification:
    """An exported file, the checks of its outputs, where they begin to differ, "" where they are alike, and whether it is there."""

    file: Path
    checks: list[OutputCheck]
    first: str = ""
    written: bool = True

    @property
    def compared(self) -> bool:
        """Whether there was anything to compare: of some files only confident boxes are."""
        return any(check.compared != 0 for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether all outputs are within tolerance, and there were any to compare."""
        return self.compared and all(check.passed for check in self.checks)

    def __str__(self) -> str:
        """Return the report: one line for each check, then the verdict."""
        differs = f"NOT equal to PyTorch{'' if self.written else ', and not written'}"
        verdict = "verified" if self.passed else differs if self.compared else NOT_COMPARED
        first = [self.first] if self.first else []
        return "\n".join([*map(str, self.checks), *first, f"{self.file}: {verdict}"])


def parse_arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` arguments as the `yolo` command does.

    Raises:
        UserError: If one of them has another form.
    """
    try:
        return dict(parse_key_value_pair(pair) for pair in pairs)
    except (AssertionError, ValueError) as error:
        raise UserError(f"{' '.join(pairs)}: give export arguments as key=value") from error


def export_and_verify(model: str, image: str = "", **arguments: Any) -> Verification:
    """Export a model to ONNX by the host's exporter and compare the file's outputs with PyTorch's; one that differs is not kept.

    Args:
        model: A checkpoint, or a model YAML with its scale letter.
        image: Image file to compare on; the host's sample where none is given.
        **arguments: Arguments of the host's export, such as `imgsz` and `dynamic`.

    Raises:
        UserError: If an argument is invalid, the outputs cannot be compared, or a file cannot be read.
    """
    require_runtime()
    validate_arguments(arguments)
    pixels = read_image(Path(image) if image else ASSETS / "bus.jpg")
    host.check_host()
    if model.endswith(".pt"):
        open_checkpoint(Path(model))  # raises a clear error for a file that is not a whole checkpoint
    else:
        build_from_yaml(model)  # raises one for a YAML without scale letter, or from which no model can be built
    yolo = YOLO(model)
    file = Path(model).with_suffix(".onnx") if model.endswith(".pt") else Path(f"{Path(model).stem}.onnx")
    require_writable(file, "the ONNX file")
    with temporary_folder("ghost-yolo-verify-") as folder:
        made = _export(yolo, folder / f"{Path(model).stem}.pt", arguments)
        verification = Verification(file, verify_outputs(yolo.model, made, pixels))
        if verification.compared and not verification.passed:
            return replace(verification, written=False)  # a good one that is there stays
        publish(made, file)
    return verification


def _export(yolo: YOLO, beside: Path, arguments: Mapping[str, Any]) -> Path:
    """Export a model and return the file, which the host writes beside a checkpoint that it does not read.

    Raises:
        UserError: If the export fails, or has no such argument.
    """
    yolo.model.pt_path = str(beside)
    try:
        return Path(yolo.export(format="onnx", **arguments))
    except Exception as error:  # wrong arguments, and whatever a layer or the exporter trips over
        raise UserError(f"{beside.stem} cannot be exported to ONNX: {first_line(error)}") from error


def require_runtime() -> None:
    """Check that onnx and onnxruntime are installed.

    Raises:
        UserError: If one is missing.
    """
    disable_telemetry()
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed; install with pip install 'ghost-yolo[export]'")


def validate_arguments(arguments: Mapping[str, Any]) -> None:
    """Check that the exported outputs can be compared with PyTorch's.

    Raises:
        UserError: If an argument changes their values or layout.
    """
    given = [name for name in UNSUPPORTED if arguments.get(name) and (name, arguments[name]) != ("batch", 1)]
    if arguments.get("format", "onnx") != "onnx":
        given.append(f"format={arguments['format']}")
    if given:
        raise UserError(f"{', '.join(given)}: only float32 ONNX files of batch 1 are verified; use `yolo export`.")


def verify_outputs(model: HostModel, file: Path, pixels: NDArray[np.uint8]) -> list[OutputCheck]:
    """Check the ONNX file's structure, then compare its outputs with the fused model's on noise and on an image.

    A static file is run at its own size, a dynamic one at `dynamic_sizes`.
    """
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape[2:]  # numbers, or names where dynamic
    sizes = [tuple(shape)] if all(isinstance(side, int) for side in shape) else dynamic_sizes(model)
    end2end = picks_boxes(model, describe_exported(file, "onnx").end2end)
    reference = as_exported(model, end2end)
    checks = []
    for size in sizes:
        for name, image in make_inputs(size, pixels, model.yaml.get("channels", 3)):
            with torch.inference_mode():
                expected = flatten(reference(torch.from_numpy(image)))
            found = session.run(None, {session.get_inputs()[0].name: image})
            checks.append(compare(found, expected, len(model.names), size, name, end2end=end2end))
    return checks


def dynamic_sizes(model: HostModel) -> list[tuple[int, int]]:
    """Return the sizes at which a dynamic file is run: large ones, one stride by ten, and one stride by one."""
    stride = max(int(max(model.stride)), MIN_STRIDE)
    large = [(-(-height // stride) * stride, -(-width // stride) * stride) for height, width in DYNAMIC_SIDES]
    return [*large, (stride, 10 * stride), (stride, stride)]


def picks_boxes(model: HostModel, exported: bool | None) -> bool:
    """Return whether a file has the boxes that an end-to-end head picks: as its metadata say, which older hosts leave out."""
    return bool(getattr(model.model[-1], "end2end", False)) if exported is None else exported


def as_exported(model: HostModel, end2end: bool | None = None) -> HostModel:
    """Return a fused copy whose head gives the outputs that the exporter writes.

    Args:
        model: The model.
        end2end: Of a head with two branches, whether the one that picks boxes was exported; as the head stands if None.

    Raises:
        UserError: If the installed Ultralytics cannot choose that branch.
    """
    copied = copy.deepcopy(model).to("cpu").float().eval()
    head = copied.model[-1]
    if end2end is not None and getattr(head, "one2one_cv2", None) is not None and bool(head.end2end) != end2end:
        try:
            head.end2end = end2end  # before fusing, which drops the other branch
        except AttributeError as error:
            raise UserError(
                f"the file has the {'picked' if end2end else 'raw'} boxes of a head with two branches, and the installed "
                "Ultralytics gives the others: export it with the Ultralytics that verifies it"
            ) from error
    fused = copied.fuse(verbose=False)
    head = fused.model[-1]
    head.export, head.format, head.dynamic = True, "onnx", True  # dynamic: anchors are computed for each size
    return fused


def make_inputs(size: tuple[int, int], pixels: NDArray[np.uint8], channels: int) -> Iterator[tuple[str, Array]]:
    """Yield seeded noise and the letterboxed image, each (1, channels, h, w) in 0..1.

    A model of other channels than three is given the image's in turn, as many as it takes.
    """
    yield "noise", np.random.RandomState(0).rand(1, channels, *size).astype(np.float32)
    image: Array = to_float(preprocess(pixels, size))[None].numpy()
    yield "image", np.ascontiguousarray(image[:, np.arange(channels) % image.shape[1]])


def flatten(output: Any) -> list[Array]:
    """Return the tensors of a model's output in order, as arrays."""
    if isinstance(output, torch.Tensor):
        return [output.numpy()]
    return [array for item in output for array in flatten(item)]

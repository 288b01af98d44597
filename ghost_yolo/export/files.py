"""The file that is deployed: a checkpoint exported for a runtime and a precision, of a fixed size."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ultralytics import YOLO

from ghost_yolo.accuracy.validate import first_line
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.errors import OutputExistsError, UserError
from ghost_yolo.utils.console import quiet
from ghost_yolo.utils.files import atomic_folder, current_folder, temporary_folder, write_atomic

PNNX_TEST = "*_ncnn.py"  # pnnx writes it beside a model: it imports torch, and names folders of this machine
PRECISIONS = ("fp32", "int8")
NO_NCNN_INT8 = "NCNN's quantizer (ncnn2table, ncnn2int8) is in neither of its Python packages, ncnn and pnnx"


def file_name(stem: str, runtime: str, precision: str) -> str:
    """Return the name of an exported file or folder, such as `fast_int8_openvino_model`; the host knows its runtime by it."""
    middle = "_int8" if precision == "int8" else ""
    return f"{stem}{middle}{RUNTIMES[runtime].suffix}"


def require_file(runtime: str, precision: str) -> None:
    """Check that files for a runtime can be made in a precision.

    Raises:
        UserError: If they cannot, or what is needed is not installed.
    """
    if runtime not in RUNTIMES:
        raise UserError(f"--runtime {runtime}: must be one of {', '.join(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision}: must be one of {', '.join(PRECISIONS)}")
    if precision == "int8" and runtime not in ("openvino", "onnx"):
        reason = f" ({NO_NCNN_INT8})" if runtime == "ncnn" else ""
        raise UserError(f"--precision int8: --runtime {runtime} has no INT8 files here{reason}; give openvino or onnx")
    RUNTIMES[runtime].require(precision)


def export_fp32(checkpoint: Path, folder: Path, runtime: str, size: tuple[int, int], **arguments: Any) -> Path:
    """Export a checkpoint as float32 by the host, and return the file or folder in `folder`.

    Args:
        checkpoint: The trained model.
        folder: Where the file is made.
        runtime: Key of RUNTIMES.
        size: Height and width in pixels.
        arguments: Further arguments of the host's export, such as `nms=False` for the end-to-end head of a YOLO26.

    Raises:
        UserError: If the export fails.
    """
    file = Path(shutil.copy(checkpoint, folder / "model.pt"))  # the host writes beside it
    if not RUNTIMES[runtime].format:
        return file
    where: Any = nullcontext()
    if runtime == "ncnn":  # pnnx writes and removes files in the current folder, where older hosts look for it, too
        where = current_folder(folder)
        for program in filter(Path.is_file, map(Path, ("pnnx", "pnnx.exe"))):
            shutil.copy(program, folder)
    try:
        with quiet(), where:
            settings = {"format": RUNTIMES[runtime].format, "imgsz": list(size), "batch": 1, "device": "cpu"}
            made = YOLO(str(file)).export(**settings, **arguments)
    except Exception as error:  # whatever a layer or a converter trips over
        raise UserError(f"{checkpoint} cannot be exported to {runtime}: {first_line(error)}") from error
    return Path(made)


def export_file(
    checkpoint: Path,
    out: Path,
    images: Sequence[Path],
    imgsz: int | tuple[int, int],
    runtime: str,
    precision: str,
    exclude: Sequence[str] = (),
) -> Path:
    """Write the file that is deployed, whole or not at all.

    Args:
        checkpoint: The trained model.
        out: The file or folder, named as `file_name` says; new.
        images: Calibration images for INT8, no labels.
        imgsz: Image side in pixels, or height and width.
        runtime: Key of RUNTIMES; `pytorch` gives a copy of the checkpoint.
        precision: `fp32` or `int8`.
        exclude: Names of modules that stay in float32 in an INT8 file.

    Raises:
        OutputExistsError: If `out` exists.
        UserError: If the export fails, or the INT8 file finds nothing.
    """
    from ghost_yolo.export.int8 import export_int8  # NNCF and its like, which float32 does not need

    require_file(runtime, precision)
    if precision == "int8":
        return export_int8(checkpoint, images, out, imgsz, runtime, exclude)
    if out.exists():
        raise OutputExistsError(f"{out} exists; move it away, or give another name")
    with temporary_folder("ghost-yolo-export-") as folder:
        size = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        publish(export_fp32(checkpoint, folder, runtime, size), out)
    return out


def publish(made: Path, out: Path) -> None:
    """Put a finished file or folder where it belongs."""
    if made.is_dir():
        with atomic_folder(out) as work:
            shutil.copytree(made, work, ignore=shutil.ignore_patterns(PNNX_TEST), dirs_exist_ok=True)
    else:
        write_atomic(out, made.read_bytes())

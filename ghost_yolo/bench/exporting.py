"""Create the files that are timed: build or load a model, then call the host's exporter. Runs in a worker process."""

from __future__ import annotations

import ast
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
import ultralytics
import yaml
from torch import nn
from torch.optim.swa_utils import update_bn
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.checks import check_yolov5u_filename

from ghost_yolo import host
from ghost_yolo.bench.plan import ModelInfo
from ghost_yolo.bench.runtimes import DEFAULT, RUNTIMES, file_mb, runtime_of
from ghost_yolo.errors import ModelNameError, UserError
from ghost_yolo.model.checkpoint import OpenedModel, build_from_yaml, open_checkpoint
from ghost_yolo.model.profile import count_gflops
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.files import atomic_folder, current_folder

BYTES_STRIPPED = 3  # per parameter, at most: fp16 takes 2, float32 or an optimizer's state more
BITS = {"fp32": 32, "fp16": 16, "int8": 8}  # the host's values for `quantize`


def prepare(model: str, folder: Path, nc: int | None, imgsz: int) -> ModelInfo:
    """Describe a model, and write it as a checkpoint into the folder unless it is an exported file.

    The stripped fp16 checkpoint, which is also what `yolo train` leaves, is written once: PyTorch runs it, the exporter
    reads it, and its size is the one reported.

    Args:
        model: A YAML, a checkpoint, or a file that the host exported.
        folder: A new folder.
        nc: Number of classes of a YAML's model, the YAML's own if None.
        imgsz: Image side in pixels.

    Raises:
        UserError: If the model cannot be found, loaded or built, or does not take images of that side.
    """
    runtime = runtime_of(model)
    if runtime:
        return describe_exported(Path(model), runtime)
    opened = _open(model, nc)
    opened.require_stride(imgsz)
    folder.mkdir()
    file = folder / check_yolov5u_filename(f"{Path(model).stem}.pt", verbose=False)  # the name that the host looks for
    _write_stripped(opened, Path(model), file)
    opened.model.fuse(verbose=False)
    gflops = count_gflops(opened.model, imgsz)
    points, mb = opened.kpt_shape, file_mb(file)
    return ModelInfo(
        str(file),
        opened.task,
        opened.scale,
        opened.nc,
        opened.channels,
        gflops,
        mb,
        kpt_shape=list(points) if points else None,
    )


def _write_stripped(opened: OpenedModel, source: Path, file: Path) -> None:
    """Write a model's stripped fp16 checkpoint; one that the user's file already is, by its size, is only linked."""
    parameters = sum(parameter.numel() for parameter in opened.model.parameters())
    if source.suffix == ".pt" and source.stat().st_size < BYTES_STRIPPED * parameters:
        with suppress(OSError):  # another disk, or a file system without links
            file.hardlink_to(source.resolve())
            return
    host.save(opened.model, file, {"task": opened.task})


def _open(model: str, nc: int | None) -> OpenedModel:
    """Load a checkpoint, or build a YAML's model from a fixed seed."""
    if model.endswith(".pt"):
        return open_checkpoint(Path(model))
    if not model.endswith((".yaml", ".yml")):
        suffixes = ", ".join(row.suffix for row in RUNTIMES.values())
        raise ModelNameError(f"{model} is neither a model YAML (.yaml) nor one of {suffixes}")
    torch.manual_seed(0)
    opened = build_from_yaml(model, nc)
    estimate_batchnorm_from_noise(opened.model)
    return opened


def estimate_batchnorm_from_noise(model: HostModel) -> None:
    """Estimate the BatchNorm statistics of an untrained model from noise.

    Without it, activations fade from layer to layer, and subnormal numbers can cost a CPU extra time.
    """
    device = next(model.parameters()).device
    update_bn([torch.rand(2, int(model.yaml.get("channels", 3)), 256, 256, device=device)], cast("nn.Module", model))
    model.eval()


def describe_exported(path: Path, runtime: str) -> ModelInfo:
    """Describe an exported file from the metadata that the host wrote.

    Raises:
        ModelNameError: If there is no such file.
        UserError: If the host did not export it.
    """
    if not path.is_file() and not path.is_dir():  # a pipe would wait for ever
        raise ModelNameError(f"{path} {'is not a regular file' if path.exists() else 'does not exist'}")
    try:
        found = read_metadata(path, runtime)
        arguments = found.get("args") or {}
        bits = arguments.get("quantize") or (8 if arguments.get("int8") else 16 if arguments.get("half") else 32)
        return ModelInfo(
            file=str(path.resolve()),
            task=found["task"],
            scale="",
            nc=len(found["names"]),
            channels=found.get("channels", 3),
            imgsz=found["imgsz"],
            batch=found["batch"],
            dynamic=bool(arguments.get("dynamic")),
            nms=bool(arguments.get("nms")),
            end2end=found.get("end2end"),
            kpt_shape=found.get("kpt_shape"),
            precision=next((name for name, width in BITS.items() if width == bits), "fp32"),
        )
    except UserError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(
            f"{path} cannot be read, or lacks the metadata that `yolo export` writes: {error!r:.200}"
        ) from error


def read_metadata(path: Path, runtime: str) -> dict[str, Any]:
    """Return the metadata that the host wrote into an exported file, or beside it."""
    if runtime != "onnx":
        return dict(yaml.safe_load((path / "metadata.yaml").read_text(encoding="utf-8")))
    RUNTIMES["onnx"].require("fp32", exporting=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    parsed = {
        name: ast.literal_eval(found[name])
        for name in ("names", "imgsz", "batch", "args", "end2end", "kpt_shape")
        if name in found
    }
    return {**found, "channels": int(found.get("channels", 3)), **parsed}


def export(checkpoint: Path, folder: Path, runtime: str, precision: str, imgsz: int, batch: int, data: str) -> Path:
    """Export a checkpoint by the host's exporter, and return the file or folder that the runtime opens.

    Args:
        checkpoint: A prepared model.
        folder: Folder of the export; it appears complete or not at all.
        runtime: Key of RUNTIMES.
        precision: fp32, fp16, int8 or default.
        imgsz: Image side in pixels.
        batch: Images in one forward pass.
        data: Dataset YAML for INT8 calibration.

    Raises:
        UserError: If the host does not export that, or what it needs is not installed.
    """
    row = RUNTIMES[runtime]
    row.require(precision)
    arguments = precision_arguments(row.format, precision)
    if precision == "int8":
        arguments["data"] = data
    yolo = ultralytics.YOLO(str(checkpoint))
    with atomic_folder(folder) as work:
        yolo.model.pt_path = str(work / checkpoint.name)  # the host writes beside this path; it does not read the file
        with current_folder(work):  # pnnx writes there
            made = yolo.export(format=row.format, imgsz=imgsz, batch=batch, device="cpu", **arguments)
    return folder / Path(made).relative_to(work)


def precision_arguments(export_format: str, precision: str) -> dict[str, Any]:
    """Return the installed host's export arguments for a precision.

    Raises:
        UserError: If this host would silently export another precision.
    """
    if precision in ("fp32", DEFAULT):
        return {}
    if "quantize" in DEFAULT_CFG_DICT:
        return {"quantize": BITS[precision]}
    if export_format == "onnx":
        raise UserError(
            f"Ultralytics {ultralytics.__version__} exports ONNX as fp32 only on a CPU; 8.4 exports {precision}"
        )
    return {"half": True} if precision == "fp16" else {"int8": True}

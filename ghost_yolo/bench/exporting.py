"""Make the files that are timed: build or load a model, then the host's own exporter. Runs in a process of its own."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import ultralytics
import yaml
from torch.optim.swa_utils import update_bn
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.checks import check_yolov5u_filename

from ghost_yolo.bench.runtimes import RUNTIMES, runtime_of
from ghost_yolo.errors import ModelNameError, UserError
from ghost_yolo.model import profile
from ghost_yolo.model.checkpoint import build_from_yaml, open_checkpoint
from ghost_yolo.utils.files import whole_folder

SCHEMES = {"fp16": 16, "int8": 8}  # the host's words for `quantize`


def prepare(model: str, folder: Path, nc: int, imgsz: int) -> dict[str, Any]:
    """Say what a model is, and save it as a checkpoint in the folder unless it is an exported file.

    Args:
        model: A YAML, a checkpoint, or a file that the host exported.
        folder: A new folder.
        nc: Classes of a YAML's model.
        imgsz: Image side in pixels.

    Raises:
        UserError: If the model cannot be found, loaded or built, or cannot take images of that side.
    """
    if runtime_of(model):
        return describe(Path(model), runtime_of(model))
    torch.manual_seed(0)
    if model.endswith(".pt"):
        subject = open_checkpoint(Path(model))
    elif model.endswith((".yaml", ".yml")):
        subject = build_from_yaml(model, nc)
        settle(subject.model)
    else:
        kinds = ", ".join(row.suffix for row in RUNTIMES.values())
        raise ModelNameError(f"{model} is neither a model YAML (.yaml) nor one of {kinds}")
    subject.require_stride(imgsz)
    folder.mkdir()
    file = folder / check_yolov5u_filename(f"{Path(model).stem}.pt", verbose=False)  # the name that the host looks for
    torch.save({"model": subject.model, "train_args": {}}, file)
    kb = profile.checkpoint_kb(subject.model)
    subject.model.fuse(verbose=False)
    return {
        "file": str(file),
        "task": subject.task,
        "scale": subject.scale,
        "nc": subject.nc,
        "channels": subject.channels,
        "gflops": profile.count_gflops(subject.model, imgsz),
        "file_mb": kb / 1024,
    }


def settle(model: Any) -> None:
    """Set the statistics of an untrained model's BN from noise.

    Untrained activations fade from layer to layer, and numbers next to nothing can cost a CPU extra time.
    """
    channels = getattr(model, "yaml", {}).get("channels", 3)
    update_bn([torch.rand(2, channels, 256, 256)], model)
    model.eval()


def describe(path: Path, runtime: str) -> dict[str, Any]:
    """Say what an exported file is, from what the host wrote into it.

    Raises:
        ModelNameError: If there is no such file.
        UserError: If the host did not export it.
    """
    if not path.exists():
        raise ModelNameError(f"{path} does not exist")
    try:
        said = metadata(path, runtime)
        arguments = said.get("args") or {}
        scheme = arguments.get("quantize") or (8 if arguments.get("int8") else 16 if arguments.get("half") else 32)
        return {
            "file": str(path.resolve()),
            "task": said["task"],
            "scale": "",
            "nc": len(said["names"]),
            "channels": said.get("channels", 3),
            "imgsz": said["imgsz"],
            "batch": said["batch"],
            "dynamic": bool(arguments.get("dynamic")),
            "precision": {16: "fp16", 8: "int8"}.get(scheme, "fp32"),
            "gflops": None,
        }
    except (KeyError, AttributeError, OSError) as error:
        raise UserError(f"{path} does not say what `yolo export` writes into its files: {error!r}") from error


def metadata(path: Path, runtime: str) -> dict[str, Any]:
    """Return what the host wrote into an exported file, or beside it."""
    if runtime != "onnx":
        return dict(yaml.safe_load((path / "metadata.yaml").read_text(encoding="utf-8")))
    RUNTIMES["onnx"].require("fp32", exporting=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    parsed = {name: ast.literal_eval(said[name]) for name in ("names", "imgsz", "batch", "args") if name in said}
    return {**said, "channels": int(said.get("channels", 3)), **parsed}


def export(checkpoint: Path, folder: Path, runtime: str, precision: str, imgsz: int, batch: int, data: str) -> Path:
    """Export a checkpoint by the host's exporter, and return the file or folder that the runtime opens.

    Args:
        checkpoint: A prepared model.
        folder: Where the export goes, complete or not at all.
        runtime: A word of RUNTIMES.
        precision: fp32, fp16 or int8.
        imgsz: Image side in pixels.
        batch: Images in one forward pass.
        data: Dataset YAML with which INT8 is calibrated.

    Raises:
        UserError: If the host does not export that, or what it needs is not installed.
    """
    row = RUNTIMES[runtime]
    row.require(precision)
    words = quantised(row.format, precision)
    if precision == "int8":
        words["data"] = data
    with whole_folder(folder) as work:
        os.chdir(work)  # pnnx leaves files where it stands
        copy = Path(shutil.copy(checkpoint, work))  # the host writes beside the checkpoint
        made = ultralytics.YOLO(str(copy)).export(format=row.format, imgsz=imgsz, batch=batch, device="cpu", **words)
        copy.unlink()
        os.chdir(checkpoint.parent)
    return folder / Path(made).relative_to(work)


def quantised(kind: str, precision: str) -> dict[str, Any]:
    """Return the words of the installed host for a precision.

    Raises:
        UserError: If this host would export something else without an error.
    """
    if precision == "fp32":
        return {}
    if "quantize" in DEFAULT_CFG_DICT:
        return {"quantize": SCHEMES[precision]}
    if kind == "onnx":
        raise UserError(
            f"Ultralytics {ultralytics.__version__} exports ONNX in fp32 only on a CPU; 8.4 exports {precision}"
        )
    return {"half": True} if precision == "fp16" else {"int8": True}

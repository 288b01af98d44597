"""Trained models as users hand them over: opened, and asked how they were trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics.utils.torch_utils import select_device

from ghost_yolo import host
from ghost_yolo.errors import ModelNameError, UserError
from ghost_yolo.model.catalog import resolve
from ghost_yolo.utils.console import quiet


def open_checkpoint(path: Path, device: str = "") -> Any:
    """Return a checkpoint's model in eval mode on a device, named as the host names them; the host's choice for "".

    Raises:
        UserError: If it is no checkpoint, or there is no such device.
    """
    if path.suffix != ".pt":
        raise UserError(f"{path} is not a checkpoint; give a trained model's .pt file.")
    model = from_checkpoint(path).model
    try:
        return model.to(select_device(device, verbose=False))
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--device {device}: {reason}; give cpu, or the number of a GPU.") from error


def trained_at(model: Any) -> int:
    """Return the image side in pixels with which a model was trained, 640 where it does not say."""
    args = getattr(model, "args", {})
    side = args.get("imgsz", 640) if isinstance(args, dict) else getattr(args, "imgsz", 640)
    return max(side) if isinstance(side, list | tuple) else int(side)


def require_channels(model: Any) -> None:
    """Raise an error for a model that does not take RGB."""
    channels = model.yaml.get("channels", 3)
    if channels != 3:
        raise UserError(f"The model takes {channels} channels and photographs have 3; give a model for RGB images.")


@dataclass(frozen=True)
class Subject:
    """A model ready to be measured."""

    name: str
    model: Any  # the host's BaseModel
    nc: int
    scale: str
    task: str


def from_yaml(name: str, nc: int, label: str = "") -> Subject:
    """Build the subject of a YAML: a file of the user's or ours, or a bare name, which is the host's.

    Raises:
        ModelNameError: If there is no such file, or it has several scales and its name does not say which.
        ModelError: If it cannot be built.
    """
    file, scale = resolve(name)
    config = host.read_yaml(file) | {"nc": nc, "scale": scale}
    with quiet():
        model = host.build(config)
    return Subject(label or name, model, nc, scale, host.task_of(model))


def from_checkpoint(path: Path) -> Subject:
    """Load the subject of a checkpoint; its classes and scale are its own.

    Raises:
        ModelNameError: If there is no such file: nothing is downloaded.
        ModelError: If it cannot be loaded.
    """
    if not path.is_file():
        raise ModelNameError(
            f"{path} does not exist. Checkpoints are not downloaded here; give the path of a local one."
        )
    with quiet():
        model = host.load(path)
    scale = model.yaml.get("scale") or next(iter(model.yaml.get("scales") or {}), "")  # as the host falls back
    return Subject(str(path), model, len(model.names), scale, host.task_of(model))


def require_stride(subject: Subject, imgsz: int) -> None:
    """Raise an error unless the model's stride divides the side."""
    stride = int(max(subject.model.stride))
    if imgsz % stride:
        near = imgsz // stride * stride
        either = f"{near} or {near + stride}" if near else stride
        raise UserError(f"{subject.name}: imgsz={imgsz} is not a multiple of its stride {stride}; give {either}")

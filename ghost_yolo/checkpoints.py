"""Trained models as users hand them over: opened, and asked how they were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultralytics.utils.torch_utils import select_device

from ghost_yolo.registry import UserError
from ghost_yolo.report.measure import from_checkpoint


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

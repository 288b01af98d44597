"""Models as users hand them over, YAML or checkpoint: opened once, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ultralytics.utils.torch_utils import select_device

from ghost_yolo import host
from ghost_yolo.errors import ModelNameError, UserError
from ghost_yolo.model.catalog import resolve
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.console import quiet


@dataclass(frozen=True)
class OpenedModel:
    """A model in eval mode, and what is known of it.

    Attributes:
        name: What it is called in tables and errors.
        model: The host's model.
        nc: Number of classes.
        scale: Scale letter, "" where its YAML has none.
        task: One of `host.MODELS`.
    """

    name: str
    model: HostModel
    nc: int
    scale: str
    task: str

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.model.yaml.get("channels", 3))

    @property
    def trained_imgsz(self) -> int:
        """Image side in pixels at which the model was trained, 640 where it does not say."""
        args = getattr(self.model, "args", {})
        side = args.get("imgsz", 640) if isinstance(args, dict) else getattr(args, "imgsz", 640)
        return max(side) if isinstance(side, list | tuple) else int(side)

    def require_stride(self, imgsz: int) -> None:
        """Raise an error unless the model's stride divides the side."""
        stride = int(max(self.model.stride))
        if imgsz % stride:
            near = imgsz // stride * stride
            either = f"{near} or {near + stride}" if near else stride
            raise UserError(f"{self.name}: imgsz={imgsz} is not a multiple of its stride {stride}; give {either}")

    def require_rgb(self) -> None:
        """Raise an error for a model that does not take RGB images."""
        if self.channels != 3:
            raise UserError(
                f"{self.name} takes {self.channels} channels and images have 3; give a model for RGB images."
            )


def build_from_yaml(name: str, nc: int, label: str = "") -> OpenedModel:
    """Build the untrained model of a YAML: a file of the user's or ours, or a bare name, which is the host's.

    Raises:
        ModelNameError: If there is no such file, or it has several scales and its name does not say which.
        ModelError: If it cannot be built.
    """
    file, scale = resolve(name)
    config = host.read_yaml(file) | {"nc": nc, "scale": scale}
    with quiet():
        model = host.build(config)
    return OpenedModel(label or name, model, nc, scale, host.task_of(model))


def open_checkpoint(path: Path, device: str | None = None) -> OpenedModel:
    """Load a checkpoint; its classes and scale are its own.

    Args:
        path: A `.pt` file; nothing is downloaded.
        device: Named as in `yolo`, "" for the host's choice; the CPU where None.

    Raises:
        ModelNameError: If there is no such file.
        ModelError: If it cannot be loaded.
        UserError: If it is no checkpoint, or there is no such device.
    """
    if path.suffix != ".pt":
        raise UserError(f"{path} is not a checkpoint; give a trained model's .pt file.")
    if not path.is_file():
        raise ModelNameError(
            f"{path} does not exist. Checkpoints are not downloaded here; give the path of a local one."
        )
    with quiet():
        model = host.load(path)
    if device is not None:
        model = model.to(find_device(device))
    scale = model.yaml.get("scale") or next(iter(model.yaml.get("scales") or {}), "")  # as the host falls back
    return OpenedModel(str(path), model, len(model.names), scale, host.task_of(model))


def find_device(device: str) -> str:
    """Return a device as torch names it.

    Raises:
        UserError: If there is no such device.
    """
    try:
        return str(select_device(device, verbose=False))
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--device {device}: {reason}; give cpu, or the number of a GPU.") from error

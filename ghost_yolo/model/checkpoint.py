"""Models as users hand them over, YAML or checkpoint: opened once, and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import ultralytics  # noqa: F401 (whole, before any part of it: another thread may be importing it just now)
from torch.utils._pytree import tree_leaves
from ultralytics.utils.torch_utils import select_device

from ghost_yolo import host
from ghost_yolo.errors import ModelError, ModelNameError, UserError
from ghost_yolo.model.catalog import resolve
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.bounded import MAX_TENSORS
from ghost_yolo.utils.console import quiet

TRIAL_CELLS = 4  # side of the smallest map in a trial pass; RT-DETR wants 300 cells in all
DEFAULT_NC = 80  # classes of a YAML that has no `nc:`


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
    def kpt_shape(self) -> tuple[int, ...] | None:
        """Keypoints of an object and numbers for each; None for a model without keypoints."""
        shape = self.model.yaml.get("kpt_shape") if self.task == "pose" else None
        return tuple(shape) if shape else None

    @property
    def trained_imgsz(self) -> int:
        """Image side in pixels at which the model was trained, 640 where it does not say.

        Raises:
            ModelError: If it says something else than a size.
        """
        args = getattr(self.model, "args", {})
        side = args.get("imgsz", 640) if isinstance(args, dict) else getattr(args, "imgsz", 640)
        sides: list[Any] = [*side] if isinstance(side, list | tuple) and side else [side]
        if not all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in sides):
            raise ModelError(f"{self.name} was trained at imgsz={side!r:.80}, which is no size: give --imgsz")
        return int(max(sides))

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


def build_from_yaml(name: str, nc: int | None = None, label: str = "", **changes: Any) -> OpenedModel:
    """Build the untrained model of a YAML: a file of the user's or ours, or a bare name, which is the host's.

    Args:
        name: The YAML, with its scale letter where it has scales.
        nc: Number of classes; the YAML's own if None, 80 where it has none.
        label: What it is called in tables; the name if empty.
        changes: Further keys of the YAML that are given another value.

    Raises:
        ModelNameError: If there is no such file, or it has several scales and its name does not say which.
        ModelError: If it cannot be built.
    """
    file, scale = resolve(name)
    config = host.read_yaml(file)
    nc = config.get("nc", DEFAULT_NC) if nc is None else nc
    if not isinstance(nc, int) or isinstance(nc, bool) or nc < 1:
        raise ModelError(f"{name} says nc: {nc!r:.80}; right is a number of classes of at least 1")
    with quiet():
        model = host.build(config | changes | {"nc": nc, "scale": scale})
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
    task = check_model(path, model)
    if device is not None:
        model = model.to(find_device(device))
    scale = model.yaml.get("scale") or next(iter(model.yaml.get("scales") or {}), "")  # as the host falls back
    return OpenedModel(str(path), model, len(model.names), scale, task)


def check_model(path: Path, model: HostModel) -> str:
    """Check once, for every command, that a checkpoint's model is whole, and return its task.

    Raises:
        ModelError: If its task is not supported, its YAML, class names, strides or channels are missing or impossible, or a
            weight is not finite.
    """
    try:
        task = host.task_of(model)
    except ModelError as error:
        raise ModelError(f"{path} holds {error}") from None
    for problem in _problems(model):
        raise ModelError(f"{path}: {problem}; {host.HOW_TO_GET_A_CHECKPOINT}")
    return task


def _problems(model: HostModel) -> Iterator[str]:
    """Yield what is wrong with a model; a later check may need what an earlier one found."""
    config, names = getattr(model, "yaml", None), getattr(model, "names", None)
    if not isinstance(config, dict) or not all(isinstance(config.get(part), list) for part in ("backbone", "head")):
        yield "its model has no YAML with `backbone:` and `head:`"
        return
    if len(config["backbone"]) + len(config["head"]) != len(model.model):
        yield "its model has another number of layers than its YAML has rows"
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        yield f"its class names are {names!r:.80}"
        return
    if set(names) != set(range(len(names))):
        yield f"its class names have the keys {[*names]!r:.80}, not 0 to {len(names) - 1}"
    channels = config.get("channels", 3)
    if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
        yield f"its YAML says channels: {channels!r:.80}"
    strides = getattr(model, "stride", None)
    if not isinstance(strides, torch.Tensor) or not strides.numel() or not bool((strides >= 1).all()):
        yield f"its strides are {strides!r:.80}"
    classes = getattr(model.model[-1], "nc", len(names))
    if classes != len(names):
        yield f"its head has {classes!r:.80} classes and it names {len(names)}"
    values = sum(value.numel() for value in model.state_dict().values())
    if values > MAX_TENSORS:  # one value, expanded, is a small file
        yield f"its weights have {values} values, and at most {MAX_TENSORS} are read"
    yield from (f"{name} is not finite" for name, value in model.state_dict().items() if not _is_finite(value))
    yield from _trial(model)


def _trial(model: HostModel) -> Iterator[str]:
    """Yield why a model does not compute on a small image: tensors of other sizes, a head without what it needs, NaN."""
    side, first = TRIAL_CELLS * int(max(model.stride)), next(model.parameters())
    head = vars(model.model[-1])
    before = dict(head)  # heads keep their anchors
    try:
        with torch.no_grad():
            shape = (1, int(model.yaml.get("channels", 3)), side, side)
            image = torch.linspace(0, 1, math.prod(shape), device=first.device).view(shape)  # in black, weights hide
            computed = model(image)
        if not all(_is_finite(leaf) for leaf in tree_leaves(computed) if isinstance(leaf, torch.Tensor)):
            yield "what it computes on an image is not finite"
    except Exception as error:  # noqa: BLE001 (whatever a layer trips over)
        yield f"it does not compute ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    finally:
        head.clear()
        head.update(before)


def _is_finite(tensor: torch.Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor infinity."""
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


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

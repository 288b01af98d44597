"""The feature maps of a model's layers and of the convolutions in its C2f rows, one image at a time; a map is handed on and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.data.images import read_image, resize_to_stride
from ghost_yolo.errors import UserError
from ghost_yolo.model.swap import HOSTS

Key = tuple[int, ...]  # a layer's index; and for a convolution in it its number, from 1
See = Callable[[Key, torch.Tensor], None]


@dataclass(frozen=True)
class Photos:
    """Images of one run, opened when they are needed: paths, the longer side in pixels, the model's stride."""

    paths: Sequence[Path]
    imgsz: int
    stride: int

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.paths)

    def open(self, number: int) -> torch.Tensor:
        """Return one image (1, 3, h, w)."""
        return resize_to_stride(read_image(self.paths[number]), self.imgsz, self.stride)


@dataclass(frozen=True)
class Layer:
    """A top-level layer that makes maps, or a convolution in one; height and width are those of the first image.

    Attributes:
        index: Of the top-level layer.
        module: Its class, or the convolution's name in it.
        channels: Maps.
        height: In pixels.
        width: In pixels.
        part: 0 for what the layer gives, else the convolution's number in it.
    """

    index: int
    module: str
    channels: int
    height: int
    width: int
    part: int = 0

    @property
    def key(self) -> Key:
        """What tells it from all others."""
        return (self.index, self.part) if self.part else (self.index,)


def look(model: Any, image: torch.Tensor, see: See) -> None:
    """Run one image through the model and show each place's maps (c, h, w), float32 on the CPU, as they are made.

    Args:
        model: The host's BaseModel.
        image: Tensor (1, 3, h, w).
        see: Is called with the place's key and its maps; it must not keep what it is given (later layers may write
            in place).
    """
    handles = []
    for key, (_, module) in places(model).items():

        def hook(_: nn.Module, __: Any, out: Any, key: Key = key) -> None:
            if isinstance(out, torch.Tensor) and out.ndim == 4:
                see(key, out[0].float().cpu())

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.inference_mode():
            model(image.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()


def places(model: Any) -> dict[Key, tuple[str, nn.Module]]:
    """Return name and module of each layer with weights, and of the spatial convolutions in the host's C2f and C3k2.

    Upsample and Concat only repeat the maps of others. The convolutions are what a light block makes otherwise; what the row
    itself gives has been mixed by its last 1x1 convolution.
    """
    found: dict[Key, tuple[str, nn.Module]] = {}
    for index, layer in enumerate(model.model):
        if any(True for _ in layer.parameters()):
            found[index,] = type(layer).__name__, layer
        if type(layer) in HOSTS.values():
            inner = [
                (name, m) for name, m in layer.named_modules() if isinstance(m, Conv) and max(m.conv.kernel_size) > 1
            ]
            found |= {(index, number): place for number, place in enumerate(inner, 1)}
    return found


def layers_of(model: Any, image: torch.Tensor) -> list[Layer]:
    """Return what makes at least two maps of more than one pixel: the layers, then the convolutions in them.

    Raises:
        UserError: If there are none.
    """
    found: list[Layer] = []
    known = places(model)

    def note(key: Key, maps: torch.Tensor) -> None:
        channels, height, width = maps.shape
        if channels > 1 and height * width > 1:
            found.append(Layer(key[0], known[key][0], channels, height, width, *key[1:]))

    look(model, image, note)
    if not found:
        raise UserError("No layer of this model makes feature maps; a model with convolutions, such as YOLOv8, does.")
    return sorted(found, key=lambda layer: (layer.part > 0, layer.key))


def pick(layers: Sequence[Layer], number: int) -> Layer:
    """Return the layer of that index.

    Raises:
        UserError: If it has no spatial map of its own.
    """
    for layer in layers:
        if layer.index == number:
            return layer
    choices = ", ".join(f"{layer.index} ({layer.module})" for layer in layers)
    raise UserError(f"--layer {number}: there is no such layer, or it makes no maps of its own; take one of {choices}.")


def first_stage(model: Any, layers: Sequence[Layer]) -> Layer:
    """Return the first layer of several convolutions, such as C2f: the paper looks at the first residual stage."""

    def convolutions(layer: Layer) -> int:
        return sum(isinstance(module, nn.Conv2d) for module in model.model[layer.index].modules())

    return next((layer for layer in layers if convolutions(layer) > 2), layers[0])  # a Ghost module alone has two


def calibrate(model: Any, photos: Photos, numbers: Sequence[int]) -> None:
    """Set every BN's running statistics to those of the images, as the first training steps would.

    An untrained network in eval mode would else shrink its maps from layer to layer until SiLU is a straight line.
    """
    update_bn((photos.open(number) for number in numbers), model, next(model.parameters()).device)
    model.eval()

"""Capture the feature maps of a model's layers and of the convolutions in its C2f rows.

One image at a time; maps are passed to a callback and never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.data.images import read_image, resize_to_stride
from ghost_yolo.errors import UserError
from ghost_yolo.model.swap import HOSTS
from ghost_yolo.typing import HostModel

SourceKey = tuple[int, ...]  # (layer index,) or (layer index, number of the convolution in it, from 1)
MapsCallback = Callable[[SourceKey, torch.Tensor], None]


@dataclass(frozen=True)
class SurveyImages:
    """Images of one survey, read when they are needed.

    Attributes:
        paths: Image files.
        imgsz: Longer side in pixels.
        stride: The model's largest stride; both sides become multiples of it.
    """

    paths: Sequence[Path]
    imgsz: int
    stride: int

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def load(self, index: int) -> torch.Tensor:
        """Return one image (1, 3, h, w), float32 in 0..1."""
        return resize_to_stride(read_image(self.paths[index]), self.imgsz, self.stride)


@dataclass(frozen=True)
class MapSource:
    """A module whose output maps are measured: a top-level layer, or a convolution in one.

    Attributes:
        index: Index of the top-level layer.
        module: Class name of the layer, or name of the convolution in it.
        channels: Number of maps.
        height: Height of the first image's maps, in pixels.
        width: Width of the first image's maps, in pixels.
        conv: 0 for the layer's own output, else the number of the convolution in it.
    """

    index: int
    module: str
    channels: int
    height: int
    width: int
    conv: int = 0

    @property
    def key(self) -> SourceKey:
        """Unique key of the source in its model."""
        return (self.index, self.conv) if self.conv else (self.index,)


def capture_maps(model: HostModel, image: torch.Tensor, callback: MapsCallback) -> None:
    """Run one image through the model and pass each source's maps to a callback.

    Args:
        model: The host's model.
        image: Tensor (1, 3, h, w).
        callback: Called with the source's key and its maps (c, h, w), float32 on the CPU, as soon as they are computed.
            It must not keep the tensor, since later layers may write in place.
    """
    handles = []
    for key, (_, module) in map_sources(model).items():

        def hook(_: nn.Module, __: Any, out: Any, key: SourceKey = key) -> None:
            if isinstance(out, torch.Tensor) and out.ndim == 4:
                callback(key, out[0].float().cpu())

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.inference_mode():
            model(image.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()


def map_sources(model: HostModel) -> dict[SourceKey, tuple[str, nn.Module]]:
    """Return name and module of each layer with weights, and of the spatial convolutions in the host's C2f and C3k2.

    Upsample and Concat have no weights and only repeat existing maps. A light block replaces the spatial convolutions
    of a row, while the output of the row is a mixture made by its last 1x1 convolution, so both are sources.
    """
    sources: dict[SourceKey, tuple[str, nn.Module]] = {}
    layers: list[Any] = [*model.model]
    for index, layer in enumerate(layers):
        if any(True for _ in layer.parameters()):
            sources[index,] = type(layer).__name__, layer
        if type(layer) in HOSTS.values():
            inner = [
                (name, m) for name, m in layer.named_modules() if isinstance(m, Conv) and max(m.conv.kernel_size) > 1
            ]
            sources |= {(index, number): source for number, source in enumerate(inner, 1)}
    return sources


def find_sources(model: HostModel, image: torch.Tensor) -> list[MapSource]:
    """Return the sources with at least two maps of more than one pixel: layers first, then convolutions in them.

    Raises:
        UserError: If there are none.
    """
    found: list[MapSource] = []
    known = map_sources(model)

    def add(key: SourceKey, maps: torch.Tensor) -> None:
        channels, height, width = maps.shape
        if channels > 1 and height * width > 1:
            found.append(MapSource(key[0], known[key][0], channels, height, width, *key[1:]))

    capture_maps(model, image, add)
    if not found:
        raise UserError("No layer of this model has feature maps; give a convolutional model such as YOLOv8.")
    return sorted(found, key=lambda source: (source.conv > 0, source.key))


def select_layer(layers: Sequence[MapSource], index: int) -> MapSource:
    """Return the layer with that index.

    Raises:
        UserError: If there is no such layer, or it has no feature maps.
    """
    for layer in layers:
        if layer.index == index:
            return layer
    choices = ", ".join(f"{layer.index} ({layer.module})" for layer in layers)
    raise UserError(f"--layer {index}: no such layer, or it has no feature maps of its own; choose one of {choices}.")


def first_stage(model: HostModel, layers: Sequence[MapSource]) -> MapSource:
    """Return the first layer of several convolutions, such as C2f.

    GhostNet's figure 1 (Han et al., arXiv 1911.11907) shows the maps of the first residual group.
    """

    def num_convolutions(layer: MapSource) -> int:
        return sum(isinstance(module, nn.Conv2d) for module in model.model[layer.index].modules())

    return next((layer for layer in layers if num_convolutions(layer) > 2), layers[0])  # a Ghost module alone has two


def reestimate_batchnorm(model: HostModel, images: SurveyImages, indices: Sequence[int]) -> None:
    """Set the running statistics of every BatchNorm to those of the images.

    Without this, an untrained network in eval mode shrinks its maps from layer to layer until SiLU is almost linear.
    """
    batches = (images.load(index) for index in indices)
    update_bn(batches, cast("nn.Module", model), next(model.parameters()).device)
    model.eval()

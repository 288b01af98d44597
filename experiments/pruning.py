"""A trained YOLOv8 with fewer channels by Torch-Pruning, set up as in its own YOLOv8 example.

That is DepGraph's group norm pruner with the magnitude of whole groups, the same share of every layer's channels, and an untouched
head (Fang et al., 2023, https://arxiv.org/abs/2301.12900). The dependency graph cannot follow C2f's `chunk`, so each C2f computes its
two halves by two convolutions while it is pruned. Afterwards they are one again: the pruned model has Ultralytics' own layers only.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from ultralytics.nn.modules import C2f, Conv

from ghost_yolo import host
from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.model.profile import count_gflops
from ghost_yolo.typing import HostModel

TRACED_SIDE = 64  # of the image with which the dependencies of layers are found; they are those at any size
HALVINGS = 6  # of the interval in which the share of channels is searched
MULTIPLE = 8  # of channels; the example has none, and odd widths would make the rival slow on CPUs
ROUNDING = 1e-6  # taken from a share, because Torch-Pruning cuts off what floats make of a whole number
# Of YOLOv8; others may be traced wrongly, or without end.
LAYERS = {"Conv", "C2f", "SPPF", "Upsample", "Concat", "Detect"}


class HalvedC2f(nn.Module):
    """C2f with a convolution for each half of its first one's output."""

    def __init__(self, block: C2f) -> None:
        """Take the layers of a C2f, which is used up."""
        super().__init__()
        self.first, self.second = (half(block.cv1, second) for second in (False, True))
        self.m, self.cv2 = block.m, block.cv2
        self.i, self.f = block.i, block.f

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute what C2f does."""
        y = [self.first(x), self.second(x)]
        for module in self.m:
            y.append(module(y[-1]))
        return cast("torch.Tensor", self.cv2(torch.cat(y, 1)))

    def to_c2f(self, block: C2f) -> C2f:
        """Return the C2f that computes the same, in place of the one from which the layers were taken.

        Raises:
            UserError: If the halves are no longer of one size.
        """
        widths = [conv.conv.out_channels for conv in (self.first, self.second)]
        if widths[0] != widths[1]:
            raise UserError(f"C2f in row {self.i}: its halves have {widths} channels, and C2f needs equal ones")
        block.cv1, block.m, block.cv2, block.c = join(self.first, self.second), self.m, self.cv2, widths[0]
        return block


def half(conv: Conv, second: bool) -> Conv:
    """Return a copy of a convolution with the first or second half of its output channels."""
    result, width = copy.deepcopy(conv), conv.conv.out_channels // 2
    for name, tensor in per_channel(result).items():
        set_tensor(result, name, tensor[width:] if second else tensor[:width])
    return with_width(result, width)


def join(first: Conv, second: Conv) -> Conv:
    """Return the convolution that computes the outputs of two convolutions side by side."""
    result, others = copy.deepcopy(first), per_channel(second)
    for name, tensor in per_channel(result).items():
        set_tensor(result, name, torch.cat([tensor, others[name]]))
    return with_width(result, first.conv.out_channels + second.conv.out_channels)


def per_channel(conv: Conv) -> dict[str, torch.Tensor]:
    """Return the tensors of convolution and BatchNorm by name; each has the output channels first."""
    return {name: tensor for name, tensor in conv.state_dict().items() if tensor.ndim}


def set_tensor(conv: Conv, name: str, tensor: torch.Tensor) -> None:
    """Replace a parameter or buffer by one of another shape."""
    path, _, attribute = name.rpartition(".")
    module = conv.get_submodule(path)
    tensor = tensor.clone()
    setattr(module, attribute, nn.Parameter(tensor) if attribute in dict(module.named_parameters()) else tensor)


def with_width(conv: Conv, width: int) -> Conv:
    """Return a convolution whose layers say how many output channels they have."""
    conv.conv.out_channels = conv.bn.num_features = width
    return conv


def replace_layers(model: HostModel, layers: Mapping[int, Any]) -> None:
    """Replace layers of a model by their index."""
    for index, layer in layers.items():
        model.model[index] = layer


def prune_channels(model: HostModel, ratio: float) -> HostModel:
    """Return a copy of a YOLOv8 detector without a share of each layer's channels.

    Raises:
        UserError: If Torch-Pruning is not installed, or it is another model.
    """
    try:
        import torch_pruning as tp
    except ImportError as error:
        raise UserError("Torch-Pruning is not installed: pip install torch-pruning") from error
    others = sorted({type(layer).__name__ for layer in model.model} - LAYERS)
    if others:
        raise UserError(f"pruning is set up for YOLOv8 detectors, and this model has {', '.join(others)}")
    pruned = copy.deepcopy(model).requires_grad_()
    blocks = {layer.i: layer for layer in pruned.model if isinstance(layer, C2f)}
    halved = {index: HalvedC2f(block) for index, block in blocks.items()}
    replace_layers(pruned, halved)
    settings: dict[str, Any] = {
        "importance": tp.importance.GroupMagnitudeImportance(),
        "pruning_ratio": ratio,
        "pruning_ratio_dict": ratios(pruned, ratio),
        "ignored_layers": [pruned.model[-1]],
    }
    with torch.enable_grad():  # by which the layers are traced
        tp.pruner.GroupNormPruner(pruned, torch.zeros(1, 3, TRACED_SIDE, TRACED_SIDE), **settings).step()
    replace_layers(pruned, {index: layer.to_c2f(blocks[index]) for index, layer in halved.items()})
    return pruned.requires_grad_(requires_grad=False).eval()


def ratios(model: HostModel, ratio: float) -> dict[nn.Module, float]:
    """Return the share of channels that each convolution loses, so that a multiple of MULTIPLE is left, and at least that."""
    result: dict[nn.Module, float] = {}
    for conv in (module for layer in model.model[:-1] for module in layer.modules() if isinstance(module, nn.Conv2d)):
        kept = max(round(conv.out_channels * (1 - ratio) / MULTIPLE), 1) * MULTIPLE
        result[conv] = max(1 - kept / conv.out_channels - ROUNDING, 0.0)
    return result


def prune_to(model: HostModel, gflops: float, imgsz: int) -> HostModel:
    """Return a copy of a model with at most so many GFLOPs and with as many channels as that allows.

    Raises:
        UserError: If the untouched head alone has more.
    """
    low, high, best = 0.0, 1.0, None
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        pruned = prune_channels(model, ratio)
        if count_gflops(copy.deepcopy(pruned), imgsz) <= gflops:
            high, best = ratio, pruned
        else:
            low = ratio
    if best is None:
        raise UserError(f"{gflops:.3f} GFLOPs cannot be reached: the head, which is not pruned, has too many of them")
    return best


def prune_checkpoint(weights: Path, gflops: float, imgsz: int, out: Path) -> None:
    """Write a checkpoint's model with at most so many GFLOPs at an image side."""
    model = open_checkpoint(weights).model
    host.save(prune_to(model, gflops, imgsz), out, dict(model.args) | {"task": host.task_of(model)})

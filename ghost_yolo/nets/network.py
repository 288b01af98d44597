"""What all networks share: a stem, stages and a head, and maps at strides 8, 16 and 32 for a detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn


class Network(nn.Module):
    """A classifier whose stages can be tapped. Input (b, 3, h, w), output (b, classes).

    Attributes:
        stem: The layers before the stages.
        stages: One module for each size of map, in order.
        head: The classifier.
        channels: Widths of the maps that `levels` give, P3, P4 and P5.
    """

    def __init__(self, stem: nn.Module, stages: Iterable[nn.Module], head: nn.Module, channels: Sequence[int]) -> None:
        """Register the parts in the order of timm and torchvision; see the attributes."""
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.head = head
        self.channels = tuple(channels)

    def levels(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return the modules, shared with the network, that make P3 of the image, P4 of P3 and P5 of P4.

        Each ends with the last map of its size: strides 8, 16 and 32. A network that does not end so has its own.
        """
        *early, p4, p5 = self.stages
        return nn.Sequential(self.stem, *early), nn.Sequential(p4), nn.Sequential(p5)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of strides 8, 16 and 32."""
        maps = []
        for level in self.levels():
            x = level(x)
            maps.append(x)
        return maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the classes' scores before the softmax."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


def pooled_head(c: int, num_classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Return the plainest head: average pool, dropout where there is any, the classes."""
    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *drop, nn.Linear(c, num_classes))


def check_positive(name: str, **values: float) -> None:
    """Raise a ValueError that names the first value that is not above 0."""
    for key, value in values.items():
        if value <= 0:
            raise ValueError(f"{name}: {key}={value} must be above 0")

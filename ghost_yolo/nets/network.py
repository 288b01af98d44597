"""What all networks share: a stem, stages and a head, and maps at strides 8, 16 and 32 for a detector."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class Network(nn.Module):
    """A classifier whose stages can be tapped. Input (b, 3, h, w), output (b, classes).

    Attributes:
        stem: What stands before the stages.
        stages: One module for each size of map, in order; the last three end at strides 8, 16 and 32.
        head: What makes classes of the last map.
    """

    def __init__(self, stem: nn.Module, stages: Iterable[nn.Module], head: nn.Module) -> None:
        """Put the three parts together, in the order in which timm and torchvision register theirs."""
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.head = head

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of strides 8, 16 and 32."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-3:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the classes' scores before the softmax."""
        return self.head(self.features(x)[-1])


def check_positive(name: str, **values: float) -> None:
    """Raise a ValueError that names the first value that is not above 0."""
    for key, value in values.items():
        if value <= 0:
            raise ValueError(f"{name}: {key}={value} must be above 0")

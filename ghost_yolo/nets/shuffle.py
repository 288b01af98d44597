"""ShuffleNetV1 (Zhang et al., CVPR 2018, arXiv 1707.01083): three stages of units, wider the more groups there are."""

from __future__ import annotations

from math import ceil

from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.shuffle import ShuffleUnit
from ghost_yolo.nets.network import Network, pooled_head

STEM = 24
WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # of stage 2 by groups, about the same cost for each (table 1)
STAGES = ((1, 4), (2, 8), (4, 4))  # width as a multiple of stage 2's, units; the first of a stage has stride 2


class ShuffleNetV1(Network):
    """The network of table 1. Input (b, 3, h, w), output (b, num_classes); stages at strides 8, 16, 32."""

    def __init__(self, num_classes: int = 1000, groups: int = 3, width: float = 1.0) -> None:
        """Build the network.

        Args:
            groups: Groups of the units' 1x1 convolutions: 1, 2, 3, 4 or 8.
            width: Multiplier of all widths (section 3.3); what the groups do not divide is rounded up.
            num_classes: Number of scores.

        Raises:
            ValueError: If the paper has no such network.
        """
        if groups not in WIDTHS:
            raise ValueError(f"{type(self).__name__}: groups={groups}; the paper gives widths for {[*WIDTHS]}")
        if width <= 0:
            raise ValueError(f"{type(self).__name__}: width={width} leaves no channel: give more than 0")
        c = ceil(STEM * width / groups) * groups
        stem = nn.Sequential(Conv(3, c, 3, 2, act=nn.ReLU(inplace=True)), nn.MaxPool2d(3, 2, 1))
        stages, channels = [], []
        for multiple, units in STAGES:
            c1, c = c, ceil(WIDTHS[groups] * width / groups) * groups * multiple
            # Stage 2 sees the stem's few channels: grouped, each filter would have next to none
            first = ShuffleUnit(c1, c, 2, groups, grouped=multiple > 1)
            stages.append(nn.Sequential(first, *(ShuffleUnit(c, c, 1, groups) for _ in range(units - 1))))
            channels.append(c)
        super().__init__(stem, stages, pooled_head(c, num_classes), channels)


def shufflenetv1(num_classes: int = 1000, groups: int = 3, width: float = 1.0) -> ShuffleNetV1:
    """Build ShuffleNet of a number of groups and a width multiplier; the paper gives 2.0, 1.5, 1.0, 0.5 and 0.25."""
    return ShuffleNetV1(num_classes, groups, width)

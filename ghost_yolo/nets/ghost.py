"""GhostNet (arXiv 1911.11907, table 1) and its successors GhostNetV2 (2211.12905) and GhostNetV3 (2404.11202).

One table of stages for all three: V2 adds attention from the third bottleneck on, V3 adds branches to every Ghost module.
Widths are those of timm's models of the same names.
"""

from __future__ import annotations

from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.ghost import GhostBottleneck, divisible_by_4
from ghost_yolo.blocks.ghostv2 import GhostBottleneckV2
from ghost_yolo.blocks.ghostv3 import GhostBottleneckV3, UngatedGhostBottleneckV3
from ghost_yolo.nets.network import Network, check_positive

STAGES = (  # one line a bottleneck: kernel, hidden width, output width, squeeze ratio, stride
    ((3, 16, 16, 0.0, 1),),
    (
        (3, 48, 24, 0.0, 2),
        (3, 72, 24, 0.0, 1),
    ),
    (
        (5, 72, 40, 0.25, 2),
        (5, 120, 40, 0.25, 1),
    ),
    (
        (3, 240, 80, 0.0, 2),
        (3, 200, 80, 0.0, 1),
        (3, 184, 80, 0.0, 1),
        (3, 184, 80, 0.0, 1),
        (3, 480, 112, 0.25, 1),
        (3, 672, 112, 0.25, 1),
    ),
    (
        (5, 672, 160, 0.25, 2),
        (5, 960, 160, 0.0, 1),
        (5, 960, 160, 0.25, 1),
        (5, 960, 160, 0.0, 1),
        (5, 960, 160, 0.25, 1),
    ),
)
STEM, LAST, HIDDEN = 16, 960, 1280  # widths before the stages, after them, and of the classifier's hidden layer
UNGATED = 2  # bottlenecks without attention at the beginning of V2 and V3


class GhostNet(Network):
    """The network of all three papers. Input (b, 3, h, w), output (b, classes); stages at strides 2, 4, 8, 16, 32."""

    def __init__(
        self,
        first: type[GhostBottleneck],
        later: type[GhostBottleneck],
        num_classes: int = 1000,
        width: float = 1.0,
        dropout: float = 0.2,
    ) -> None:
        """Build the network.

        Args:
            first: The first two bottlenecks.
            later: All other bottlenecks.
            num_classes: Number of classes.
            width: Multiplier of every width but the classifier's hidden one; widths stay multiples of 4.
            dropout: Share of the hidden layer that is dropped while training.

        Raises:
            ValueError: If there is no class or no width.
        """
        check_positive(type(self).__name__, num_classes=num_classes, width=width)
        c = divisible_by_4(STEM * width)
        stem = Conv(3, c, 3, 2, act=nn.ReLU(inplace=True))
        stages, channels, index = [], [], 0
        for rows in STAGES:
            stage = nn.Sequential()
            for k, mid, c2, se, s in rows:
                cls = first if index < UNGATED else later
                stage.append(cls(c, divisible_by_4(c2 * width), k, s, se=se, mid=divisible_by_4(mid * width)))
                c, index = divisible_by_4(c2 * width), index + 1
            stages.append(stage)
            channels.append(c)
        head = _head(c, divisible_by_4(LAST * width), num_classes, dropout)
        super().__init__(stem, stages, head, channels[-3:])


def _head(c1: int, last: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Return what follows the stages: widen, pool, a hidden layer, the classes."""
    return nn.Sequential(
        Conv(c1, last, act=nn.ReLU(inplace=True)),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(last, HIDDEN, 1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(HIDDEN, num_classes),
    )


def ghostnet(num_classes: int = 1000, width: float = 1.0, dropout: float = 0.2) -> GhostNet:
    """Return GhostNet; the paper's widths are 0.5, 1.0 and 1.3."""
    return GhostNet(GhostBottleneck, GhostBottleneck, num_classes, width, dropout)


def ghostnetv2(num_classes: int = 1000, width: float = 1.0, dropout: float = 0.2) -> GhostNet:
    """Return GhostNetV2; the paper's widths are 1.0, 1.3 and 1.6."""
    return GhostNet(GhostBottleneck, GhostBottleneckV2, num_classes, width, dropout)


def ghostnetv3(num_classes: int = 1000, width: float = 1.0, dropout: float = 0.2) -> GhostNet:
    """Return GhostNetV3 with its training branches; the host's `fuse()`, or `fuse_convs()` of each, merges them."""
    return GhostNet(UngatedGhostBottleneckV3, GhostBottleneckV3, num_classes, width, dropout)

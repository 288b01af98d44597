"""Xception (Chollet, CVPR 2017, arXiv 1610.02357): entry, middle and exit flow, for images of 299 x 299."""

from __future__ import annotations

from torch import nn
from ultralytics.nn.modules.conv import Conv
from ultralytics.utils.ops import make_divisible

from ghost_yolo.blocks.xception import SeparableConv, XceptionBlock
from ghost_yolo.nets.network import Network, check_positive, pooled_head

STEM = (32, 64)
STAGES = (  # output channels and separable convolutions of the blocks; the first of a stage has stride 2 (figure 5)
    ((128, 2),),
    ((256, 2),),
    ((728, 2), (728, 3), (728, 3), (728, 3), (728, 3), (728, 3), (728, 3), (728, 3), (728, 3)),
    ((1024, 2),),
)
LAST = (1536, 2048)  # separable convolutions of the exit flow, each with a ReLU


class Xception(Network):
    """The network of figure 5. Input (b, 3, h, w) with h and w at least 7, output (b, num_classes)."""

    def __init__(
        self, num_classes: int = 1000, dropout: float = 0.5, width: float = 1.0, *, padded: bool = False
    ) -> None:
        """Build the network.

        Args:
            num_classes: Number of scores.
            dropout: Share of the last widths that is dropped while training.
            width: Multiplier of all widths, which become multiples of 8; the paper has none.
            padded: Pad the two stem convolutions, which the paper does not: then the maps of a detector have
                strides of exactly 8, 16 and 32. The parameters are the same.

        Raises:
            ValueError: If there is no class or no width.
        """
        check_positive(type(self).__name__, num_classes=num_classes, width=width)
        p = 1 if padded else 0
        first, c = (_scaled(full, width) for full in STEM)
        stem = nn.Sequential(
            Conv(3, first, 3, 2, p=p, act=nn.ReLU(inplace=True)),
            Conv(first, c, 3, p=p, act=nn.ReLU(inplace=True)),
        )
        stages, channels = [], []
        for i, blocks in enumerate(STAGES):
            stage = nn.Sequential()
            late = i == len(STAGES) - 1  # the exit flow widens in its block's last convolution
            for j, (full, reps) in enumerate(blocks):
                c1, c = c, _scaled(full, width)
                stage.append(XceptionBlock(c1, c, 1 if j else 2, reps, relu=i > 0, late=late))
            stages.append(stage)
            channels.append(c)
        for full in LAST:
            c1, c = c, _scaled(full, width)
            stages[-1].extend([SeparableConv(c1, c), nn.ReLU(inplace=True)])
        super().__init__(stem, stages, pooled_head(c, num_classes, dropout), [*channels[1:3], c])


def _scaled(full: int, width: float) -> int:
    """Return a width times the multiplier, the next multiple of 8 as the host rounds."""
    return make_divisible(full * width, 8)


def xception(num_classes: int = 1000, dropout: float = 0.5, width: float = 1.0, *, padded: bool = False) -> Xception:
    """Build Xception, the paper's unless a width is given."""
    return Xception(num_classes, dropout, width, padded=padded)

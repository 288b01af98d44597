"""SqueezeNet (Iandola et al., 2016, arXiv 1602.07360): no fully connected layer, one Fire module after the other.

Version 1.1 is the authors' later one: the same accuracy for 2.4 times fewer operations.
"""

from __future__ import annotations

from torch import nn
from ultralytics.utils.ops import make_divisible

from ghost_yolo.blocks.fire import Fire
from ghost_yolo.nets.network import Network, check_positive

# Width and kernel of the stem; widths of the Fire modules between max pools, each squeezing to an eighth (tables 1 of paper
# and release)
VERSION_1_0 = (96, 7, ((128, 128, 256), (256, 384, 384, 512), (512,)))
VERSION_1_1 = (64, 3, ((128, 128), (256, 256), (384, 384, 512, 512)))


class SqueezeNet(Network):
    """The network of a table. Input (b, 3, h, w) with h and w at least 21 (17 for version 1.1), output (b, num_classes).

    Its stages stand at strides 4, 8 and 16.
    """

    def __init__(
        self,
        c: int,
        k: int,
        fires: tuple[tuple[int, ...], ...],
        num_classes: int = 1000,
        dropout: float = 0.5,
        width: float = 1.0,
        *,
        padded: bool = False,
    ) -> None:
        """Build a stem of c filters k x k with stride 2, pools and Fire modules, and the 1x1 classifier.

        Args:
            c: Width of the stem.
            k: Its kernel.
            fires: Widths of the Fire modules behind each max pool.
            num_classes: Number of scores.
            dropout: Share of the last widths that is dropped while training.
            width: Multiplier of all widths, which become multiples of 8; the paper has none.
            padded: Pad stem and pools, where the paper's stem has none and its pools round up: then the maps of a
                detector have strides of exactly 8 and 16. The parameters are the same.

        Raises:
            ValueError: If there is no class or no width.
        """
        check_positive(type(self).__name__, num_classes=num_classes, width=width)
        c = make_divisible(c * width, 8)
        stem = nn.Sequential(nn.Conv2d(3, c, k, 2, k // 2 if padded else 0), nn.ReLU(inplace=True))
        stages, channels = [], []
        for widths in fires:
            pool = nn.MaxPool2d(3, 2, 1) if padded else nn.MaxPool2d(3, 2, ceil_mode=True)
            stages.append(nn.Sequential(pool))
            for full in widths:
                c1, c = c, make_divisible(full * width, 8)
                stages[-1].append(Fire(c1, c))
            channels.append(c)
        head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Conv2d(c, num_classes, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        super().__init__(stem, stages, head, [*channels[1:], c])

    def levels(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return what makes P3, P4 and P5. The paper ends at stride 16, so P5 is P4 after one more of its max pools."""
        early, p3, p4 = self.stages
        return nn.Sequential(self.stem, early, p3), nn.Sequential(p4), nn.Sequential(nn.MaxPool2d(3, 2, 1))


def squeezenet1_0(
    num_classes: int = 1000, dropout: float = 0.5, width: float = 1.0, *, padded: bool = False
) -> SqueezeNet:
    """Build SqueezeNet 1.0, the paper's (section 3.3)."""
    return SqueezeNet(*VERSION_1_0, num_classes, dropout, width, padded=padded)


def squeezenet1_1(
    num_classes: int = 1000, dropout: float = 0.5, width: float = 1.0, *, padded: bool = False
) -> SqueezeNet:
    """Build SqueezeNet 1.1, as released after the paper."""
    return SqueezeNet(*VERSION_1_1, num_classes, dropout, width, padded=padded)

"""MobileNetV1 (Howard et al., 2017, arXiv 1704.04861): a stem and thirteen depthwise separable units.

Its second multiplier, of the resolution, is the image size: 224, 192, 160 or 128.
"""

from __future__ import annotations

from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.mobilenet import DepthwiseSeparable
from ghost_yolo.nets.network import Network, pooled_head

STEM = 32
UNITS = (  # output channels, stride (table 1)
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


class MobileNetV1(Network):
    """The network of table 1. Input (b, 3, h, w), output (b, num_classes); stages at strides 2, 4, 8, 16, 32."""

    def __init__(self, num_classes: int = 1000, width: float = 1.0, *, act: type[nn.Module] = nn.ReLU) -> None:
        """Build the network.

        Args:
            width: Multiplier of all widths (section 3.3).
            num_classes: Number of scores.
            act: Type of the activation; weights trained by timm ask for nn.ReLU6.

        Raises:
            ValueError: If the multiplier leaves the stem without a channel.
        """
        c = int(STEM * width)
        if c < 1:
            raise ValueError(
                f"{type(self).__name__}: width={width} leaves the stem no channel: give at least {1 / STEM}"
            )
        stem = Conv(3, c, 3, 2, act=act(inplace=True))
        stages, channels = [nn.Sequential()], [0]
        for full, s in UNITS:
            if s == 2:
                stages.append(nn.Sequential())
                channels.append(0)
            c1, c = c, int(full * width)
            stages[-1].append(DepthwiseSeparable(c1, c, 3, s, act=act))
            channels[-1] = c
        super().__init__(stem, stages, pooled_head(c, num_classes), channels[-3:])


def mobilenetv1(num_classes: int = 1000, width: float = 1.0, *, act: type[nn.Module] = nn.ReLU) -> MobileNetV1:
    """Build MobileNetV1 of a width multiplier; the paper gives 1.0, 0.75, 0.5 and 0.25."""
    return MobileNetV1(num_classes, width, act=act)

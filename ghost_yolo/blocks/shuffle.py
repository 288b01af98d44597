"""ShuffleNet: An Extremely Efficient CNN for Mobile Devices (Zhang et al., CVPR 2018, arXiv 1707.01083).

Grouped 1x1 convolutions are cheap but let no channel see another group; shuffling the channels between them does. For YOLO the
unit may also change its width without a stride; then nothing is added.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.shell import C2fShell

GROUPS = (1, 2, 3, 4, 8)  # what the paper tries (table 1)
MAX_DEFAULT_GROUPS = 4
NARROWING = 4  # the unit's inner width is this part of its output's


def channel_shuffle(x: torch.Tensor, g: int) -> torch.Tensor:
    """Deal the channels of g groups out in turn (section 3.1): (b, c, h, w) keeps its shape, and g divides c."""
    b, c, h, w = x.shape
    return x.reshape(b, g, c // g, h, w).transpose(1, 2).reshape(b, c, h, w)  # in between (b, c / g, g, h, w)


class ShuffleUnit(nn.Module):
    """The ShuffleNet unit (section 3.2): grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; add or concatenate; ReLU.

    Input (b, c1, h, w), output (b, c2, ceil(h / s), ceil(w / s)). With stride 1 the input is added where the width is kept;
    with stride 2 the averaged input makes the first c1 channels of the output and the convolutions the rest.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        s: int = 1,
        g: int | None = None,
        shortcut: bool = True,
        *,
        grouped: bool = True,
    ) -> None:
        """Build the unit.

        Args:
            c1: Input channels.
            c2: Output channels; more than c1 where the averaged input is concatenated.
            s: Stride of the depthwise convolution, 1 or 2.
            g: Groups of the 1x1 convolutions; by default the most up to 4 that divide all widths, 1 at odd ones. An inner
                width of c2 / 4 that g does not divide is rounded up.
            shortcut: Add or concatenate the input; without it the convolutions make all c2 channels.
            grouped: Group the first 1x1 convolution, too; the paper does not where a network's stem is narrow.

        Raises:
            ValueError: If s is neither 1 nor 2, c2 is too small, or g does not divide the channels.
        """
        super().__init__()
        name = type(self).__name__
        if s not in (1, 2):
            raise ValueError(f"{name}: s={s}; the shortcut's average pool knows strides 1 and 2")
        self.concat = shortcut and s == 2
        made = c2 - c1 if self.concat else c2
        if made < 1:
            raise ValueError(f"{name}: c2={c2}; the input's c1={c1} channels are part of the output, c2 must be more")
        self.g = _groups(name, g, [c1, made] if grouped else [made], c2 // NARROWING)
        mid = max(1, ceil(c2 // NARROWING / self.g)) * self.g
        self.cv1 = Conv(c1, mid, g=self.g if grouped else 1, act=nn.ReLU(inplace=True))
        self.dw = Conv(mid, mid, 3, s, g=mid, act=False)
        self.cv2 = Conv(mid, made, g=self.g, act=False)
        self.add = shortcut and s == 1 and c1 == c2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rectified sum of input and convolutions, or their concatenation with stride 2."""
        y = self.cv2(self.dw(channel_shuffle(self.cv1(x), self.g)))
        if self.concat:
            y = torch.cat((F.avg_pool2d(x, 3, 2, 1), y), 1)  # (b, c2, ceil(h / 2), ceil(w / 2))
        return F.relu(x + y if self.add else y)


def _groups(name: str, g: int | None, widths: list[int], mid: int) -> int:
    """Return the groups to use; raise a ValueError that names those of the paper which divide the widths."""
    fit = [n for n in GROUPS if not any(width % n for width in widths)]
    if g is None:
        return max(n for n in fit if n <= MAX_DEFAULT_GROUPS and mid % n == 0)
    if g < 1 or any(width % g for width in widths):
        channels = " and ".join(map(str, widths))
        raise ValueError(f"{name}: g={g} does not divide the {channels} channels; {', '.join(map(str, fit))} would do")
    return g


class C2f_ShuffleUnit(C2fShell):
    """C2f whose inner blocks are ShuffleNet units of stride 1.

    It computes y = relu(x + P2(D(shuffle(P1(x))))), both P grouped and the inner width a quarter. With g = 4 and m = c
    / 4, an inner block of width c has `c*m/g + 2*m + 9*m + 2*m + m*c/g + 2*c` parameters.

    Use it where the narrow inner width is enough; shuffling moves memory and multiplies
    nothing, so time falls less than GFLOPs.
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int | None = None, e: float = 0.5
    ) -> None:
        """Build the block; the arguments are the host's C2f's, g being the unit's groups.

        By default they are the most up to 4 that divide the hidden width: 4 at every scale of YOLOv8.
        """
        super().__init__(c1, c2, n, lambda c: ShuffleUnit(c, c, 1, g, shortcut), e)

"""Xception: Deep Learning with Depthwise Separable Convolutions (Chollet, CVPR 2017, arXiv 1610.02357).

Unlike MobileNet's, its separable convolution has nothing between the depthwise and the 1x1 part, ReLU comes before it, and
blocks of two or three carry a shortcut. In the C2f shell each inner block is one of the middle flow.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.shell import C2fShell, check_kernel, check_ungrouped


class SeparableConv(nn.Module):
    """Depthwise 3x3, then 1x1 and BN; nothing in between (section 4.7). Input (b, c1, h, w), output (b, c2, h, w)."""

    def __init__(self, c1: int, c2: int) -> None:
        """Build the convolution from c1 to c2 channels."""
        super().__init__()
        self.dw = nn.Conv2d(c1, c1, 3, padding=1, groups=c1, bias=False)
        self.pw = Conv(c1, c2, act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter each channel, mix them, normalise."""
        return self.pw(self.dw(x))


class XceptionBlock(nn.Module):
    """The residual block (section 3, figure 5): ReLU and separable convolution `reps` times, max pool where it strides.

    Input (b, c1, h, w), output (b, c2, ceil(h / s), ceil(w / s)); nothing follows the addition.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        s: int = 1,
        reps: int = 2,
        shortcut: bool = True,
        *,
        relu: bool = True,
        late: bool = False,
    ) -> None:
        """Build the block.

        Args:
            c1: Input channels.
            c2: Output channels.
            s: Stride of the 3x3 max pool behind the convolutions, 1 for none.
            reps: Number of separable convolutions, at least 1.
            shortcut: Add the input: itself where shape and width are kept, else through a 1x1 convolution and BN.
            relu: Begin with a ReLU; the paper's first block does not, its input is rectified.
            late: Change the width in the last convolution, as the exit flow does, and not in the first.

        Raises:
            ValueError: If reps or s is below 1.
        """
        super().__init__()
        check_kernel(type(self).__name__, 3, s)
        if reps < 1:
            raise ValueError(f"{type(self).__name__}: reps={reps}; a block has separable convolutions: give at least 1")
        widths = [c1] * reps + [c2] if late else [c1] + [c2] * reps
        self.add, self.relu, self.s = shortcut, relu, s
        self.shortcut = Conv(c1, c2, 1, s, act=False) if shortcut and (c1 != c2 or s > 1) else None
        self.m = nn.ModuleList(SeparableConv(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the separable convolutions' maps, pooled where the block strides, plus the shortcut."""
        y = x
        for i, conv in enumerate(self.m):
            y = conv(F.relu(y) if i or self.relu else y)  # not in place: the shortcut needs the input as it came
        if self.s > 1:
            y = F.max_pool2d(y, 3, self.s, 1)  # (b, c2, ceil(h / s), ceil(w / s))
        if not self.add:
            return y
        return y + (x if self.shortcut is None else self.shortcut(x))


class C2f_XceptionBlock(C2fShell):
    """C2f whose inner blocks are Xception's of stride 1.

    It computes y = x + P(D(relu(...))), a ReLU and a separable convolution three times. An inner block of width c has
    `3 * (9*c + c*c + 2*c)` parameters.

    Use it where more depth is wanted at less cost; with a shortcut the input itself passes from block to block, rectified
    nowhere.
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5, reps: int = 3
    ) -> None:
        """Build the block.

        Args:
            c1: Input channels.
            c2: Output channels.
            n: Number of inner blocks.
            shortcut: Residual additions in the inner blocks.
            g: Must be 1.
            e: Hidden width as a share of c2.
            reps: Separable convolutions in each inner block, three in the paper's middle flow.

        Raises:
            ValueError: If g is not 1 or reps is below 1.
        """
        check_ungrouped(type(self).__name__, g, "the depthwise convolution has a group for each channel already")
        super().__init__(c1, c2, n, lambda c: XceptionBlock(c, c, 1, reps, shortcut), e)

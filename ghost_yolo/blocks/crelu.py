"""Concatenated rectified linear units (Shang et al., ICML 2016, arXiv 1603.05201).

The first layers of a network learn filters in pairs of opposite sign, since ReLU throws the negative half of each away. CReLU
keeps both halves of every map, so that half of the filters do. It is meant for those first layers; for YOLO the input can be
added, and scale and shift, by which the two halves may differ, are PVANet's (arXiv 1608.08021).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.shell import C2fShell, check_channels, check_kernel, check_ungrouped


class CReLU(nn.Module):
    """A convolution of half the width, BN, its maps beside their negatives (section 2), ReLU.

    Input (b, c1, h, w), output (b, c2, ceil(h / s), ceil(w / s)) for odd k.
    """

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, affine: bool = False, shortcut: bool = False) -> None:
        """Build the unit.

        Args:
            c1: Input channels.
            c2: Output channels, at least 2; where it is odd, the last map goes without its negative.
            k: Kernel of the convolution.
            s: Its stride.
            affine: Scale and shift every channel before the ReLU.
            shortcut: Add the input where shape and width are kept.

        Raises:
            ValueError: If c2 is below 2, k is even or s is below 1.
        """
        super().__init__()
        check_channels(type(self).__name__, c2)
        check_kernel(type(self).__name__, k, s)
        self.c2 = c2
        self.conv = Conv(c1, (c2 + 1) // 2, k, s, act=False)
        # One dimension each: the host's optimizers take matrices for weights of layers
        self.scale = nn.Parameter(torch.ones(c2)) if affine else None
        self.shift = nn.Parameter(torch.zeros(c2)) if affine else None
        self.add = shortcut and c1 == c2 and s == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the positive and the negative halves of the maps, plus the input where it is added."""
        y = self.conv(x)  # (b, ceil(c2 / 2), h, w)
        y = torch.cat((y, -y), 1)[:, : self.c2]  # (b, c2, h, w)
        if self.scale is not None and self.shift is not None:
            y = y * self.scale[:, None, None] + self.shift[:, None, None]
        y = F.relu(y)
        return x + y if self.add else y


class C2f_CReLU(C2fShell):
    """C2f whose inner blocks are 3x3 convolutions of half the width with CReLU.

    It computes y = relu([z, -z]) with z = F(x), so that relu(z) - relu(-z) = z and no half is lost. An inner block of
    width c has `9*c * c/2 + 2 * c/2` parameters.

    Use it in the first stages, where the paper finds filters in pairs of opposite sign, and where dense 3x3
    convolutions run best; its single convolution leaves the
    model shallower than stock.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = False,
        g: int = 1,
        e: float = 0.5,
        affine: bool = False,
    ) -> None:
        """Build the block; the arguments are the host's C2f's, then CReLU's scale and shift. g must be 1."""
        check_ungrouped(type(self).__name__, g, "CReLU saves by halving the filters, not by groups")
        super().__init__(c1, c2, n, lambda c: CReLU(c, c, affine=affine, shortcut=shortcut), e)

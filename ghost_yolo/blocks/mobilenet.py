"""MobileNets: Efficient CNNs for Mobile Vision Applications (Howard et al., 2017, arXiv 1704.04861).

A standard convolution filters and mixes channels at once; the depthwise separable one filters each channel by itself, then
mixes them by a 1x1 convolution, for about 1/k^2 of the cost. The paper's units add nothing; for YOLO the input can be added.
"""

from __future__ import annotations

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.shell import C2fShell, check_kernel, check_ungrouped


class DepthwiseSeparable(nn.Module):
    """The depthwise separable unit (section 3.1, figure 3): depthwise k x k and 1x1, each with BN and ReLU.

    Input (b, c1, h, w), output (b, c2, ceil(h / s), ceil(w / s)) for odd k.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        shortcut: bool = False,
        *,
        act: type[nn.Module] = nn.ReLU,
    ) -> None:
        """Build the unit.

        Args:
            c1: Input channels.
            c2: Output channels.
            k: Kernel of the depthwise convolution.
            s: Its stride.
            shortcut: Add the input where shape and width are kept, which the paper does not.
            act: Type of the activation.

        Raises:
            ValueError: If k is even or s is below 1.
        """
        super().__init__()
        check_kernel(type(self).__name__, k, s)
        self.dw = Conv(c1, c1, k, s, g=c1, act=act(inplace=True))
        self.pw = Conv(c1, c2, act=act(inplace=True))
        self.add = shortcut and c1 == c2 and s == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mixed maps, plus the input where it is added."""
        y = self.pw(self.dw(x))
        return x + y if self.add else y


class C2f_DepthwiseSeparable(C2fShell):
    """C2f whose inner blocks are depthwise separable 3x3 units of stride 1.

    It computes y = P(D(x)), D filtering each channel and P mixing them, for 1/c + 1/9 of a dense 3x3 convolution's
    multiplications. An inner block of width c has `9*c + 2*c + c*c + 2*c` parameters.

    Use it where depth costs time: it has only two convolutions in a row.
    """

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5) -> None:
        """Build the block; the arguments are the host's C2f's, and g must be 1."""
        check_ungrouped(type(self).__name__, g, "the depthwise convolution has a group for each channel already")
        super().__init__(c1, c2, n, lambda c: DepthwiseSeparable(c, c, shortcut=shortcut), e)

"""FasterNet: Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks (Chen et al., CVPR 2023, arXiv 2303.03667).

A depthwise convolution saves operations and reads as much memory as a dense one, so it runs far below a machine's peak. The
partial convolution is dense, on a part of the channels, and leaves the others as they are; a 1x1 convolution then mixes all.
"""

from __future__ import annotations

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.shell import C2fShell, check_kernel, check_ungrouped


class SpatialMixing(nn.Module):
    """The partial convolution itself (section 3.2): k x k on the first c // n_div channels, the others untouched.

    Input and output (b, c, h, w). Neither BN nor activation, as published.
    """

    def __init__(self, c: int, k: int = 3, n_div: int = 4) -> None:
        """Build the convolution.

        Args:
            c: Channels.
            k: Kernel, odd.
            n_div: One of this many channels is convolved, at least one; the paper's is 4.

        Raises:
            ValueError: If n_div is below 1, or the kernel even.
        """
        super().__init__()
        check_kernel(type(self).__name__, k, 1)
        if n_div < 1:
            raise ValueError(
                f"{type(self).__name__}: n_div={n_div}; one of n_div channels is convolved: give 1 or more"
            )
        part = max(c // n_div, 1)
        self.part = part
        self.conv = nn.Conv2d(part, part, k, padding=k // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map with its first channels convolved."""
        return torch.cat((self.conv(x[:, : self.part]), x[:, self.part :]), 1)


class PartialConv(nn.Module):
    """A partial convolution and the 1x1 that mixes what it left (section 3.3, figure 5a), BN and ReLU.

    Input (b, c1, h, w), output (b, c2, h, w).
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        n_div: int = 4,
        shortcut: bool = False,
        *,
        act: type[nn.Module] = nn.ReLU,
    ) -> None:
        """Build the pair.

        Args:
            c1: Input channels.
            c2: Output channels.
            k: Kernel of the partial convolution.
            s: Its stride, which must be 1.
            n_div: One of this many channels is convolved.
            shortcut: Add the input where the width is kept.
            act: Type of the activation.

        Raises:
            ValueError: If s is not 1.
        """
        super().__init__()
        if s != 1:
            raise ValueError(
                f"{type(self).__name__}: s={s}; the untouched channels keep their size, so s must be 1: halve with a Conv"
            )
        self.spatial = SpatialMixing(c1, k, n_div)
        self.pw = Conv(c1, c2, act=act(inplace=True))
        self.add = shortcut and c1 == c2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mixed maps, plus the input where it is added."""
        y = self.pw(self.spatial(x))
        return x + y if self.add else y


class FasterBlock(nn.Module):
    """FasterNet's block (section 3.4, figure 4): partial 3x3, 1x1 to twice the width, BN, ReLU, 1x1 back, plus the input.

    Input and output (b, c, h, w).
    """

    def __init__(
        self, c: int, n_div: int = 4, expansion: float = 2.0, shortcut: bool = True, *, act: type[nn.Module] = nn.ReLU
    ) -> None:
        """Build the block.

        Args:
            c: Channels.
            n_div: One of this many channels is convolved.
            expansion: Hidden width of the 1x1 pair as a multiple of c.
            shortcut: Add the input, as published.
            act: Type of the activation.
        """
        super().__init__()
        hidden = int(c * expansion)
        self.widen = PartialConv(c, hidden, n_div=n_div, act=act)
        self.narrow = nn.Conv2d(hidden, c, 1, bias=False)
        self.add = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input plus what the block makes of it."""
        y = self.narrow(self.widen(x))
        return x + y if self.add else y


class C2f_PartialConv(C2fShell):
    """C2f whose inner blocks are partial 3x3 convolutions, each with its 1x1.

    It computes y = P([F(x1), x2]), F a dense 3x3 on the quarter x1 of the channels and P mixing all of them. With
    p = c // 4, an inner block of width c has `9*p*p + c*c + 2*c` parameters.

    Use it where a depthwise convolution waits for memory, on GPUs and in INT8; on CPUs its cut through the channels
    costs a change of layout, which `NarrowELAN` avoids.
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5, n_div: int = 4
    ) -> None:
        """Build the block; the arguments are the host's C2f's, then one channel of how many is convolved. g must be 1."""
        check_ungrouped(type(self).__name__, g, "a partial convolution saves by leaving channels alone")
        super().__init__(c1, c2, n, lambda c: PartialConv(c, c, n_div=n_div, shortcut=shortcut), e)


class C2f_FasterBlock(C2fShell):
    """C2f whose inner blocks are FasterNet's.

    It computes y = x + Q(P([F(x1), x2])), F a dense 3x3 on the quarter x1 of the channels, P widening twice and Q
    coming back. With p = c // 4, an inner block of width c has `9*p*p + 4*c*c + 4*c` parameters.

    Use it where the paper does, as a whole stage of its network; in a C2f its wide 1x1 pair still costs a quarter of the dense
    3x3 pair of a stock block.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = False,
        g: int = 1,
        e: float = 0.5,
        n_div: int = 4,
        expansion: float = 2.0,
    ) -> None:
        """Build the block; the arguments are the host's C2f's, then those of `FasterBlock`. g must be 1."""
        check_ungrouped(type(self).__name__, g, "a partial convolution saves by leaving channels alone")
        super().__init__(c1, c2, n, lambda c: FasterBlock(c, n_div, expansion, shortcut), e)

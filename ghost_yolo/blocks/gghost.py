"""G-Ghost: GhostNets on Heterogeneous Devices via Cheap Operations (Han et al., IJCV 2022, arXiv 2201.03297).

G-Ghost looks for redundancy between the blocks of a stage, not between the maps of one layer: most of the stage runs on a
share of the channels, and one cheap 1x1 convolution makes the rest from the stage's first block, corrected by a pooled
summary of all blocks. Inside the C2f shell each inner block is one whole stage of the shortest depth that is not plain.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.pooled import PooledConv
from ghost_yolo.blocks.shell import C2fShell, check_channels, check_ungrouped

RATIO = 0.5  # share of the stage's channels that is made cheaply
NARROWED = 0.75  # group width on the remaining channels, as a share of the stage's


class RegNetBottleneck(nn.Module):
    """RegNetX's bottleneck of width c2: 1x1, grouped 3x3, 1x1, addition, ReLU.

    Input (b, c1, h, w), output (b, c2, ceil(h / s), ceil(w / s)). A change of shape takes a 1x1 projection as shortcut.
    """

    def __init__(self, c1: int, c2: int, s: int = 1, gw: int = 16, shortcut: bool = True) -> None:
        """Build the bottleneck with groups of gw channels, one group where c2 is narrower."""
        super().__init__()
        groups = c2 // min(c2, gw)
        if c2 % groups:
            nearest = max(width for width in range(1, gw + 1) if c2 % width == 0)
            raise ValueError(
                f"{type(self).__name__}: gw={gw} does not divide c2={c2} into equal groups; gw={nearest} does"
            )
        self.cv1 = Conv(c1, c2, act=nn.ReLU(inplace=True))
        self.cv2 = Conv(c2, c2, 3, s, g=groups, act=nn.ReLU(inplace=True))
        self.cv3 = Conv(c2, c2, act=False)
        self.add = shortcut
        self.shortcut = Conv(c1, c2, 1, s, act=False) if shortcut and (c1 != c2 or s > 1) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rectified sum of the convolutions and the shortcut."""
        y = self.cv3(self.cv2(self.cv1(x)))
        if self.add:
            y = y + (x if self.shortcut is None else self.shortcut(x))
        return F.relu(y)


class GGhostStage(nn.Module):
    """A G-Ghost stage: base block, blocks on a share of the channels, cheap branch, end block.

    Input (b, c1, h, w), output (b, c2, ceil(h / s), ceil(w / s)).
    """

    def __init__(self, c1: int, c2: int, blocks: int = 3, s: int = 1, gw: int = 16, shortcut: bool = True) -> None:
        """Build the stage.

        Args:
            c1: Input channels.
            c2: Output channels, at least 2.
            blocks: Depth of the stage, base and end included; below 3 nothing is left to be cheap.
            s: Stride of the base block.
            gw: Group width; narrowed to three quarters, and to the share itself, on the share of the channels.
            shortcut: Residual additions in the bottlenecks.

        Raises:
            ValueError: If the stage is too short or a width cannot be grouped.
        """
        super().__init__()
        check_channels(type(self).__name__, c2)
        if blocks < 3:
            raise ValueError(
                f"{type(self).__name__}: blocks={blocks}; a stage of two or fewer stays plain: give at least 3"
            )
        if gw < 1:
            raise ValueError(f"{type(self).__name__}: gw={gw}; a group has at least one channel")
        complex_width = int(c2 * (1 - RATIO))
        narrow = max(1, min(int(gw * NARROWED), complex_width))
        self.raw = complex_width // narrow * narrow
        cheap = c2 - self.raw
        self.base = RegNetBottleneck(c1, c2, s, gw, shortcut)
        self.m = nn.ModuleList(RegNetBottleneck(self.raw, self.raw, 1, narrow, shortcut) for _ in range(blocks - 2))
        self.merge = nn.Sequential(
            PooledConv(c2 + self.raw * (blocks - 2), cheap, act=nn.ReLU(inplace=True)),
            PooledConv(cheap, cheap, act=False),
        )
        self.cheap = Conv(cheap, cheap, act=False)
        self.end = RegNetBottleneck(c2, c2, 1, gw, shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the end block's output on the narrow path beside the cheap maps."""
        x0 = self.base(x)  # (b, c2, h, w)
        outputs = [x0[:, : self.raw]]
        for block in self.m:
            outputs.append(block(outputs[-1]))  # (b, raw, h, w)
        pooled = [y.mean((2, 3), keepdim=True) for y in (x0, *outputs[1:])]
        ghosts = F.relu(self.cheap(x0[:, self.raw :]) + self.merge(torch.cat(pooled, 1)))  # (b, cheap, h, w)
        return self.end(torch.cat((outputs[-1], ghosts), 1))


class C2f_GGhostBottleneck(C2fShell):
    """C2f whose inner blocks are whole G-Ghost stages.

    A stage computes end([y, relu(C(x0[r:]) + M(pools))]), x0 being its first block's maps, y what further blocks make
    of the first r of them, and M a summary of all blocks. With r = c // 2 // 12 * 12 and h = c - r, an inner block of
    width c has `4*c*c + 300*c + 2*r*r + 114*r + (c + r)*h + 2*h*h + 6*h` parameters.

    Use it on GPUs, for which it was made: dense and grouped convolutions in place of depthwise ones. It saves the least
    here and is the deepest.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = False,
        g: int = 1,
        e: float = 0.5,
        blocks: int = 3,
        gw: int = 16,
    ) -> None:
        """Build the block; the first arguments are the host's C2f's.

        Args:
            c1: Input channels.
            c2: Output channels.
            n: Number of stages.
            shortcut: Residual additions in the stages' bottlenecks.
            g: Must be 1: the stages are grouped by width, see gw.
            e: Hidden width as a share of c2.
            blocks: Depth of each stage, at least 3.
            gw: Group width of the 3x3 convolutions.

        Raises:
            ValueError: If g is not 1 or a stage cannot be built.
        """
        check_ungrouped(type(self).__name__, g, "G-Ghost is grouped by width, gw")
        super().__init__(c1, c2, n, lambda c: GGhostStage(c, c, blocks, 1, gw, shortcut), e)

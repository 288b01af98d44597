"""The three light rows of a widely copied "YOLOv8 vs Ghost" table, as they were run; not blocks to build on.

They are kept to rebuild that table to the digit. What makes them differ from the papers: convolutions that the host's
`fuse()` does not know, an attention that is never reached, and a "G-Ghost" that is one depthwise bottleneck.
"""

from __future__ import annotations

import torch
from torch import nn

from ghost_yolo.blocks.shell import C2fShell


class PublishedConv(nn.Module):
    """Convolution, BN and a shared SiLU of its own, which the host's `fuse()` leaves alone."""

    default_act = nn.SiLU()

    def __init__(self, c1: int, c2: int) -> None:
        """Build a 1x1 convolution."""
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, 1, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = self.default_act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, normalise, activate."""
        return self.act(self.bn(self.conv(x)))


def conv_bn(c1: int, c2: int, k: int, g: int, act: bool) -> nn.Sequential:
    """Return convolution, BN and ReLU, or an idle container in the ReLU's place."""
    last = nn.ReLU(inplace=True) if act else nn.Sequential()
    return nn.Sequential(nn.Conv2d(c1, c2, k, padding=k // 2, groups=g, bias=False), nn.BatchNorm2d(c2), last)


class PublishedGhostModule(nn.Module):
    """Ghost module c -> c, ratio 2, cheap kernel 3; `gated` adds the sigmoid that the published V2 row never called."""

    def __init__(self, c: int, act: bool, gated: bool) -> None:
        """Build the module for an even width."""
        super().__init__()
        if gated:
            self.gate_fn = nn.Sigmoid()
        self.primary_conv = conv_bn(c, c // 2, 1, 1, act)
        self.cheap_operation = conv_bn(c // 2, c // 2, 3, c // 2, act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return intrinsic maps and ghosts."""
        y = self.primary_conv(x)
        return torch.cat((y, self.cheap_operation(y)), 1)


class PublishedGhostBottleneck(nn.Module):
    """Two Ghost modules of one width and the identity."""

    gated = False

    def __init__(self, c: int) -> None:
        """Build the bottleneck."""
        super().__init__()
        self.ghost1 = PublishedGhostModule(c, True, self.gated)
        self.ghost2 = PublishedGhostModule(c, False, self.gated)
        self.shortcut = nn.Sequential()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        return self.ghost2(self.ghost1(x)) + self.shortcut(x)


class PublishedGhostBottleneckV2(PublishedGhostBottleneck):
    """The same with two idle sigmoids."""

    gated = True


class PublishedGGhostBottleneck(nn.Module):
    """A RegNet bottleneck of group width 1; no G-Ghost stage is in it."""

    def __init__(self, c: int) -> None:
        """Build the bottleneck."""
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), nn.BatchNorm2d(c)
        self.conv3, self.bn3 = nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rectified sum."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + x)


class PublishedC2fGhost(C2fShell):
    """The row "C2f_GhostBottlenecks". The arguments after n are the host's C2f's and, as published, change nothing but e."""

    inner: type[nn.Module] = PublishedGhostBottleneck

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5) -> None:
        """Build the shell with convolutions that the host does not fuse."""
        super().__init__(c1, c2, n, self.inner, e)
        self.cv1, self.cv2 = PublishedConv(c1, 2 * self.c), PublishedConv((2 + n) * self.c, c2)


class PublishedC2fGhostV2(PublishedC2fGhost):
    """The row "C2f_GhostBottleneckV2s": the same, plus idle sigmoids."""

    inner = PublishedGhostBottleneckV2


class PublishedC2fGGhost(PublishedC2fGhost):
    """The row "C2f_g_ghostBottlenecks"."""

    inner = PublishedGGhostBottleneck

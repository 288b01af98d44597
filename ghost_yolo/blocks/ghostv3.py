"""GhostNetV3: Exploring the Training Strategies for Compact Models (Liu et al., 2024, arXiv 2404.11202).

While training, every convolution of GhostNetV2's bottleneck has several parallel branches; the host's `fuse()` merges
them into one, so that a deployed model costs what GhostNetV2 costs. As there, the attention is always on in the C2f shell.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from ultralytics.nn.modules.conv import Conv, RepConv

from ghost_yolo.blocks.ghost import C2f_GhostBottleneck, GhostBottleneck, GhostConv
from ghost_yolo.blocks.ghostv2 import GhostConvV2

BRANCHES = ("bn", "conv1", "conv2", "conv3", "scale")


class BranchedConv(RepConv):
    """A convolution in parallel branches (section 4.1), summed, then activated: the host's `fuse()` makes it one.

    Input (b, c1, h, w), output (b, c2, ceil(h / s), ceil(w / s)). Three convolutions are of the full kernel; a 1x1 one
    joins them where k > 1, and the normalised input itself where width and size are kept.
    """

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: nn.Module | bool = False) -> None:
        """Build the branches.

        Args:
            c1: Input channels.
            c2: Output channels.
            k: Kernel, odd: the 1x1 branch and the input must meet its centre.
            s: Stride.
            g: Groups of every branch.
            act: Activation of the sum, False for none.

        Raises:
            ValueError: If k is even.
        """
        nn.Module.__init__(self)  # not RepConv's own: it would build a 3x3 convolution only to throw it away
        if k % 2 == 0:
            raise ValueError(f"{type(self).__name__}: k={k}; parallel branches need an odd kernel (1, 3, 5, ...)")
        self.bn = nn.BatchNorm2d(c1) if c1 == c2 and s == 1 else None
        self.conv1 = Conv(c1, c2, k, s, g=g, act=False)  # the name by which the host knows what is not merged yet
        self.conv2 = Conv(c1, c2, k, s, g=g, act=False)
        self.conv3 = Conv(c1, c2, k, s, g=g, act=False)
        self.scale = Conv(c1, c2, 1, s, g=g, act=False) if k > 1 else None
        self.act = act if isinstance(act, nn.Module) else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activated sum of the branches; the host puts `forward_fuse` in its place once they are merged."""
        y = self.conv1(x) + self.conv2(x) + self.conv3(x)
        if self.scale is not None:
            y = y + self.scale(x)
        if self.bn is not None:
            y = y + self.bn(x)
        return self.act(y)

    def fuse_convs(self) -> None:
        """Merge the branches into one biased convolution called `conv`. Calling it again changes nothing."""
        if hasattr(self, "conv"):
            return
        kernel, bias = self.get_equivalent_kernel_bias()
        conv = self.conv1.conv
        conv.weight, conv.bias = nn.Parameter(kernel), nn.Parameter(bias)
        for name in BRANCHES:
            delattr(self, name)
        self.conv = conv.requires_grad_(False)

    @torch.no_grad()
    def get_equivalent_kernel_bias(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed kernel (c2, c1 / g, k, k) and bias (c2,) of all branches."""
        merged = [_merged(branch) for branch in (self.conv1, self.conv2, self.conv3)]
        pad = merged[0][0].shape[-1] // 2
        if self.scale is not None:
            kernel, bias = _merged(self.scale)
            merged.append((F.pad(kernel, [pad] * 4), bias))
        if self.bn is not None:
            merged.append(_folded(_identity(merged[0][0]), None, self.bn))
        kernels, biases = zip(*merged, strict=True)
        return torch.stack(kernels).sum(0), torch.stack(biases).sum(0)


def _merged(branch: Conv) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a branch's kernel and bias, whether or not the host has merged its BN before (as it does under QAT)."""
    conv = branch.conv
    return _folded(conv.weight, conv.bias, branch.bn) if hasattr(branch, "bn") else (conv.weight, conv.bias)


def _folded(kernel: torch.Tensor, bias: torch.Tensor | None, bn: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return kernel and bias with a BN's statistics and weights in them."""
    return fuse_conv_bn_weights(kernel, bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)


def _identity(kernel: torch.Tensor) -> torch.Tensor:
    """Return the kernel that hands each channel through, of the given one's size and groups."""
    c2, share, k, _ = kernel.shape  # share: input channels of one group
    same, channels = torch.zeros_like(kernel), torch.arange(c2, device=kernel.device)
    same[channels, channels % share, k // 2, k // 2] = 1
    return same


class GhostConvV3(GhostConv):
    """A Ghost module whose two convolutions are branched. Input and output as GhostConv's."""

    convolution = BranchedConv


class GatedGhostConvV3(GhostConvV2):
    """The same times GhostNetV2's DFC attention, which has no branches."""

    convolution = BranchedConv


class UngatedGhostBottleneckV3(GhostBottleneck):
    """The Ghost bottleneck with branches and without attention, as the paper's network begins."""

    expand: type[GhostConv] = GhostConvV3
    project = GhostConvV3
    convolution = BranchedConv


class GhostBottleneckV3(UngatedGhostBottleneckV3):
    """The bottleneck of GhostNetV3: attention on the widening module, branches everywhere but on the shortcut."""

    expand = GatedGhostConvV3


class C2f_GhostBottleneckV3(C2f_GhostBottleneck):
    """C2f whose inner blocks are GhostNetV3 bottlenecks of stride 1, attention on.

    A branched convolution computes the sum of parallel ones, each with its BN, and since all are linear, one kernel is
    their sum. With i = c / 2, an inner block of width c has `2 * (3*c*i + 6*i) + 2 * (28*i + 10*i) + c*c + 16*c`
    parameters while training, and GhostNetV2's once fused.

    Use it where training may cost more and the deployed model may not: fuse before you measure.
    """

    bottleneck = GhostBottleneckV3

"""GhostNet: More Features from Cheap Operations (Han et al., CVPR 2020, arXiv 1911.11907).

For YOLO the bottleneck keeps its width inside the C2f shell, where the paper's network expands it.
"""

from __future__ import annotations

from inspect import signature
from math import ceil

import torch
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.shell import C2fShell, check_channels, check_kernel

Activation = type[nn.Module] | None


def activation(act: Activation) -> nn.Module | bool:
    """Return what the host's Conv takes as its `act`: a new module, in place where the type can be, or False for none."""
    if act is None:
        return False
    return act(inplace=True) if "inplace" in signature(act).parameters else act()


def divisible_by_4(width: float) -> int:
    """Return the nearest multiple of 4, the next one where that would take more than a tenth away; at least 4."""
    nearest = max(4, int(width + 2) // 4 * 4)
    return nearest + 4 if nearest < 0.9 * width else nearest


class GhostConv(nn.Module):
    """The Ghost module (section 3.1): a convolution makes a share of the maps, a cheap depthwise one makes the rest.

    Input (b, c1, h, w), output (b, c2, ceil(h / s), ceil(w / s)) for odd k.
    """

    convolution: type[nn.Module] = Conv  # of both; GhostNetV3 puts its parallel branches here

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        ratio: int = 2,
        d: int = 3,
        g: int = 1,
        *,
        act: Activation = nn.ReLU,
    ) -> None:
        """Build the module.

        Args:
            c1: Input channels.
            c2: Output channels, at least 2; where the ratio does not divide it, surplus maps are cut off.
            k: Kernel of the primary convolution.
            s: Stride of the primary convolution.
            ratio: One map in `ratio` is intrinsic, the others are its ghosts; at least 2.
            d: Kernel of the cheap convolution, odd.
            g: Groups of the primary convolution.
            act: Type of the activation, None for none.

        Raises:
            ValueError: If c2, ratio, d or g is invalid.
        """
        super().__init__()
        check_channels(type(self).__name__, c2)
        if ratio < 2:
            raise ValueError(f"{type(self).__name__}: ratio={ratio}; one map in `ratio` is intrinsic: give at least 2")
        if d < 1 or d % 2 == 0:
            raise ValueError(
                f"{type(self).__name__}: d={d}; the cheap kernel must be odd (1, 3, 5, ...) to keep the size"
            )
        intrinsic = ceil(c2 / ratio)
        if k < 1 or s < 1:
            raise ValueError(f"{type(self).__name__}: k={k}, s={s}; kernel and stride are at least 1")
        if g < 1 or c1 % g or intrinsic % g:
            raise ValueError(f"{type(self).__name__}: g={g} must divide c1={c1} and the {intrinsic} intrinsic channels")
        self.c2 = c2
        self.surplus = intrinsic * ratio > c2
        self.cv1 = self.convolution(c1, intrinsic, k, s, g=g, act=activation(act))
        self.cv2 = self.convolution(intrinsic, intrinsic * (ratio - 1), d, 1, g=intrinsic, act=activation(act))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the intrinsic maps and their ghosts, the first c2 of them."""
        y = self.cv1(x)  # (b, ceil(c2 / ratio), h, w)
        y = torch.cat((y, self.cv2(y)), 1)  # (b, at least c2, h, w)
        return y[:, : self.c2] if self.surplus else y


class SqueezeExcite(nn.Module):
    """Channel gate with a hard sigmoid (section 3.2). torchvision has one, but loading torchvision takes a second."""

    def __init__(self, c: int, ratio: float = 0.25) -> None:
        """Squeeze c channels to a `ratio` of them, as a multiple of 4, and back."""
        super().__init__()
        squeezed = divisible_by_4(c * ratio)
        self.fc1 = nn.Conv2d(c, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, c, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale each channel of (b, c, h, w) by its gate."""
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))  # (b, c, 1, 1)
        return x * F.hardsigmoid(gate)


class GhostBottleneck(nn.Module):
    """The Ghost bottleneck (section 3.2): expand by a Ghost module, stride, squeeze-and-excite, project by another.

    Nothing follows the addition. Input (b, c1, h, w), output (b, c2, ceil(h / s), ceil(w / s)).
    """

    expand: type[GhostConv] = GhostConv  # the module that widens; GhostNetV2 puts its attention here
    project: type[GhostConv] = GhostConv  # the module that narrows
    convolution: type[nn.Module] = Conv  # the depthwise one of a stride; GhostNetV3 puts its parallel branches here

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        e: float = 1.0,
        se: float = 0.0,
        shortcut: bool = True,
        g: int = 1,
        *,
        mid: int | None = None,
        act: Activation = nn.ReLU,
    ) -> None:
        """Build the bottleneck.

        Args:
            c1: Input channels.
            c2: Output channels.
            k: Kernel of the depthwise convolutions, used where the stride or the shortcut needs one.
            s: Stride.
            e: Hidden width as a multiple of c2.
            se: Squeeze-and-excite ratio, 0 for none.
            shortcut: Add the input: itself where shape and width are kept, else through depthwise and 1x1 convolutions.
            g: Groups of the primary convolutions.
            mid: Hidden width, as the paper's table gives it; replaces e.
            act: Type of the activation, None for none.

        Raises:
            ValueError: If the kernel is even, or the stride below 1.
        """
        super().__init__()
        check_kernel(type(self).__name__, k, s)
        mid = int(c2 * e) if mid is None else mid
        self.ghost1 = self.expand(c1, mid, g=g, act=act)
        self.dw = self.convolution(mid, mid, k, s, g=mid, act=False) if s > 1 else None
        self.se = SqueezeExcite(mid, se) if se > 0 else None
        self.ghost2 = self.project(mid, c2, g=g, act=None)
        self.add = shortcut
        self.shortcut = None  # the input itself, where shape and width are kept
        if shortcut and (c1 != c2 or s > 1):
            self.shortcut = nn.Sequential(Conv(c1, c1, k, s, g=c1, act=False), Conv(c1, c2, act=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the projection, plus the shortcut where there is one."""
        y = self.ghost1(x)
        if self.dw is not None:
            y = self.dw(y)
        if self.se is not None:
            y = self.se(y)
        y = self.ghost2(y)
        if not self.add:
            return y
        return y + (x if self.shortcut is None else self.shortcut(x))


class C2f_GhostBottleneck(C2fShell):
    """C2f whose inner blocks are Ghost bottlenecks of stride 1.

    Each Ghost module computes y = [p, D(p)] with p = P(x), P making half of the maps and D one more from each of them.
    With i = c / 2, an inner block of width c has `2 * (c*i + 2*i) + 2 * (9*i + 2*i)` parameters.

    Use it as the plain first choice: 1x1 and depthwise convolutions, a concatenation, an addition, and nothing else.
    """

    bottleneck: type[GhostBottleneck] = GhostBottleneck

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5) -> None:
        """Build the block; the arguments are the host's C2f's, g being the groups of the primary convolutions."""
        super().__init__(c1, c2, n, lambda c: self.bottleneck(c, c, shortcut=shortcut, g=g), e)

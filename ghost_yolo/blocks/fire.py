"""SqueezeNet: AlexNet-level accuracy with 50x fewer parameters (Iandola et al., 2016, arXiv 1602.07360).

Most of a Fire module's 3x3 filters become 1x1, and all of them see few channels. As published its convolutions have a bias
and no BN; in the C2f shell the host's own convolutions around it normalise.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ghost_yolo.blocks.shell import C2fShell, check_channels, check_ungrouped


class Fire(nn.Module):
    """The Fire module (section 3.2): squeeze by 1x1, expand by 1x1 and 3x3 side by side, ReLU after each.

    Input (b, c1, h, w), output (b, c2, h, w).
    """

    def __init__(self, c1: int, c2: int, squeeze: float = 0.125, expand: float = 0.5, shortcut: bool = False) -> None:
        """Build the module.

        Args:
            c1: Input channels.
            c2: Output channels, at least 2.
            squeeze: Squeezed channels as a share of c2 (the paper's SR, section 5.2), at least one; up to 1.
            expand: Share of c2 that 3x3 filters make (pct_3x3, section 5.3), strictly between 0 and 1; where c2 is odd, the
                1x1 filters make one more.
            shortcut: Add the input where the width is kept (simple bypass, section 6).

        Raises:
            ValueError: If c2 or a share is out of range.
        """
        super().__init__()
        check_channels(type(self).__name__, c2)
        wide = int(c2 * expand)
        if not 0 < squeeze <= 1:
            raise ValueError(f"{type(self).__name__}: squeeze={squeeze} is a share of c2: give more than 0, up to 1")
        if not 0 < wide < c2:
            raise ValueError(
                f"{type(self).__name__}: expand={expand} leaves {wide} of c2={c2} channels to 3x3 filters; "
                "both kinds need at least one"
            )
        squeezed = max(1, int(c2 * squeeze))
        self.squeeze = nn.Conv2d(c1, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, c2 - wide, 1)
        self.expand3 = nn.Conv2d(squeezed, wide, 3, padding=1)
        self.add = shortcut and c1 == c2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the 1x1 filters' maps and the 3x3 filters', plus the input where it is added."""
        y = F.relu(self.squeeze(x))  # (b, c2 * squeeze, h, w)
        y = F.relu(torch.cat((self.expand1(y), self.expand3(y)), 1))  # (b, c2, h, w)
        return x + y if self.add else y


class C2f_Fire(C2fShell):
    """C2f whose inner blocks are Fire modules.

    It computes y = relu([A(s), B(s)]) with s = relu(S(x)), S squeezing by 1x1, A and B expanding by 1x1 and 3x3. With s
    = c / 8 and h = c / 2, an inner block of width c has `c*s + s + s*h + h + 9*s*h + h` parameters.

    Use it where depthwise convolutions are slow or unsupported: all of its convolutions are dense. Without BN inside,
    watch the first epochs of a training from scratch.
    """

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5) -> None:
        """Build the block; the arguments are the host's C2f's, and g must be 1."""
        check_ungrouped(type(self).__name__, g, "a Fire module saves by squeezing, not by groups")
        super().__init__(c1, c2, n, lambda c: Fire(c, c, shortcut=shortcut), e)

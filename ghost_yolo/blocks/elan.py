"""ELAN with narrow dense convolutions: a light block that keeps its gain on a CPU, measured in `results/`.

The efficient layer aggregation network (Wang et al., YOLOv7, arXiv 2207.02696, section 4.1) is what C2f descends from: two 1x1
convolutions, a chain of 3x3 convolutions behind one of them, everything concatenated and fused by a 1x1. C2f makes its two
parts by splitting one map, for which a CPU runtime leaves its blocked layout and comes back; here they are made apart, as in
ELAN. Each 3x3 works on a quarter of the block's width, as partial convolutions do (FasterNet, arXiv 2303.03667), and is dense,
since a depthwise one is as slow as the memory that it reads, above all in INT8.
"""

from __future__ import annotations

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.shell import check_channels, check_ungrouped


class NarrowELAN(nn.Module):
    """ELAN whose n 3x3 convolutions are of width c2 * e. Input (b, c1, h, w), output (b, c2, h, w).

    Use it where time on a CPU counts, fp32 or INT8: all of its convolutions are dense, and nothing is split.
    """

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.25) -> None:
        """Build the block.

        Args:
            c1: Input channels.
            c2: Output channels.
            n: Number of 3x3 convolutions in the chain.
            shortcut: Add its input to each of them; C2f adds around pairs.
            g: Must be 1.
            e: Width of each part as a share of c2; at least one channel.

        Raises:
            ValueError: If c2 is below 2 or g is not 1.
        """
        super().__init__()
        check_channels(type(self).__name__, c2)
        check_ungrouped(type(self).__name__, g, "its convolutions are narrow and dense")
        c = max(int(c2 * e), 1)
        self.cv1 = Conv(c1, c)
        self.cv2 = Conv(c1, c)
        self.m = nn.ModuleList(Conv(c, c, 3) for _ in range(n))
        self.cv3 = Conv((2 + n) * c, c2)
        self.add = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the fused map of all parts."""
        parts = [self.cv1(x), self.cv2(x)]  # each (b, c2 * e, h, w)
        for conv in self.m:
            y = conv(parts[-1])
            parts.append(parts[-1] + y if self.add else y)
        return self.cv3(torch.cat(parts, 1))

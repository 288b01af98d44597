"""GhostNetV2: Enhance Cheap Operation with Long-Range Attention (Tang et al., NeurIPS 2022, arXiv 2211.12905).

The paper switches the attention on from its third bottleneck on; in the C2f shell it is always on.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ghost_yolo.blocks.ghost import Activation, C2f_GhostBottleneck, GhostBottleneck, GhostConv
from ghost_yolo.blocks.pooled import PooledConv

OPEN = 1e4  # added to a gate before its sigmoid, which is then exactly 1; float16 can hold it


class DFCAttention(nn.Module):
    """Decoupled fully connected attention (section 4.1): a gate from a row and a column of the half-size map.

    Input (b, c1, h, w), output (b, c2, h // 2, w // 2) in 0..1. A map one pixel high or wide cannot be halved: there the
    side stays 1 and the gate is open, exactly 1 everywhere.
    """

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        """Build the gate with the primary convolution's kernel and stride."""
        super().__init__()
        self.cv1 = PooledConv(c1, c2, k, s, act=False)
        self.horizontal = PooledConv(c2, c2, (1, 5), g=c2, act=False)
        self.vertical = PooledConv(c2, c2, (5, 1), g=c2, act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gate at half size.

        An export with dynamic sizes records arithmetic with them, and would freeze a comparison. So a traced graph always
        pads, by 0 pixels for most sizes, and opens the gate by arithmetic; outside of traces only a line takes these steps.
        """
        h, w = x.shape[-2:]
        may_be_line = torch.jit.is_tracing() or min(h, w) < 2  # type: ignore[attr-defined, no-untyped-call]
        if may_be_line:
            x = F.pad(x, (0, 1 // w, 0, 1 // h))
        gate = self.vertical(self.horizontal(self.cv1(F.avg_pool2d(x, 2))))
        if may_be_line:
            gate = gate + OPEN * ((h + w - 1) // (h * w))  # 1 for a map one pixel high or wide, else 0
        return gate.sigmoid()


class GhostConvV2(GhostConv):
    """A Ghost module times its DFC attention (section 4.2). Input (b, c1, h, w), output as GhostConv's."""

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
        """Build the module; the arguments are GhostConv's."""
        super().__init__(c1, c2, k, s, ratio, d, g, act=act)
        self.attention = DFCAttention(c1, c2, k, s)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gated maps; the gate is brought to their size by the nearest neighbour, after the sigmoid."""
        y = super().forward(x)
        return y * F.interpolate(self.attention(x), size=y.shape[-2:], mode="nearest")


class GhostBottleneckV2(GhostBottleneck):
    """The bottleneck of section 4.2: attention on the widening module, the projecting one plain."""

    expand = GhostConvV2


class C2f_GhostBottleneckV2(C2f_GhostBottleneck):
    """C2f whose inner blocks are GhostNetV2 bottlenecks of stride 1, attention on.

    The first Ghost module G is gated, y = G(x) * resize(sigmoid(V(H(P(pool(x)))))), H and V running along rows and
    columns. With i = c / 2, an inner block of width c has `2 * (c*i + 13*i) + c*c + 16*c` parameters.

    Use it where objects are large against what a 3x3 kernel sees: the gate looks five rows and columns of the halved
    map far, for few operations but many more layers.
    """

    bottleneck = GhostBottleneckV2

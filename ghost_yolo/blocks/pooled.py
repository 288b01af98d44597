"""The host's Conv for maps that pooling has made tiny."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from ultralytics.nn.modules.conv import Conv


class PooledConv(Conv):
    """A Conv that also trains on one value a channel: a batch of one pixel has no variance, so it takes the running one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, normalise and activate (b, c1, h, w)."""
        bn, y = self.bn, self.conv(x)
        if self.training and y.numel() == y.shape[1]:
            return self.act(F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps))
        return self.act(bn(y))

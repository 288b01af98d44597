"""Xception (Chollet, CVPR 2017, arXiv 1610.02357): entry, middle and exit flow, for pictures of 299 x 299."""

from __future__ import annotations

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.xception import SeparableConv, XceptionBlock

BLOCKS = (  # output channels, stride, separable convolutions (figure 5)
    (128, 2, 2),
    (256, 2, 2),
    (728, 2, 2),
    (728, 1, 3),
    (728, 1, 3),
    (728, 1, 3),
    (728, 1, 3),
    (728, 1, 3),
    (728, 1, 3),
    (728, 1, 3),
    (728, 1, 3),
    (1024, 2, 2),
)
LAST = (1536, 2048)  # separable convolutions of the exit flow, each with a ReLU


class Xception(nn.Module):
    """The network of figure 5. Input (b, 3, h, w) with h and w at least 7, output (b, num_classes)."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        """Build the network; as published, its two stem convolutions have no padding."""
        super().__init__()
        c = 64
        layers: list[nn.Module] = [
            Conv(3, 32, 3, 2, p=0, act=nn.ReLU(inplace=True)),
            Conv(32, c, 3, p=0, act=nn.ReLU(inplace=True)),
        ]
        for i, (c2, s, reps) in enumerate(BLOCKS):
            late = i == len(BLOCKS) - 1  # the exit flow widens in its block's last convolution
            layers.append(XceptionBlock(c, c2, s, reps, relu=i > 0, late=late))
            c = c2
        for c2 in LAST:
            layers += [SeparableConv(c, c2), nn.ReLU(inplace=True)]
            c = c2
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(c, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the class scores."""
        return self.fc(self.dropout(self.features(x).mean((2, 3))))


def xception(num_classes: int = 1000, dropout: float = 0.5) -> Xception:
    """Build Xception, the paper's."""
    return Xception(num_classes, dropout)

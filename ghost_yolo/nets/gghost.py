"""G-GhostRegNet (arXiv 2201.03297): RegNetX (arXiv 2003.13678) with G-Ghost stages.

The first stage stays plain, and so does a stage of two or fewer blocks. The number in a name is RegNetX's own MACs in
hundreds of millions, which is what the G-Ghost form saves from.
"""

from __future__ import annotations

from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.blocks.gghost import GGhostStage, RegNetBottleneck
from ghost_yolo.nets.network import Network, check_positive, pooled_head

STEM = 32
SHORTEST = 3  # blocks of a G-Ghost stage


class GGhostRegNet(Network):
    """A RegNetX whose deep stages are G-Ghost stages. Input (b, 3, h, w), output (b, classes); strides 4, 8, 16, 32."""

    def __init__(
        self,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        gw: int,
        num_classes: int = 1000,
        width: float = 1.0,
    ) -> None:
        """Build the network.

        Args:
            widths: Output channels of the four stages.
            depths: Blocks of the four stages.
            gw: Group width of the 3x3 convolutions.
            num_classes: Number of classes.
            width: Multiplier of the group width, rounded down, and with it of all widths, so that a stage keeps its groups;
                the paper has none, but wider siblings.

        Raises:
            ValueError: If there is no class or no width, or a width cannot be grouped.
        """
        check_positive(type(self).__name__, num_classes=num_classes, width=width)
        group = int(gw * width)
        if group < 1:
            raise ValueError(f"{type(self).__name__}: width={width} leaves a group no channel: give at least {1 / gw}")
        stem, *channels = (c * group // gw for c in (STEM, *widths))
        stages: list[nn.Module] = []
        for c1, c2, blocks in zip((stem, *channels), channels, depths, strict=False):
            ghostly = bool(stages) and blocks >= SHORTEST
            stages.append(GGhostStage(c1, c2, blocks, 2, group) if ghostly else _plain_stage(c1, c2, blocks, group))
        first = Conv(3, stem, 3, 2, act=nn.ReLU(inplace=True))
        super().__init__(first, stages, pooled_head(channels[-1], num_classes), channels[-3:])


def _plain_stage(c1: int, c2: int, blocks: int, gw: int) -> nn.Sequential:
    """Return a stage of RegNetX itself."""
    first = RegNetBottleneck(c1, c2, 2, gw)
    return nn.Sequential(first, *(RegNetBottleneck(c2, c2, 1, gw) for _ in range(blocks - 1)))


def g_ghost_regnetx_032(num_classes: int = 1000, width: float = 1.0) -> GGhostRegNet:
    """Return the G-Ghost form of RegNetX-3.2GF."""
    return GGhostRegNet((96, 192, 432, 1008), (2, 6, 15, 2), 48, num_classes, width)


def g_ghost_regnetx_040(num_classes: int = 1000, width: float = 1.0) -> GGhostRegNet:
    """Return the G-Ghost form of RegNetX-4.0GF."""
    return GGhostRegNet((80, 240, 560, 1360), (2, 5, 14, 2), 40, num_classes, width)


def g_ghost_regnetx_080(num_classes: int = 1000, width: float = 1.0) -> GGhostRegNet:
    """Return the G-Ghost form of RegNetX-8.0GF."""
    return GGhostRegNet((80, 240, 720, 1920), (2, 5, 15, 1), 120, num_classes, width)


def g_ghost_regnetx_160(num_classes: int = 1000, width: float = 1.0) -> GGhostRegNet:
    """Return the G-Ghost form of RegNetX-16GF."""
    return GGhostRegNet((256, 512, 896, 2048), (2, 6, 13, 1), 128, num_classes, width)

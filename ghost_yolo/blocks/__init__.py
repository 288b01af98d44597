"""The blocks table: one row a word."""

from ghost_yolo.blocks.gghost import C2f_GGhostBottleneck
from ghost_yolo.blocks.ghost import C2f_GhostBottleneck, GhostBottleneck, GhostConv
from ghost_yolo.blocks.ghostv2 import C2f_GhostBottleneckV2
from ghost_yolo.blocks.ghostv3 import C2f_GhostBottleneckV3
from ghost_yolo.blocks.published import PublishedC2fGGhost, PublishedC2fGhost, PublishedC2fGhostV2
from ghost_yolo.registry import Block

BLOCKS = (
    Block("GhostConv", GhostConv, like="Conv", paper="arXiv 1911.11907, section 3.1"),
    Block("GhostBottleneck", GhostBottleneck, like="Conv", paper="arXiv 1911.11907, section 3.2"),
    Block("C2f_GhostBottleneck", C2f_GhostBottleneck, like="C2f", paper="arXiv 1911.11907, section 3.2"),
    Block("C2f_GhostBottleneckV2", C2f_GhostBottleneckV2, like="C2f", paper="arXiv 2211.12905, section 4.2"),
    Block("C2f_GhostBottleneckV3", C2f_GhostBottleneckV3, like="C2f", paper="arXiv 2404.11202"),
    Block("C2f_GGhostBottleneck", C2f_GGhostBottleneck, like="C2f", paper="arXiv 2201.03297, the G-Ghost stage"),
    Block("PublishedC2fGhost", PublishedC2fGhost, like="C2f", paper="none: the widely copied table"),
    Block("PublishedC2fGhostV2", PublishedC2fGhostV2, like="C2f", paper="none: the widely copied table"),
    Block("PublishedC2fGGhost", PublishedC2fGGhost, like="C2f", paper="none: the widely copied table"),
)

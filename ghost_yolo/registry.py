"""The table of the blocks: module name in a YAML -> class, and the hints for unknown names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ghost_yolo.nets  # noqa: F401 (it fills the table of networks that Backbone reads)
from ghost_yolo.blocks.backbone import Backbone
from ghost_yolo.blocks.crelu import C2f_CReLU, CReLU
from ghost_yolo.blocks.detect import HEADS, NarrowDetect
from ghost_yolo.blocks.elan import NarrowELAN
from ghost_yolo.blocks.fire import C2f_Fire, Fire
from ghost_yolo.blocks.gghost import C2f_GGhostBottleneck
from ghost_yolo.blocks.ghost import C2f_GhostBottleneck, GhostBottleneck, GhostConv
from ghost_yolo.blocks.ghostv2 import C2f_GhostBottleneckV2
from ghost_yolo.blocks.ghostv3 import C2f_GhostBottleneckV3
from ghost_yolo.blocks.mobilenet import C2f_DepthwiseSeparable, DepthwiseSeparable
from ghost_yolo.blocks.partial import C2f_FasterBlock, C2f_PartialConv, PartialConv
from ghost_yolo.blocks.published import PublishedC2fGGhost, PublishedC2fGhost, PublishedC2fGhostV2
from ghost_yolo.blocks.shuffle import C2f_ShuffleUnit, ShuffleUnit
from ghost_yolo.blocks.xception import C2f_XceptionBlock, XceptionBlock
from ghost_yolo.errors import UnknownBlockError

if TYPE_CHECKING:
    from torch import nn

PREFIX = "ghost_yolo."


@dataclass(frozen=True)
class Block:
    """A module that a model YAML may name.

    Attributes:
        name: The bare module name; `ghost_yolo.<name>` is always understood, the bare one where the host does not own it.
        cls: The class that it builds.
        like: The host's class whose YAML arguments it takes: `C2f` for `(c1, c2, n, ...)`, `Conv` for `(c1, c2, ...)`, or any
            other class that the host's parser treats specially.
        paper: Where the block is defined.
    """

    name: str
    cls: type[nn.Module]
    like: str
    paper: str

    @property
    def qualified(self) -> str:
        """The name that no host can ever own."""
        return PREFIX + self.name


def unknown_block(name: str, ours: Iterable[str], hosts: Iterable[str] = ()) -> UnknownBlockError:
    """Return the error for an unknown module name, with the nearest known one.

    Args:
        name: As given.
        ours: Module names of this package that would be accepted.
        hosts: Those of Ultralytics, where they would be accepted too.
    """
    import difflib

    ours, hosts = sorted(ours), [*hosts]
    close = difflib.get_close_matches(name, [*ours, *hosts], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    rest = "; any other must be a module of the installed Ultralytics" if hosts else ""
    where = " in the model YAML" if hosts else ""
    return UnknownBlockError(f"Unknown block {name!r}{where}.{hint} Blocks of ghost_yolo: {', '.join(ours)}{rest}.")


BLOCKS = (
    Block("GhostConv", GhostConv, like="Conv", paper="arXiv 1911.11907, section 3.1"),
    Block("GhostBottleneck", GhostBottleneck, like="Conv", paper="arXiv 1911.11907, section 3.2"),
    Block("C2f_GhostBottleneck", C2f_GhostBottleneck, like="C2f", paper="arXiv 1911.11907, section 3.2"),
    Block("C2f_GhostBottleneckV2", C2f_GhostBottleneckV2, like="C2f", paper="arXiv 2211.12905, section 4.2"),
    Block("C2f_GhostBottleneckV3", C2f_GhostBottleneckV3, like="C2f", paper="arXiv 2404.11202"),
    Block("C2f_GGhostBottleneck", C2f_GGhostBottleneck, like="C2f", paper="arXiv 2201.03297, the G-Ghost stage"),
    Block("DepthwiseSeparable", DepthwiseSeparable, like="Conv", paper="arXiv 1704.04861, section 3.1"),
    Block("C2f_DepthwiseSeparable", C2f_DepthwiseSeparable, like="C2f", paper="arXiv 1704.04861, section 3.1"),
    Block("ShuffleUnit", ShuffleUnit, like="Conv", paper="arXiv 1707.01083, section 3.2"),
    Block("C2f_ShuffleUnit", C2f_ShuffleUnit, like="C2f", paper="arXiv 1707.01083, section 3.2"),
    Block("Fire", Fire, like="Conv", paper="arXiv 1602.07360, section 3.2"),
    Block("C2f_Fire", C2f_Fire, like="C2f", paper="arXiv 1602.07360, section 3.2"),
    Block("XceptionBlock", XceptionBlock, like="Conv", paper="arXiv 1610.02357, section 3"),
    Block("C2f_XceptionBlock", C2f_XceptionBlock, like="C2f", paper="arXiv 1610.02357, section 3"),
    Block("CReLU", CReLU, like="Conv", paper="arXiv 1603.05201, section 2"),
    Block("C2f_CReLU", C2f_CReLU, like="C2f", paper="arXiv 1603.05201, section 2"),
    Block("Backbone", Backbone, like="Conv", paper="those of the networks, ghost_yolo.nets.table"),
    Block("PartialConv", PartialConv, like="Conv", paper="arXiv 2303.03667, section 3.3"),
    Block("C2f_PartialConv", C2f_PartialConv, like="C2f", paper="arXiv 2303.03667, section 3.3"),
    Block("C2f_FasterBlock", C2f_FasterBlock, like="C2f", paper="arXiv 2303.03667, section 3.4"),
    Block("NarrowELAN", NarrowELAN, like="C2f", paper="arXiv 2207.02696, section 4.1, narrow"),
    Block("PublishedC2fGhost", PublishedC2fGhost, like="C2f", paper="none: the widely copied table"),
    Block("PublishedC2fGhostV2", PublishedC2fGhostV2, like="C2f", paper="none: the widely copied table"),
    Block("PublishedC2fGGhost", PublishedC2fGGhost, like="C2f", paper="none: the widely copied table"),
    Block("NarrowDetect", NarrowDetect, like="Detect", paper="none: one dense 3x3 a branch"),
    *(Block(head.__name__, head, like="Detect", paper="none: YOLO11's class branch") for head in HEADS),
)

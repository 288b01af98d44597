"""Whole networks as the backbone of a YOLO, one row for each of P3, P4 and P5.

`[-1, 1, ghost_yolo.Backbone, [40, ghostnet, 3, width]]`: the host replaces `width` by the scale's width multiplier and
rounds 40 x width up to a multiple of 8. The papers round differently. Their network is kept, channels of zeros pad the map
to the width that the host has recorded, and the next row removes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from ultralytics.utils.ops import make_divisible

LEVELS = (3, 4, 5)


@dataclass(frozen=True)
class NetworkEntry:
    """A network that a `Backbone` row may name.

    Attributes:
        make: Builds it; takes `num_classes` and `width`.
        channels: Widths of P3, P4 and P5 with width 1.0, which are the numbers to write in a YAML's rows.
        weights: Names of pretrained weights by width, as `timm/ghostnet_100`.
        note: What a user of these weights must know.
        mean: By which the classifier's images are normalised, red, green and blue of 0..1.
        std: Likewise.
    """

    make: Callable[..., Any]
    channels: tuple[int, int, int]
    weights: dict[float, str] = field(default_factory=dict)
    note: str = ""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


NETWORKS: dict[str, NetworkEntry] = {}  # `ghost_yolo.nets` fills it: the networks are built from blocks


class Backbone(nn.Module):
    """A network of `ghost_yolo.nets` from one level to the next, its classifier left out.

    Input (b, 3, h, w) for level 3, else the map of the level before; output (b, c2, h / 2, w / 2) of that map, for level 3
    (b, c2, h / 8, w / 8), where 32 divides the image's sides.

    Attributes:
        m: The network's own modules.
        taken: Input channels that they take; the channels behind these are the padding of the row before.
        cut: Whether there is such padding.
        filling: Channels of zeros appended to the output.
    """

    def __init__(self, c1: int, c2: int, network: str, level: int, width: float = 1.0) -> None:
        """Build the part of a network.

        Args:
            c1: Input channels: 3, or those of the row of the level before.
            c2: Output channels: those of the network at width 1.0, times width, the next multiple of 8.
            network: Its name in `NETWORKS`.
            level: 3, 4 or 5 for a map of stride 8, 16 or 32.
            width: The width multiplier as the paper defines it.

        Raises:
            ValueError: If there is no such network, level or width, or the channels are not the network's.
        """
        super().__init__()
        entry = _entry(network)
        if level not in LEVELS:
            raise ValueError(f"{network} has no level {level!r}: give 3, 4 or 5 for a map of stride 8, 16 or 32")
        if isinstance(width, bool) or not isinstance(width, (int, float)) or width <= 0:
            raise ValueError(f"width={width!r} is no multiplier: write `width`, or a number above 0")
        index = LEVELS.index(level)
        _check_channels(c1, c2, network, index, width)
        net = entry.make(num_classes=1, width=width)
        if net.channels[index] > c2:  # its groups round up further than the host does
            raise ValueError(
                f"P{level} of {network} has {net.channels[index]} channels at width {width}, more than the {c2} that "
                "Ultralytics records for this row: give another width, for example a multiple of 0.25"
            )
        self.network, self.level, self.width = network, level, width
        self.m = net.levels()[index]
        self.taken = net.channels[index - 1] if index else c1
        self.cut = self.taken < c1
        self.filling = c2 - net.channels[index]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the map of this level, filled up to c2 channels."""
        y = self.m(x[:, : self.taken] if self.cut else x)
        return F.pad(y, (0, 0, 0, 0, 0, self.filling)) if self.filling else y


def _entry(network: str) -> NetworkEntry:
    """Return the row of the networks' table; raise a ValueError that names the nearest one."""
    if network in NETWORKS:
        return NETWORKS[network]
    close = get_close_matches(str(network), NETWORKS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else "" if NETWORKS else " Import ghost_yolo.nets first."
    raise ValueError(f"there is no network {network!r}.{hint} Networks: {', '.join(NETWORKS)}")


def _check_channels(c1: int, c2: int, network: str, index: int, width: float) -> None:
    """Raise a ValueError that says what to write where the row's channels are not the network's."""
    full = _entry(network).channels
    level, right = LEVELS[index], make_divisible(full[index] * width, 8)
    if c2 != right:
        unscaled = (
            "; if it is written so, install a newer Ultralytics: older ones do not scale a row of as many channels as there are classes"
            if c2 == full[index]
            else ""
        )
        raise ValueError(
            f"P{level} of {network} at width {width} takes {right} channels, and the row makes {c2}: write "
            f"[{full[index]}, {network}, {level}, width], and a max_channels of at least {full[index]} in `scales`{unscaled}"
        )
    if index == 0 and c1 != 3:
        raise ValueError(
            f"{network} takes an RGB image, and gets {c1} channel{'s' * (c1 > 1)}: make it the first row; where it is, the "
            f"model's YAML or the data set says `channels: {c1}`, and right is 3"
        )
    before = make_divisible(full[index - 1] * width, 8)
    if index and c1 != before:
        raise ValueError(
            f"level {level} of {network} at width {width} follows its level {level - 1}, which has {before} channels, and "
            f"its `from` names a row of {c1}: put it behind [{full[index - 1]}, {network}, {level - 1}, width]"
        )

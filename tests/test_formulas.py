"""Closed formulas and the papers' totals, and what cannot be built."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import pytest
import torch
from torch import nn

from ghost_yolo.blocks.gghost import C2f_GGhostBottleneck, GGhostStage, RegNetBottleneck
from ghost_yolo.blocks.ghost import C2f_GhostBottleneck, GhostBottleneck, GhostConv, SqueezeExcite
from ghost_yolo.blocks.ghostv2 import GhostConvV2
from ghost_yolo.blocks.ghostv3 import GhostConvV3


def parameters(module: nn.Module) -> int:
    """Count all parameters."""
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "c1,c2,k,ratio,d", [(16, 32, 1, 2, 3), (16, 33, 1, 2, 3), (8, 30, 3, 3, 5), (7, 5, 1, 4, 1), (3, 2, 1, 2, 3)]
)
def test_ghost_module(c1: int, c2: int, k: int, ratio: int, d: int) -> None:
    """A Ghost module has c1*i*k^2 + 2i + n*d^2 + 2n parameters, i = ceil(c2 / ratio), n = i * (ratio - 1)."""
    i = ceil(c2 / ratio)
    n = i * (ratio - 1)
    module = GhostConv(c1, c2, k, ratio=ratio, d=d)

    assert parameters(module) == c1 * i * k**2 + 2 * i + n * d**2 + 2 * n
    assert module.eval()(torch.zeros(1, c1, 5, 5)).shape[1] == c2


@pytest.mark.parametrize("cls,c2,total", [(GhostConv, 32, 464), (GhostConv, 33, 493), (GhostConvV2, 32, 1488)])
def test_totals_by_hand(cls: type[GhostConv], c2: int, total: int) -> None:
    """The totals that were worked out by hand from 16 input channels."""
    assert parameters(cls(16, c2)) == total


@pytest.mark.parametrize("c1,c2,k", [(16, 32, 1), (8, 9, 3)])
def test_attention_adds(c1: int, c2: int, k: int) -> None:
    """DFC attention adds c1*c2*k^2 + 16*c2 parameters."""
    assert parameters(GhostConvV2(c1, c2, k)) - parameters(GhostConv(c1, c2, k)) == c1 * c2 * k**2 + 16 * c2


@pytest.mark.parametrize("c1,c2,gw,blocks,total", [(96, 192, 48, 6, 539_664), (24, 56, 8, 4, 31_696)])
def test_g_ghost_stage(c1: int, c2: int, gw: int, blocks: int, total: int) -> None:
    """G-Ghost stages have the totals worked out from the paper's definition."""
    assert parameters(GGhostStage(c1, c2, blocks, 2, gw)) == total


def test_squeeze_width_is_rounded_like_the_papers() -> None:
    """The squeezed width is a multiple of 4 and never a tenth below the asked one."""
    assert [SqueezeExcite(c).fc1.out_channels for c in (8, 72, 120, 242, 22)] == [4, 20, 32, 60, 8]


@pytest.mark.parametrize(
    "make,says",
    [
        (lambda: GhostConv(8, 1), "c2=1.*at least 2"),
        (lambda: C2f_GhostBottleneck(8, 1), "c2=1.*at least 2"),
        (lambda: C2f_GhostBottleneck(8, 8, e=0.1), "e=0.1 leave no hidden channel"),
        (lambda: GhostConv(8, 8, ratio=0), "ratio=0.*at least 2"),
        (lambda: GhostConv(8, 8, d=2), "d=2.*odd"),
        (lambda: GhostConv(8, 8, 0), "k=0, s=1.*at least 1"),
        (lambda: GhostConv(8, 8, g=3), "g=3 must divide c1=8 and the 4"),
        (lambda: C2f_GhostBottleneck(8, 8, g=0), "g=0 must divide"),
        (lambda: GhostBottleneck(8, 8, e=0.1), "c2=0.*at least 2"),
        (lambda: GhostConvV3(8, 8, 2), "k=2.*odd"),
        (lambda: GGhostStage(8, 8, blocks=2), "blocks=2.*at least 3"),
        (lambda: GGhostStage(8, 8, gw=0), "gw=0"),
        (lambda: RegNetBottleneck(8, 21, gw=8), "gw=8 does not divide c2=21 .*gw=7 does"),
        (lambda: C2f_GGhostBottleneck(8, 8, g=2), "g=2.*give gw"),
        (lambda: C2f_GGhostBottleneck(8, 8, blocks=2), "blocks=2"),
    ],
)
def test_what_cannot_be_built_says_so(make: Callable[[], nn.Module], says: str) -> None:
    """An impossible argument raises a ValueError that names the block, what was given and what would do."""
    with pytest.raises(ValueError, match=says):
        make()


def test_wide_groups_and_narrow_stages() -> None:
    """A group width beyond the stage's width is one group, not a broken stage."""
    for c2 in (2, 3, 10, 24):
        assert GGhostStage(8, c2, gw=64).eval()(torch.zeros(1, 8, 4, 4)).shape == (1, c2, 4, 4)

"""Closed-form (least-squares) initialisation of Ghost blocks from the trained block that they replace.

GhostNet (arXiv 1911.11907, section 3.1) divides the maps of a trained layer into intrinsic maps and ghosts, each a cheap
transform of an intrinsic one. In each bottleneck, the hidden maps that 1x1 filters reproduce best become the intrinsic ones.
Each remaining map becomes the ghost of the intrinsic map that it correlates with most. The second Ghost module is then solved
for the output of the trained bottleneck.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules.block import Bottleneck

from ghost_yolo.blocks.ghost import C2f_GhostBottleneck
from ghost_yolo.ghostify.handlers import set_conv
from ghost_yolo.ghostify.least_squares import solve_conv

MAX_POSITIONS = 100_000  # of the maps that are used: many times the unknowns
MIN_POSITIONS = 4  # for each unknown
EPS = 1e-12


@torch.no_grad()
def init_from_teacher(block: Any, trained: Any, x: torch.Tensor) -> bool:
    """Initialise the inner weights of a C2f of Ghost bottlenecks from a trained C2f.

    Other blocks keep their random weights, and so does a block whose maps have too few positions for a solution.

    Args:
        block: The new block in eval mode, with the outer convolutions of the trained one.
        trained: The trained block.
        x: Inputs (b, c1, h, w) of the block.

    Returns:
        Whether the block was initialised.
    """
    if not is_supported(block, trained) or x[:, 0].numel() < MIN_POSITIONS * block.c:
        return False
    x = x[: max(MAX_POSITIONS // (x.shape[2] * x.shape[3]), 1)]
    before, after = trained.cv1(x).chunk(2, 1)[1], block.cv1(x).chunk(2, 1)[1]  # (b, c, h, w)
    for new, old in zip(block.m, trained.m, strict=True):
        hidden, output = old.cv1.bn(old.cv1.conv(before)), old.cv2(old.cv1(before))
        init_ghost_split(new.ghost1, after, hidden)
        init_ghost_half(new.ghost2, new.ghost1(after), output)
        before, after = old(before), new(after)
    return True


def is_supported(block: Any, trained: Any) -> bool:
    """Return whether a closed-form initialisation exists for a pair of blocks.

    The new block must consist of plain, ungrouped Ghost bottlenecks of even width, and the trained one of as many host
    bottlenecks of the same hidden width. The bottlenecks of the host's C3k2 have half the width.
    """
    if type(block) is not C2f_GhostBottleneck or block.c % 2:
        return False
    new_bottlenecks: list[Any] = [*block.m]
    bottlenecks: list[Any] = [*getattr(trained, "m", ())]
    if [type(bottleneck) for bottleneck in bottlenecks] != [Bottleneck] * len(new_bottlenecks):
        return False
    pairs = [*zip(new_bottlenecks, bottlenecks, strict=True)]
    equal = all(new.add == old.add and old.cv1.conv.out_channels == block.c for new, old in pairs)
    return equal and all(new.ghost1.cv1.conv.groups == 1 for new, _ in pairs)


def init_ghost_split(module: Any, x: torch.Tensor, maps: torch.Tensor) -> None:
    """Fit a Ghost module to maps (b, c, h, w), in an order of its own.

    The maps that are closest to linear in x become the intrinsic ones, the others ghosts of these.
    """
    pointwise = nn.Conv2d(x.shape[1], maps.shape[1], 1, bias=False)
    filters, bias = solve(pointwise, x, maps)
    residual = F.conv2d(x, filters).sub_(maps).var((0, 2, 3)) / maps.var((0, 2, 3)).clamp(min=EPS)
    intrinsic, others = residual.argsort().tensor_split([module.cv1.conv.out_channels])
    set_conv(module.cv1, x, filters[intrinsic], bias[intrinsic])
    y = module.cv1(x)
    similarity = correlation(y, maps[:, others]).abs()
    pairs = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)[1]
    ghosts = maps[:, others[torch.from_numpy(pairs).to(others.device)]]
    set_conv(module.cv2, y, *solve(module.cv2.conv, y, ghosts))


def init_ghost_half(module: Any, x: torch.Tensor, maps: torch.Tensor) -> None:
    """Fit a Ghost module to maps (b, c, h, w) in their order: the first half from x, the second from the first half."""
    first, second = maps.tensor_split([module.cv1.conv.out_channels], 1)
    set_conv(module.cv1, x, *solve(module.cv1.conv, x, first))
    y = module.cv1(x)
    set_conv(module.cv2, y, *solve(module.cv2.conv, y, second))


def solve(conv: Any, x: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a new convolution that gives maps from maps x by least squares."""
    return solve_conv(conv, x, maps, torch.zeros_like(conv.weight, device=x.device))


def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the correlations (c1, c2) of maps (b, c1, h, w) with maps (b, c2, h, w); 0 for a constant map."""
    x, y = (maps.transpose(0, 1).flatten(1) for maps in (x, y))
    return F.normalize(x - x.mean(1, keepdim=True), dim=1) @ F.normalize(y - y.mean(1, keepdim=True), dim=1).T

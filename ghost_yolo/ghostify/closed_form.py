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
from ghost_yolo.ghostify.least_squares import choose_channels, solve_conv
from ghost_yolo.ghostify.pairs import Pair

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
    if not is_supported(block, trained, x) or block.c != trained.c:
        return False
    x = x[: max(MAX_POSITIONS // (x.shape[2] * x.shape[3]), 1)]
    second = Pair(trained.cv1(x).chunk(2, 1)[1], block.cv1(x).chunk(2, 1)[1], torch.arange(block.c))
    for new, old in zip(block.m, trained.m, strict=True):
        second = fit_ghosts(old, new, second)
    return True


def is_supported(block: Any, trained: Any, x: torch.Tensor) -> bool:
    """Return whether a closed-form initialisation exists for a pair of blocks, and x has enough positions for a solution.

    The new block must consist of plain, ungrouped Ghost bottlenecks of even width, and the trained one of as many host
    bottlenecks of at least the same hidden width. The bottlenecks of the host's C3k2 have half the width.
    """
    if type(block) is not C2f_GhostBottleneck or block.c % 2 or x[:, 0].numel() < MIN_POSITIONS * block.c:
        return False
    new_bottlenecks: list[Any] = [*block.m]
    bottlenecks: list[Any] = [*getattr(trained, "m", ())]
    if [type(bottleneck) for bottleneck in bottlenecks] != [Bottleneck] * len(new_bottlenecks):
        return False
    pairs = [*zip(new_bottlenecks, bottlenecks, strict=True)]
    alike = all(new.add == old.add and old.cv1.conv.out_channels >= block.c for new, old in pairs)
    return alike and all(new.ghost1.cv1.conv.groups == 1 for new, _ in pairs)


def fit_ghosts(trained: Any, module: Any, x: Pair) -> Pair:
    """Fit a Ghost bottleneck to a trained bottleneck, and return what both give; with a shortcut it stands for the same maps."""
    before = trained.cv1.bn(trained.cv1.conv(x.trained))
    hidden = trained.cv1.act(before.clone())  # the host's activations work in place
    chosen = choose_channels(hidden, module.ghost1.c2, x.weight)
    init_ghost_split(module.ghost1, x.student, before[:, chosen])
    y = trained.cv2(hidden)
    keep = x.keep if module.add else choose_channels(y, module.ghost2.c2, x.weight)
    init_ghost_half(module.ghost2, module.ghost1(x.student), y[:, keep])
    return Pair(y + x.trained if trained.add else y, module(x.student), keep, x.weight)


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

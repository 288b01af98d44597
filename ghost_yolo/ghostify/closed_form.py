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
from torch.nn import functional as F
from ultralytics.nn.modules.block import Bottleneck

from ghost_yolo.blocks.ghost import C2f_GhostBottleneck

MAX_POSITIONS = 100_000  # of the maps that are used: many times the unknowns
MIN_POSITIONS = 4  # for each unknown
RIDGE = 1e-3  # relative to the mean square of the regressors: maps may be almost collinear
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
    filters = solve_pointwise(x, maps)
    residual = F.conv2d(x, filters).sub_(maps).var((0, 2, 3)) / maps.var((0, 2, 3)).clamp(min=EPS)
    intrinsic, others = residual.argsort().tensor_split([module.cv1.conv.out_channels])
    set_conv(module.cv1, x, filters[intrinsic], maps[:, intrinsic])
    y = module.cv1(x)
    similarity = correlation(y, maps[:, others]).abs()
    pairs = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)[1]
    ghosts = maps[:, others[torch.from_numpy(pairs).to(others.device)]]
    set_conv(module.cv2, y, solve_depthwise(y, ghosts, module.cv2.conv.kernel_size[0]), ghosts)


def init_ghost_half(module: Any, x: torch.Tensor, maps: torch.Tensor) -> None:
    """Fit a Ghost module to maps (b, c, h, w) in their order: the first half from x, the second from the first half."""
    first, second = maps.tensor_split([module.cv1.conv.out_channels], 1)
    set_conv(module.cv1, x, solve_pointwise(x, first), first)
    y = module.cv1(x)
    set_conv(module.cv2, y, solve_depthwise(y, second, module.cv2.conv.kernel_size[0]), second)


def solve_pointwise(x: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return the least-squares 1x1 filters (c2, c1, 1, 1) from x to maps, up to a constant for each map."""
    return solve_ridge(centre(x).T, centre(maps).T).T[:, :, None, None]


def solve_depthwise(x: torch.Tensor, maps: torch.Tensor, d: int) -> torch.Tensor:
    """Return the least-squares d x d kernels (c, 1, d, d) from each map of x to the map of the same index, up to a constant."""
    b, c = x.shape[:2]
    taps = (
        F.unfold(x, d, padding=d // 2).view(b, c, d * d, -1).permute(1, 0, 3, 2).flatten(1, 2)
    )  # (c, b * h * w, d * d)
    kernels = solve_ridge(taps - taps.mean(1, keepdim=True), centre(maps)[:, :, None])
    return kernels.view(c, 1, d, d)


def solve_ridge(a: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the ridge regression (..., k, m) of y (..., p, m) on a (..., p, k)."""
    gram = a.mT @ a
    damping = RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + EPS
    return torch.linalg.solve(gram + damping * torch.eye(gram.shape[-1], device=a.device), a.mT @ y)


def centre(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (b, c, h, w) as (c, b * h * w) with zero mean."""
    values = maps.transpose(0, 1).flatten(1)
    return values - values.mean(1, keepdim=True)


def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the correlations (c1, c2) of maps (b, c1, h, w) with maps (b, c2, h, w); 0 for a constant map."""
    return F.normalize(centre(x), dim=1) @ F.normalize(centre(y), dim=1).T


def set_conv(conv: Any, x: torch.Tensor, weight: torch.Tensor, maps: torch.Tensor) -> None:
    """Set the weight of a convolution, and its BN to keep the scale and to shift each mean to that of the target maps."""
    conv.conv.weight.copy_(weight)
    y = conv.conv(x)
    mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3))
    conv.bn.running_mean.copy_(mean)
    conv.bn.running_var.copy_(variance)
    conv.bn.weight.copy_((variance + conv.bn.eps).sqrt())
    conv.bn.bias.copy_(maps.mean((0, 2, 3)))

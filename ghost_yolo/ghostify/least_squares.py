"""Convolutions in closed form: each one solved by least squares for maps that it shall give on its own inputs.

The solution is that of ridge regression towards given weights: where the inputs do not determine a weight, it stays near
the trained one. Sums are accumulated in chunks, so that no unfolded map is ever whole in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.linalg.lapack import dpstrf
from torch.nn import functional as F

RIDGE = 1e-3  # relative to the mean square of the regressors: maps may be almost collinear
EPS = 1e-9
CHUNK = 2**24  # numbers of unfolded maps at a time, 64 MiB
PRODUCTS = 4e7  # of positions and unknowns that a solution uses at least where there are so many: more changes nothing
POSITIONS_PER_UNKNOWN = 12  # at least
CHOICE_POSITIONS = 20_000  # for the covariance of maps


def choose_channels(maps: torch.Tensor, count: int) -> torch.Tensor:
    """Return the indices, ascending, of the channels of maps (b, c, h, w) from which the others can best be predicted.

    They are the first pivots of the Cholesky decomposition of the covariance: each one is the channel that those before it
    leave the most variance of.
    """
    channels = maps.shape[1]
    if count == channels:
        return torch.arange(channels)
    values = maps.transpose(0, 1).flatten(1)
    values = values[:, :: max(values.shape[1] // CHOICE_POSITIONS, 1)]
    covariance = torch.cov(values).double().cpu().numpy()
    pivots = dpstrf(covariance, tol=0.0)[1]  # of equal channels any order
    return torch.from_numpy(pivots[:count] - 1).long().sort().values


def solve_conv(
    conv: Any, x: torch.Tensor, target: torch.Tensor, prior: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a convolution, dense or depthwise, that gives target maps from maps x by least squares.

    Args:
        conv: The convolution, for its kernel, stride, padding, dilation and groups.
        x: Maps (b, c1, h, w).
        target: Maps (b, c2, h', w').
        prior: Weights (c2, c1 / groups, k, k) towards which the solution is drawn.

    Returns:
        Weight like `prior`, and bias (c2,).
    """
    k, groups = conv.kernel_size[0] * conv.kernel_size[1], conv.groups
    inputs, outputs = x.shape[1] * k // groups, target.shape[1] // groups
    gram = torch.zeros(groups, inputs + 1, inputs + 1, dtype=torch.float64, device=x.device)
    moment = torch.zeros(groups, inputs + 1, outputs, dtype=torch.float64, device=x.device)
    wanted, seen = max(POSITIONS_PER_UNKNOWN * inputs, PRODUCTS / inputs), 0
    step = max(1, CHUNK // (x.shape[1] * k * target.shape[2] * target.shape[3]))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        u = F.unfold(x[part], conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # (b, c1 * k, positions)
        u = F.pad(_by_group(u, groups), (0, 0, 0, 1), value=1.0)
        y = _by_group(target[part].flatten(2), groups)
        gram += (u @ u.mT).double()
        moment += (u @ y.mT).double()
        seen += u.shape[2]
        if seen >= wanted:
            break
    solution = _solve_ridge(gram, moment, prior.reshape(groups, outputs, inputs))
    return solution[:, :-1].mT.reshape(prior.shape), solution[:, -1].flatten()


def _by_group(maps: torch.Tensor, groups: int) -> torch.Tensor:
    """Return maps (b, c, positions) as (groups, c / groups, b * positions)."""
    return maps.view(len(maps), groups, -1, maps.shape[2]).permute(1, 2, 0, 3).flatten(2)


def solve_transposed(
    conv: Any, x: torch.Tensor, target: torch.Tensor, prior: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (c1, c2, k, k) and bias (c2,) of a transposed convolution whose stride is its kernel k.

    Each tap is then a 1x1 convolution to one of the k x k output positions.
    """
    k = conv.kernel_size[0]
    taps = torch.nn.Conv2d(x.shape[1], target.shape[1] * k * k, 1)
    as_taps = prior.permute(1, 2, 3, 0).reshape(-1, x.shape[1], 1, 1)
    weight, bias = solve_conv(taps, x, F.pixel_unshuffle(target, k), as_taps)
    weight = weight.view(target.shape[1], k, k, x.shape[1]).permute(3, 0, 1, 2)
    return weight, bias.view(target.shape[1], -1).mean(1)


def solve_linear(x: torch.Tensor, target: torch.Tensor, prior: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (c2, c1) and bias (c2,) of a linear layer from vectors x (b, c1) to target vectors (b, c2)."""
    pointwise = torch.nn.Conv2d(x.shape[1], target.shape[1], 1)
    weight, bias = solve_conv(pointwise, x[:, :, None, None], target[:, :, None, None], prior[:, :, None, None])
    return weight.flatten(1), bias


def _solve_ridge(gram: torch.Tensor, moment: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """Return the ridge solutions (g, k + 1, m), with the constant last, that are drawn towards prior weights (g, m, k)."""
    damping = RIDGE * gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(1) + EPS
    damping = damping[:, None].repeat(1, gram.shape[1])
    damping[:, -1] = EPS  # the constant is free
    wanted = moment.clone()
    wanted[:, :-1] += damping[:, :-1, None] * prior.mT.double()
    return torch.linalg.solve(gram + torch.diag_embed(damping), wanted).float()

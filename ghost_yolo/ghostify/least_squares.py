"""Convolutions in closed form: each one solved by least squares for maps that it shall give on its own inputs.

The solution is that of ridge regression towards given weights: where the inputs do not determine a weight, it stays near
the trained one. Sums are accumulated in chunks, so that no unfolded map is ever whole in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.linalg.lapack import dpstrf
from torch.nn import functional as F

RIDGE = 1e-3  # relative to the mean variance of the inputs: maps may be almost collinear
EPS = 1e-9
CHUNK = 2**24  # numbers of unfolded maps at a time, 64 MiB
PRODUCTS = 4e7  # of positions and unknowns that a solution uses at least where there are so many: more changes nothing
POSITIONS_PER_UNKNOWN = 12  # at least
CHOICE_POSITIONS = 20_000  # for the covariance of maps


def choose_channels(maps: torch.Tensor, count: int, importance: torch.Tensor | None = None) -> torch.Tensor:
    """Return the indices, ascending, of the channels of maps (b, c, h, w) from which the others can best be predicted.

    They are the first pivots of the Cholesky decomposition of the covariance: each one is the channel that those before it
    leave the most variance of.

    Args:
        maps: Maps (b, c, h, w).
        count: How many to choose.
        importance: How much each position counts, (b, 1, h, w), or of fewer images for maps that are theirs again and again.
    """
    channels = maps.shape[1]
    if count == channels:
        return torch.arange(channels)
    values = maps.transpose(0, 1).flatten(1)
    step = max(values.shape[1] // CHOICE_POSITIONS, 1)
    counts = None if importance is None else importance.repeat(len(maps) // len(importance), 1, 1, 1).flatten()[::step]
    covariance = torch.cov(values[:, ::step], aweights=counts).double().cpu().numpy()
    pivots = dpstrf(covariance, tol=0.0)[1]  # of equal channels any order
    return torch.from_numpy(pivots[:count] - 1).long().sort().values


def solve_conv(
    conv: Any, x: torch.Tensor, target: torch.Tensor, prior: torch.Tensor, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a convolution, dense or depthwise, that gives target maps from maps x by least squares.

    Args:
        conv: The convolution, for its kernel, stride, padding, dilation and groups.
        x: Maps (b, c1, h, w).
        target: Maps (b, c2, h', w').
        prior: Weights (c2, c1 / groups, k, k) towards which the solution is drawn.
        importance: How much each position counts (b, 1, h', w'); all alike if None.

    Returns:
        Weight like `prior`, and bias (c2,).
    """
    k, groups = conv.kernel_size[0] * conv.kernel_size[1], conv.groups
    inputs, outputs = x.shape[1] * k // groups, target.shape[1] // groups
    wanted, seen = max(POSITIONS_PER_UNKNOWN * inputs, PRODUCTS / inputs), 0
    step = max(1, CHUNK // (x.shape[1] * k * target.shape[2] * target.shape[3]))
    sums = Sums(groups, inputs, outputs, x.device)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        u = F.unfold(x[part], conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # (b, c1 * k, positions)
        # What the prior leaves over: rounding is relative to that, and what inputs do not determine stays at the prior
        rest = target[part] - F.conv2d(x[part], prior, None, conv.stride, conv.padding, conv.dilation, groups)
        counts = None if importance is None else importance[part].flatten()
        sums.add(_by_group(u, groups), _by_group(rest.flatten(2), groups), counts)
        seen += u.shape[0] * u.shape[2]
        if seen >= wanted:
            break
    change, bias = sums.solve()
    return prior + change.reshape(prior.shape), bias.flatten()


class Sums:
    """Sums over positions from which the regression of targets on inputs follows, in groups that know nothing of each other.

    Inputs are taken relative to their mean in the first part, since squares of large means would drown small differences.
    """

    def __init__(self, groups: int, inputs: int, outputs: int, device: torch.device) -> None:
        """Start with none."""
        double: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.gram, self.moment = (
            torch.zeros(groups, inputs, inputs, **double),
            torch.zeros(groups, inputs, outputs, **double),
        )
        self.u, self.y = torch.zeros(groups, inputs, 1, **double), torch.zeros(groups, outputs, 1, **double)
        self.offset: torch.Tensor | None = None
        self.count = 0.0

    def add(self, u: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None = None) -> None:
        """Add inputs (g, k, n) and targets (g, m, n), whose positions count as the weights (n,) say, all alike if None."""
        self.offset = u.mean(2, keepdim=True) if self.offset is None else self.offset
        u = u - self.offset
        weighted = u if weight is None else u * weight
        self.gram += (weighted @ u.mT).double()
        self.moment += (weighted @ y.mT).double()
        self.u += weighted.sum(2, keepdim=True)
        self.y += (y if weight is None else y * weight).sum(2, keepdim=True)
        self.count += u.shape[2] if weight is None else float(weight.sum())

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weights (g, m, k) of ridge regression, and the constants (g, m, 1), which are free."""
        assert self.offset is not None, "there is at least one position"
        u, y = self.u / self.count, self.y / self.count
        gram, moment = self.gram - self.count * u @ u.mT, self.moment - self.count * u @ y.mT
        damping = (RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1) + EPS)[:, None]
        gram = gram + torch.diag_embed(damping.expand(-1, gram.shape[1]))
        lower, failed = torch.linalg.cholesky_ex(gram)
        found = torch.linalg.solve(gram, moment) if bool(failed.any()) else torch.cholesky_solve(moment, lower)
        return found.mT.float(), (y - found.mT @ (u + self.offset)).float()


def _by_group(maps: torch.Tensor, groups: int) -> torch.Tensor:
    """Return maps (b, c, positions) as (groups, c / groups, b * positions)."""
    return maps.view(len(maps), groups, -1, maps.shape[2]).permute(1, 2, 0, 3).flatten(2)


def solve_transposed(
    conv: Any, x: torch.Tensor, target: torch.Tensor, prior: torch.Tensor, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (c1, c2, k, k) and bias (c2,) of a transposed convolution whose stride is its kernel k.

    Each tap is then a 1x1 convolution to one of the k x k output positions.
    """
    k = conv.kernel_size[0]
    taps = torch.nn.Conv2d(x.shape[1], target.shape[1] * k * k, 1)
    as_taps = prior.permute(1, 2, 3, 0).reshape(-1, x.shape[1], 1, 1)
    weight, bias = solve_conv(taps, x, F.pixel_unshuffle(target, k), as_taps, importance)
    weight = weight.view(target.shape[1], k, k, x.shape[1]).permute(3, 0, 1, 2)
    return weight, bias.view(target.shape[1], -1).mean(1)


def solve_linear(x: torch.Tensor, target: torch.Tensor, prior: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (c2, c1) and bias (c2,) of a linear layer from vectors x (b, c1) to target vectors (b, c2)."""
    pointwise = torch.nn.Conv2d(x.shape[1], target.shape[1], 1)
    weight, bias = solve_conv(pointwise, x[:, :, None, None], target[:, :, None, None], prior[:, :, None, None])
    return weight.flatten(1), bias

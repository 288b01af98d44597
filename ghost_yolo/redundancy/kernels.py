"""Fit depthwise kernels by least squares and measure how well each reproduces one feature map from another.

GhostNet (Han et al., arXiv 1911.11907, section 4.1) learns such d x d kernels for three pairs of maps of one
layer, d = 1, 3, 5, 7. Here the solution is exact and comes from the second moments of (49 taps, 1, target): moments
add up over images, smaller kernels are sub-matrices, and memory does not grow with the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

KERNEL_SIZES = (1, 3, 5, 7)
MAX_KERNEL = KERNEL_SIZES[-1]
NUM_TAPS = MAX_KERNEL * MAX_KERNEL
PAIRS_PER_BATCH = 4  # 4 x 4096 positions x 51 values in float64 are 7 MB
DEAD_THRESHOLD = 1e-6  # standard deviation of a constant map, relative to the layer's root mean square
MIN_POSITIONS_PER_UNKNOWN = 10  # with fewer, a kernel overfits and its held-out error says nothing about the maps
NUM_PAIRS = 3  # as in the paper


def tap_indices(d: int) -> list[int]:
    """Return the indices of a centred d x d kernel among the taps of the largest kernel, row by row."""
    margin = (MAX_KERNEL - d) // 2
    return [row * MAX_KERNEL + column for row in range(margin, margin + d) for column in range(margin, margin + d)]


@dataclass
class PartnerSearch:
    """First pass over the images: find each map's partner, the other map with the largest absolute correlation.

    The partner is optimal for d = 1. A larger kernel might do better with another map, so shares are lower bounds.
    """

    channels: int
    count: int = 0
    sums: torch.Tensor = field(init=False)  # (c,)
    products: torch.Tensor = field(init=False)  # (c, c)

    def __post_init__(self) -> None:
        """Initialise the sums with zeros."""
        self.sums = torch.zeros(self.channels, dtype=torch.float64)
        self.products = torch.zeros(self.channels, self.channels, dtype=torch.float64)

    def add(self, maps: torch.Tensor, positions: torch.Tensor) -> None:
        """Accumulate the maps (c, h, w) at some positions of the flattened plane."""
        values = maps.flatten(1)[:, positions].double()  # (c, p)
        self.count += values.shape[1]
        self.sums += values.sum(1)
        self.products += values @ values.T

    def find(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return each map's partner (c,), their correlation (c,), and a mask (c,) of the dead, that is constant, maps."""
        mean = self.sums / max(self.count, 1)
        covariance = self.products / max(self.count, 1) - mean[:, None] * mean
        power = self.products.diagonal().mean() / max(self.count, 1)
        dead = covariance.diagonal() <= DEAD_THRESHOLD**2 * power
        scale = covariance.diagonal().clamp(min=1e-300).rsqrt()
        correlation = covariance * scale[:, None] * scale
        correlation[dead] = 0
        correlation[:, dead] = 0
        correlation.fill_diagonal_(0)
        partner = correlation.abs().argmax(1)
        return partner, correlation.gather(1, partner[:, None])[:, 0].clamp(-1, 1), dead


class KernelMoments:
    """Second pass over the images: second moments of (49 taps of the partner, 1, target) on fit and test positions."""

    def __init__(self, targets: torch.Tensor, partners: torch.Tensor) -> None:
        """Initialise the moments with zeros.

        Args:
            targets: Map indices (m,).
            partners: Map index (m,) of each target's partner.
        """
        self.targets, self.partners = targets, partners
        shape = (len(targets), NUM_TAPS + 2, NUM_TAPS + 2)
        self.fit, self.test = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))

    def add(self, maps: torch.Tensor, fit: torch.Tensor, test: torch.Tensor) -> None:
        """Accumulate the maps (c, h, w) at fit and test positions, zero-padded as in a convolution."""
        for positions, moments in ((fit, self.fit), (test, self.test)):
            for start in range(0, len(self.targets) if len(positions) else 0, PAIRS_PER_BATCH):
                batch = slice(start, start + PAIRS_PER_BATCH)
                z = design_matrix(maps[self.partners[batch]], maps[self.targets[batch]], positions)
                moments[batch] += z.transpose(1, 2) @ z

    def has_enough_positions(self, d: int) -> bool:
        """Return whether there are ten fit positions for each unknown of a d x d kernel, and any test positions."""
        if not len(self.targets):
            return False
        num_fit, num_test = (moments[0, NUM_TAPS, NUM_TAPS] for moments in (self.fit, self.test))
        return bool(num_fit >= MIN_POSITIONS_PER_UNKNOWN * (d * d + 1) and num_test > 0)

    def solve(self, d: int) -> torch.Tensor:
        """Return the least-squares kernels, each followed by its bias (m, d * d + 1).

        The bias stands for the BatchNorm behind the cheap convolution of a Ghost module. The normal equations are solved
        by a scaled pseudo-inverse, since neighbouring pixels of a smooth map are almost equal.
        """
        used = [*tap_indices(d), NUM_TAPS]
        gram = self.fit[:, used][:, :, used]
        scale = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-300).rsqrt()  # (m, k)
        inverse = torch.linalg.pinv(gram * scale[:, :, None] * scale[:, None], hermitian=True, rtol=1e-12)
        right = self.fit[:, used, NUM_TAPS + 1] * scale
        return (inverse @ right[:, :, None])[:, :, 0] * scale

    def errors(self, d: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean squared error (m,) and relative error (m,) of the d x d kernels on the test positions.

        The relative error is divided by the target's variance: 0 is an exact copy, 1 is as good as a constant, and
        held-out errors may exceed 1. Dividing by the energy would instead reward a map's mean.
        """
        used = [*tap_indices(d), NUM_TAPS, NUM_TAPS + 1]
        moments = self.test[:, used][:, :, used]
        residual = F.pad(self.solve(d), (0, 1), value=-1.0)  # prediction minus target
        count = moments[:, -2, -2].clamp(min=1)
        mse = torch.einsum("mi,mij,mj->m", residual, moments, residual).clamp(min=0) / count
        variance = moments[:, -1, -1] / count - (moments[:, -2, -1] / count) ** 2
        return mse, mse / variance.clamp(min=1e-30)


def design_matrix(partners: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return (m, p, 51): the 49 taps around each position of the partners (m, h, w), 1, and the target's value."""
    width, margin = partners.shape[2], MAX_KERNEL // 2
    padded = F.pad(partners, (margin,) * 4).flatten(1)
    stride = width + 2 * margin
    corner = positions // width * stride + positions % width  # of the window, in the padded plane
    offsets = (torch.arange(MAX_KERNEL)[:, None] * stride + torch.arange(MAX_KERNEL)).flatten()
    taps = padded[:, corner[:, None] + offsets]  # (m, p, 49)
    values = targets.flatten(1)[:, positions, None]
    return torch.cat((taps, torch.ones_like(values), values), 2).double()


def count_removable(errors: torch.Tensor, targets: torch.Tensor, partners: torch.Tensor, within: float) -> int:
    """Return how many maps can be removed and reproduced from maps that stay.

    Greedy, smallest error first: a map is removed unless a removed map depends on it, or its own partner is removed.
    So two maps that reproduce each other count once.
    """
    removed: set[int] = set()
    kept: set[int] = set()
    for number in errors.argsort(stable=True).tolist():
        target, partner = int(targets[number]), int(partners[number])
        if errors[number] <= within and target not in kept and partner not in removed:
            removed.add(target)
            kept.add(partner)
    return len(removed)


def most_similar_pairs(correlation: torch.Tensor, targets: torch.Tensor, partners: torch.Tensor) -> list[int]:
    """Return positions in `targets` of the most correlated pairs; no map is in two pairs."""
    selected: list[int] = []
    used: set[int] = set()
    for number in correlation[targets].abs().argsort(descending=True, stable=True).tolist():
        pair = {int(targets[number]), int(partners[number])}
        if len(selected) < NUM_PAIRS and not pair & used:
            selected.append(number)
            used |= pair
    return selected

"""Cheap kernels by least squares: how well a d x d depthwise convolution makes one map from another.

GhostNet (Han et al., arXiv 1911.11907) learns such kernels for three pairs of maps of one layer, d = 1, 3, 5, 7. Here they
are solved for exactly, from the second moments of (49 taps, 1, target): these add up over images, the smaller kernels
are sub-matrices, and the memory needed does not grow with the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

SIZES = (1, 3, 5, 7)
LARGEST = SIZES[-1]
TAPS = LARGEST * LARGEST
CHUNK = 4  # pairs at once: 4 x 4096 positions x 51 values in float64 are 7 MB
DEAD = 1e-6  # of the layer's root mean square
ENOUGH = 10  # positions an unknown: with fewer a kernel fits the noise, and held-out errors say nothing of the maps
PAIRS = 3  # as the paper's figure


def taps_of(d: int) -> list[int]:
    """Return the places of a centred d x d kernel among the 49 taps of the largest, row by row."""
    edge = (LARGEST - d) // 2
    return [row * LARGEST + column for row in range(edge, edge + d) for column in range(edge, edge + d)]


@dataclass
class Partners:
    """First sweep: every map's most similar other map, by absolute correlation over the positions seen.

    For d = 1 no other map can serve better; for larger kernels another one might, so the shares are lower bounds.
    """

    channels: int
    count: int = 0
    sums: torch.Tensor = field(init=False)  # (c,)
    products: torch.Tensor = field(init=False)  # (c, c)

    def __post_init__(self) -> None:
        """Start with nothing seen."""
        self.sums = torch.zeros(self.channels, dtype=torch.float64)
        self.products = torch.zeros(self.channels, self.channels, dtype=torch.float64)

    def add(self, maps: torch.Tensor, positions: torch.Tensor) -> None:
        """See the maps (c, h, w) at some positions of the flattened plane."""
        values = maps.flatten(1)[:, positions].double()  # (c, p)
        self.count += values.shape[1]
        self.sums += values.sum(1)
        self.products += values @ values.T

    def find(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return partner (c,), correlation with it (c,) and which maps are dead (c,): constant, so trivially redundant."""
        mean = self.sums / max(self.count, 1)
        covariance = self.products / max(self.count, 1) - mean[:, None] * mean
        power = self.products.diagonal().mean() / max(self.count, 1)
        dead = covariance.diagonal() <= DEAD**2 * power
        scale = covariance.diagonal().clamp(min=1e-300).rsqrt()
        correlation = covariance * scale[:, None] * scale
        correlation[dead] = 0
        correlation[:, dead] = 0
        correlation.fill_diagonal_(0)
        partner = correlation.abs().argmax(1)
        return partner, correlation.gather(1, partner[:, None])[:, 0].clamp(-1, 1), dead


class Moments:
    """Second sweep: second moments of (49 taps of the partner, 1, the target) for each pair, to fit on and to test on."""

    def __init__(self, targets: torch.Tensor, partners: torch.Tensor) -> None:
        """Start with nothing seen. Both are indices (m,)."""
        self.targets, self.partners = targets, partners
        self.fit, self.test = (torch.zeros(len(targets), TAPS + 2, TAPS + 2, dtype=torch.float64) for _ in range(2))

    def add(self, maps: torch.Tensor, fit: torch.Tensor, test: torch.Tensor) -> None:
        """See the maps (c, h, w) at positions to fit on and at others to test on; outside the map is 0, as in a conv."""
        for positions, moments in ((fit, self.fit), (test, self.test)):
            for start in range(0, len(self.targets) if len(positions) else 0, CHUNK):
                part = slice(start, start + CHUNK)
                z = design(maps[self.partners[part]], maps[self.targets[part]], positions)
                moments[part] += z.transpose(1, 2) @ z

    def enough(self, d: int) -> bool:
        """Whether there are ten times as many positions to fit on as unknowns, and any to test on."""
        if not len(self.targets):
            return False
        return bool(self.fit[0, TAPS, TAPS] >= ENOUGH * (d * d + 1) and self.test[0, TAPS, TAPS] > 0)

    def kernels(self, d: int) -> torch.Tensor:
        """Return the least-squares kernels and their biases (m, d * d + 1).

        A bias is allowed: the BN behind a Ghost module's cheap convolution has one. The normal equations are solved by
        a scaled pseudo-inverse, since neighbouring pixels of a smooth map are almost equal.
        """
        used = [*taps_of(d), TAPS]
        gram = self.fit[:, used][:, :, used]
        scale = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-300).rsqrt()  # (m, k)
        inverse = torch.linalg.pinv(gram * scale[:, :, None] * scale[:, None], hermitian=True, rtol=1e-12)
        right = self.fit[:, used, TAPS + 1] * scale
        return (inverse @ right[:, :, None])[:, :, 0] * scale

    def errors(self, d: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean squared error (m,) and relative error (m,) of the kernels on the test positions.

        Relative to the target's variance there: 0 is an exact copy, 1 what a constant (the mean) would give; the map's
        own mean can then earn nothing, as it would relative to its energy. Worse than 1 is possible on held-out data.
        """
        used = [*taps_of(d), TAPS, TAPS + 1]
        moments = self.test[:, used][:, :, used]
        minus = F.pad(self.kernels(d), (0, 1), value=-1.0)  # what is made minus what is wanted
        count = moments[:, -2, -2].clamp(min=1)
        mse = torch.einsum("mi,mij,mj->m", minus, moments, minus).clamp(min=0) / count
        variance = moments[:, -1, -1] / count - (moments[:, -2, -1] / count) ** 2
        return mse, mse / variance.clamp(min=1e-30)


def design(sources: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return (m, p, 51): the 49 taps around each position of the sources (m, h, w), 1, and the target's value."""
    width, edge = sources.shape[2], LARGEST // 2
    padded = F.pad(sources, (edge,) * 4).flatten(1)
    stride = width + 2 * edge
    corner = positions // width * stride + positions % width  # of the window, in the padded plane
    offsets = (torch.arange(LARGEST)[:, None] * stride + torch.arange(LARGEST)).flatten()
    taps = padded[:, corner[:, None] + offsets]  # (m, p, 49)
    values = targets.flatten(1)[:, positions, None]
    return torch.cat((taps, torch.ones_like(values), values), 2).double()


def removable(errors: torch.Tensor, targets: torch.Tensor, partners: torch.Tensor, within: float) -> int:
    """Return how many maps could be made from maps that stay: two maps that make each other save one, not two.

    Greedy, best reproduced first: a map goes unless one that is already gone is made from it, or its partner is gone.
    """
    gone: set[int] = set()
    kept: set[int] = set()
    for number in errors.argsort(stable=True).tolist():
        target, partner = int(targets[number]), int(partners[number])
        if errors[number] <= within and target not in kept and partner not in gone:
            gone.add(target)
            kept.add(partner)
    return len(gone)


def best_pairs(correlation: torch.Tensor, targets: torch.Tensor, partners: torch.Tensor) -> list[int]:
    """Return the places among the targets of the most similar pairs, no map in two of them."""
    chosen: list[int] = []
    used: set[int] = set()
    for number in correlation[targets].abs().argsort(descending=True, stable=True).tolist():
        pair = {int(targets[number]), int(partners[number])}
        if len(chosen) < PAIRS and not pair & used:
            chosen.append(number)
            used |= pair
    return chosen

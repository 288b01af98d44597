"""Accumulate statistics of feature maps in two passes over the images, and summarize them for each source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ghost_yolo.redundancy.kernels import (
    KERNEL_SIZES,
    NUM_TAPS,
    KernelMoments,
    PartnerSearch,
    count_removable,
    most_similar_pairs,
)
from ghost_yolo.redundancy.maps import SourceKey

MAX_MAPS = 256  # target maps per layer
MAX_POSITIONS = 4096  # per map and image
GHOST_KERNEL = 3  # size of the cheap kernel in GhostNet
STREAM_POSITIONS, STREAM_SHUFFLE, STREAM_TARGETS = range(3)  # keep the random streams of one seed apart

Transform = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
KernelErrors = dict[int, tuple[torch.Tensor, torch.Tensor]]  # by kernel size: mean squared and relative error (m,)


@dataclass(frozen=True)
class MapPair:
    """Two similar maps of one layer, and how well a kernel reproduces the first from the second.

    Attributes:
        map: Index of the target map.
        partner: Index of the map that it is reproduced from.
        correlation: Correlation of the two.
        mse: Mean squared error by kernel size.
        error: Relative error by kernel size.
        kernel: Kernel (3, 3).
        bias: Bias of that kernel.
    """

    map: int
    partner: int
    correlation: float
    mse: dict[int, float]
    error: dict[int, float]
    kernel: torch.Tensor
    bias: float


@dataclass(frozen=True)
class RedundancyStats:
    """Redundancy of one layer's maps in one network.

    Attributes:
        dead: Number of constant maps; they count in no share.
        sampled: Number of other maps that were measured.
        share: By kernel size, the share of these within the relative error; None with too few positions.
        median: By kernel size, the median relative error; None with too few positions.
        removable: As `share` for 3x3, but only of maps whose partner stays.
        positions: Number of positions per map to fit on and to test on.
        pairs: The most similar pairs.
    """

    dead: int
    sampled: int
    share: dict[int, float | None]
    median: dict[int, float | None]
    removable: float | None
    positions: tuple[int, int]
    pairs: list[MapPair]


@dataclass
class TwoPassAccumulator:
    """Sums of two passes over the images for each source; the maps themselves are not stored.

    Attributes:
        searches: First pass.
        transform: Applied to the maps before they are accumulated.
        seed: Random seed.
        num_images: Number of images.
        moments: Second pass; empty during the first.
    """

    searches: dict[SourceKey, PartnerSearch]
    transform: Transform
    seed: int
    num_images: int
    moments: dict[SourceKey, KernelMoments] = field(default_factory=dict)

    def add(self, image_index: int, key: SourceKey, maps: torch.Tensor) -> None:
        """Accumulate the maps (c, h, w) of one source and image."""
        if key not in self.searches:
            return
        index, *conv = key
        stream = (self.seed, STREAM_POSITIONS, index, image_index, *conv)
        fit, test = sample_positions(maps.shape, image_index, self.num_images, stream)
        maps = self.transform(maps, (index, image_index, *conv))
        if self.moments:
            self.moments[key].add(maps, fit, test)
        else:
            self.searches[key].add(maps, fit)

    def start_second_pass(self) -> None:
        """Choose targets and partners; later calls have no effect."""
        if not self.moments:
            self.moments = {key: sample_targets(search, key, self.seed) for key, search in self.searches.items()}


def fit_indices(num_images: int) -> range:
    """Return the indices of the images to fit on: every second one, or the only one."""
    return range(0, num_images, 2)


def sample_positions(
    shape: torch.Size, image_index: int, num_images: int, stream: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return positions in the flattened plane to fit on and to test on, at most MAX_POSITIONS in total.

    With several images, kernels are fitted on every second image and tested on the others; with one image, fitted on its
    left half and tested on its right half.
    """
    _, height, width = shape
    sample = np.random.default_rng(stream).choice(height * width, min(MAX_POSITIONS, height * width), replace=False)
    positions, none = torch.from_numpy(np.sort(sample)), torch.empty(0, dtype=torch.long)
    if num_images > 1:
        return (positions, none) if image_index in fit_indices(num_images) else (none, positions)
    left = positions % width < width // 2
    return positions[left], positions[~left]


def identity(maps: torch.Tensor, _: Sequence[int]) -> torch.Tensor:
    """Return the maps unchanged."""
    return maps


def make_shuffle(seed: int) -> Transform:
    """Return a transform that shuffles the pixels of each map independently, so that no kernel can reproduce it."""

    def shuffle(maps: torch.Tensor, stream: Sequence[int]) -> torch.Tensor:
        rng = np.random.default_rng((seed, STREAM_SHUFFLE, *stream))
        return torch.from_numpy(rng.permuted(maps.flatten(1).numpy(), axis=1)).view(maps.shape)

    return shuffle


def sample_targets(search: PartnerSearch, key: SourceKey, seed: int) -> KernelMoments:
    """Return the second pass's accumulator for at most MAX_MAPS of a source's maps that are not dead."""
    partner, _, dead = search.find()
    living = (~dead).nonzero()[:, 0].numpy()
    living = living if len(living) > 1 else living[:0]  # a single map has no partner
    rng = np.random.default_rng((seed, STREAM_TARGETS, *key))
    targets = torch.from_numpy(np.sort(rng.choice(living, min(MAX_MAPS, len(living)), replace=False)))
    return KernelMoments(targets, partner[targets])


def summarize(search: PartnerSearch, moments: KernelMoments, within: float) -> RedundancyStats:
    """Return the statistics of one source from its accumulators."""
    _, correlation, dead = search.find()
    errors = {d: moments.errors(d) for d in KERNEL_SIZES if moments.has_enough_positions(d)}
    num_fit, num_test = (int(m[0, NUM_TAPS, NUM_TAPS]) if len(m) else 0 for m in (moments.fit, moments.test))
    removable = None
    if GHOST_KERNEL in errors:
        count = count_removable(errors[GHOST_KERNEL][1], moments.targets, moments.partners, within)
        removable = count / len(moments.targets)
    return RedundancyStats(
        dead=int(dead.sum()),
        sampled=len(moments.targets),
        share={d: float((errors[d][1] <= within).double().mean()) if d in errors else None for d in KERNEL_SIZES},
        median={d: float(errors[d][1].median()) if d in errors else None for d in KERNEL_SIZES},
        removable=removable,
        positions=(num_fit, num_test),
        pairs=list(build_pairs(moments, correlation, errors)) if GHOST_KERNEL in errors else [],
    )


def build_pairs(moments: KernelMoments, correlation: torch.Tensor, errors: KernelErrors) -> Iterator[MapPair]:
    """Yield the most similar pairs with their errors and 3x3 kernels."""
    kernels = moments.solve(GHOST_KERNEL)
    for number in most_similar_pairs(correlation, moments.targets, moments.partners):
        target = int(moments.targets[number])
        yield MapPair(
            map=target,
            partner=int(moments.partners[number]),
            correlation=float(correlation[target]),
            mse={d: float(mse[number]) for d, (mse, _) in errors.items()},
            error={d: float(error[number]) for d, (_, error) in errors.items()},
            kernel=kernels[number, :-1].view(GHOST_KERNEL, GHOST_KERNEL),
            bias=float(kernels[number, -1]),
        )

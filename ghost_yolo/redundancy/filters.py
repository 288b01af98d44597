"""Measure how close the filters of each convolution are to pairs of opposite phase.

Shang et al. (CReLU, arXiv 1603.05201, section 2.1): for each filter, the other filter of the same convolution with the
most negative cosine similarity, compared with random Gaussian filters of the same shape, here drawn several times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from ghost_yolo.errors import UserError
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.console import progress

NUM_RANDOM_DRAWS = 20  # sets of random filters for each convolution
MIN_NORM = 1e-12  # a filter with a smaller norm has no direction


@dataclass(frozen=True)
class FilterSimilarity:
    """Each filter's most opposite filter in one convolution.

    Attributes:
        name: Path of the module in the model; its first number is the top-level layer.
        shape: (filters, input channels of a filter, kernel height, kernel width).
        filters: Indices of the non-zero filters (m,).
        opposite: Index of each one's most opposite filter (m,).
        cosine: Their cosine similarity (m,).
        random: The same of Gaussian filters of this shape (NUM_RANDOM_DRAWS, m).
    """

    name: str
    shape: tuple[int, ...]
    filters: NDArray[np.int64]
    opposite: NDArray[np.int64]
    cosine: NDArray[np.float32]
    random: NDArray[np.float32]

    @property
    def layer(self) -> int:
        """Index of the top-level layer, -1 outside of the host's models."""
        return next((int(part) for part in self.name.split(".") if part.isdigit()), -1)


def most_opposite_filters(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the indices of the non-zero filters (m,), of each one's most opposite filter (m,), and their cosine (m,)."""
    flat = weight.detach().flatten(1).float().cpu()
    nonzero = (flat.norm(dim=1) > MIN_NORM).nonzero()[:, 0]
    unit = F.normalize(flat[nonzero], dim=1, eps=MIN_NORM)
    cosine = (unit @ unit.T).fill_diagonal_(2)  # larger than any cosine: a filter is never its own opposite
    if len(nonzero) < 2:
        return nonzero[:0], nonzero[:0], unit.new_empty(0)
    lowest, position = cosine.min(1)
    return nonzero, nonzero[position], lowest.clamp(-1, 1)


def analyze_filters(model: HostModel | nn.Module, seed: int) -> list[FilterSimilarity]:
    """Analyze every convolution of at least two filters, in the model's order.

    Args:
        model: Any module.
        seed: Random seed of the Gaussian filters.

    Raises:
        UserError: If the seed is negative, or the model has no such convolution.
    """
    if seed < 0:
        raise UserError(f"--seed {seed}: must be 0 or more")
    found = [(name, module.weight) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    found = [(name, weight) for name, weight in found if len(weight) > 1]
    if not found:
        raise UserError("The checkpoint has no convolution of two filters or more; give a model such as YOLOv8.")
    generator = torch.Generator().manual_seed(seed)
    return [_analyze_convolution(name, weight, generator) for name, weight in progress(found, "Comparing filters")]


def _analyze_convolution(name: str, weight: torch.Tensor, generator: torch.Generator) -> FilterSimilarity:
    """Analyze one convolution."""
    filters, opposite, cosine = most_opposite_filters(weight)
    shape = (len(filters), *weight.shape[1:])
    draws = [most_opposite_filters(torch.randn(shape, generator=generator))[2] for _ in range(NUM_RANDOM_DRAWS)]
    arrays: list[Any] = [part.numpy() for part in (filters, opposite, cosine, torch.stack(draws))]
    return FilterSimilarity(name, tuple(weight.shape), *arrays)

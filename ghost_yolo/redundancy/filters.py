"""CReLU's analysis: do filters come in pairs of opposite phase?

Shang et al. (arXiv 1603.05201), section 2.1: for each filter of a convolution the other one of most negative cosine
similarity, and the histogram of these similarities against random Gaussian filters of the same shape, here drawn several times.
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

DRAWS = 20  # of random filters a convolution
ZERO = 1e-12  # norm below which a filter has no direction


@dataclass(frozen=True)
class Convolution:
    """One convolution and its pairs.

    Attributes:
        name: The module's path in the model; its first number is the top-level layer.
        shape: (filters, channels a filter sees, kernel height, kernel width).
        filters: The filters that are not zero, (m,).
        partner: For each the filter of most negative cosine similarity, (m,).
        cosine: That similarity, (m,).
        random: The same of as many Gaussian filters of this shape, (DRAWS, m).
    """

    name: str
    shape: tuple[int, ...]
    filters: NDArray[np.int64]
    partner: NDArray[np.int64]
    cosine: NDArray[np.float32]
    random: NDArray[np.float32]

    @property
    def layer(self) -> int:
        """The top-level layer to which it belongs, -1 outside of the host's models."""
        return next((int(part) for part in self.name.split(".") if part.isdigit()), -1)


def opposites(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the filters that are not zero (m,), the most opposite other one of each (m,) and their cosine (m,)."""
    flat = weight.detach().flatten(1).float().cpu()
    alive = (flat.norm(dim=1) > ZERO).nonzero()[:, 0]
    unit = F.normalize(flat[alive], dim=1, eps=ZERO)
    cosine = (unit @ unit.T).fill_diagonal_(2)  # never its own partner
    if len(alive) < 2:
        return alive[:0], alive[:0], unit.new_empty(0)
    least, place = cosine.min(1)
    return alive, alive[place], least.clamp(-1, 1)


def pairs(model: HostModel | nn.Module, seed: int) -> list[Convolution]:
    """Analyse every convolution of at least two filters, in the model's order.

    Args:
        model: Any module.
        seed: Of the Gaussian filters.

    Raises:
        UserError: If there is none.
    """
    if seed < 0:
        raise UserError(f"--seed {seed}: give 0 or more")
    found = [(name, module.weight) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    found = [(name, weight) for name, weight in found if len(weight) > 1]
    if not found:
        raise UserError("The checkpoint holds no convolution of two filters or more; give a model such as YOLOv8.")
    generator = torch.Generator().manual_seed(seed)
    return [_analyse(name, weight, generator) for name, weight in progress(found, "Comparing filters")]


def _analyse(name: str, weight: torch.Tensor, generator: torch.Generator) -> Convolution:
    """Analyse one convolution."""
    filters, partner, cosine = opposites(weight)
    shape = (len(filters), *weight.shape[1:])
    gaussian = torch.stack([opposites(torch.randn(shape, generator=generator))[2] for _ in range(DRAWS)])
    arrays: list[Any] = [part.numpy() for part in (filters, partner, cosine, gaussian)]
    return Convolution(name, tuple(weight.shape), *arrays)

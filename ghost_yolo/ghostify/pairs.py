"""Maps of the trained model and the student at one place, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Pair:
    """Maps at one place of both models.

    Attributes:
        trained: Maps (b, c, h, w) of the trained model.
        student: Maps (b, k, h, w) of the student.
        keep: Indices (k,) of the trained maps that the student's stand for.
        weight: How much each position counts (b, 1, h, w); None where all count alike.
    """

    trained: torch.Tensor
    student: torch.Tensor
    keep: torch.Tensor
    weight: torch.Tensor | None = None

    def __add__(self, other: Pair) -> Pair:
        """Return the sums of maps that stand for the same ones."""
        return replace(self, trained=self.trained + other.trained, student=self.student + other.student)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Pair:
        """Return the maps after a function of each map alone."""
        return replace(self, trained=function(self.trained), student=function(self.student))

    def halves(self) -> tuple[Pair, Pair]:
        """Return the two halves of maps that were made to be split."""
        (a, b), (c, d) = self.trained.chunk(2, 1), self.student.chunk(2, 1)
        first, second = self.keep.chunk(2)
        return Pair(a, c, first, self.weight), Pair(b, d, second - a.shape[1], self.weight)


@dataclass(frozen=True)
class ReconstructionTask:
    """What a module without a closed form has to learn: to give target maps on its inputs."""

    module: Any
    x: torch.Tensor
    target: torch.Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.x)

    def batch(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of some samples."""
        return self.x[indices], self.target[indices]


def concat(pairs: Sequence[Pair]) -> Pair:
    """Return the concatenation along the channels."""
    before, keep = 0, []
    for pair in pairs:
        keep.append(pair.keep + before)
        before += pair.trained.shape[1]
    trained, student = (torch.cat([getattr(pair, name) for pair in pairs], 1) for name in ("trained", "student"))
    return Pair(trained, student, torch.cat(keep), pairs[0].weight)

"""What goes into a block and what should come out, over all photographs: half precision, on disk, one block at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ghost_yolo.registry import UserError

Pair = Callable[[list[int]], tuple[torch.Tensor, torch.Tensor]]
GIB = 1024**3


class Features:
    """Inputs (n, c1, h, w) and targets (n, c2, h, w) of one block; the operating system keeps in memory what fits."""

    def __init__(self, inputs: NDArray[np.float16], targets: NDArray[np.float16]) -> None:
        """Hold the two arrays."""
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        """Return how many photographs were recorded."""
        return len(self.inputs)

    def batch(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of some photographs, float32."""
        x, y = (torch.from_numpy(np.stack([array[i] for i in indices])).float() for array in (self.inputs, self.targets))
        return x, y


@contextmanager
def recorded(pair: Pair, indices: list[int], limit: int, size: int = 8) -> Iterator[Features]:
    """Record a block's inputs and targets into a temporary folder, which goes when the block is done.

    Args:
        pair: Returns inputs and targets of some photographs.
        indices: The photographs; where not all fit, the first ones that do.
        limit: Bytes that may be used on disk.
        size: Photographs in a forward pass.

    Raises:
        UserError: If the disk has not that much left, or not even one pass fits into the limit.
    """
    first = [part.half().numpy() for part in pair(indices[:size])]
    each = sum(part[0].nbytes for part in first)
    count = min(len(indices), limit // each)
    if count < min(size, len(indices)):
        raise UserError(f"{size} photographs need {size * each / GIB:.2f} GiB of cache and the limit is {limit / GIB:.2f}.")
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if count * each > free:
        raise UserError(
            f"The cache needs {count * each / GIB:.2f} GiB and {tempfile.gettempdir()} has {free / GIB:.2f}; "
            "give a smaller --cache, or another TMPDIR."
        )
    with tempfile.TemporaryDirectory(prefix="ghostify-", ignore_cleanup_errors=True) as folder:
        arrays = [
            np.lib.format.open_memmap(Path(folder) / f"{name}.npy", "w+", np.float16, (count, *part.shape[1:]))
            for name, part in zip(("inputs", "targets"), first, strict=True)
        ]
        for start in range(0, count, size):
            chosen = indices[start : min(start + size, count)]
            parts = first if start == 0 else [part.half().numpy() for part in pair(chosen)]
            for array, part in zip(arrays, parts, strict=True):
                array[start : start + len(chosen)] = part[: len(chosen)]
        yield Features(*arrays)

"""What goes into a block and what should come out, over all photographs: half precision, on disk, one block at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ghost_yolo.progress import progress
from ghost_yolo.registry import UserError

Pair = Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]]
GIB = 1024**3
BATCH = 8  # photographs in a forward pass


class Features:
    """Inputs (n, c1, h, w) and targets (n, c2, h, w) of one block; the operating system keeps in memory what fits."""

    def __init__(self, inputs: NDArray[np.float16], targets: NDArray[np.float16], device: torch.device) -> None:
        """Hold the two arrays, and the device on which batches are wanted."""
        self.inputs, self.targets, self.device = inputs, targets, device

    def __len__(self) -> int:
        """Return how many photographs were recorded."""
        return len(self.inputs)

    def batch(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of some photographs, float32."""
        chosen = list(indices)
        x, y = (torch.from_numpy(array[chosen]).to(self.device).float() for array in (self.inputs, self.targets))
        return x, y

    def batches(self, most: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all photographs once, or the first ones."""
        count = min(len(self), most or len(self))
        for start in range(0, count, BATCH):
            yield self.batch(range(start, min(start + BATCH, count)))


def bytes_each(pair: Pair) -> int:
    """Return how much one photograph takes."""
    return sum(part.half().nbytes for part in pair([0]))


def require_room(each: int, count: int, limit: float) -> None:
    """Raise an error, before any work, where the disk has not the room that the largest block may take.

    Args:
        each: Bytes that one photograph takes.
        count: Photographs that are wanted.
        limit: Bytes that may be used.
    """
    free = shutil.disk_usage(tempfile.gettempdir()).free
    least = min(BATCH, count) * each
    if limit < least:
        raise UserError(f"--cache {limit / GIB:g}: {BATCH} photographs already take {least / GIB:.3f} GiB; give more.")
    if min(count * each, limit) > free:
        raise UserError(
            f"Recorded maps may take {min(count * each, limit) / GIB:.2f} GiB and {tempfile.gettempdir()} has "
            f"{free / GIB:.2f}; give a smaller --cache, or another TMPDIR."
        )


@contextmanager
def recorded(pair: Pair, count: int, limit: float, text: str) -> Iterator[Features]:
    """Record a block's inputs and targets into a temporary folder, which goes when the block is done.

    Args:
        pair: Returns inputs and targets of some photographs.
        count: Photographs that are wanted; where not all fit, the first ones that do.
        limit: Bytes that may be used on disk.
        text: What the progress bar says.
    """
    first = pair([0])
    count = max(min(count, int(limit // sum(part.half().nbytes for part in first))), 1)
    with tempfile.TemporaryDirectory(prefix="ghostify-", ignore_cleanup_errors=True) as folder:
        inputs, targets = (_array(Path(folder) / f"{k}.npy", (count, *part.shape[1:])) for k, part in enumerate(first))
        for start in progress(range(0, count, BATCH), text):
            part = slice(start, min(start + BATCH, count))
            inputs[part], targets[part] = (maps.half().cpu().numpy() for maps in pair(range(part.start, part.stop)))
        yield Features(inputs, targets, first[0].device)
        del inputs, targets  # Windows does not remove a file that is mapped


def _array(file: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Return a new array of float16 in a file."""
    return np.lib.format.open_memmap(file, "w+", np.float16, shape)

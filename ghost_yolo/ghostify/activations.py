"""What goes into a block and what should come out, over all views: half precision, on disk, and each layer run only once.

Both models are taken through their layers together, from one place that is fitted to the next, on the same varied views of the
photographs. On disk lie only the maps that a later layer still takes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.calibration import Pictures
from ghost_yolo.ghostify.student import Target
from ghost_yolo.model.forward import Maps, forward_until, gather_inputs, input_indices
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.system import GIB

BATCH = 8  # photographs in a forward pass
SOME = 24  # views that a block's first weights are found by
Store = NDArray[np.float16]
Indices = list[int]


class Stream:
    """The maps of all views where a walk through a model stands.

    Attributes:
        model: The host's model, in eval mode.
        at: The layer before which the walk stands.
    """

    def __init__(self, model: Any, views: Store, folder: Path) -> None:
        """Stand before the first layer.

        Args:
            model: The host's model, in eval mode.
            views: Images (n, 3, h, w) in 0..1.
            folder: Where maps are kept; it is made.
        """
        self.model, self.at, self.folder = model, 0, folder
        self.count, self.device = len(views), next(model.parameters()).device
        self._maps: dict[int, Store] = {-1: views}
        folder.mkdir()

    def advance(self, stop: int, text: str) -> None:
        """Run the layers up to one, under a progress bar, and keep what it and later ones take."""
        if stop == self.at:
            return
        keep = needed(self.model, stop)
        for indices in batches(self.count, text):
            outputs = {j: self._load(j, indices) for j in needed(self.model, self.at)}
            with torch.no_grad():
                for layer in self.model.model[self.at : stop]:
                    outputs[layer.i] = layer(gather_inputs(layer, outputs))
            for j in keep & set(range(self.at, stop)):
                if j not in self._maps:
                    self._maps[j] = store(self.folder / f"{j}.npy", self.count, outputs[j])
                self._maps[j][indices] = outputs[j].half().cpu().numpy()
        for j in self._maps.keys() - keep:
            del self._maps[j]
            drop(self.folder / f"{j}.npy")
        self.at = stop

    def taken(self, indices: Indices) -> Maps:
        """Return what the layer at which the walk stands takes of some views, float32."""
        layer = self.model.model[self.at]
        return gather_inputs(layer, {j: self._load(j, indices) for j in input_indices(layer)})

    def _load(self, layer: int, indices: Indices) -> torch.Tensor:
        """Return the output of a layer for some views, float32."""
        return torch.from_numpy(self._maps[layer][indices]).to(self.device).float()


class Features:
    """What a place takes in, and what should come out."""

    def __init__(self, stream: Stream, place: Target, targets: Store) -> None:
        """Hold the stream that stands at the place, and the targets (n, c2, h, w)."""
        self.stream, self.place, self.targets = stream, place, targets

    def __len__(self) -> int:
        """Return how many views there are."""
        return len(self.targets)

    def batch(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of some views, float32."""
        target = torch.from_numpy(self.targets[indices]).to(self.stream.device).float()
        return self.place.taken(self.stream.taken(indices)), target

    def some(self) -> torch.Tensor:
        """Return inputs of as many views as least squares need."""
        return self.batch([*range(min(SOME, len(self)))])[0]

    def batches(self, most: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all views once, or the first ones."""
        yield from (self.batch(indices) for indices in batches(min(len(self), most or len(self))))


class Recorder:
    """Both models at the same place, on the same views: the student gives the inputs, the trained model the targets.

    The student's own inputs, since its earlier blocks are not perfect and a later one can make up for that.
    """

    def __init__(self, teacher: Any, student: Any, pictures: Pictures, count: int, folder: Path) -> None:
        """Draw the views and stand before the first layer; the teacher may be its own student."""
        self.folder, size, self._row = folder, pictures.images.shape[-1], 0
        views = store(folder / "views.npy", count, torch.empty(1, 3, size, size))
        for indices in batches(count, "Varying photographs"):
            views[indices] = pictures.batch(indices).half().cpu().numpy()
        self.teacher = Stream(teacher, views, folder / "teacher")
        self.student = self.teacher if student is teacher else Stream(student, views, folder / "student")

    def at(self, place: Target) -> Features:
        """Walk both models to a place and return its inputs and targets; places come in the models' order."""
        if place.row != self._row:  # before the walk goes on: else both would lie there
            for old in self.folder.glob("model.*.npy"):
                drop(old)
        self.teacher.advance(place.row, f"Trained model up to {place.name}")
        self.student.advance(place.row, f"New model up to {place.name}")
        self._row, module, targets = place.row, self.teacher.model.get_submodule(place.name), None
        for indices in batches(self.teacher.count):
            with torch.no_grad():
                y = module(place.taken(self.teacher.taken(indices)))
            targets = store(self.folder / f"{place.name}.npy", self.teacher.count, y) if targets is None else targets
            targets[indices] = y.half().cpu().numpy()
        assert targets is not None, "there is at least one view"
        return Features(self.student, place, targets)


@contextmanager
def recorder(teacher: Any, student: Any, pictures: Pictures, count: int) -> Iterator[Recorder]:
    """Yield a recorder whose files go with it."""
    with tempfile.TemporaryDirectory(prefix="ghostify-", ignore_cleanup_errors=True) as folder:
        yield Recorder(teacher, student, pictures, count, Path(folder))


def store(file: Path, count: int, like: torch.Tensor) -> Store:
    """Return a new array on disk for the maps of all views; like is a batch of them (b, c, h, w)."""
    return np.lib.format.open_memmap(file, "w+", np.float16, (count, *like.shape[1:]))


def drop(file: Path) -> None:
    """Remove a file that is no longer needed; Windows keeps one that is still mapped until its folder goes."""
    with suppress(PermissionError):
        file.unlink(missing_ok=True)


def batches(count: int, text: str = "") -> Iterator[list[int]]:
    """Yield the indices of all views, batch by batch, under a progress bar where there is a text."""
    every = [[*range(start, min(start + BATCH, count))] for start in range(0, count, BATCH)]
    yield from progress(every, text) if text else every


def needed(model: Any, stop: int) -> set[int]:
    """Return the layers before one whose outputs it or later ones take; -1 is the image."""
    return {j for layer in model.model[stop:] for j in input_indices(layer) if j < stop}


def bytes_each(model: Any, places: Sequence[Target], imgsz: int) -> int:
    """Return the most that one view takes on disk: the image, targets, and both models' maps at a place and the one before."""
    image = torch.zeros(1, 3, imgsz, imgsz, device=next(model.parameters()).device)
    last = len(model.model) - 1
    with torch.no_grad():
        taken, maps = forward_until(model, image, last, range(last))
        branches = [model.get_submodule(place.name)(place.taken(taken)) for place in places if place.row == last]
    sizes = {j: y.numel() for j, y in maps.items()}
    targets = sizes | {last: sum(y.numel() for y in branches)}  # a head's levels lie there together
    rows = sorted({place.row for place in places})
    live = [needed(model, before) | needed(model, row) for before, row in zip([0, *rows], rows, strict=False)]
    most = max(2 * sum(sizes.get(j, 0) for j in kept) + targets[row] for kept, row in zip(live, rows, strict=True))
    return 2 * (most + image.numel())


def views_within(each: int, count: int, limit: float) -> int:
    """Return how many of the wanted views fit.

    Args:
        each: Bytes that one takes.
        count: Views that are wanted.
        limit: Bytes that may be used.

    Raises:
        UserError: If not even a batch fits, or the disk has not that much left.
    """
    fit, free = min(count, int(limit // each)), shutil.disk_usage(tempfile.gettempdir()).free
    if fit < min(BATCH, count):
        raise UserError(f"--cache {limit / GIB:g}: {BATCH} views already take {BATCH * each / GIB:.3f} GiB; give more.")
    if fit * each > free:
        raise UserError(
            f"Recorded maps may take {fit * each / GIB:.2f} GiB and {tempfile.gettempdir()} has {free / GIB:.2f}; give a "
            "smaller --cache, or another TMPDIR."
        )
    return fit

"""Disk cache (float16) of each block's inputs and reconstruction targets; every layer runs once per sample.

Teacher and student advance together from one target module to the next, on the same augmented samples. Only maps that a later
layer still needs are kept on disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.student import TargetModule
from ghost_yolo.model.forward import Maps, forward_until, gather_inputs, input_indices
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.files import temporary_folder
from ghost_yolo.utils.system import GIB

BATCH_SIZE = 8
INIT_SAMPLES = 24  # for the closed-form initialisation
Array = NDArray[np.float16]
Indices = list[int]


class ActivationCache:
    """The maps of all samples at the current position of a layer-by-layer forward pass.

    Attributes:
        model: The host's model, in eval mode.
        position: Index of the next layer to run.
    """

    def __init__(self, model: HostModel, images: Array, folder: Path) -> None:
        """Start before the first layer.

        Args:
            model: The host's model, in eval mode.
            images: Samples (n, 3, h, w) in 0..1.
            folder: Folder of the cached maps; it is created.
        """
        self.model, self.position, self.folder = model, 0, folder
        self.count, self.device = len(images), next(model.parameters()).device
        self._maps: dict[int, Array] = {-1: images}
        folder.mkdir()

    def advance(self, stop: int, text: str) -> None:
        """Run the layers before `stop` under a progress bar, and keep what it and later layers need."""
        if stop == self.position:
            return
        keep = live_layers(self.model, stop)
        for indices in batch_indices(self.count, text):
            outputs = {j: self._load(j, indices) for j in live_layers(self.model, self.position)}
            with torch.no_grad():
                for layer in self.model.model[self.position : stop]:
                    outputs[layer.i] = layer(gather_inputs(layer, outputs))
            for j in keep & set(range(self.position, stop)):
                if j not in self._maps:
                    self._maps[j] = create_array(self.folder / f"{j}.npy", self.count, outputs[j])
                self._maps[j][indices] = outputs[j].half().cpu().numpy()
        for j in self._maps.keys() - keep:
            del self._maps[j]
            remove_file(self.folder / f"{j}.npy")
        self.position = stop

    def inputs(self, indices: Indices) -> Maps:
        """Return the inputs of the next layer for some samples, float32."""
        layer = self.model.model[self.position]
        return gather_inputs(layer, {j: self._load(j, indices) for j in input_indices(layer)})

    def _load(self, layer: int, indices: Indices) -> torch.Tensor:
        """Return the output of a layer for some samples, float32."""
        return torch.from_numpy(self._maps[layer][indices]).to(self.device).float()


class Samples(Protocol):
    """Inputs and target outputs of a module."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def batch(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and target outputs of some samples, float32."""


class ReconstructionData:
    """Inputs and target outputs of a target module."""

    def __init__(self, cache: ActivationCache, target: TargetModule, outputs: Array) -> None:
        """Hold the cache positioned at the module, and the target outputs (n, c2, h, w)."""
        self.cache, self.target, self.outputs = cache, target, outputs

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.outputs)

    def batch(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and target outputs of some samples, float32."""
        outputs = torch.from_numpy(self.outputs[indices]).to(self.cache.device).float()
        return self.target.select_input(self.cache.inputs(indices)), outputs

    def init_inputs(self) -> torch.Tensor:
        """Return the inputs for the closed-form initialisation."""
        return self.batch([*range(min(INIT_SAMPLES, len(self)))])[0]


class PairedCache:
    """Activation caches of teacher and student on the same samples.

    The student's own inputs are used, so that a block can compensate the errors of earlier ones.
    """

    def __init__(
        self, teacher: HostModel, student: HostModel, images: CalibrationImages, count: int, folder: Path
    ) -> None:
        """Draw the samples and start before the first layer; both models may be the same object."""
        self.folder, size, self._row = folder, images.images.shape[-1], 0
        samples = create_array(folder / "samples.npy", count, torch.empty(1, 3, size, size))
        for indices in batch_indices(count, "Augmenting images"):
            samples[indices] = images.batch(indices).half().cpu().numpy()
        self.teacher = ActivationCache(teacher, samples, folder / "teacher")
        self.student = self.teacher if student is teacher else ActivationCache(student, samples, folder / "student")

    def data_for(self, target: TargetModule) -> ReconstructionData:
        """Advance both models to a target module and return its data; targets must come in forward order."""
        if target.row != self._row:  # before the caches advance, so that both never lie on disk together
            for file in self.folder.glob("model.*.npy"):
                remove_file(file)
        self.teacher.advance(target.row, f"Teacher up to {target.name}")
        self.student.advance(target.row, f"Student up to {target.name}")
        self._row, module, outputs = target.row, self.teacher.model.get_submodule(target.name), None
        for indices in batch_indices(self.teacher.count):
            with torch.no_grad():
                y = module(target.select_input(self.teacher.inputs(indices)))
            outputs = (
                create_array(self.folder / f"{target.name}.npy", self.teacher.count, y) if outputs is None else outputs
            )
            outputs[indices] = y.half().cpu().numpy()
        assert outputs is not None, "there is at least one sample"
        return ReconstructionData(self.student, target, outputs)


@contextmanager
def cache_activations(
    teacher: HostModel, student: HostModel, images: CalibrationImages, count: int
) -> Iterator[PairedCache]:
    """Yield a cache in a temporary folder."""
    with temporary_folder("ghost-yolo-cache-") as folder:
        yield PairedCache(teacher, student, images, count, folder)


def create_array(file: Path, count: int, example: torch.Tensor) -> Array:
    """Create an array on disk for the maps of all samples, shaped like an example batch (b, c, h, w)."""
    array = np.lib.format.open_memmap(file, "w+", np.float16, (count, *example.shape[1:]))
    if hasattr(os, "posix_fallocate"):  # writing to a sparse file on a full disk would end the process by SIGBUS
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return array


def remove_file(file: Path) -> None:
    """Remove a cached file; Windows keeps a file that is still mapped until its folder is removed."""
    with suppress(PermissionError):
        file.unlink(missing_ok=True)


def batch_indices(count: int, text: str = "") -> Iterator[Indices]:
    """Yield the indices of all samples in batches, under a progress bar if a text is given."""
    batches = [[*range(start, min(start + BATCH_SIZE, count))] for start in range(0, count, BATCH_SIZE)]
    yield from progress(batches, text) if text else batches


def batches(data: Samples, max_samples: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield inputs and target outputs of all samples once, or of the first ones."""
    yield from (data.batch(indices) for indices in batch_indices(min(len(data), max_samples or len(data))))


def live_layers(model: HostModel, stop: int) -> set[int]:
    """Return the layers before `stop` whose outputs are inputs of it or of later layers; -1 is the image."""
    return {j for layer in model.model[stop:] for j in input_indices(layer) if j < stop}


def bytes_per_sample(model: HostModel, targets: Sequence[TargetModule], imgsz: int) -> int:
    """Return the largest cache size per sample: image, target outputs, and both models' maps at a target and the one before."""
    image = torch.zeros(1, 3, imgsz, imgsz, device=next(model.parameters()).device)
    last = len(model.model) - 1
    with torch.no_grad():
        inputs, maps = forward_until(model, image, last, range(last))
        levels = [model.get_submodule(t.name)(t.select_input(inputs)) for t in targets if t.row == last]
    sizes = {j: y.numel() for j, y in maps.items()}
    outputs = sizes | {last: sum(y.numel() for y in levels)}  # all levels of a head are cached together
    rows = sorted({target.row for target in targets})
    live = [live_layers(model, before) | live_layers(model, row) for before, row in zip([0, *rows], rows, strict=False)]
    peak = max(2 * sum(sizes.get(j, 0) for j in kept) + outputs[row] for kept, row in zip(live, rows, strict=True))
    return 2 * (peak + image.numel())


def limit_samples(wanted: int, sample_bytes: int, cache: float) -> int:
    """Return how many of the wanted samples fit into the cache.

    Args:
        wanted: Number of samples.
        sample_bytes: Bytes per sample.
        cache: Size of the cache in GiB.

    Raises:
        UserError: If not even one batch fits, or the disk is too full.
    """
    count, free = min(wanted, int(cache * GIB // sample_bytes)), shutil.disk_usage(tempfile.gettempdir()).free
    if count < min(BATCH_SIZE, wanted):
        needed = BATCH_SIZE * sample_bytes / GIB
        raise UserError(
            f"--cache {cache:g}: one batch of {BATCH_SIZE} samples needs {needed:.3f} GiB; give a larger cache"
        )
    if count * sample_bytes > free:
        raise UserError(
            f"--cache {cache:g}: cached activations may need {count * sample_bytes / GIB:.2f} GiB and "
            f"{tempfile.gettempdir()} has {free / GIB:.2f} GiB free; give a smaller cache, or set TMPDIR"
        )
    return count

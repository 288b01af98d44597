"""Fit a whole student to the trained model in closed form: row by row, on maps that are kept on disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypedDict

import torch
from ultralytics.nn.modules.head import Classify, Detect

from ghost_yolo.errors import SwapError
from ghost_yolo.ghostify.activations import (
    BATCH_SIZE,
    PairedCache,
    batch_indices,
    bytes_per_sample,
    cache_activations,
    limit_samples,
)
from ghost_yolo.ghostify.handlers import fit
from ghost_yolo.ghostify.heads import fit_classify, fit_head, fit_shell
from ghost_yolo.ghostify.importance import resize_weight, weigh_images
from ghost_yolo.ghostify.pairs import Pair, ReconstructionTask
from ghost_yolo.ghostify.reconstruct import EPS, reconstruct
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.student import TargetModule
from ghost_yolo.model.forward import as_list, has_weights, input_indices
from ghost_yolo.typing import HostLayer, HostModel

SAMPLES = 96  # augmented images, or more where they are small and there are more: of NEU-DET at 224 pixels 384 gave the narrow
# model 0.251 mAP50-95 on val instead of 0.224, before the last pass
COARSE_STRIDE, COARSE_POSITIONS = 32, 16_000  # wanted there: the coarsest convolutions have the most unknowns
MEMORY = 2**30  # bytes of maps in one row, of both models: the samples that are used there are as many as fit
INNER = 6  # maps inside a row, as a multiple of those that enter and leave it


@dataclass(frozen=True)
class KeptChannels:
    """Which maps of the trained model a row's output stands for.

    Attributes:
        keep: Their indices.
        channels: How many there are.
    """

    keep: torch.Tensor
    channels: int


KeptByRow = dict[int, KeptChannels]  # by row, -1 for the image


class FittedRow(TypedDict):
    """What is known of a row after it was fitted; the error of a head is not one."""

    state: dict[str, torch.Tensor]
    keep: torch.Tensor
    channels: int
    error: float | None
    seconds: float


def fit_student(run: GhostifyRun, student: HostModel, label: str = "") -> KeptByRow:
    """Fit all rows in forward order, or load those that the run state has.

    Args:
        run: The run.
        student: The untrained student; its weights are set.
        label: Prefix of the results' names in the run state, where several students are fitted.

    Returns:
        What the output maps of each row stand for.

    Raises:
        SwapError: If a row has no handler and cannot stay as it is.
    """
    kept: KeptByRow = {-1: KeptChannels(torch.arange(3), 3)}
    if all(result_name(layer.i, label) in run.state.results for layer in student.model if has_weights(layer)):
        for layer in student.model:  # resumed behind the fit
            _finish(run, layer, kept, label)
        return kept
    settings = run.config.settings
    wanted = wanted_samples(settings.imgsz, len(run.images))
    count = limit_samples(wanted, fit_bytes_per_sample(run.teacher, settings.imgsz), settings.cache)
    torch.manual_seed(settings.seed)
    with cache_activations(run.teacher, student, run.images, count) as cache, torch.no_grad():
        weight = _weigh_samples(cache)
        for layer in student.model:
            if has_weights(layer):
                for side in (cache.teacher, cache.student):  # also before rows that are known: maps are rounded at each
                    side.advance(layer.i, f"Maps up to row {layer.i}")
                if result_name(layer.i, label) not in run.state.results:
                    _fit_row(run, cache, layer, (kept, weight), label)
            _finish(run, layer, kept, label)
    return kept


def wanted_samples(imgsz: int, images: int) -> int:
    """Return how many augmented images a row is fitted on, where there are so many images."""
    positions = max(imgsz // COARSE_STRIDE, 1) ** 2
    return max(SAMPLES, min(COARSE_POSITIONS // positions, images))


def fit_bytes_per_sample(teacher: HostModel, imgsz: int) -> int:
    """Return the largest cache size per sample where all rows are fitted, see `bytes_per_sample`."""
    rows = range(len(teacher.model) - 1)
    return bytes_per_sample(teacher, [TargetModule(f"model.{row}", row, "") for row in rows], imgsz)


def result_name(row: int, label: str = "") -> str:
    """Return the name of a row's result in the run state."""
    return f"{label}fitted {row}"


def _finish(run: GhostifyRun, layer: HostLayer, kept: KeptByRow, label: str) -> None:
    """Load a row's result, and note what its output stands for."""
    if has_weights(layer):
        result: FittedRow = run.state.results[result_name(layer.i, label)]
        layer.load_state_dict(result["state"])
        kept[layer.i] = KeptChannels(result["keep"], result["channels"])
        return
    keep, channels = [], 0
    for index in input_indices(layer):  # of a Concat; an Upsample has one input
        keep.append(kept[index].keep + channels)
        channels += kept[index].channels
    kept[layer.i] = KeptChannels(torch.cat(keep), channels)


def _weigh_samples(cache: PairedCache) -> torch.Tensor | None:
    """Return how much the positions of all samples count."""
    parts = [
        weigh_images(cache.teacher.model, torch.cat(as_list(cache.teacher.inputs(indices))))
        for indices in batch_indices(cache.teacher.count)
    ]
    return None if parts[0] is None else torch.cat([part for part in parts if part is not None])


def _fit_row(
    run: GhostifyRun, cache: PairedCache, layer: HostLayer, known: tuple[KeptByRow, torch.Tensor | None], label: str
) -> None:
    """Fit a row and keep the result."""
    start, trained, text = time.perf_counter(), run.teacher.model[layer.i], f"row {layer.i}"
    pairs = _pairs(cache, layer, *known)
    try:
        keep, tasks = _fit(trained, layer, pairs)
    except SwapError as reason:
        raise SwapError(
            f"Row {layer.i}, {layer.type.rpartition('.')[2]}: {reason}; leave --width out, or give --block"
        ) from reason
    for number, task in enumerate(tasks):
        torch.manual_seed(run.config.settings.seed + layer.i + number)
        with torch.enable_grad():
            reconstruct(task.module, task, run.config.settings.reconstruct_steps, f"Reconstructing {text}")
    error, channels = _error(trained, layer, pairs, keep)
    result = FittedRow(
        state=layer.state_dict(), keep=keep, channels=channels, error=error, seconds=time.perf_counter() - start
    )
    run.state.add(result_name(layer.i, label), result)


def _pairs(cache: PairedCache, layer: HostLayer, kept: KeptByRow, weight: torch.Tensor | None) -> list[Pair]:
    """Return what reaches a row in both models, for as many samples as fit into memory."""
    sides = (cache.teacher, cache.student)
    one = [maps for side in sides for maps in as_list(side.inputs([0]))]
    count = MEMORY // (4 * INNER * sum(maps.numel() for maps in one))
    indices = [*range(min(max(count, BATCH_SIZE), cache.teacher.count))]
    trained, student = (as_list(side.inputs(indices)) for side in sides)
    places = input_indices(layer)
    weight = None if weight is None else weight[indices]
    return [
        Pair(a, b, kept[j].keep, resize_weight(weight, a)) for a, b, j in zip(trained, student, places, strict=True)
    ]


def _fit(trained: HostLayer, layer: HostLayer, pairs: list[Pair]) -> tuple[torch.Tensor, list[ReconstructionTask]]:
    """Fit a row; return what its output stands for, and what has no closed form."""
    if isinstance(layer, Classify):
        fit_classify(trained, layer, pairs[0])
        return torch.arange(0), []
    if isinstance(layer, Detect):
        return torch.arange(0), fit_head(trained, layer, pairs)
    if type(layer) is type(trained):
        return fit(trained, layer, pairs[0]).keep, []
    task, keep = fit_shell(trained, layer, pairs[0])
    return keep, [task]


def _error(trained: HostLayer, layer: HostLayer, pairs: list[Pair], keep: torch.Tensor) -> tuple[float | None, int]:
    """Return the unexplained share of a row's maps, and the trained row's channels; None and 0 for a head."""
    if not len(keep):
        return None, 0
    y = trained(pairs[0].trained)
    return unexplained(layer(pairs[0].student), y[:, keep]), y.shape[1]


def unexplained(y: torch.Tensor, target: torch.Tensor) -> float:
    """Return the share of the variance of maps (b, c, h, w) that is not linear in other maps, the mean over the channels."""
    y, target = (maps - maps.mean((0, 2, 3), keepdim=True) for maps in (y, target))
    squares = y.square().sum((0, 2, 3)) * target.square().sum((0, 2, 3))
    return float((1 - (y * target).sum((0, 2, 3)).square() / (squares + EPS)).mean())

"""Train a student: fit or reconstruct its rows, then distill it; results in the run state are not computed again."""

from __future__ import annotations

import copy
import time
from functools import partial

import torch

from ghost_yolo.ghostify.activations import (
    BATCH_SIZE,
    batch_indices,
    bytes_per_sample,
    cache_activations,
    limit_samples,
)
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.closed_form import init_from_teacher
from ghost_yolo.ghostify.distill import distill, mean_prediction_loss
from ghost_yolo.ghostify.fitting import KeptByRow, fit_student, result_name
from ghost_yolo.ghostify.reconstruct import reconstruct, reconstruction_error
from ghost_yolo.ghostify.report import Reconstruction
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.student import Candidate
from ghost_yolo.typing import HostModel

MIN_SAMPLES = 256  # cached samples where there are fewer calibration images
DISTILLATION = "distillation"  # names in the run state
LOSSES = "held-out losses"


def train_student(run: GhostifyRun, student: Candidate, label: str = "") -> list[Reconstruction]:
    """Reconstruct all target modules in forward order, then distill the whole student.

    Results in the run state are not computed again. Every stage sets the seed anew, so that a resumed run gives the same result.
    """
    state, targets = run.state, student.targets
    if not targets:  # a target that the trained model itself meets
        return []
    kept: KeptByRow = {}
    if student.reshaped:
        kept = fit_student(run, student.model, label)
    else:
        if any(target.name not in state.results for target in targets):
            reconstruct_targets(run, student)
        for target in targets:
            student.model.get_submodule(target.name).load_state_dict(state.results[target.name]["state"])
    distill_student(run, student, kept, label)
    names = [result_name(target.row, label) if student.reshaped else target.name for target in targets]
    results = [state.results[name] for name in names]
    return [Reconstruction(t, result["error"], result["seconds"]) for t, result in zip(targets, results, strict=True)]


def distill_student(run: GhostifyRun, student: Candidate, kept: KeptByRow, label: str) -> None:
    """Distill the whole student; of a reshaped one the closed form stays where that predicts the held-out images better."""
    state, settings, model = run.state, run.config.settings, student.model
    steps, images = settings.distill_steps or 0, run.held_out_images if student.reshaped else None
    before = 0.0 if images is None else held_out_loss(run.teacher, model, images)
    start = copy.deepcopy(model.state_dict()) if images is not None else {}
    torch.manual_seed(settings.seed + len(student.targets))
    callback, resumed = partial(state.add, label + DISTILLATION), state.results.get(label + DISTILLATION)
    keep = {row: channels.keep for row, channels in kept.items()}
    weight = 1.0 if settings.maps_weight is None or not student.reshaped else settings.maps_weight
    mixed = settings.mixed_precision
    distill(run.teacher, student, run.images, steps, callback, resumed, keep, weight, mixed_precision=mixed)
    if images is not None and steps:
        after = held_out_loss(run.teacher, model, images)
        state.add(label + LOSSES, [before, after])
        if after >= before:
            model.load_state_dict(start)


def held_out_loss(teacher: HostModel, model: HostModel, images: CalibrationImages) -> float:
    """Return the loss of a student's predictions on images as they are."""
    batches = (images.batch(indices, augment=False) for indices in batch_indices(len(images)))
    losses = [mean_prediction_loss(teacher, model, batch) * len(batch) for batch in batches]
    return sum(losses) / len(images)


def reconstruct_targets(run: GhostifyRun, student: Candidate) -> None:
    """Reconstruct the target modules that the run state lacks, and load the others."""
    settings, results, targets = run.config.settings, run.state.results, student.targets
    wanted = min(max(len(run.images), MIN_SAMPLES), settings.reconstruct_steps * BATCH_SIZE)
    count = limit_samples(wanted, bytes_per_sample(run.teacher, targets, settings.imgsz), settings.cache)
    torch.manual_seed(settings.seed)
    with cache_activations(run.teacher, student.model, run.images, count) as cache:
        for number, target in enumerate(targets):
            module, start = student.model.get_submodule(target.name), time.perf_counter()
            data = cache.data_for(target)
            if target.name not in results:
                torch.manual_seed(settings.seed + number)
                init_from_teacher(module, run.teacher.get_submodule(target.name), data.init_inputs())
                reconstruct(module, data, settings.reconstruct_steps, f"Reconstructing {target.name}")
                error, seconds = reconstruction_error(module, data), time.perf_counter() - start
                run.state.add(target.name, {"state": module.state_dict(), "error": error, "seconds": seconds})
            module.load_state_dict(results[target.name]["state"])

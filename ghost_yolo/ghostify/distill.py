"""Label-free distillation of the whole student: its maps and raw predictions against the teacher's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, TypedDict

import torch
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules.conv import Conv
from ultralytics.nn.modules.head import Classify

from ghost_yolo.ghostify.activations import BATCH_SIZE
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.importance import branch_outputs, resize_weight, weigh_positions
from ghost_yolo.ghostify.muon import Muon
from ghost_yolo.ghostify.reconstruct import EPS, one_cycle, relative_error, require_finite
from ghost_yolo.ghostify.student import Candidate
from ghost_yolo.model.forward import Maps, as_list, forward_until, has_weights, input_indices
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.console import progress

# Learning rates, chosen on val in results/tenfold.md
LEARNING_RATE = 3e-3  # of BatchNorm, biases and depthwise convolutions
NEAR_RATE = 3e-4  # of the same where only the activation is new: its closed form is near already
MUON_RATIO = 2.0  # of the rate of all other convolutions to that
GRAD_CLIP_NORM = 10.0
CHECKPOINT_EVERY = 100  # steps
Levels = list[tuple[torch.Tensor, torch.Tensor]]  # raw boxes (b, 4 * reg_max, h, w) and classes (b, nc, h, w)


class Predictions(NamedTuple):
    """What a head predicts, raw.

    Attributes:
        levels: Of the box and class branches; empty for a classifier.
        logits: Of a classifier, (b, nc); None for a head with boxes.
    """

    levels: Levels
    logits: torch.Tensor | None


class Outputs(NamedTuple):
    """What a model computes, in float32.

    Attributes:
        inputs: Of the head, by level.
        maps: Outputs of rows.
        predictions: Of the head.
        others: Masks' coefficients and prototypes, key points or angles.
    """

    inputs: list[torch.Tensor]
    maps: dict[int, torch.Tensor]
    predictions: Predictions
    others: list[torch.Tensor]


class DistillState(TypedDict):
    """State of a distillation from which it is resumed."""

    step: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    rng: torch.Tensor


def distill(
    teacher: HostModel,
    student: Candidate,
    images: CalibrationImages,
    steps: int,
    callback: Callable[[DistillState], object],
    state: DistillState | None = None,
    kept: Mapping[int, torch.Tensor] | None = None,
    maps_weight: float = 1.0,
    *,
    mixed_precision: bool = False,
) -> None:
    """Train all weights of the student by Muon on augmented images, with fixed BatchNorm statistics.

    Args:
        teacher: The trained model.
        student: The reconstructed student; the maps of its replaced rows are compared beside the inputs of the head.
        images: Calibration images.
        steps: Training steps.
        callback: Called with the state every CHECKPOINT_EVERY steps.
        state: The state to resume from.
        kept: Which maps of the teacher those of a row stand for; by default all.
        maps_weight: How often the error of the maps counts beside the loss of the predictions.
        mixed_precision: Compute both models in bfloat16; weights and losses stay in float32.
    """
    model, rows = student.model, compared_rows(student)
    model.requires_grad_()
    for each in (teacher, model):
        each.to(memory_format=torch.channels_last)  # 0.95 of the time on a CPU, see results/tenfold.md
    rate = NEAR_RATE if student.keeps_shape else LEARNING_RATE
    how = {"weigh": student.reshaped, "mixed_precision": mixed_precision}
    optimizer = Muon(model.parameters(), rate, MUON_RATIO * rate)
    done = restore(model, optimizer, state) if state else 0
    scheduler = one_cycle(optimizer, optimizer.rates, steps, done)
    for step in progress(range(done, steps), "Distilling"):
        batch = images.batch(torch.randint(len(images), (BATCH_SIZE,)).tolist()).to(memory_format=torch.channels_last)
        loss = distillation_loss(teacher, model, batch, rows, kept, maps_weight, **how)
        require_finite(loss, "Distilling")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP_NORM)
        optimizer.step()
        scheduler.step()
        if (step + 1) % CHECKPOINT_EVERY == 0:
            callback(checkpoint(model, optimizer, step + 1))
    for each in (teacher, model):
        each.to(memory_format=torch.contiguous_format)
    model.eval().requires_grad_(requires_grad=False)


def checkpoint(model: HostModel, optimizer: torch.optim.Optimizer, step: int) -> DistillState:
    """Return the state after a number of steps; training on changes it."""
    return {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
    }


def restore(model: HostModel, optimizer: torch.optim.Optimizer, state: DistillState) -> int:
    """Restore a state and return its number of steps."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it takes the tensors themselves
    torch.set_rng_state(state["rng"])
    return state["step"]


def compared_rows(student: Candidate) -> set[int]:
    """Return the rows whose maps are compared: those that were replaced, of a reshaped model all but convolutions."""
    if not student.reshaped:
        return set(student.plan)
    return {layer.i for layer in student.model.model if has_weights(layer) and not isinstance(layer, Conv)}


def distillation_loss(
    teacher: HostModel,
    student: HostModel,
    images: torch.Tensor,
    rows: Collection[int],
    kept: Mapping[int, torch.Tensor] | None = None,
    maps_weight: float = 1.0,
    *,
    weigh: bool = False,
    mixed_precision: bool = False,
) -> torch.Tensor:
    """Return the loss of a batch: relative errors of maps and of masks, key points or angles, and the loss of the predictions.

    Args:
        teacher: The trained model.
        student: The student.
        images: Images (b, 3, h, w) in 0..1.
        rows: Rows whose output maps are compared, beside the inputs of the head.
        kept: Which maps of the teacher those of a row stand for; by default all.
        maps_weight: How often the error of the maps counts beside the loss of the predictions.
        weigh: Whether a position counts as much as the teacher is sure of an object there.
        mixed_precision: Compute both models in bfloat16.
    """
    head = student.model[-1]
    inner = set(rows) - {len(student.model) - 1}
    with torch.autocast(images.device.type, torch.bfloat16) if mixed_precision else nullcontext():
        with torch.no_grad():
            target = compute(teacher, images, inner)
        found = compute(student, images, inner)
    kept = kept or {}
    entering = zip(input_indices(head), found.inputs, target.inputs, strict=True)
    compared = [*entering, *((i, found.maps[i], target.maps[i]) for i in sorted(inner))]
    pairs = [(y, expected[:, kept[i]] if i in kept else expected) for i, y, expected in compared]
    counts = weigh_positions([classes for _, classes in target.predictions.levels]) if weigh else None
    others = [*zip(found.others, target.others, strict=True)]
    loss = maps_weight * _mean_error(pairs, counts) + _mean_error(others, counts)
    return loss + prediction_loss(found.predictions, target.predictions, head)


def compute(model: HostModel, images: torch.Tensor, rows: Collection[int]) -> Outputs:
    """Return what a model computes from images, in float32 under autocast too, with the output maps of rows."""
    head = model.model[-1]
    inputs, maps = forward_until(model, images, len(model.model) - 1, rows)
    levels, logits = predictions(head, inputs)
    return Outputs(
        [x.float() for x in as_list(inputs)],
        {i: y.float() for i, y in maps.items()},
        Predictions(
            [(boxes.float(), classes.float()) for boxes, classes in levels], None if logits is None else logits.float()
        ),
        [y.float() for y in other_outputs(head, as_list(inputs))],
    )


def other_outputs(head: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return masks' coefficients by level and prototypes, key points or angles by level; nothing of other heads."""
    found = branch_outputs(head, "cv4", inputs)
    if hasattr(head, "proto"):
        found.append(head.proto(inputs if hasattr(head.proto, "feat_fuse") else inputs[0]))
    return found


def _mean_error(pairs: list[tuple[torch.Tensor, torch.Tensor]], counts: torch.Tensor | None) -> torch.Tensor:
    """Return the mean of the relative errors of maps and their targets; 0 without any."""
    errors = [relative_error(y, expected, resize_weight(counts, y)) for y, expected in pairs]
    return torch.stack(errors).mean() if errors else torch.zeros(())


@torch.no_grad()
def mean_prediction_loss(teacher: HostModel, student: HostModel, images: torch.Tensor) -> float:
    """Return the loss of a student's predictions of a batch."""
    last = len(student.model) - 1
    target, found = (
        predictions(model.model[last], forward_until(model, images, last)[0]) for model in (teacher, student)
    )
    return float(prediction_loss(found, target, student.model[last]))


def predictions(head: Any, inputs: Maps) -> Predictions:
    """Return what a head predicts, see `branch_outputs`."""
    if isinstance(head, Classify):
        return Predictions([], head.linear(head.pool(head.conv(torch.cat(as_list(inputs), 1))).flatten(1)))
    return Predictions([*zip(*(branch_outputs(head, name, inputs) for name in ("cv2", "cv3")), strict=True)], None)


def prediction_loss(student: Predictions, teacher: Predictions, head: Any) -> torch.Tensor:
    """Return the loss of the predictions, 0 where they are equal: of a classifier the Kullback-Leibler divergence.

    Of boxes that of all levels together: the sum over all positions is divided by the sum of the teacher's confidence over all levels, not level by level: a trained
    detector finds nearly everything on one or two of them, and what the others say hardly matters (results/tenfold.md).
    """
    if teacher.logits is not None and student.logits is not None:
        found, expected = student.logits.log_softmax(1), teacher.logits.log_softmax(1)
        return F.kl_div(found, expected, reduction="batchmean", log_target=True)
    losses, confidences = zip(
        *(_level_loss(y, expected, head.reg_max) for y, expected in zip(student.levels, teacher.levels, strict=True)),
        strict=True,
    )
    return torch.stack(losses).sum() / (torch.stack(confidences).sum() + EPS)  # it may be sure of nothing at all


def _level_loss(
    student: tuple[torch.Tensor, torch.Tensor], teacher: tuple[torch.Tensor, torch.Tensor], reg_max: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of the predictions of a level, summed over the positions, and the sum of the teacher's confidence.

    Classes: Kullback-Leibler divergence of each class's probability. Boxes: that of the distributions over the distance bins,
    or the absolute difference where there is one bin, weighted by the teacher's confidence, since background has no box.
    """
    (boxes, classes), (teacher_boxes, teacher_classes) = student, teacher
    probability = teacher_classes.sigmoid()
    confidence = probability.amax(1, keepdim=True)
    class_loss = probability * (F.logsigmoid(teacher_classes) - F.logsigmoid(classes))
    class_loss = class_loss + (1 - probability) * (F.logsigmoid(-teacher_classes) - F.logsigmoid(-classes))
    if reg_max > 1:
        target = _log_distribution(teacher_boxes, reg_max)
        box_loss = F.kl_div(_log_distribution(boxes, reg_max), target, reduction="none", log_target=True).sum(2)
    else:
        box_loss = (boxes - teacher_boxes).abs()
    return class_loss.sum() + (box_loss.mean(1, keepdim=True) * confidence).sum(), confidence.sum()


def _log_distribution(boxes: torch.Tensor, bins: int) -> torch.Tensor:
    """Return the log probabilities (b, 4, bins, h, w) of the distances."""
    return boxes.view(len(boxes), 4, bins, *boxes.shape[2:]).log_softmax(2)

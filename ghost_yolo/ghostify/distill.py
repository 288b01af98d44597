"""A last pass over the whole model, without labels: the student's maps and raw predictions against the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ghost_yolo.ghostify.activations import BATCH
from ghost_yolo.ghostify.calibration import Pictures
from ghost_yolo.ghostify.reconstruct import one_cycle, relative_error
from ghost_yolo.ghostify.student import Target
from ghost_yolo.model.forward import Maps, forward_until
from ghost_yolo.utils.console import progress

RATE = 1e-3  # of new and trained blocks alike: results/ghostify.md
LONGEST = 10.0  # a gradient is cut to this length
EVERY = 100  # steps between two states that are kept
State = dict[str, Any]
Keep = Callable[[State], object]
Levels = list[tuple[torch.Tensor, torch.Tensor]]  # boxes (b, 4 * reg_max, h, w) and classes (b, nc, h, w), both raw


def polish(
    teacher: Any,
    student: Any,
    places: Sequence[Target],
    pictures: Pictures,
    steps: int,
    keep: Keep,
    state: State | None,
) -> None:
    """Train all of the student against the teacher by Adam, BN statistics held, on photographs varied anew each time.

    Args:
        teacher: The trained model.
        student: The model whose blocks have been fitted.
        places: What was fitted; the maps of their rows are compared beside those that the head takes in.
        pictures: Photographs without labels.
        steps: Batches to learn from.
        keep: Is handed the state now and then.
        state: Where to go on, as it was handed over; None to begin.
    """
    student.requires_grad_()
    optimizer = torch.optim.Adam(student.parameters(), RATE)
    done = restore(student, optimizer, state) if state else 0
    schedule = one_cycle(optimizer, RATE, steps, done)
    rows = {place.row for place in places}
    for step in progress(range(done, steps), "Polishing the whole"):
        loss = distance(teacher, student, pictures.batch(torch.randint(len(pictures), (BATCH,)).tolist()), rows)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(student.parameters(), LONGEST)
        optimizer.step()
        schedule.step()
        if (step + 1) % EVERY == 0:
            random = torch.get_rng_state()
            keep({"done": step + 1, "model": student.state_dict(), "adam": optimizer.state_dict(), "random": random})
    student.eval().requires_grad_(requires_grad=False)


def restore(student: Any, optimizer: torch.optim.Adam, state: State) -> int:
    """Put everything where it was, and return the steps that were done."""
    student.load_state_dict(state["model"])
    optimizer.load_state_dict(state["adam"])
    torch.set_rng_state(state["random"])
    return int(state["done"])


def distance(teacher: Any, student: Any, images: torch.Tensor, rows: Collection[int]) -> torch.Tensor:
    """Return how far the student is from the teacher on a batch: relative error of maps, plus that of predictions."""
    head = len(student.model) - 1
    inner = set(rows) - {head}
    with torch.no_grad():
        taken, maps = forward_until(teacher, images, head, inner)
        wanted = predictions(teacher.model[head], taken)
        others = branch(teacher.model[head], "cv4", taken)
    given, ours = forward_until(student, images, head, inner)
    pairs = [*zip(_each(given), _each(taken), strict=True), *((ours[i], maps[i]) for i in inner)]
    pairs += zip(branch(student.model[head], "cv4", given), others, strict=True)  # masks, key points or angles
    loss = torch.stack([relative_error(y, target) for y, target in pairs]).mean()
    levels = zip(predictions(student.model[head], given), wanted, strict=True)
    return sum((disagreement(ours, theirs, student.model[head].reg_max) for ours, theirs in levels), loss)


def _each(maps: Maps) -> list[torch.Tensor]:
    """Return what a layer takes in as a list."""
    return [maps] if isinstance(maps, torch.Tensor) else maps


def predictions(head: Any, maps: Maps) -> Levels:
    """Return what the box and class branches of a head say at each level; nothing for a head that has none."""
    return [*zip(branch(head, "cv2", maps), branch(head, "cv3", maps), strict=True)]


def branch(head: Any, name: str, maps: Maps) -> list[torch.Tensor]:
    """Return what a branch of a head says at each level, the one that is deployed where there are two."""
    levels = getattr(head, f"one2one_{name}", None)
    levels = getattr(head, name, None) if levels is None else levels
    return [] if levels is None else [level(x) for level, x in zip(levels, _each(maps), strict=True)]


def disagreement(
    ours: tuple[torch.Tensor, torch.Tensor], theirs: tuple[torch.Tensor, torch.Tensor], bins: int
) -> torch.Tensor:
    """Return how much a level's predictions disagree, 0 where they are the same.

    Classes: Kullback-Leibler divergence of each class's probability. Boxes: that of the distributions over the distance bins,
    or the absolute difference where there is one bin. Both in units of the teacher's
    confidence, by which the boxes are also weighted: a place that shows nothing has no box.
    """
    (boxes, classes), (their_boxes, their_classes) = ours, theirs
    probability = their_classes.sigmoid()
    sure = probability.amax(1, keepdim=True)
    unlike = probability * (F.logsigmoid(their_classes) - F.logsigmoid(classes))
    unlike = unlike + (1 - probability) * (F.logsigmoid(-their_classes) - F.logsigmoid(-classes))
    if bins > 1:
        target = _bins(their_boxes, bins)
        off = F.kl_div(_bins(boxes, bins), target, reduction="none", log_target=True).sum(2)
    else:
        off = (boxes - their_boxes).abs()
    return (unlike.sum() + (off.mean(1, keepdim=True) * sure).sum()) / sure.sum()


def _bins(boxes: torch.Tensor, bins: int) -> torch.Tensor:
    """Return the log probabilities (b, 4, bins, h, w) of the distances."""
    return boxes.view(len(boxes), 4, bins, *boxes.shape[2:]).log_softmax(2)

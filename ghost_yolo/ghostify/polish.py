"""A last pass over the whole model: the new blocks together, so that the head gets what the teacher's head got."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from ghost_yolo.ghostify.fit import BATCH, relative_error
from ghost_yolo.ghostify.pictures import Pictures
from ghost_yolo.ghostify.student import walk

RATE = 1e-3


def polish(
    teacher: Any, student: Any, rows: Collection[int], pictures: Pictures, steps: int, tick: Callable[[], object]
) -> None:
    """Train the swapped rows together against the teacher, BN statistics held, on varied photographs.

    Args:
        teacher: The trained model.
        student: The model whose blocks have been fitted.
        rows: The swapped rows; a head among them learns its outputs.
        pictures: Photographs without labels.
        steps: Batches to learn from.
        tick: Is called after each step.
    """
    head = len(student.model) - 1
    sources = student.model[head].f
    wanted = {*rows, *(sources if isinstance(sources, list) else [head - 1])} - {head}
    learning = [p for row in rows for p in student.model[row].parameters()]
    for parameter in learning:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(learning, RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 2), pct_start=0.1)
    for _ in range(steps):
        images = pictures.batch(torch.randint(len(pictures), (BATCH,)).tolist())
        loss = distance(teacher, student, images, head, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 10.0)
        optimizer.step()
        schedule.step()
        tick()
    student.eval().requires_grad_(requires_grad=False)


def distance(teacher: Any, student: Any, images: torch.Tensor, head: int, wanted: Collection[int]) -> torch.Tensor:
    """Return the mean relative error of the maps that are compared."""
    with torch.no_grad():
        _, targets = walk(teacher, images, head, wanted)
    _, maps = walk(student, images, head, wanted)
    return torch.stack([relative_error(maps[i], targets[i]) for i in wanted]).mean()

"""The light model that is to be fitted, the places in it, and one walk through either model up to a layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ultralytics.utils.torch_utils import intersect_dicts

from ghost_yolo import host
from ghost_yolo.errors import SwapError
from ghost_yolo.model.forward import Maps
from ghost_yolo.model.swap import swap_rows

BRANCHES = ("cv3", "one2one_cv3")  # the class branches of a head


@dataclass(frozen=True)
class Target:
    """A module that is fitted as one: a swapped row, or one level of a swapped head's class branch.

    Attributes:
        name: Its name in both models, as `model.4` or `model.22.cv3.0`.
        row: The row that it is, or is part of.
        word: What the row became.
        level: Which of a head's inputs it takes; None for a row.
    """

    name: str
    row: int
    word: str
    level: int | None = None

    def taken(self, maps: Maps) -> torch.Tensor:
        """Return what the module takes of what its row takes."""
        return maps if isinstance(maps, torch.Tensor) else maps[self.level or 0]


def student_of(teacher: Any, words: Mapping[int, str]) -> Any:
    """Build the teacher with other modules in some rows, every tensor of the same name and shape copied.

    Args:
        teacher: The host's model, in eval mode; it is left as it is.
        words: Row to word, as `ghost_yolo.model.swap.plan` gives them.

    Returns:
        A model in eval mode, without gradients, whose `yaml` is the swapped one, so that the host rebuilds it as it is.

    Raises:
        SwapError: If the teacher is of another kind, or not the model of its own `yaml`, as after pruning or fusing.
        ModelError: If the host cannot build it.
    """
    if type(teacher).__name__ not in host.MODELS.values():  # RT-DETR and YOLO-World run in ways of their own
        known = ", ".join(host.MODELS.values())
        raise SwapError(f"The checkpoint's model is a {type(teacher).__name__}; ghostify takes {known}")
    student = host.build(swap_rows(copy.deepcopy(teacher.yaml), words))
    theirs, ours = teacher.state_dict(), student.state_dict()
    same = intersect_dicts(theirs, ours)
    changed = {row_of(name) for name in (theirs.keys() | ours.keys()) - same.keys()} - set(words)
    if changed:
        row = min(changed)
        raise SwapError(
            f"Row {row} of the checkpoint, {teacher.model[row].type}, is not what its own model.yaml builds (pruned, fused, "
            "or changed by hand?); ghostify needs a model as Ultralytics trained it"
        )
    student.load_state_dict(same, strict=False)
    for name in ("names", "args", "task", "kpt_names", "transforms"):
        if hasattr(teacher, name):
            setattr(student, name, copy.deepcopy(getattr(teacher, name)))
    return student.to(next(teacher.parameters()).device).requires_grad_(requires_grad=False)


def row_of(name: str) -> int:
    """Return the row to which a tensor such as `model.4.cv1.conv.weight` belongs."""
    return int(name.split(".")[1])


def targets_of(student: Any, words: Mapping[int, str]) -> list[Target]:
    """Return what has to be fitted, in the order in which a model runs it."""
    last, places = len(student.model) - 1, []
    for row, word in sorted(words.items()):
        if row != last:
            places.append(Target(f"model.{row}", row, word))
            continue
        for branch in BRANCHES:
            levels = getattr(student.model[row], branch, None)
            places += [Target(f"model.{row}.{branch}.{k}", row, word, k) for k in range(len(levels or ()))]
    return places

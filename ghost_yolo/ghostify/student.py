"""The student: the trained model with light blocks in some rows, and the target modules to reconstruct."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ghost_yolo import host
from ghost_yolo.errors import SwapError
from ghost_yolo.ghostify.config import RunConfig
from ghost_yolo.ghostify.reshape import RowWidth, plan_widths, reshape_yaml
from ghost_yolo.model.forward import Maps, has_weights
from ghost_yolo.model.rebuild import CLASS_BRANCHES, rebuild, take_class_branches
from ghost_yolo.model.swap import Config, plan_swap, swap_rows
from ghost_yolo.typing import HostModel

INHERITED = ("names", "args", "task", "kpt_names", "transforms")  # attributes that a checkpoint keeps on its model
SwapPlan = Mapping[int, str]  # row to module name, see `ghost_yolo.model.swap.plan_swap`


@dataclass(frozen=True)
class TargetModule:
    """A target module: a replaced row, or one level of a replaced head's class branch.

    Attributes:
        name: Name of the module in both models, such as `model.4` or `model.22.cv3.0`.
        row: Row of the module.
        block: Module name of the row's replacement.
        level: Index of the head's input that the module takes; None for a row.
    """

    name: str
    row: int
    block: str
    level: int | None = None

    def select_input(self, maps: Maps) -> Any:
        """Return the input of the module among the inputs of its row."""
        return maps if isinstance(maps, torch.Tensor) or self.level is None else maps[self.level]


@dataclass(frozen=True)
class Candidate:
    """A plan and the student that it gives.

    Attributes:
        plan: Row to module name.
        model: The student.
        reshaped: Whether its activation or its width is another one.
        widths: Width of each row, where they were changed.
    """

    plan: SwapPlan
    model: HostModel
    reshaped: bool = False
    widths: Mapping[int, RowWidth] = field(default_factory=dict)

    @property
    def keeps_shape(self) -> bool:
        """Whether only the activation is another one."""
        return self.reshaped and not self.plan and not self.widths

    @property
    def targets(self) -> list[TargetModule]:
        """The target modules in forward order: of a reshaped model all rows with weights."""
        if not self.reshaped:
            return find_targets(self.model, self.plan)
        rows = [layer for layer in self.model.model if has_weights(layer)]
        return [TargetModule(f"model.{layer.i}", layer.i, layer.type.rpartition(".")[2]) for layer in rows]


def build_candidate(teacher: HostModel, plan: SwapPlan, seed: int) -> Candidate:
    """Build the student of a plan with new weights drawn from the seed."""
    torch.manual_seed(seed)
    return Candidate(plan, build_student(teacher, plan))


def build_reshaped(teacher: HostModel, plan: SwapPlan, act: str, shares: Sequence[float], seed: int) -> Candidate:
    """Build the student of a plan with another activation or width, with new weights drawn from the seed.

    Raises:
        SwapError: If the teacher is of an unsupported kind.
        ModelError: If the host cannot build it, or the teacher is not what its own `yaml` says.
    """
    torch.manual_seed(seed)
    build_student(teacher, {})  # what cannot be rebuilt as it is cannot be reshaped
    content, widths = describe_reshaped(teacher, plan, act, shares)
    student = host.build(content)
    if not shares:
        take_class_branches(teacher.model[-1], student.model[-1])
    return Candidate(plan, inherit(teacher, student), reshaped=True, widths=widths)


def describe_reshaped(
    teacher: HostModel, plan: SwapPlan, act: str, shares: Sequence[float]
) -> tuple[Config, dict[int, RowWidth]]:
    """Return the content of the model YAML with another activation or width, and the width of each row that changes.

    Raises:
        SwapError: If a share leaves nothing of a row.
    """
    config = swap_rows(teacher.yaml, plan) if plan else copy.deepcopy(teacher.yaml)
    widths = plan_widths(teacher, shares, plan) if shares else {}
    return reshape_yaml(teacher, config, widths, act), widths


def build_candidates(teacher: HostModel, config: RunConfig) -> list[Candidate]:
    """Build a student for each candidate block; all replace the same rows.

    Raises:
        SwapError: If a block does not fit, or the teacher is not supported.
    """
    seed = config.settings.seed
    if config.reshapes:
        swaps = bool(config.blocks) or config.where == "head"
        plans = [plan_swap(teacher.yaml, config.where, block) for block in config.blocks or (None,)] if swaps else [{}]
        return [build_reshaped(teacher, plan, config.act, config.width, seed) for plan in plans]
    plans = [plan_swap(teacher.yaml, config.where, block) for block in config.candidate_blocks]
    return [build_candidate(teacher, plan, seed) for plan in plans]


def build_student(teacher: HostModel, plan: SwapPlan) -> HostModel:
    """Build the teacher with other modules in some rows, and copy the weights of all other rows.

    Args:
        teacher: The trained model in eval mode; it is not changed.
        plan: Row to module name.

    Returns:
        A model in eval mode, without gradients. Its `yaml` is the swapped one, from which the host rebuilds it.

    Raises:
        SwapError: If the teacher is of an unsupported kind.
        ModelError: If the host cannot build it, or the teacher is not what its own `yaml` says, as after pruning or fusing,
            or with an activation set in code.
    """
    if type(teacher).__name__ not in host.MODELS.values():  # RT-DETR and YOLO-World have a forward of their own
        supported = ", ".join(host.MODELS.values())
        raise SwapError(f"The checkpoint's model is a {type(teacher).__name__}; ghostify supports {supported}")
    return inherit(teacher, rebuild(teacher, plan))


def save_student(teacher: HostModel, student: HostModel, file: Path) -> None:
    """Write a student as a checkpoint, with the training arguments of its teacher."""
    host.save(student, file, dict(teacher.args) | {"task": host.task_of(student)})


def inherit(teacher: HostModel, student: HostModel) -> HostModel:
    """Give a student what a checkpoint keeps on its model, and return it in eval mode, without gradients."""
    for name in INHERITED:
        if hasattr(teacher, name):
            setattr(student, name, copy.deepcopy(getattr(teacher, name)))
    return student.to(next(teacher.parameters()).device).requires_grad_(requires_grad=False)


def find_targets(student: HostModel, plan: SwapPlan) -> list[TargetModule]:
    """Return the target modules of a plan in forward order."""
    last, targets = len(student.model) - 1, []
    for row, block in sorted(plan.items()):
        if row != last:
            targets.append(TargetModule(f"model.{row}", row, block))
            continue
        for branch in CLASS_BRANCHES:
            levels = getattr(student.model[row], branch, None)
            targets += [TargetModule(f"model.{row}.{branch}.{k}", row, block, k) for k in range(len(levels or ()))]
    return targets

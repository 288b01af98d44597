"""The light model that is to be fitted, and one walk through either model up to a layer."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from ultralytics.utils.torch_utils import intersect_dicts

from ghost_yolo import host
from ghost_yolo.swap import SwapError, swapped

Maps = torch.Tensor | list[torch.Tensor]


def student_of(teacher: Any, words: Mapping[int, str]) -> Any:
    """Build the teacher with other modules in some rows, every tensor of the same name and shape copied.

    Args:
        teacher: The host's model, in eval mode; it is left as it is.
        words: Row to word, as `ghost_yolo.swap.plan` gives them.

    Returns:
        A model in eval mode whose `yaml` is the swapped one, so that the host rebuilds it as it is.

    Raises:
        SwapError: If the teacher is not the model of its own `yaml`, as after pruning.
    """
    student = host.build(swapped(copy.deepcopy(teacher.yaml), words))
    known = intersect_dicts(teacher.state_dict(), student.state_dict())
    lost = {int(name.split(".")[1]) for name in teacher.state_dict().keys() - known.keys()} - set(words)
    if lost:
        row = min(lost)
        raise SwapError(
            f"Row {row} of the checkpoint, {teacher.model[row].type}, is not what its own model.yaml builds (pruned, or "
            "changed by hand?); ghostify needs a model as Ultralytics trained it"
        )
    student.load_state_dict(known, strict=False)
    for name in ("names", "args", "task", "kpt_names"):
        if hasattr(teacher, name):
            setattr(student, name, copy.deepcopy(getattr(teacher, name)))
    return student.requires_grad_(requires_grad=False)


def walk(model: Any, x: torch.Tensor, stop: int, keep: Collection[int] = ()) -> tuple[Maps, dict[int, torch.Tensor]]:
    """Run the layers before `stop`.

    Args:
        model: The host's model.
        x: Images (b, 3, h, w) in 0..1.
        stop: Index of the first layer that is not run.
        keep: Layers before it whose outputs are wanted.

    Returns:
        What layer `stop` takes in, and the outputs that were wanted.
    """
    outputs: list[Any] = []
    kept: dict[int, torch.Tensor] = {}
    taken: Maps = x
    for layer in model.model[: stop + 1]:
        if isinstance(layer.f, list):
            taken = [x if j == -1 else outputs[j] for j in layer.f]
        else:
            taken = x if layer.f == -1 else outputs[layer.f]
        if layer.i == stop:
            break
        x = layer(taken)
        outputs.append(x if layer.i in model.save else None)
        if layer.i in keep:
            kept[layer.i] = x
    return taken, kept

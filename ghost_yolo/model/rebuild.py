"""Rebuild a model from its own YAML, and check row by row that the result computes what the model computes."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv
from ultralytics.utils.torch_utils import intersect_dicts

from ghost_yolo import host
from ghost_yolo.errors import ModelError
from ghost_yolo.model.forward import Maps, gather_inputs, input_indices
from ghost_yolo.model.swap import Config, swap_rows
from ghost_yolo.typing import HostLayer, HostModel

CLASS_BRANCHES = ("cv3", "one2one_cv3")  # of a head
MIN_SIDE = 64  # of the image that gives the rows' inputs their shapes
SPREAD = 10.0  # of these inputs: large enough for activations that differ only far from 0, such as ReLU and ReLU6
TOLERANCE = 1e-4  # relative to the largest output; the same layers on the same device differ by less


def rebuild(model: HostModel, plan: Mapping[int, str] | None = None) -> HostModel:
    """Build a model's own YAML, with other modules in some rows, and copy the weights of all other rows.

    An activation that was set in code, and is not in the YAML, is written into the new model's YAML where one type
    explains all rows.

    Args:
        model: A model of `host.MODELS` in eval mode; it is not changed.
        plan: Row to module name of the rows to replace.

    Returns:
        A model in eval mode on the same device.

    Raises:
        ModelError: If the host cannot build it, or a row that is not replaced is another one than the model's.
        SwapError: If a module does not fit into its row.
    """
    replaced, config = plan or {}, copy.deepcopy(model.yaml)
    config = swap_rows(config, replaced) if replaced else config
    rebuilt = _build(model, config, replaced)
    row = find_different_row(model, rebuilt, replaced)
    activation = "" if row is None else _activation_of(model, replaced)
    if activation:
        rebuilt = _build(model, config | {"activation": activation}, replaced)
        row = find_different_row(model, rebuilt, replaced)
    if row is not None:
        raise ModelError(
            f"Row {row} of the checkpoint, {model.model[row].type}, computes something else than its own model.yaml says: was "
            "an activation, or another part of it, set in code? Write it into the model's YAML (activation: "
            "torch.nn.ReLU()) and train that"
        )
    return rebuilt


def rebuild_untrained(model: HostModel, seed: int) -> HostModel:
    """Build the network of a model's own YAML with weights drawn from the seed, in eval mode on the same device.

    Raises:
        ModelError: If that is another network than the model.
    """
    if type(model).__name__ in host.MODELS.values():
        with torch.random.fork_rng(devices=[]):
            same = rebuild(model)
        return host.untrained(same, seed)
    fresh = host.untrained(model, seed)  # RT-DETR and YOLO-World have a forward of their own
    _check_tensors(model, fresh, ())
    return fresh


def _build(model: HostModel, config: Config, replaced: Collection[int]) -> HostModel:
    """Build a YAML's content and copy every tensor of the same name and shape.

    Raises:
        ModelError: If a tensor of a row that is not replaced has none.
    """
    rebuilt = host.build(config)
    take_class_branches(model.model[-1], rebuilt.model[-1])
    _check_tensors(model, rebuilt, replaced)
    rebuilt.load_state_dict(intersect_dicts(model.state_dict(), rebuilt.state_dict()), strict=False)
    return rebuilt.to(next(model.parameters()).device).eval()


def take_class_branches(head: HostLayer, rebuilt: HostLayer) -> None:
    """Give a rebuilt head the class branches of a head, where they have another width.

    The width depends on the number of classes, and in fine-tuning the host keeps that of the weights it began with.
    """
    for name in CLASS_BRANCHES:
        old, new = getattr(head, name, None), getattr(rebuilt, name, None)
        if old and new and old[0][-1].in_channels != new[0][-1].in_channels:
            branches = copy.deepcopy(old)
            _set_activations(branches, next(m.act for m in new.modules() if isinstance(m, Conv)))
            setattr(rebuilt, name, branches)


def _set_activations(branches: nn.Module, act: nn.Module) -> None:
    """Give the convolutions of branches, but those without one, an activation."""
    for module in branches.modules():
        if isinstance(module, Conv) and not isinstance(module.act, nn.Identity):
            module.act = act


def _check_tensors(model: HostModel, rebuilt: HostModel, replaced: Collection[int]) -> None:
    """Raise an error that names the first row, not replaced, whose tensors have other names or shapes."""
    before, after = model.state_dict(), rebuilt.state_dict()
    shared = intersect_dicts(before, after)
    changed = {_row_of(name) for name in (before.keys() | after.keys()) - shared.keys()} - set(replaced)
    if changed:
        row = min(changed)
        raise ModelError(
            f"Row {row} of the checkpoint, {model.model[row].type}, does not match its own model.yaml (pruned, fused, or "
            "changed by hand?); right is a model as trained by Ultralytics"
        )


def _row_of(tensor: str) -> int:
    """Return the row of a tensor such as `model.4.cv1.conv.weight`."""
    return int(tensor.split(".")[1])


@torch.no_grad()  # not inference_mode: the heads keep tensors that training needs
def find_different_row(model: HostModel, rebuilt: HostModel, replaced: Collection[int]) -> int | None:
    """Return the first row, not replaced, that gives other outputs than the model's on the same input; None without one."""
    device, side = next(model.parameters()).device, max(2 * int(max(model.stride)), MIN_SIDE)
    generator = torch.Generator().manual_seed(0)
    outputs = {-1: torch.rand(1, model.yaml.get("channels", 3), side, side, generator=generator).to(device)}
    for layer, other in zip(model.model, rebuilt.model, strict=True):
        noise = {i: SPREAD * torch.randn(outputs[i].shape, generator=generator) for i in input_indices(layer)}
        first, second = ({i: value.to(device, copy=True) for i, value in noise.items()} for _ in range(2))
        if layer.i not in replaced and not _are_equal(
            layer(gather_inputs(layer, first)), other(gather_inputs(layer, second))
        ):
            return int(layer.i)
        outputs[layer.i] = layer(gather_inputs(layer, outputs))
    return None


def _are_equal(first: Any, second: Any) -> bool:
    """Return whether two rows' outputs are the same tensors up to rounding."""
    ones, others = list(_tensors(first)), list(_tensors(second))
    pairs = zip(ones, others, strict=False)
    return len(ones) == len(others) and all(a.shape == b.shape and _is_close(a.float(), b.float()) for a, b in pairs)


def _is_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors differ by rounding only."""
    largest = float(a.nan_to_num().abs().max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=TOLERANCE * largest, equal_nan=True)


def _tensors(output: Maps | Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a row's output in order."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, dict | list | tuple):
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)


def _activation_of(model: HostModel, replaced: Collection[int]) -> str:
    """Return the one activation of the host's convolutions as a YAML's `activation:` says it, "" where there are several."""
    rows = [layer for layer in model.model if layer.i not in replaced]
    acts = [m.act for layer in rows for m in layer.modules() if isinstance(m, Conv)]
    texts = {repr(act) for act in acts if not isinstance(act, nn.Identity)}
    text = texts.pop() if len(texts) == 1 else ""
    return f"torch.nn.{text}" if hasattr(nn, text.partition("(")[0]) else ""

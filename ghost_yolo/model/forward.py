"""Run a model layer by layer, up to a given layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from ghost_yolo.typing import HostLayer, HostModel

Maps = torch.Tensor | list[torch.Tensor]


def as_list(maps: Maps) -> list[torch.Tensor]:
    """Return the inputs of a layer as a list."""
    return [maps] if isinstance(maps, torch.Tensor) else maps


def has_weights(layer: HostLayer) -> bool:
    """Return whether a layer has weights; a Concat or an Upsample has none."""
    return any(True for _ in layer.parameters())


def input_indices(layer: HostLayer) -> list[int]:
    """Return the layers whose outputs a layer takes, -1 for the image."""
    given = layer.f if isinstance(layer.f, list) else [layer.f]
    return [layer.i + f if f < 0 else f for f in given]


def gather_inputs(layer: HostLayer, outputs: Mapping[int, torch.Tensor]) -> Maps:
    """Return what a layer takes, of the outputs by layer."""
    given = [outputs[j] for j in input_indices(layer)]
    return given if isinstance(layer.f, list) else given[0]


def forward_until(
    model: HostModel, x: torch.Tensor, stop: int, keep: Iterable[int] = ()
) -> tuple[Maps, dict[int, torch.Tensor]]:
    """Run the layers before `stop`.

    Args:
        model: The host's model.
        x: Images (b, 3, h, w) in 0..1.
        stop: Index of the first layer that is not run.
        keep: Layers before it whose outputs are wanted.

    Returns:
        What layer `stop` takes, and the outputs that were wanted.
    """
    outputs = {-1: x}
    for layer in model.model[:stop]:
        outputs[layer.i] = layer(gather_inputs(layer, outputs))
    return gather_inputs(model.model[stop], outputs), {i: outputs[i] for i in keep}

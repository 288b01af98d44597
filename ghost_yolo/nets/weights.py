"""Load weights of timm's and torchvision's networks into ours, without either library.

Our networks register the same tensors in the same order under names of their own, so the order is the map. The shape and the
kind of each tensor (weight, bias, running_mean, ...) are checked; two equal layers that changed places would not be noticed, so
give what the library's own `state_dict()` returns.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ghost_yolo.errors import WeightsError


def load_by_order(net: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Load the state dict of timm's (or torchvision's) network of the same name, every tensor of it.

    Args:
        net: One of our networks, not fused.
        state_dict: What `state_dict()` of theirs returns, in its own order.

    Raises:
        WeightsError: If the number of tensors differs or one does not fit; the network is then unchanged.
    """
    ours = net.state_dict()
    for (name, tensor), (their_name, their_tensor) in zip(ours.items(), state_dict.items(), strict=False):
        if _kind(name) != _kind(their_name) or tensor.shape != their_tensor.shape:
            raise WeightsError(
                f"{their_name} {tuple(their_tensor.shape)} is given where {type(net).__name__} has {name} "
                f"{tuple(tensor.shape)}: give the state dict of the same network, width and class count, in the "
                "order of `state_dict()` (a safetensors file sorts its tensors: load it into their network first)"
            )
    if len(ours) != len(state_dict):
        raise WeightsError(
            f"{len(state_dict)} tensors were given and {type(net).__name__} has {len(ours)}: give the complete state dict "
            "of the same network"
        )
    net.load_state_dict(dict(zip(ours, state_dict.values(), strict=True)))


def _kind(name: str) -> str:
    """Return what a tensor is to its layer."""
    return name.rpartition(".")[2]

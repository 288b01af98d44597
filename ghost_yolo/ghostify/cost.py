"""What a module of a model costs, deployed: parameters and GFLOPs with every BN merged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import thop
import torch
from torch import nn
from ultralytics.utils.torch_utils import get_num_params

from ghost_yolo.ghostify.student import Target
from ghost_yolo.model.forward import forward_until
from ghost_yolo.model.profile import count_gflops


@dataclass(frozen=True)
class Cost:
    """Parameters, and 2 x MACs / 1e9 of one image at the real size."""

    parameters: int
    gflops: float


def cost_of_model(model: Any, imgsz: int) -> Cost:
    """Return what a whole model costs, fused."""
    fused = _fused(model)
    return Cost(get_num_params(fused), count_gflops(fused, imgsz))


def cost_of_places(model: Any, places: Sequence[Target], imgsz: int) -> list[Cost]:
    """Return what modules of a model cost, fused; a branch that fusing drops, as it serves in training only, costs nothing."""
    fused = _fused(model).cpu()
    image = torch.zeros(1, model.yaml.get("channels", 3), imgsz, imgsz)
    costs = []
    for place in places:
        with torch.no_grad():
            taken = place.taken(forward_until(fused, image, place.row)[0])
        module = _module(fused, place.name)
        counted = thop.profile(copy.deepcopy(module), inputs=[taken], verbose=False)[0] * 2 / 1e9 if module else 0.0
        costs.append(Cost(get_num_params(module) if module else 0, float(counted)))
    return costs


def _fused(model: Any) -> Any:
    """Return a fused copy."""
    return copy.deepcopy(model).fuse(verbose=False)


def _module(model: Any, name: str) -> nn.Module | None:
    """Return a module by name, None where fusing dropped it."""
    for part in name.split("."):
        model = getattr(model, part, None)
    return model

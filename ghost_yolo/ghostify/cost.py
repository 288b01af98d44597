"""Cost of a model or of its target modules as deployed: parameters and GFLOPs with every BN fused."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import thop
import torch
from torch import nn
from ultralytics.utils.torch_utils import get_num_params

from ghost_yolo.ghostify.student import TargetModule
from ghost_yolo.model.forward import forward_until
from ghost_yolo.model.profile import count_gflops
from ghost_yolo.typing import HostModel


@dataclass(frozen=True)
class Cost:
    """Parameters, and 2 x MACs / 1e9 of one image at the real size."""

    parameters: int
    gflops: float


def model_cost(model: HostModel, imgsz: int) -> Cost:
    """Return the cost of a whole model, fused."""
    fused = _fuse_copy(model)
    return Cost(get_num_params(fused), count_gflops(fused, imgsz))


def target_costs(model: HostModel, targets: Sequence[TargetModule], imgsz: int) -> list[Cost]:
    """Return the cost of each target module, fused; 0 for a training-only branch that fusing removes."""
    fused = _fuse_copy(model).to("cpu")
    image = torch.zeros(1, model.yaml.get("channels", 3), imgsz, imgsz)
    costs = []
    for target in targets:
        with torch.no_grad():
            x = target.select_input(forward_until(fused, image, target.row)[0])
        module = _find_module(fused, target.name)
        gflops = thop.profile(copy.deepcopy(module), inputs=[x], verbose=False)[0] * 2 / 1e9 if module else 0.0
        costs.append(Cost(get_num_params(module) if module else 0, float(gflops)))
    return costs


def _fuse_copy(model: HostModel) -> HostModel:
    """Return a fused copy."""
    return copy.deepcopy(model).fuse(verbose=False)


def _find_module(model: Any, name: str) -> nn.Module | None:
    """Return a module by name, None if fusing removed it."""
    for part in name.split("."):
        model = getattr(model, part, None)
    return model

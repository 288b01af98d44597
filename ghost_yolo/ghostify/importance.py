"""How much each position counts: as much as the trained model is sure of an object there.

Most positions are background, where boxes mean nothing and classes are easy; fitted to all alike, a detector is most exact
where nobody looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ghost_yolo.model.forward import Maps, as_list, forward_until
from ghost_yolo.typing import HostModel

BRANCHES = ("", "one2one_")  # prefixes of a head's branches
NEIGHBOURS = 3  # positions around a sure one, which the next convolutions see
# What a position counts at least: in the rows before the head, and in the branches of its boxes, of its classes,
# and of masks, key points or angles
ROW_FLOOR, FLOORS = 0.1, {"cv2": 0.001, "cv3": 0.01, "cv4": 0.001}


def weigh_branches(head: Any, inputs: Sequence[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    """Return the weights (b, 1, h, w) of each level's positions by branch of a trained head; none of a classifier."""
    weights: dict[str, list[torch.Tensor]] = {}
    for prefix in BRANCHES:
        branches = getattr(head, f"{prefix}cv3", None)
        if branches is None:
            continue
        sure = [_confidence(branch(x)) for branch, x in zip(branches, inputs, strict=True)]
        for name, floor in FLOORS.items():
            weights[prefix + name] = [level.clamp(min=floor) for level in sure]
    return weights


def weigh_images(model: HostModel, images: torch.Tensor) -> torch.Tensor | None:
    """Return the weights (b, 1, h, w) of the positions of images on the finest level; None of a classifier."""
    inputs = forward_until(model, images, len(model.model) - 1)[0]
    return weigh_positions(branch_outputs(model.model[-1], "cv3", inputs))


def branch_outputs(head: Any, name: str, inputs: Maps) -> list[torch.Tensor]:
    """Return the outputs of a branch at each level, none of a head without it.

    A head with a one-to-one branch too (YOLOv10, YOLO26) gives those of both: which one is deployed depends on the release of
    Ultralytics and on the arguments of its export. Behind YOLO26's cv4, which gives features only, come the key points.
    """
    found = list[torch.Tensor]()
    for prefix in BRANCHES:
        levels, *behind = (getattr(head, f"{prefix}{name}{end}", None) for end in ("", "_kpts"))
        if levels is not None:
            outputs = as_list(inputs)
            for branch in (levels, *filter(None, behind)):
                outputs = [level(x) for level, x in zip(branch, outputs, strict=True)]
            found += outputs
    return found


def weigh_positions(logits: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Return the weights (b, 1, h, w) of the positions on the finest level.

    Args:
        logits: Of the classes at each level, the finest first; none of a classifier.
    """
    if not logits:
        return None
    first, *others = map(_confidence, logits)
    for level in others:
        first = torch.maximum(first, F.interpolate(level, first.shape[2:]))
    return first.clamp(min=ROW_FLOOR)


def _confidence(logits: torch.Tensor) -> torch.Tensor:
    """Return the confidence (b, 1, h, w) of the surest class at each position, or in its neighbourhood."""
    return F.max_pool2d(logits.sigmoid().amax(1, keepdim=True), NEIGHBOURS, 1, NEIGHBOURS // 2)


def resize_weight(weight: torch.Tensor | None, maps: torch.Tensor) -> torch.Tensor | None:
    """Return weights at the positions of maps."""
    return None if weight is None else F.adaptive_max_pool2d(weight, maps.shape[2:])

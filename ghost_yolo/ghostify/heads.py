"""Fit heads, and blocks of another kind, as far as there is a closed form; what has none is left to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules.block import C2f

from ghost_yolo.ghostify.closed_form import fit_ghosts, is_supported
from ghost_yolo.ghostify.handlers import LEAVES, fit, sum_up
from ghost_yolo.ghostify.importance import resize_weight, weigh_branches
from ghost_yolo.ghostify.least_squares import choose_channels
from ghost_yolo.ghostify.pairs import Pair, ReconstructionTask, concat


def fit_head(trained: Any, module: Any, inputs: Sequence[Pair]) -> list[ReconstructionTask]:
    """Fit a head with branches at each level and what else it has; return what has no closed form."""
    outputs: dict[str, list[Pair]] = {}
    tasks: list[ReconstructionTask] = []
    weights = weigh_branches(trained, [x.trained for x in inputs])
    for name, branches in module.named_children():
        old = getattr(trained, name)
        source = outputs.get(name.rpartition("_")[0], inputs)  # of the features before, as cv4_kpts of cv4
        if name in weights:
            source = [replace(x, weight=level) for x, level in zip(source, weights[name], strict=True)]
        if name == "proto":
            fit_proto(old, branches, _fuse_features(old, branches, inputs))
        elif not isinstance(branches, nn.ModuleList):
            branches.load_state_dict(old.state_dict())
        elif _kinds(old) == _kinds(branches):
            outputs[name] = [fit(a, b, x) for a, b, x in zip(old, branches, source, strict=True)]
        else:
            tasks += [
                ReconstructionTask(b, x.student, a(x.trained)) for a, b, x in zip(old, branches, source, strict=True)
            ]
    return tasks


def _kinds(module: nn.Module) -> list[type]:
    """Return the types of all convolutions and linear layers inside."""
    return [type(inner) for inner in module.modules() if isinstance(inner, LEAVES)]


def fit_shell(trained: Any, module: Any, x: Pair) -> tuple[ReconstructionTask, torch.Tensor]:
    """Fit a block of another kind as far as there is a closed form: of a C2f of Ghost bottlenecks all, of other C2f the outside.

    Returns:
        What is left to be learned, and what the module's output stands for.
    """
    y = trained(x.trained)
    keep = choose_channels(y, module(x.student).shape[1], resize_weight(x.weight, y))
    if isinstance(module, C2f) and isinstance(trained, C2f) and module.c <= trained.c:
        first, second = trained.cv1(x.trained).chunk(2, 1)
        ghosts = is_supported(module, trained, x.student)
        sums = torch.cat([*sum_up(trained.m, second)]) if ghosts else second
        both = torch.cat(
            (choose_channels(first, module.c, x.weight), trained.c + choose_channels(sums, module.c, x.weight))
        )
        parts = [*fit(trained.cv1, module.cv1, x, both).halves()]
        if ghosts:
            for old, new in zip(trained.m, module.m, strict=True):
                parts.append(fit_ghosts(old, new, parts[-1]))
            fit(trained.cv2, module.cv2, concat(parts), keep)
    return ReconstructionTask(module, x.student, y[:, keep]), keep


def _fuse_features(trained: Any, module: Any, inputs: Sequence[Pair]) -> Pair:
    """Return what reaches the prototypes: the first level, with YOLO26 the sum of all levels."""
    x = inputs[0]
    if not hasattr(module, "feat_refine"):
        return x
    for old, new, level in zip(trained.feat_refine, module.feat_refine, inputs[1:], strict=True):
        x = x + fit(old, new, level, x.keep).map(partial(F.interpolate, size=x.trained.shape[2:]))
    if module.semseg is not None:
        fit(trained.semseg, module.semseg, x)
    return fit(trained.feat_fuse, module.feat_fuse, x)


def fit_classify(trained: Any, module: Any, x: Pair) -> None:
    """Fit the head of a classifier."""
    fit(trained.linear, module.linear, fit(trained.conv, module.conv, x).map(lambda maps: module.pool(maps).flatten(1)))


def fit_proto(trained: Any, module: Any, x: Pair) -> Pair:
    """Fit the prototypes of masks."""
    for name in ("cv1", "upsample", "cv2", "cv3"):
        x = fit(getattr(trained, name), getattr(module, name), x)
    return x

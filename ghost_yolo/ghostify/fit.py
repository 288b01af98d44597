"""One new block is trained alone to give what the block it replaces gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from ghost_yolo.ghostify.features import Features

BATCH = 8
RATE = 5e-3
EPSILON = 1e-4  # beside a channel's variance: a dead channel is no reason to divide by nothing


def relative_error(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of maps (b, c, h, w), each channel in units of its target's variance.

    A block that gives each channel's mean scores 1; without the division a few loud channels would be all that is learned.
    """
    dims = (0, 2, 3)
    return ((y - target).square().mean(dims) / (target.var(dims) + EPSILON)).mean()


def fit(block: nn.Module, features: Features, steps: int, tick: Callable[[], object]) -> None:
    """Train a block by Adam under a one-cycle schedule, then estimate its BN statistics anew.

    Args:
        block: The new block; it is in eval mode and without gradients afterwards.
        features: What it should do.
        steps: Batches to learn from.
        tick: Is called after each step.
    """
    block.train().requires_grad_()
    optimizer = torch.optim.Adam(block.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 2), pct_start=0.1)
    for _ in range(steps):
        x, target = features.batch(torch.randint(len(features), (BATCH,)).tolist())
        loss = relative_error(block(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        tick()
    update_bn(batches(features), block)
    block.eval().requires_grad_(requires_grad=False)


def batches(features: Features) -> Iterable[torch.Tensor]:
    """Yield all inputs once."""
    for start in range(0, len(features), BATCH):
        yield features.batch([*range(start, min(start + BATCH, len(features)))])[0]


@torch.no_grad()
def error_of(block: nn.Module, features: Features, most: int = 64) -> float:
    """Return the relative error over the first photographs, in eval mode."""
    block.eval()
    losses = []
    for start in range(0, min(len(features), most), BATCH):
        x, target = features.batch([*range(start, min(start + BATCH, len(features), most))])
        losses.append(relative_error(block(x), target).item())
    return sum(losses) / len(losses)

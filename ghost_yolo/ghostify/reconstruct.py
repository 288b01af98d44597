"""One new block is trained alone to give what the block it replaces gave."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import update_bn

from ghost_yolo.ghostify.activations import BATCH, Features
from ghost_yolo.utils.console import progress

RATE = 5e-3
TINY = 1e-8  # for maps that do not vary at all
FAINT = 0.01  # of the mean variance, added to each: a channel that hardly varies is no reason to divide by nothing


def relative_error(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of maps (b, c, h, w), each channel in units of its target's variance.

    A block that gives each channel's mean scores 1; without the division a few loud channels would be all that is learned.
    """
    dims = (0, 2, 3)
    variance = target.var(dims, correction=0)
    return ((y - target).square().mean(dims) / (variance + FAINT * variance.mean() + TINY)).mean()


def fit(block: nn.Module, features: Features, steps: int, text: str) -> None:
    """Train a block by Adam under a one-cycle schedule, then estimate its BN statistics anew.

    Args:
        block: The new block; it is in eval mode and without gradients afterwards.
        features: What it should do.
        steps: Batches to learn from.
        text: What the progress bar says.
    """
    block.train().requires_grad_()
    optimizer = torch.optim.Adam(block.parameters(), RATE)
    schedule = one_cycle(optimizer, RATE, steps)
    for _ in progress(range(steps), text):
        x, target = features.batch(torch.randint(len(features), (BATCH,)).tolist())
        loss = mse_loss(block(x), target)  # relative by channel was no better: results/ghostify.md
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        update_bn((x for x, _ in features.batches()), block)
    block.eval().requires_grad_(requires_grad=False)


def one_cycle(
    optimizer: torch.optim.Optimizer, rate: float, steps: int, done: int = 0
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return the schedule, after the steps that are done: up over the first tenth, then down to nothing."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=max(steps, 2), pct_start=0.1, last_epoch=done - 1
    )


@torch.no_grad()
def error_of(block: nn.Module, features: Features, most: int = 64) -> float:
    """Return the relative error over the first photographs, in eval mode."""
    block.eval()
    errors = [relative_error(block(x), target).item() for x, target in features.batches(most)]
    return sum(errors) / len(errors)

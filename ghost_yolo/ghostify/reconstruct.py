"""Block-wise reconstruction: train one new block to reproduce the outputs of the block that it replaces."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import update_bn

from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.activations import BATCH_SIZE, Samples, batches
from ghost_yolo.utils.console import progress

LEARNING_RATE = 5e-3
VARIANCE_FLOOR = 0.01  # of the mean variance, added to each channel's: a constant channel must not divide by zero
EPS = 1e-8  # for maps that are constant in every channel


def relative_error(y: torch.Tensor, target: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean squared error of maps (b, c, h, w), each channel relative to its target's variance.

    Predicting each channel's mean scores 1. Without the division, a few channels of large scale would dominate.

    Args:
        y: Maps.
        target: Maps that they should be.
        importance: How much each position counts (b, 1, h, w); all alike if None.
    """
    dims = (0, 2, 3)
    variance = target.var(dims, correction=0)
    squares = (y - target).square()
    if importance is not None:
        squares = squares * (importance / importance.mean())
    return (squares.mean(dims) / (variance + VARIANCE_FLOOR * variance.mean() + EPS)).mean()


def reconstruct(block: nn.Module, data: Samples, steps: int, text: str) -> None:
    """Train a block by Adam with a one-cycle schedule, then re-estimate its BatchNorm statistics.

    Args:
        block: The new block; afterwards in eval mode and without gradients.
        data: Inputs and target outputs.
        steps: Training steps.
        text: Label of the progress bar.
    """
    block.train().requires_grad_()
    optimizer = torch.optim.Adam(block.parameters(), LEARNING_RATE)
    scheduler = one_cycle(optimizer, LEARNING_RATE, steps)
    for _ in progress(range(steps), text):
        x, target = data.batch(torch.randint(len(data), (BATCH_SIZE,)).tolist())
        loss = mse_loss(block(x), target)  # no worse than `relative_error`, see results/ghostify.md
        require_finite(loss, text)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        update_bn((x for x, _ in batches(data)), block)
    block.eval().requires_grad_(requires_grad=False)


def one_cycle(
    optimizer: torch.optim.Optimizer, learning_rate: float | list[float], steps: int, done: int = 0
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return a one-cycle schedule with a warm-up of one tenth, positioned after the steps that are done.

    Args:
        optimizer: Its parameter groups are scheduled.
        learning_rate: The highest one, for all groups or for each.
        steps: Of the whole schedule.
        done: Steps that are done.
    """
    warm_up = 0.2 if steps == 10 else 0.1  # torch divides by the length of a warm-up less one step
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=max(steps, 2), pct_start=warm_up, last_epoch=done - 1
    )


def require_finite(loss: torch.Tensor, text: str) -> None:
    """Raise an error for a loss that is NaN or infinite.

    Raises:
        UserError: If it is.
    """
    if not bool(loss.isfinite()):
        raise UserError(f"{text}: the loss is {loss.item()}; the result would be no model. Nothing was written.")


@torch.no_grad()
def reconstruction_error(block: nn.Module, data: Samples, max_samples: int = 64) -> float:
    """Return the relative error of a block in eval mode over the first samples."""
    block.eval()
    errors = [relative_error(block(x), target).item() for x, target in batches(data, max_samples)]
    return sum(errors) / len(errors)

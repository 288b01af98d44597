"""The optimizer of the last pass takes Adam's steps, and Muon's for convolutions."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ghost_yolo.ghostify.muon import BETAS, Muon, orthogonalize

STEPS = 5


def minimise(
    weight: nn.Parameter, target: torch.Tensor, optimizer: torch.optim.Optimizer, steps: int = STEPS
) -> torch.Tensor:
    """Return a parameter after some steps towards a target."""
    for _ in range(steps):
        optimizer.zero_grad()
        (weight.flatten(1) if weight.ndim > 2 else weight).sub(target).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weight.detach()


def start(*shape: int) -> tuple[nn.Parameter, torch.Tensor]:
    """Return a parameter and a target of its shape as a matrix."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    return weight, torch.randn_like(weight).flatten(1) if len(shape) > 2 else torch.randn(shape)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32), (1, 9)])
def test_singular_values_become_one(shape: tuple[int, int]) -> None:
    """Roughly, whatever they were, and the directions stay."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100
    found = orthogonalize(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.25
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.diagonal(u.T @ found @ v.T).min() > 0.6


@pytest.mark.parametrize("shape", [(7,), (8, 1, 3, 3)])
def test_what_mixes_no_channels_takes_the_steps_of_adam(shape: tuple[int, ...]) -> None:
    """Bias, BatchNorm and depthwise convolutions."""
    (ours, target), (theirs, _) = start(*shape), start(*shape)
    expected = minimise(theirs, target, torch.optim.Adam([theirs], 0.01))
    torch.testing.assert_close(minimise(ours, target, Muon([ours], 0.01, 9)), expected)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has none")
def test_convolutions_take_the_steps_of_muon() -> None:
    """Of torch's, which computes them of matrices and in bfloat16."""
    (ours, target), (theirs, _) = start(8, 4, 3, 3), start(8, 4, 3, 3)
    matrix = nn.Parameter(theirs.detach().flatten(1).clone())
    settings = {"weight_decay": 0, "momentum": BETAS[0], "adjust_lr_fn": "match_rms_adamw"}
    expected = minimise(matrix, target, torch.optim.Muon([matrix], lr=0.02, **settings))
    found = minimise(ours, target, Muon([ours], 9, 0.02)).flatten(1)
    moved = theirs.detach().flatten(1) - expected
    assert (found - expected).abs().max() < 0.02 * moved.abs().max()


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.to(memory_format=torch.channels_last)])
def test_continues_from_its_state(make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """As if it had not been interrupted, in whatever memory layout."""
    (whole, target), (first, _) = start(8, 4, 3, 3), start(8, 4, 3, 3)
    whole.data, first.data = make(whole.data), make(first.data)
    minimise(whole, target, Muon([whole], 9, 0.01), 2 * STEPS)
    before = Muon([first], 9, 0.01)
    minimise(first, target, before)
    after = Muon([first], 9, 0.01)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    assert torch.equal(minimise(first, target, after), whole)

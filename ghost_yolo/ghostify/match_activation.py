"""Where another activation resembles the trained one most."""

from __future__ import annotations

import torch
from torch import nn

POSITIONS = 8_000  # by which activations are compared
SHIFTS = [0.0, *(sign * step / 4 for step in range(1, 9) for sign in (-1, 1))]
SCALES = (0.0, 4.0)
EPS = 1e-9


def match_activation(act: nn.Module, before: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each channel the scale and shift (1, c, 1, 1) of maps by which another activation resembles them most.

    The shift is the one of SHIFTS by which `act(before + shift)` correlates most with the maps, and the scale that of the
    regression, 1 where the activation of scaled maps is not the scaled activation, as of Hardswish. Constants do not matter:
    the next layer is solved on what reaches it.

    Args:
        act: The other activation.
        before: Maps (b, c, h, w) before the trained activation.
        y: The same maps behind it.
    """
    z, y = (_sampled(maps) for maps in (before, y))
    y = y - y.mean(1, keepdim=True)
    best = torch.full((len(z),), -1.0, device=z.device)
    scale, chosen = torch.ones_like(best), torch.zeros_like(best)
    for shift in SHIFTS:
        x = act(z + shift)
        x = x - x.mean(1, keepdim=True)
        product, square = (x * y).mean(1), x.square().mean(1)
        correlation = product / (square.sqrt() * y.square().mean(1).sqrt() + EPS)
        better = (correlation > best) & (product > 0)
        best = torch.where(better, correlation, best)
        scale, chosen = torch.where(better, product / (square + EPS), scale), torch.where(better, shift, chosen)
    if not torch.allclose(act(2 * z), 2 * act(z.clone())):
        scale = torch.ones_like(scale)
    return scale.clamp(*SCALES).view(1, -1, 1, 1), chosen.view(1, -1, 1, 1)


def _sampled(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (b, c, h, w) at some positions (c, n)."""
    values = maps.transpose(0, 1).flatten(1)
    return values[:, :: max(values.shape[1] // POSITIONS, 1)]

"""A Ghost block's first weights, found in the block that it replaces: GhostNet (arXiv 1911.11907, section 3.1) read backwards.

The paper sees a trained layer's maps as some intrinsic ones and their cheap likenesses. So in each bottleneck the hidden maps
that 1x1 filters give best become the intrinsic ones, each cheap kernel makes of one of them the map that resembles it most, and
the second Ghost module makes the bottleneck's output of what is there by then. All by least squares.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F
from ultralytics.nn.modules.block import Bottleneck

from ghost_yolo.blocks.ghost import C2f_GhostBottleneck

POSITIONS = 100_000  # of the maps, at most: many times the unknowns
ENOUGH = 4  # positions an unknown
RIDGE = 1e-3  # of the mean square of what is combined: maps may be almost equal


@torch.no_grad()
def begin(block: Any, trained: Any, x: torch.Tensor) -> bool:
    """Set the inner weights of a C2f of Ghost bottlenecks from a trained C2f.

    Other blocks stay as they were drawn, and so does one whose maps are so small that there is little to solve by.

    Args:
        block: The new block, in eval mode, its shell copied from the trained one.
        trained: The block that it replaces.
        x: What reaches it (b, c1, h, w).

    Returns:
        Whether they could be set.
    """
    if not alike(block, trained) or x[:, 0].numel() < ENOUGH * block.c:
        return False
    x = x[: max(POSITIONS // (x.shape[2] * x.shape[3]), 1)]
    theirs, ours = trained.cv1(x).chunk(2, 1)[1], block.cv1(x).chunk(2, 1)[1]  # (b, c, h, w)
    for new, old in zip(block.m, trained.m, strict=True):
        hidden, wanted = old.cv1.bn(old.cv1.conv(theirs)), old.cv2(old.cv1(theirs))
        split(new.ghost1, ours, hidden)
        halve(new.ghost2, new.ghost1(ours), wanted)
        theirs, ours = old(theirs), new(ours)
    return True


def alike(block: Any, trained: Any) -> bool:
    """Whether a block is made of plain Ghost bottlenecks, ungrouped, of even width, and the other of as many of the host's.

    Theirs must hold as many maps inside as ours: the host's C3k2 has half as many, so there are none to be likenesses.
    """
    if type(block) is not C2f_GhostBottleneck or block.c % 2:
        return False
    news: list[Any] = [*block.m]
    olds: list[Any] = [*getattr(trained, "m", ())]
    if [type(old) for old in olds] != [Bottleneck] * len(news):
        return False
    pairs = [*zip(news, olds, strict=True)]
    same = all(new.add == old.add and old.cv1.conv.out_channels == block.c for new, old in pairs)
    return same and all(new.ghost1.cv1.conv.groups == 1 for new in news)


def split(module: Any, x: torch.Tensor, maps: torch.Tensor) -> None:
    """Let a Ghost module make maps (b, c, h, w) of x in an order of its own: those that are linear in x, and likenesses of these."""
    filters = pointwise(x, maps)
    rest = F.conv2d(x, filters).sub_(maps).var((0, 2, 3)) / maps.var((0, 2, 3)).clamp(min=1e-12)
    intrinsic, others = rest.argsort().tensor_split([module.cv1.conv.out_channels])
    put(module.cv1, x, filters[intrinsic], maps[:, intrinsic])
    made = module.cv1(x)
    likeness = correlation(made, maps[:, others]).abs()
    pairs = linear_sum_assignment(likeness.cpu().numpy(), maximize=True)[1]
    ghosts = maps[:, others[torch.from_numpy(pairs).to(others.device)]]
    put(module.cv2, made, depthwise(made, ghosts, module.cv2.conv.kernel_size[0]), ghosts)


def halve(module: Any, x: torch.Tensor, maps: torch.Tensor) -> None:
    """Let a Ghost module make maps (b, c, h, w) of x in their own order: the first half of x, the second of the first."""
    first, second = maps.tensor_split([module.cv1.conv.out_channels], 1)
    put(module.cv1, x, pointwise(x, first), first)
    made = module.cv1(x)
    put(module.cv2, made, depthwise(made, second, module.cv2.conv.kernel_size[0]), second)


def pointwise(x: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return the 1x1 filters (c2, c1, 1, 1) that make maps of x best, up to a constant for each."""
    return solve(centred(x).T, centred(maps).T).T[:, :, None, None]


def depthwise(x: torch.Tensor, maps: torch.Tensor, d: int) -> torch.Tensor:
    """Return the d x d kernels (c, 1, d, d) that make each of the maps of x's map of the same number best, up to a constant."""
    b, c = x.shape[:2]
    taps = (
        F.unfold(x, d, padding=d // 2).view(b, c, d * d, -1).permute(1, 0, 3, 2).flatten(1, 2)
    )  # (c, b * h * w, d * d)
    kernels = solve(taps - taps.mean(1, keepdim=True), centred(maps)[:, :, None])
    return kernels.view(c, 1, d, d)


def solve(a: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the least squares solution (..., k, m) of a (..., p, k) and y (..., p, m), slightly damped."""
    gram = a.mT @ a
    damping = RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1e-12
    return torch.linalg.solve(gram + damping * torch.eye(gram.shape[-1], device=a.device), a.mT @ y)


def centred(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (b, c, h, w) as (c, b * h * w), less their means."""
    values = maps.transpose(0, 1).flatten(1)
    return values - values.mean(1, keepdim=True)


def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the correlations (c1, c2) of maps (b, c1, h, w) with others (b, c2, h, w); 0 for one that does not vary."""
    return F.normalize(centred(x), dim=1) @ F.normalize(centred(y), dim=1).T


def put(conv: Any, x: torch.Tensor, weight: torch.Tensor, maps: torch.Tensor) -> None:
    """Give a convolution a weight and a BN that leaves its scale and brings its mean to that of the maps it should make."""
    conv.conv.weight.copy_(weight)
    made = conv.conv(x)
    mean, variance = made.mean((0, 2, 3)), made.var((0, 2, 3))
    conv.bn.running_mean.copy_(mean)
    conv.bn.running_var.copy_(variance)
    conv.bn.weight.copy_((variance + conv.bn.eps).sqrt())
    conv.bn.bias.copy_(maps.mean((0, 2, 3)))

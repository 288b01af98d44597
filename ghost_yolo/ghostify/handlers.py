"""How each kind of module is fitted in closed form to the trained module whose place it takes: a table by module type.

Both modules run side by side, convolution by convolution. Each convolution of the student is solved on what really reaches
it, so that it makes up for the errors before it, for the maps before activation that the trained one gives. Where the student
is narrower, its maps stand for some of the trained ones; which ones is tied only where maps are added or filtered one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from ultralytics.nn.modules.block import C2, C2PSA, C3, SPPF, Bottleneck, C2f, PSABlock
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.errors import SwapError
from ghost_yolo.ghostify.least_squares import choose_channels, solve_conv, solve_linear, solve_transposed

POSITIONS = 8_000  # by which activations are compared
SHIFTS = [0.0, *(sign * step / 4 for step in range(1, 9) for sign in (-1, 1))]
SCALES = (0.0, 4.0)
EPS = 1e-9
LEAVES = (Conv, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Pair:
    """Maps at one place of both models.

    Attributes:
        trained: Maps (b, c, h, w) of the trained model.
        student: Maps (b, k, h, w) of the student.
        keep: Indices (k,) of the trained maps that the student's stand for.
    """

    trained: torch.Tensor
    student: torch.Tensor
    keep: torch.Tensor

    def __add__(self, other: Pair) -> Pair:
        """Return the sums of maps that stand for the same ones."""
        return Pair(self.trained + other.trained, self.student + other.student, self.keep)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Pair:
        """Return the maps after a function of each map alone."""
        return Pair(function(self.trained), function(self.student), self.keep)

    def halves(self) -> tuple[Pair, Pair]:
        """Return the two halves of maps that were made to be split."""
        (a, b), (c, d) = self.trained.chunk(2, 1), self.student.chunk(2, 1)
        first, second = self.keep.chunk(2)
        return Pair(a, c, first), Pair(b, d, second - a.shape[1])


@dataclass(frozen=True)
class Lesson:
    """What a module without a closed form has to learn: to give target maps on its inputs."""

    module: Any
    x: torch.Tensor
    target: torch.Tensor


Handler = Callable[[Any, Any, Pair, "torch.Tensor | None"], Pair]


def concat(pairs: Sequence[Pair]) -> Pair:
    """Return the concatenation along the channels."""
    before, keep = 0, []
    for pair in pairs:
        keep.append(pair.keep + before)
        before += pair.trained.shape[1]
    trained, student = (torch.cat([getattr(pair, name) for pair in pairs], 1) for name in ("trained", "student"))
    return Pair(trained, student, torch.cat(keep))


def fit(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None = None) -> Pair:
    """Fit a module to the trained one, and return what both give.

    Args:
        trained: The trained module, in eval mode.
        module: The student's module of the same kind, in eval mode; its weights are set.
        x: What reaches both.
        keep: Which of the trained maps the module's output shall stand for; chosen here if None.

    Raises:
        SwapError: If there is no handler, and the modules differ in shape.
    """
    handler = next((HANDLERS[kind] for kind in type(module).__mro__ if kind in HANDLERS), fit_inner)
    return handler(trained, module, x, keep)


def fit_conv(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit the host's convolution, dense or depthwise, with its BN: for the maps before activation."""
    before = trained.bn(trained.conv(x.trained))
    y = trained.act(before.clone())  # the host's activations work in place
    if keep is None:
        keep = x.keep if module.conv.groups > 1 else choose_channels(y, module.conv.out_channels)
    prior, target = _select(fused_weight(trained), keep, x.keep), before[:, keep]
    if repr(module.act) != repr(trained.act):
        scale, shift = match_activation(module.act, target, y[:, keep])
        target, prior = scale * (target + shift), scale.transpose(0, 1) * prior
    weight, bias = solve_conv(module.conv, x.student, target, prior)
    set_conv(module, x.student, weight, bias)
    return Pair(y, module(x.student), keep)


def fused_weight(module: Any) -> torch.Tensor:
    """Return the weight of a convolution with its BN in it."""
    bn = module.bn
    return fuse_conv_bn_weights(
        module.conv.weight, module.conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )[0]


def set_conv(module: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Set a convolution and its BN, whose statistics become those of maps x, so that both together give weight and bias."""
    module.conv.weight.copy_(weight)
    y = module.conv(x)
    variance, mean = torch.var_mean(y, (0, 2, 3))
    module.bn.running_mean.copy_(mean)
    module.bn.running_var.copy_(variance)
    module.bn.weight.copy_((variance + module.bn.eps).sqrt())
    module.bn.bias.copy_(bias + mean)


def match_activation(act: nn.Module, before: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each channel the scale and shift (1, c, 1, 1) of maps by which another activation resembles them most.

    The shift is the one of SHIFTS by which `act(before + shift)` correlates most with the maps, and the scale that of the
    regression. Constants do not matter: the next layer is solved on what reaches it.

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
    return scale.clamp(*SCALES).view(1, -1, 1, 1), chosen.view(1, -1, 1, 1)


def _sampled(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (b, c, h, w) at some positions (c, n)."""
    values = maps.transpose(0, 1).flatten(1)
    return values[:, :: max(values.shape[1] // POSITIONS, 1)]


def _select(weight: torch.Tensor, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Return a trained weight (c2, c1, ...) for some outputs and inputs; a depthwise one has one input for each output."""
    weight = weight[outputs]
    return weight if weight.shape[1] == 1 else weight[:, inputs]


def fit_plain(trained: Any, module: Any, x: Pair, _: torch.Tensor | None) -> Pair:
    """Fit a layer without BN: a convolution, a transposed one, or a linear layer."""
    solve, axis = {nn.Conv2d: (solve_conv, 1), nn.ConvTranspose2d: (solve_transposed, 0)}.get(type(module), (None, 1))
    y, prior = trained(x.trained), trained.weight.index_select(axis, x.keep)
    if solve is None:
        weight, bias = solve_linear(x.student, y, prior)
    else:
        weight, bias = solve(module, x.student, y, prior)
    module.weight.copy_(weight)
    if module.bias is not None:
        module.bias.copy_(bias)
    return Pair(y, module(x.student), torch.arange(y.shape[1]))


def fit_sequence(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit modules one after another."""
    for index, (old, new) in enumerate(zip(trained, module, strict=True)):
        x = fit(old, new, x, keep if index == len(module) - 1 else None)
    return x


def fit_bottleneck(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit a bottleneck; with a shortcut its output stands for the same maps as its input."""
    hidden = fit(trained.cv1, module.cv1, x)
    y = fit(trained.cv2, module.cv2, hidden, x.keep if module.add else keep)
    return x + y if module.add else y


def fit_c2f(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit a C2f or C3k2: what its second half and all sums on top of it stand for is chosen together."""
    first, second = trained.cv1(x.trained).chunk(2, 1)
    sums = choose_channels(torch.cat([*_sums(trained.m, second)]), module.c)
    both = torch.cat((choose_channels(first, module.c), trained.c + sums))
    parts = [*fit(trained.cv1, module.cv1, x, both).halves()]
    for old, new in zip(trained.m, module.m, strict=True):
        parts.append(fit(old, new, parts[-1]))
    return fit(trained.cv2, module.cv2, concat(parts), keep)


def fit_c2(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit a C2, which passes on the second half and the last of the sums on top of the first."""
    first, second = trained.cv1(x.trained).chunk(2, 1)
    sums = choose_channels(torch.cat([*_sums(trained.m, first)]), module.c)
    both = torch.cat((sums, trained.c + choose_channels(second, module.c)))
    one, other = fit(trained.cv1, module.cv1, x, both).halves()
    return fit(trained.cv2, module.cv2, concat((fit(trained.m, module.m, one), other)), keep)


def fit_c2psa(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit a C2PSA, whose attention, on top of the second half, keeps its width."""
    first, second = fit(trained.cv1, module.cv1, x, torch.arange(2 * trained.c)).halves()
    return fit(trained.cv2, module.cv2, concat((first, fit(trained.m, module.m, second))), keep)


def fit_c3(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit a C3 or C3k: what its first branch and all sums on top of it stand for is chosen together."""
    sums = choose_channels(torch.cat([*_sums(trained.m, trained.cv1(x.trained))]), module.cv1.conv.out_channels)
    y = fit(trained.m, module.m, fit(trained.cv1, module.cv1, x, sums))
    return fit(trained.cv3, module.cv3, concat((y, fit(trained.cv2, module.cv2, x))), keep)


def _sums(modules: Any, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield maps and, as long as trained modules add to them, their sums."""
    yield x
    for module in modules:
        if not _adds(module):
            return
        x = module(x)
        yield x


def _adds(module: Any) -> bool:
    """Return whether a module adds something to its input."""
    if isinstance(module, nn.Sequential):
        return all(map(_adds, module))
    return bool(isinstance(module, (Bottleneck, PSABlock)) and module.add)


def fit_sppf(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit an SPPF."""
    pooled, adds = [fit(trained.cv1, module.cv1, x)], getattr(module, "add", False)
    for _ in range(getattr(module, "n", 3)):
        pooled.append(pooled[-1].map(module.m))
    y = fit(trained.cv2, module.cv2, concat(pooled), x.keep if adds else keep)
    return x + y if adds else y


def fit_proto(trained: Any, module: Any, x: Pair) -> Pair:
    """Fit the prototypes of masks."""
    for name in ("cv1", "upsample", "cv2", "cv3"):
        x = fit(getattr(trained, name), getattr(module, name), x)
    return x


@torch.no_grad()
def fit_inner(trained: Any, module: Any, x: Pair, _: torch.Tensor | None = None) -> Pair:
    """Fit a module that keeps its width: each convolution in the order in which it runs.

    Raises:
        SwapError: If the modules differ in shape.
    """
    shapes = [{name: value.shape for name, value in m.state_dict().items()} for m in (trained, module)]
    if shapes[0] != shapes[1]:
        raise SwapError(f"a {type(module).__name__} cannot be narrowed")
    module.load_state_dict(trained.state_dict())
    for name in _record(trained, x.trained):
        a, b = (_record(m, maps)[name] for m, maps in ((trained, x.trained), (module, x.student)))
        new, old = module.get_submodule(name), trained.get_submodule(name)
        width = torch.arange(a.shape[1])
        fit(old, new, Pair(a, b, width), torch.arange(_width(new)))
    return Pair(trained(x.trained), module(x.student), x.keep)


def _width(layer: Any) -> int:
    """Return the output channels of a layer."""
    layer = getattr(layer, "conv", layer)
    return int(getattr(layer, "out_channels", 0) or layer.out_features)


def _record(module: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run a module, and return what reached each of its convolutions and linear layers, in the order in which they ran."""
    seen: dict[str, torch.Tensor] = {}
    inside = {id(m.conv) for m in module.modules() if isinstance(m, Conv)}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.setdefault(name, inputs[0]) is None or None)
        for name, layer in module.named_modules()
        if isinstance(layer, LEAVES) and id(layer) not in inside
    ]
    module(x)
    for hook in hooks:
        hook.remove()
    return seen


def fit_head(trained: Any, module: Any, inputs: Sequence[Pair]) -> list[Lesson]:
    """Fit a head with branches at each level and what else it has; return what has no closed form."""
    outputs: dict[str, list[Pair]] = {}
    lessons: list[Lesson] = []
    for name, branches in module.named_children():
        old = getattr(trained, name)
        source = outputs.get(name.rpartition("_")[0], inputs)  # of the features before, as cv4_kpts of cv4
        if name == "proto":
            fit_proto(old, branches, _fuse_features(old, branches, inputs))
        elif not isinstance(branches, nn.ModuleList):
            branches.load_state_dict(old.state_dict())
        elif _kinds(old) == _kinds(branches):
            outputs[name] = [fit(a, b, x) for a, b, x in zip(old, branches, source, strict=True)]
        else:
            lessons += [Lesson(b, x.student, a(x.trained)) for a, b, x in zip(old, branches, source, strict=True)]
    return lessons


def _kinds(module: nn.Module) -> list[type]:
    """Return the types of all convolutions and linear layers inside."""
    return [type(inner) for inner in module.modules() if isinstance(inner, LEAVES)]


def fit_shell(trained: Any, module: Any, x: Pair) -> tuple[Lesson, torch.Tensor]:
    """Fit the outer convolution of a block of another kind, if both are C2f-like.

    Returns:
        What has no closed form, and what the module's output stands for.
    """
    y = trained(x.trained)
    keep = choose_channels(y, module(x.student).shape[1])
    if isinstance(module, C2f) and isinstance(trained, C2f) and module.c <= trained.c:
        first, second = trained.cv1(x.trained).chunk(2, 1)
        both = torch.cat((choose_channels(first, module.c), trained.c + choose_channels(second, module.c)))
        fit(trained.cv1, module.cv1, x, both)
    return Lesson(module, x.student, y[:, keep]), keep


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


HANDLERS: dict[type, Handler] = {
    Conv: fit_conv,
    nn.Conv2d: fit_plain,
    nn.ConvTranspose2d: fit_plain,
    nn.Linear: fit_plain,
    nn.Sequential: fit_sequence,
    Bottleneck: fit_bottleneck,
    C2f: fit_c2f,
    C3: fit_c3,
    C2: fit_c2,
    C2PSA: fit_c2psa,
    SPPF: fit_sppf,
}

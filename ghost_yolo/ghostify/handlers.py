"""How each kind of module is fitted in closed form to the trained module whose place it takes: a table by module type.

Both modules run side by side, convolution by convolution. Each convolution of the student is solved on what really reaches
it, so that it makes up for the errors before it, for the maps before activation that the trained one gives. Where the student
is narrower, its maps stand for some of the trained ones; which ones is tied only where maps are added or filtered one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from ultralytics.nn.modules.block import C2, C2PSA, C3, SPPF, Bottleneck, C2f, PSABlock
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.errors import SwapError
from ghost_yolo.ghostify.importance import resize_weight
from ghost_yolo.ghostify.least_squares import choose_channels, solve_conv, solve_linear, solve_transposed
from ghost_yolo.ghostify.match_activation import match_activation
from ghost_yolo.ghostify.pairs import Pair, concat

LEAVES = (Conv, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


Handler = Callable[[Any, Any, Pair, "torch.Tensor | None"], Pair]


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
    before, conv = trained.bn(trained.conv(x.trained)), module.conv
    counts = resize_weight(x.weight, before)
    y = trained.act(before.clone())  # the host's activations work in place
    if keep is None:
        keep = x.keep if is_depthwise(conv) else choose_channels(y, conv.out_channels, counts)
    if conv.groups > 1 and not is_depthwise(conv) and conv.weight.shape != trained.conv.weight.shape:
        raise SwapError("a grouped convolution cannot be narrowed")
    prior, target = fused_weight(trained)[keep], before[:, keep]
    prior = prior[:, x.keep] if conv.groups == 1 else prior
    if repr(module.act) != repr(trained.act):
        scale, shift = match_activation(module.act, target, y[:, keep])
        target, prior = scale * (target + shift), scale.transpose(0, 1) * prior
    weight, bias = solve_conv(conv, x.student, target, prior, counts)
    set_conv(module, x.student, weight, bias)
    return Pair(y, module(x.student), keep, counts)


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Return whether a convolution gives one map of each of its inputs."""
    return 1 < conv.groups == conv.in_channels == conv.out_channels


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


def fit_plain(trained: Any, module: Any, x: Pair, _: torch.Tensor | None) -> Pair:
    """Fit a layer without BN: a convolution, a transposed one, or a linear layer."""
    transposed = isinstance(module, nn.ConvTranspose2d)
    y, prior = trained(x.trained), trained.weight.index_select(0 if transposed else 1, x.keep.to(trained.weight.device))
    if isinstance(module, nn.Linear):
        weight, bias = solve_linear(x.student, y, prior)
    else:
        solve = solve_transposed if transposed else solve_conv
        weight, bias = solve(module, x.student, y, prior, x.weight)
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
    sums = choose_channels(torch.cat([*sum_up(trained.m, second)]), module.c, x.weight)
    both = torch.cat((choose_channels(first, module.c, x.weight), trained.c + sums))
    parts = [*fit(trained.cv1, module.cv1, x, both).halves()]
    for old, new in zip(trained.m, module.m, strict=True):
        parts.append(fit(old, new, parts[-1]))
    return fit(trained.cv2, module.cv2, concat(parts), keep)


def fit_c2(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit a C2, which passes on the second half and the last of the sums on top of the first."""
    first, second = trained.cv1(x.trained).chunk(2, 1)
    sums = choose_channels(torch.cat([*sum_up(trained.m, first)]), module.c, x.weight)
    both = torch.cat((sums, trained.c + choose_channels(second, module.c, x.weight)))
    one, other = fit(trained.cv1, module.cv1, x, both).halves()
    return fit(trained.cv2, module.cv2, concat((fit(trained.m, module.m, one), other)), keep)


def fit_c2psa(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit a C2PSA, whose attention, on top of the second half, keeps its width."""
    first, second = fit(trained.cv1, module.cv1, x, torch.arange(2 * trained.c)).halves()
    return fit(trained.cv2, module.cv2, concat((first, fit(trained.m, module.m, second))), keep)


def fit_c3(trained: Any, module: Any, x: Pair, keep: torch.Tensor | None) -> Pair:
    """Fit a C3 or C3k: what its first branch and all sums on top of it stand for is chosen together."""
    sums = choose_channels(
        torch.cat([*sum_up(trained.m, trained.cv1(x.trained))]), module.cv1.conv.out_channels, x.weight
    )
    y = fit(trained.m, module.m, fit(trained.cv1, module.cv1, x, sums))
    return fit(trained.cv3, module.cv3, concat((y, fit(trained.cv2, module.cv2, x))), keep)


def sum_up(modules: Any, x: torch.Tensor) -> Iterator[torch.Tensor]:
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
    y = trained(x.trained)
    return Pair(y, module(x.student), torch.arange(y.shape[1]))


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

"""Closed form: channels that are chosen, convolutions that are solved, and whole modules that are fitted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from factories import randomise
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules.block import C2, C2PSA, SPPF, Bottleneck, C2f, C3k, C3k2, Proto
from ultralytics.nn.modules.conv import Conv, DWConv, GhostConv
from ultralytics.nn.modules.head import Detect

from ghost_yolo.blocks.elan import NarrowELAN
from ghost_yolo.blocks.ghost import C2f_GhostBottleneck
from ghost_yolo.errors import SwapError
from ghost_yolo.ghostify import heads
from ghost_yolo.ghostify.handlers import fit
from ghost_yolo.ghostify.heads import fit_proto, fit_shell
from ghost_yolo.ghostify.importance import FLOORS, weigh_branches
from ghost_yolo.ghostify.least_squares import choose_channels, solve_conv, solve_linear, solve_transposed
from ghost_yolo.ghostify.match_activation import match_activation
from ghost_yolo.ghostify.pairs import Pair, concat

MODULES = {
    "conv": lambda c: Conv(3, c, 3, 2),
    "depthwise": lambda c: nn.Sequential(Conv(3, c), DWConv(c, c, 3), Conv(c, 8, act=False)),
    "bottleneck": lambda c: Bottleneck(3, c),
    "shortcut": lambda c: nn.Sequential(Conv(3, c), Bottleneck(c, c)),
    "c2f": lambda c: C2f(3, c, 2, shortcut=True),
    "c2f without shortcut": lambda c: C2f(3, c, 2),
    "c3k2": lambda c: C3k2(3, c, 2),
    "c3k2 with c3k": lambda c: C3k2(3, c, 2, c3k=True),
    "c3k": lambda c: C3k(3, c, 2),
    "c2": lambda c: C2(3, c, 2),
    "sppf": lambda c: nn.Sequential(Conv(3, c), SPPF(c, c)),
}


def images(count: int = 8) -> torch.Tensor:
    """Return smooth random images (b, 3, 32, 32)."""
    torch.manual_seed(3)
    return F.interpolate(torch.rand(count, 3, 12, 12), size=32, mode="bilinear")


def start(x: torch.Tensor) -> Pair:
    """Return images as what reaches both models."""
    return Pair(x, x, torch.arange(x.shape[1]))


def trained_like(module: nn.Module) -> Any:
    """Return a module in eval mode with weights as after training."""
    return randomise(module).eval()


def explained(y: torch.Tensor, target: torch.Tensor) -> float:
    """Return the share of the target maps' variance that other maps give."""
    return 1 - float((y - target).square().mean() / (target - target.mean((0, 2, 3), keepdim=True)).square().mean())


def test_choice_leaves_out_what_follows_from_others() -> None:
    """Copies and sums of channels are not chosen, and the indices are ascending."""
    torch.manual_seed(0)
    free = torch.randn(4, 3, 16, 16)
    maps = torch.cat((free[:, :1], 0.5 * free[:, :1], free[:, 1:2], free[:, 2:] * 3, 0.1 * free[:, 1:2]), 1)

    assert choose_channels(maps, 3).tolist() == [0, 2, 3]
    assert choose_channels(maps, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("k", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_a_convolution_is_recovered_from_its_maps(k: int, stride: int, groups: int) -> None:
    """Weight and bias, dense or grouped, follow from inputs and outputs alone."""
    torch.manual_seed(0)
    conv, x = (
        nn.Conv2d(4, 8, k, stride, k // 2, groups=groups).requires_grad_(requires_grad=False),
        torch.randn(8, 4, 24, 24),
    )
    weight, bias = solve_conv(conv, x, conv(x), torch.zeros_like(conv.weight))

    torch.testing.assert_close(weight, conv.weight, rtol=0, atol=2e-3)
    torch.testing.assert_close(bias, conv.bias, rtol=0, atol=2e-3)


def test_transposed_and_linear_layers_are_recovered() -> None:
    """So they are of layers without a kernel that overlaps."""
    torch.manual_seed(0)
    up, x = nn.ConvTranspose2d(4, 6, 2, 2).requires_grad_(requires_grad=False), torch.randn(8, 4, 12, 12)
    weight, bias = solve_transposed(up, x, up(x), torch.zeros_like(up.weight))
    linear, v = nn.Linear(5, 3).requires_grad_(requires_grad=False), torch.randn(200, 5)

    torch.testing.assert_close(weight, up.weight, rtol=0, atol=2e-3)
    torch.testing.assert_close(bias, up.bias, rtol=0, atol=2e-3)
    for found, right in zip(solve_linear(v, linear(v), torch.zeros(3, 5)), (linear.weight, linear.bias), strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=5e-3)


def test_few_positions_leave_the_trained_weights() -> None:
    """What the inputs do not determine stays as it was trained: fewer positions than unknowns change no output."""
    torch.manual_seed(0)
    conv, x = nn.Conv2d(32, 4, 3, padding=1).requires_grad_(requires_grad=False), torch.randn(1, 32, 4, 4)
    weight, bias = solve_conv(conv, x, conv(x), conv.weight)

    torch.testing.assert_close(weight, conv.weight, rtol=0, atol=1e-3)
    torch.testing.assert_close(bias, conv.bias, rtol=0, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_the_same_width_becomes_the_trained_one(name: str) -> None:
    """Fitted with the same activation and width, every module gives what the trained one gives."""
    trained, module, x = (trained_like(MODULES[name](32)), MODULES[name](32).eval(), images())
    fitted = fit(trained, module, start(x))

    assert fitted.keep.tolist() == [*range(fitted.trained.shape[1])]
    assert explained(module(x), trained(x)) > 0.999


@torch.no_grad()
@pytest.mark.parametrize("name", MODULES)
def test_a_narrower_module_gives_the_maps_that_it_stands_for(name: str) -> None:
    """At half the width, the output is near the trained maps that were chosen: nearer than with random weights."""
    trained, module, x = (trained_like(MODULES[name](32)), MODULES[name](16).eval(), images())
    fitted = fit(trained, module, start(x))

    assert len(set(fitted.keep.tolist())) == module(x).shape[1]
    assert explained(module(x), trained(x)[:, fitted.keep]) > 0.4


@torch.no_grad()
def test_attention_keeps_its_width_and_is_fitted_inside() -> None:
    """A C2PSA narrowed outside has the trained attention inside."""
    trained = trained_like(nn.Sequential(Conv(3, 128), C2PSA(128, 128)))
    module = nn.Sequential(Conv(3, 64), C2PSA(64, 64, e=1.0)).eval()
    fitted = fit(trained, module, start(images()))

    assert module[1].m[0].attn.num_heads == trained[1].m[0].attn.num_heads == 1
    assert explained(fitted.student, fitted.trained[:, fitted.keep]) > 0.4


@torch.no_grad()
def test_prototypes_are_fitted() -> None:
    """Of masks, with a transposed convolution inside."""
    trained, module = trained_like(Proto(3, 16, 8)), Proto(3, 16, 8).eval()
    fitted = fit_proto(trained, module, start(images()))

    assert explained(fitted.student, fitted.trained) > 0.999


@torch.no_grad()
def test_another_activation_in_closed_form() -> None:
    """A C2f with ReLU follows one with SiLU, up to scale and shift of each map."""
    trained, module = trained_like(C2f(3, 32, 1, shortcut=True)), C2f(3, 32, 1, shortcut=True).eval()
    for inner in module.modules():
        if isinstance(inner, Conv):
            inner.act = nn.ReLU()
    fitted = fit(trained, module, start(images()))
    pairs = zip(fitted.student.transpose(0, 1).flatten(1), fitted.trained.transpose(0, 1).flatten(1), strict=True)
    correlations = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs if pair[0].std() > 0])

    assert correlations.median() > 0.9


def test_scale_and_shift_between_activations() -> None:
    """None between equal ones; the kink of a ReLU moves to where the other one bends."""
    z = torch.linspace(-6, 6, 4000).view(1, 1, 1, -1)
    scale, shift = match_activation(nn.ReLU(), z, F.relu(z))
    assert scale.item() == pytest.approx(1) and shift.item() == 0
    scale, shift = match_activation(nn.ReLU(), z, 2 * F.relu(z - 1))
    assert scale.item() == pytest.approx(2, rel=1e-3) and shift.item() == -1
    scale, shift = match_activation(nn.Hardswish(), z, 2 * F.hardswish(z - 1))
    assert scale.item() == 1 and shift.item() == -1  # Hardswish of twice a map is not twice its Hardswish


@torch.no_grad()
def test_the_shell_of_another_block() -> None:
    """The outer convolution of a light block is solved, and the rest is left to be learned."""
    trained, x = trained_like(C2f(3, 32, 1)), images()
    module: Any = C2f_GhostBottleneck(3, 16, 1).eval()
    task, keep = fit_shell(trained, module, start(x))

    assert task.module is module and task.target.shape == (8, 16, 32, 32) and len(keep) == 16
    assert torch.equal(task.target, trained(x)[:, keep])


@torch.no_grad()
@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("width", [16, 32])
def test_ghosts_are_solved_at_any_width(width: int, shortcut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrower block of Ghost bottlenecks gives what it stands for before anything is learned, the shell alone does not."""
    trained, x = trained_like(C2f(3, 32, 2, shortcut=shortcut)), images(64)
    torch.manual_seed(0)
    solved: Any = C2f_GhostBottleneck(3, width, 2, shortcut).eval()
    shell = copy.deepcopy(solved)
    task, keep = fit_shell(trained, solved, start(x))
    assert explained(solved(x), task.target) > 0.95 and len(keep) == width
    monkeypatch.setattr(heads, "is_supported", lambda *_: False)
    task, _ = fit_shell(trained, shell, start(x))
    assert explained(shell(x), task.target) < 0


@torch.no_grad()
def test_what_has_no_handler_keeps_its_width() -> None:
    """Another module is fitted inside if its shape is the same, and refused otherwise."""
    x = images()
    trained, module = trained_like(C2f_GhostBottleneck(3, 16)), C2f_GhostBottleneck(3, 16).eval()
    fit(trained, module, start(x))
    assert explained(module(x), trained(x)) > 0.99
    with pytest.raises(SwapError, match="cannot be narrowed"):
        fit(nn.ModuleDict({"a": Conv(3, 8)}), nn.ModuleDict({"a": Conv(3, 4)}), start(x))


@torch.no_grad()
@pytest.mark.parametrize(
    ("make", "width"),
    [
        (lambda: GhostConv(16, 24), 24),
        (lambda: NarrowELAN(16, 24), 24),
        (lambda: Conv(16, 24, 3, g=4), 24),
        (lambda: Conv(16, 32, 3, g=16), 32),
    ],
)
def test_other_modules_may_change_the_number_of_maps(make: Callable[[], nn.Module], width: int) -> None:
    """What has no handler, and a grouped convolution, stand for all of the trained maps, however many there are."""
    trained, module = (nn.Sequential(Conv(3, 16), make()) for _ in range(2))
    fitted = fit(trained_like(trained), module.eval(), start(images()))

    assert fitted.keep.tolist() == [*range(width)]
    assert explained(fitted.student, fitted.trained) > 0.99


@torch.no_grad()
def test_a_grouped_convolution_is_not_narrowed() -> None:
    """Its groups would get other maps."""
    with pytest.raises(SwapError, match="grouped"):
        fit(trained_like(Conv(16, 32, 3, g=4)), Conv(16, 16, 3, g=4).eval(), start(torch.rand(2, 16, 8, 8)))


def test_concatenation_counts_the_trained_channels() -> None:
    """Indices of the second part come behind all channels of the first."""
    first = Pair(torch.zeros(1, 4, 1, 1), torch.zeros(1, 2, 1, 1), torch.tensor([1, 3]))
    second = Pair(torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1, 1), torch.tensor([2]))
    assert concat((first, second)).keep.tolist() == [1, 3, 6]


@torch.no_grad()
def test_a_convolution_is_exact_where_it_counts() -> None:
    """Positions with weight decide: the solution is that of weighted least squares."""
    torch.manual_seed(0)
    conv, x, target = nn.Conv2d(3, 2, 1), torch.randn(2, 3, 10, 10), torch.randn(2, 2, 10, 10)
    importance = torch.rand(2, 1, 10, 10) ** 4
    found = solve_conv(conv, x, target, torch.zeros_like(conv.weight), importance)
    root = importance.flatten().sqrt()[:, None]
    inputs, wanted = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (x, target))
    expected = torch.linalg.lstsq(torch.cat((inputs, torch.ones(200, 1)), 1) * root, wanted * root).solution

    torch.testing.assert_close(torch.cat((found[0].flatten(1), found[1][:, None]), 1), expected.T, rtol=0, atol=1e-3)


@torch.no_grad()
def test_a_fit_uses_the_weights_of_its_positions() -> None:
    """A narrower convolution gives the trained maps better where they count, and passes the weights on at its own size."""
    trained, x = trained_like(Conv(3, 32, 3, 2)), images()
    importance = torch.full((8, 1, 32, 32), 1e-3)
    importance[..., :8, :8] = 1
    errors = []
    for weight in (None, importance):
        torch.manual_seed(0)
        module = nn.Sequential(Conv(3, 8, 3, 2), Conv(8, 32)).eval()
        narrow = fit(nn.Sequential(trained, trained_like(Conv(32, 32))), module, Pair(x, x, torch.arange(3), weight))
        errors.append(float((narrow.student - narrow.trained)[..., :4, :4].square().mean()))
    assert errors[1] < 0.9 * errors[0] and narrow.weight.shape == (8, 1, 16, 16)


def test_channels_are_chosen_where_it_counts() -> None:
    """A channel that varies only where nothing counts is left out, also of maps that are given several times over."""
    torch.manual_seed(0)
    maps, importance = torch.randn(2, 2, 8, 8), torch.zeros(2, 1, 8, 8)
    importance[..., :4] = 1
    maps[:, 0, :, 4:] *= 100
    maps[:, 0, :, :4] *= 0.1
    assert choose_channels(maps, 1).tolist() == [0]
    assert choose_channels(torch.cat((maps, maps)), 1, importance).tolist() == [1]


@torch.no_grad()
def test_a_head_counts_where_objects_are() -> None:
    """The weights of each branch are the confidence of the surest class nearby, and at least the branch's floor."""
    torch.manual_seed(0)
    head, inputs = Detect(2, ch=(8, 16)).eval(), [torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4)]
    head.cv3[0][-1].bias.fill_(-20.0)
    weights = weigh_branches(head, inputs)
    expected = F.max_pool2d(head.cv3[1](inputs[1]).sigmoid().amax(1, keepdim=True), 3, 1, 1)

    assert weights.keys() == FLOORS.keys() and float(weights["cv2"][0].max()) == pytest.approx(FLOORS["cv2"])
    torch.testing.assert_close(weights["cv3"][1], expected.clamp(min=FLOORS["cv3"]))

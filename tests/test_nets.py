"""Whole networks: the papers' totals, timm's outputs with timm's weights, and maps for a detector."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from factories import fuse, macs, newest_only, parameters, randomise, refused
from torch import nn

from ghost_yolo import nets
from ghost_yolo.blocks.ghostv3 import BranchedConv
from ghost_yolo.errors import WeightsError
from ghost_yolo.nets import (
    g_ghost_regnetx_032,
    g_ghost_regnetx_040,
    g_ghost_regnetx_080,
    g_ghost_regnetx_160,
    ghostnet,
    ghostnetv2,
    ghostnetv3,
    load_by_order,
)

Make = Callable[..., nn.Module]
GHOSTS = {"ghostnet_100": ghostnet, "ghostnetv2_100": ghostnetv2, "ghostnetv3_100": ghostnetv3}
G_GHOSTS = [g_ghost_regnetx_032, g_ghost_regnetx_040, g_ghost_regnetx_080, g_ghost_regnetx_160]
small_nets = pytest.mark.parametrize(
    "make",
    [partial(make, 10) for make in (*GHOSTS.values(), g_ghost_regnetx_032)],
    ids=lambda make: make.func.__name__,
)


def deployed(net: nn.Module) -> nn.Module:
    """Merge the branches and nothing else, as GhostNetV3 is published."""
    for m in net.modules():
        if isinstance(m, BranchedConv):
            m.fuse_convs()
            m.forward = m.forward_fuse
    return net


@pytest.mark.parametrize(
    "make,width,total,millions",
    [
        (ghostnet, 0.5, 2_587_292, 42.33),
        (ghostnet, 1.0, 5_182_508, 141.15),
        (ghostnet, 1.3, 7_358_820, 227.00),
        (ghostnetv2, 1.0, 6_156_908, 167.05),
        (ghostnetv2, 1.3, 8_960_404, 269.32),
        (ghostnetv2, 1.6, 12_392_698, 398.61),
    ],
)
def test_papers_totals(make: Make, width: float, total: int, millions: float) -> None:
    """GhostNet and GhostNetV2 have the parameters and, at 224 x 224, the millions of multiply-adds of their papers."""
    net = make(width=width)

    assert (parameters(net), round(macs(net) / 1e6, 2)) == (total, millions)


def test_totals_of_v3() -> None:
    """GhostNetV3 trains with 8.13 M parameters, and deployed it costs the multiply-adds of GhostNetV2, 167.05 M."""
    net = ghostnetv3()

    assert parameters(net) == 8_129_028
    assert parameters(deployed(net)) == 6_147_588
    assert macs(net) == macs(ghostnetv2()) == 167_048_288


@pytest.mark.parametrize(
    "make,total",
    [
        (g_ghost_regnetx_032, 10_511_000),
        (g_ghost_regnetx_040, 15_726_268),
        (g_ghost_regnetx_080, 24_586_928),
        (g_ghost_regnetx_160, 32_381_704),
    ],
)
def test_totals_of_g_ghost(make: Make, total: int) -> None:
    """The G-Ghost forms of RegNetX have the totals worked out from the paper's definition."""
    assert parameters(make()) == total


@pytest.mark.parametrize("make", G_GHOSTS)
def test_widths_of_regnet(make: Make) -> None:
    """The stages of a G-Ghost RegNetX are as wide as timm's RegNetX of the same size."""
    timm = pytest.importorskip("timm")
    net = make(10)
    theirs = timm.create_model(make.__name__.removeprefix("g_ghost_"), features_only=True)

    assert [y.shape[1] for y in net.eval().features(torch.zeros(1, 3, 32, 32))] == theirs.feature_info.channels()[-3:]


@pytest.mark.parametrize("name", GHOSTS)
def test_loads_timm(name: str) -> None:
    """With timm's weights, every one of them, a network gives timm's output."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = randomise(timm.create_model(name, pretrained=False)).double().eval()
    net = GHOSTS[name]().double().eval()
    load_by_order(net, theirs.state_dict())
    x = torch.randn(2, 3, 64, 95, dtype=torch.float64)

    with torch.inference_mode():
        torch.testing.assert_close(net(x), theirs(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "change,names",
    [
        (lambda w: dict(list(w.items())[:-1]), ["GhostNet"]),
        (lambda w: w | {"more.bias": torch.zeros(1)}, ["GhostNet"]),
        (lambda w: dict(sorted(w.items())), ["safetensors"]),
        (lambda w: ghostnet(num_classes=3).state_dict(), ["head.6.weight (3, 1280)", "head.6.weight (10, 1280)"]),
        (lambda w: ghostnet(10, width=0.5).state_dict(), ["stem.conv.weight (8, 3, 3, 3)"]),
    ],
)
def test_foreign_weights_are_refused(change: Callable[..., dict[str, torch.Tensor]], names: list[str]) -> None:
    """Weights that are cut, extended, sorted, or of another width or class count are named, and nothing is loaded."""
    net = ghostnet(10)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    with refused(WeightsError, *names):
        load_by_order(net, change(ghostnet(10).state_dict()))

    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@small_nets
@pytest.mark.parametrize("h,w", [(64, 96), (75, 33)])
def test_features(make: Make, h: int, w: int) -> None:
    """The features stand at strides 8, 16 and 32, rounded up, and the head makes classes of the last."""
    net, x = make().eval(), torch.randn(1, 3, h, w)

    with torch.inference_mode():
        maps = net.features(x)

        assert [tuple(y.shape[2:]) for y in maps] == [(-(-h // s), -(-w // s)) for s in (8, 16, 32)]
        torch.testing.assert_close(net.head(maps[-1]), net(x))
        assert net(x).shape == (1, 10)


@small_nets
def test_every_parameter_learns(make: Make) -> None:
    """A training batch of one image gives every parameter a gradient."""
    net = make().train()

    net(torch.randn(1, 3, 128, 128)).square().sum().backward()

    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@newest_only
@small_nets
def test_fuses_exactly(make: Make) -> None:
    """The host's fuse() leaves no BN in a whole network and changes no output; the fused one pickles."""
    torch.manual_seed(0)
    net, x = randomise(make()).double().eval(), torch.randn(2, 3, 64, 64, dtype=torch.float64)

    with torch.inference_mode():
        before = net(x)
    fuse(net)

    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(pickle.loads(pickle.dumps(net))(x), before, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "make,name",
    [
        (lambda: ghostnet(0), "GhostNet: num_classes=0"),
        (lambda: ghostnetv3(width=0), "GhostNet: width=0"),
        (lambda: g_ghost_regnetx_032(-1), "GGhostRegNet: num_classes=-1"),
    ],
)
def test_impossible_arguments(make: Make, name: str) -> None:
    """A network without classes or width is refused with what was given."""
    with refused(ValueError, name):
        make()


def test_names_are_functions_whatever_is_loaded() -> None:
    """No room stands in the place of a function of its name."""
    for name in nets.__all__:
        importlib.import_module(getattr(nets, name).__module__)

        assert callable(getattr(nets, name))

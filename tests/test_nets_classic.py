"""The classic networks whole: the papers' totals, other libraries' weights, fusing, pickling."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from factories import fuse, macs, newest_only, parameters, randomise, refused
from torch import nn

from ghost_yolo.errors import WeightsError
from ghost_yolo.nets import load_by_order, mobilenetv1, shufflenetv1, squeezenet1_0, squeezenet1_1, xception

NETS = {
    "squeezenet1_0": squeezenet1_0,
    "squeezenet1_1": squeezenet1_1,
    "mobilenetv1": mobilenetv1,
    "shufflenetv1": shufflenetv1,
    "xception": xception,
}
every_net = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


@pytest.mark.parametrize(
    "make,size,total,millions",
    [
        (squeezenet1_0, 224, 1_248_424, 818.9),
        (squeezenet1_1, 224, 1_235_496, 349.2),
        (mobilenetv1, 224, 4_231_976, 568.74),
        (xception, 299, 22_855_952, 8357.4),
    ],
)
def test_totals(make: Callable[[], nn.Module], size: int, total: int, millions: float) -> None:
    """Parameters and multiply-accumulates are the reference's, to the last digit that it gives."""
    digits = len(str(millions).split(".")[1])

    net = make()

    assert parameters(net) == total
    assert round(macs(net, size) / 1e6, digits) == millions


@pytest.mark.parametrize("width,total,millions", [(1.0, 4.2, 569), (0.75, 2.6, 325), (0.5, 1.3, 149), (0.25, 0.5, 41)])
def test_mobilenet_widths(width: float, total: float, millions: int) -> None:
    """Every width multiplier of MobileNetV1 has the parameters and operations that the paper prints (table 6)."""
    net = mobilenetv1(width=width)

    assert round(parameters(net) / 1e6, 1) == total
    assert round(macs(net, 224) / 1e6) == millions


@pytest.mark.parametrize("size,millions", [(224, 569), (192, 418), (160, 290), (128, 186)])
def test_mobilenet_resolutions(size: int, millions: int) -> None:
    """Every resolution multiplier of MobileNetV1 has the operations that the paper prints (table 7), cut or rounded."""
    assert macs(mobilenetv1(), size) / 1e6 == pytest.approx(millions, abs=0.7)


@pytest.mark.parametrize(
    "groups,total,convolutions,millions",
    [
        (1, 1_531_936, 142.50, 143.08),
        (2, 1_733_848, 140.04, 140.84),
        (3, 1_865_728, 136.50, 137.46),
        (4, 1_968_344, 133.25, 134.34),
        (8, 2_434_768, 136.83, 138.37),
    ],
)
def test_shufflenet_groups(groups: int, total: int, convolutions: float, millions: float) -> None:
    """Every number of groups has its parameters, and its operations with the linear layer and without."""
    net = shufflenetv1(groups=groups)
    counted = macs(net, 224)

    assert parameters(net) == total
    assert round(counted / 1e6, 2) == millions
    assert round((counted - net.head[-1].weight.numel()) / 1e6, 2) == convolutions


def test_shufflenet_twice_as_wide() -> None:
    """ShuffleNet 2x with 3 groups has the 524 million operations that the paper prints."""
    assert round(macs(shufflenetv1(width=2.0), 224) / 1e6) == 524


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("width", [0.25, 0.5, 1.5])
def test_shufflenet_builds_at_every_width(groups: int, width: float) -> None:
    """Widths that the groups do not divide are rounded up, so that every network of the paper builds."""
    assert shufflenetv1(7, groups, width).eval()(torch.zeros(1, 3, 33, 31)).shape == (1, 7)


@pytest.mark.parametrize(
    "name,make,size,options",
    [
        ("squeezenet1_0", squeezenet1_0, 75, {}),
        ("squeezenet1_1", squeezenet1_1, 75, {}),
        ("mobilenetv1_100", mobilenetv1, 65, {"act": nn.ReLU6}),
        ("legacy_xception", xception, 71, {}),
    ],
)
def test_weights_of_other_libraries(
    name: str, make: Callable[..., nn.Module], size: int, options: dict[str, Any]
) -> None:
    """Every tensor of torchvision's or timm's network loads into ours, and both give the same scores in float64."""
    torch.manual_seed(0)
    if name.startswith("squeezenet"):
        theirs = getattr(pytest.importorskip("torchvision").models, name)(num_classes=10)
    else:
        theirs = pytest.importorskip("timm").create_model(name, num_classes=10)
    theirs, ours = randomise(theirs).double().eval(), make(num_classes=10, **options).double().eval()
    load_by_order(ours, theirs.state_dict())
    x = torch.randn(2, 3, size, size + 6, dtype=torch.float64)

    expected = theirs(x)
    largest = expected.abs().max()

    assert largest > 0
    torch.testing.assert_close(ours(x) / largest, expected / largest, rtol=0, atol=1e-12)


def test_other_weights_are_refused_whole() -> None:
    """Weights of another network, width or number of classes load nothing and say which tensor differs."""
    net = mobilenetv1(10, 0.25)
    before = net.stem.conv.weight.clone()

    with refused(WeightsError, "stem.0.weight (64, 3, 3, 3)", "MobileNetV1"):
        load_by_order(net, squeezenet1_1().state_dict())
    with refused(WeightsError, "head.2.weight (1000, 256)", "head.2.weight (10, 256)"):
        load_by_order(net, mobilenetv1(width=0.25).state_dict())
    assert torch.equal(net.stem.conv.weight, before)


@newest_only
@every_net
def test_fuses_completely_and_exactly(make: Callable[..., nn.Module]) -> None:
    """The host's fuse() leaves no BN in a network and changes no score."""
    torch.manual_seed(0)
    net, x = randomise(make(num_classes=5)).double().eval(), torch.randn(1, 3, 64, 53, dtype=torch.float64)
    before = net(x)

    fuse(net)

    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(net(x), before, rtol=1e-10, atol=1e-10)


@every_net
def test_learns_and_pickles(make: Callable[..., nn.Module]) -> None:
    """A training batch gives every parameter a gradient, and a network survives pickling."""
    net = make(num_classes=5)

    net(torch.randn(2, 3, 64, 64)).square().sum().backward()
    again = pickle.loads(pickle.dumps(net.eval()))

    x = torch.randn(1, 3, 64, 64)
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    torch.testing.assert_close(again(x), net(x), rtol=0, atol=0)


@pytest.mark.parametrize("make,least", [(squeezenet1_0, 21), (squeezenet1_1, 17), (xception, 7)])
def test_smallest_picture(make: Callable[..., nn.Module], least: int) -> None:
    """The least picture of a network without padding passes, and a smaller one does not."""
    net = make(num_classes=5).eval()

    assert net(torch.zeros(1, 3, least, least)).shape == (1, 5)
    with pytest.raises(RuntimeError):
        net(torch.zeros(1, 3, least - 1, least - 1))


@pytest.mark.parametrize(
    "make,name",
    [
        (lambda: shufflenetv1(groups=5), "groups=5"),
        (lambda: shufflenetv1(width=0.0), "width=0.0"),
        (lambda: mobilenetv1(width=0.01), "width=0.01"),
    ],
)
def test_networks_that_no_paper_has(make: Callable[[], nn.Module], name: str) -> None:
    """An impossible multiplier or number of groups raises a ValueError that says what would do."""
    with refused(ValueError, name):
        make()

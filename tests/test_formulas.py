"""Closed formulas and the papers' totals, and what cannot be built."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil

import pytest
import torch
from factories import parameters, refused
from torch import nn

from ghost_yolo.blocks.crelu import C2f_CReLU, CReLU
from ghost_yolo.blocks.elan import NarrowELAN
from ghost_yolo.blocks.fire import C2f_Fire, Fire
from ghost_yolo.blocks.gghost import C2f_GGhostBottleneck, GGhostStage, RegNetBottleneck
from ghost_yolo.blocks.ghost import C2f_GhostBottleneck, GhostBottleneck, GhostConv, SqueezeExcite
from ghost_yolo.blocks.ghostv2 import GhostConvV2
from ghost_yolo.blocks.ghostv3 import GhostConvV3
from ghost_yolo.blocks.mobilenet import C2f_DepthwiseSeparable, DepthwiseSeparable
from ghost_yolo.blocks.partial import FasterBlock, PartialConv
from ghost_yolo.blocks.shuffle import C2f_ShuffleUnit, ShuffleUnit, channel_shuffle
from ghost_yolo.blocks.xception import C2f_XceptionBlock, SeparableConv, XceptionBlock


@pytest.mark.parametrize(
    "c1,c2,k,ratio,d", [(16, 32, 1, 2, 3), (16, 33, 1, 2, 3), (8, 30, 3, 3, 5), (7, 5, 1, 4, 1), (3, 2, 1, 2, 3)]
)
def test_ghost_module(c1: int, c2: int, k: int, ratio: int, d: int) -> None:
    """A Ghost module has c1*i*k^2 + 2i + n*d^2 + 2n parameters, i = ceil(c2 / ratio), n = i * (ratio - 1)."""
    i = ceil(c2 / ratio)
    n = i * (ratio - 1)
    module = GhostConv(c1, c2, k, ratio=ratio, d=d)

    assert parameters(module) == c1 * i * k**2 + 2 * i + n * d**2 + 2 * n
    assert module.eval()(torch.zeros(1, c1, 5, 5)).shape[1] == c2


@pytest.mark.parametrize("cls,c2,total", [(GhostConv, 32, 464), (GhostConv, 33, 493), (GhostConvV2, 32, 1488)])
def test_totals_by_hand(cls: type[GhostConv], c2: int, total: int) -> None:
    """The totals that were worked out by hand from 16 input channels."""
    assert parameters(cls(16, c2)) == total


@pytest.mark.parametrize("c1,c2,k", [(16, 32, 1), (8, 9, 3)])
def test_attention_adds(c1: int, c2: int, k: int) -> None:
    """DFC attention adds c1*c2*k^2 + 16*c2 parameters."""
    assert parameters(GhostConvV2(c1, c2, k)) - parameters(GhostConv(c1, c2, k)) == c1 * c2 * k**2 + 16 * c2


@pytest.mark.parametrize("c1,c2,gw,blocks,total", [(96, 192, 48, 6, 539_664), (24, 56, 8, 4, 31_696)])
def test_g_ghost_stage(c1: int, c2: int, gw: int, blocks: int, total: int) -> None:
    """G-Ghost stages have the totals worked out from the paper's definition."""
    assert parameters(GGhostStage(c1, c2, blocks, 2, gw)) == total


def test_squeeze_width_is_rounded_like_the_papers() -> None:
    """The squeezed width is a multiple of 4 and never a tenth below the asked one."""
    assert [SqueezeExcite(c).fc1.out_channels for c in (8, 72, 120, 242, 22)] == [4, 20, 32, 60, 8]


def test_counted_by_hand() -> None:
    """Four 3x3 filters over 3 channels have 108 weights; made separably 27 depthwise and 12 pointwise ones, 39."""
    unit = DepthwiseSeparable(3, 4)
    depthwise, pointwise = unit.dw.conv.weight.numel(), unit.pw.conv.weight.numel()

    assert nn.Conv2d(3, 4, 3, bias=False).weight.numel() == 108
    assert (depthwise, pointwise, depthwise + pointwise) == (27, 12, 39)


@pytest.mark.parametrize("c1,c2,k", [(32, 64, 3), (7, 5, 3), (8, 9, 5)])
def test_depthwise_separable(c1: int, c2: int, k: int) -> None:
    """MobileNetV1's unit has c1*k^2 + 2*c1 + c1*c2 + 2*c2 parameters, and adds none to add its input."""
    assert parameters(DepthwiseSeparable(c1, c2, k)) == c1 * k**2 + 2 * c1 + c1 * c2 + 2 * c2
    assert parameters(DepthwiseSeparable(c1, c1, k, shortcut=True)) == parameters(DepthwiseSeparable(c1, c1, k))


@pytest.mark.parametrize("c1,c2,k,n_div", [(32, 64, 3, 4), (7, 5, 3, 2), (3, 9, 5, 4)])
def test_partial_conv(c1: int, c2: int, k: int, n_div: int) -> None:
    """A partial convolution and its 1x1 have k^2 (c1/n_div)^2 + c1*c2 + 2*c2 parameters; at least one channel is convolved."""
    part = max(c1 // n_div, 1)
    unit = PartialConv(c1, c2, k, n_div=n_div)
    x = torch.randn(1, c1, 5, 6)

    assert parameters(unit) == k**2 * part**2 + c1 * c2 + 2 * c2
    torch.testing.assert_close(unit.spatial(x)[:, part:], x[:, part:], rtol=0, atol=0)
    assert parameters(FasterBlock(c1)) == 9 * max(c1 // 4, 1) ** 2 + 4 * c1**2 + 4 * c1


@pytest.mark.parametrize("c1,c2,n,e", [(64, 128, 2, 0.25), (7, 10, 1, 0.5), (3, 2, 1, 0.25)])
def test_narrow_elan(c1: int, c2: int, n: int, e: float) -> None:
    """Two 1x1 to c = c2*e, n dense 3x3 of that width, a 1x1 of all parts: each convolution with its BN."""
    c = max(int(c2 * e), 1)
    expected = 2 * (c1 * c + 2 * c) + n * (9 * c * c + 2 * c) + (2 + n) * c * c2 + 2 * c2

    assert parameters(NarrowELAN(c1, c2, n, e=e)) == expected


def test_partial_conv_says_what_it_cannot_do() -> None:
    """A stride or a share of none is refused, and the message says what would be right."""
    with refused(ValueError, "s=2"):
        PartialConv(8, 8, 3, 2)
    with refused(ValueError, "n_div=0"):
        PartialConv(8, 8, n_div=0)


@pytest.mark.parametrize("g", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("s", [1, 2])
def test_shuffle_unit(g: int, s: int) -> None:
    """A ShuffleNet unit has the parameters of its three convolutions; with stride 2 they make c2 - c1 channels."""
    c1, c2 = (192, 192) if s == 1 else (96, 192)
    mid, made = c2 // 4, c2 if s == 1 else c2 - c1
    unit = ShuffleUnit(c1, c2, s, g)

    assert parameters(unit) == c1 * mid // g + 2 * mid + 9 * mid + 2 * mid + mid * made // g + 2 * made
    assert unit.eval()(torch.zeros(1, c1, 9, 6)).shape == (1, c2, -(-9 // s), -(-6 // s))


def test_first_shuffle_unit_is_not_grouped_twice() -> None:
    """The first 1x1 convolution may go without groups, as behind the paper's stem of 24 channels."""
    unit = ShuffleUnit(24, 240, 2, 3, grouped=False)

    assert (unit.cv1.conv.groups, unit.cv2.conv.groups) == (1, 3)
    assert parameters(unit) == 24 * 60 + 9 * 60 + 60 * 216 // 3 + 4 * 60 + 2 * 216


def test_shuffled_channels() -> None:
    """The shuffle deals the groups out in turn, as torch's own does, and one group changes nothing."""
    x = torch.arange(12.0).reshape(1, 12, 1, 1)

    assert channel_shuffle(x, 3).flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    torch.testing.assert_close(channel_shuffle(x, 4), nn.functional.channel_shuffle(x, 4))
    torch.testing.assert_close(channel_shuffle(x, 1), x)


@pytest.mark.parametrize("c,g,mid", [(16, 4, 4), (48, 4, 12), (320, 4, 80), (24, 3, 6), (11, 1, 2), (2, 2, 2)])
def test_shuffle_groups_by_default(c: int, g: int, mid: int) -> None:
    """Unasked, a unit takes the most groups up to 4 that divide its widths: 4 at those of every YOLOv8, 1 at odd ones."""
    unit = ShuffleUnit(c, c)

    assert (unit.g, unit.dw.conv.groups) == (g, mid)


def test_shuffle_rounds_its_inner_width_up() -> None:
    """Asked for groups that do not divide c2 / 4, a unit widens inside: 68 channels in 4 groups take 20, not 17."""
    assert ShuffleUnit(68, 68, g=4).dw.conv.out_channels == 20


@pytest.mark.parametrize("ci,s,e,total", [(96, 16, 64, 11_920), (128, 32, 128, 45_344), (8, 1, 6, 81)])
def test_fire(ci: int, s: int, e: int, total: int) -> None:
    """A Fire module has ci*s + s + s*e1 + e1 + 9*s*e3 + e3 parameters, biases among them."""
    assert parameters(Fire(ci, 2 * e)) == total == ci * s + s + s * e + e + 9 * s * e + e


def test_fire_at_an_odd_width() -> None:
    """The two kinds of filters make c2 channels together, whatever it is."""
    fire = Fire(8, 23)

    assert (fire.squeeze.out_channels, fire.expand1.out_channels, fire.expand3.out_channels) == (2, 12, 11)


@pytest.mark.parametrize("c1,c2,reps,s", [(64, 128, 2, 2), (728, 728, 3, 1), (7, 5, 1, 1)])
@pytest.mark.parametrize("late", [False, True])
def test_xception_block(c1: int, c2: int, reps: int, s: int, late: bool) -> None:
    """An Xception block has 9*a + a*b + 2*b parameters a separable convolution, and a projection where it changes shape."""
    widths = [c1] * reps + [c2] if late else [c1] + [c2] * reps
    convolutions = sum(9 * a + a * b + 2 * b for a, b in pairwise(widths))
    projection = 0 if (c1, s) == (c2, 1) else c1 * c2 + 2 * c2

    assert parameters(XceptionBlock(c1, c2, s, reps, late=late)) == convolutions + projection
    assert parameters(SeparableConv(c1, c2)) == 9 * c1 + c1 * c2 + 2 * c2


@pytest.mark.parametrize("c1,c2,k,s", [(3, 32, 7, 2), (16, 24, 3, 1), (5, 9, 1, 1)])
@pytest.mark.parametrize("affine", [False, True])
def test_crelu(c1: int, c2: int, k: int, s: int, affine: bool) -> None:
    """CReLU has c1*h*k^2 + 2*h parameters for its h = ceil(c2 / 2) filters, and 2*c2 for scale and shift."""
    half = ceil(c2 / 2)

    assert parameters(CReLU(c1, c2, k, s, affine)) == c1 * half * k**2 + 2 * half + (2 * c2 if affine else 0)


def test_crelu_keeps_both_halves() -> None:
    """The difference of CReLU's two halves is the convolution's map itself: relu(x) - relu(-x) = x."""
    torch.manual_seed(0)
    unit, x = CReLU(8, 24).eval(), torch.randn(2, 8, 7, 5)
    positive, negative = unit(x).chunk(2, 1)

    torch.testing.assert_close(positive - negative, unit.conv(x), rtol=0, atol=0)
    assert (unit(x) >= 0).all()


@pytest.mark.parametrize("cls", [DepthwiseSeparable, Fire, CReLU])
def test_input_is_added_where_it_fits(cls: Callable[..., nn.Module]) -> None:
    """The shortcut adds the input to a unit that has none of its own, and only where the width is kept."""
    torch.manual_seed(0)
    unit, x = cls(16, 16, shortcut=True).eval(), torch.randn(1, 16, 5, 5)
    added = unit(x)
    unit.add = False

    torch.testing.assert_close(added, x + unit(x))
    assert not cls(16, 24, shortcut=True).add


@pytest.mark.parametrize("cls", [ShuffleUnit, XceptionBlock])
@pytest.mark.parametrize("s", [1, 2])
def test_residual_units_without_their_shortcut(cls: type[nn.Module], s: int) -> None:
    """Without a shortcut the convolutions alone make all channels, and the output is another."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 7, 5)
    alone, whole = (cls(16, 24 if s == 2 else 16, s, shortcut=shortcut).eval() for shortcut in (False, True))

    assert alone(x).shape == whole(x).shape
    assert not torch.allclose(alone(x), whole(x))


@pytest.mark.parametrize(
    "make",
    [DepthwiseSeparable, ShuffleUnit, Fire, XceptionBlock, CReLU],
    ids=lambda make: make.__name__,
)
def test_units_leave_their_input_alone(make: Callable[[int, int], nn.Module]) -> None:
    """No ReLU works in place on what it was given, not even after the host has set every ReLU module to do so."""
    from ultralytics.utils.torch_utils import initialize_weights

    unit, x = make(16, 16).eval(), torch.randn(1, 16, 5, 5)
    initialize_weights(unit)
    before = x.clone()
    unit(x)

    torch.testing.assert_close(x, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "make,given",
    [
        (lambda: GhostConv(8, 1), "c2=1"),
        (lambda: C2f_GhostBottleneck(8, 1), "c2=1"),
        (lambda: C2f_GhostBottleneck(8, 8, e=0.1), "e=0.1"),
        (lambda: GhostConv(8, 8, ratio=0), "ratio=0"),
        (lambda: GhostConv(8, 8, d=2), "d=2"),
        (lambda: GhostConv(8, 8, 0), "k=0, s=1"),
        (lambda: GhostConv(8, 8, g=3), "g=3"),
        (lambda: C2f_GhostBottleneck(8, 8, g=0), "g=0"),
        (lambda: GhostBottleneck(8, 8, e=0.1), "c2=0"),
        (lambda: GhostConvV3(8, 8, 2), "k=2"),
        (lambda: GGhostStage(8, 8, blocks=2), "blocks=2"),
        (lambda: GGhostStage(8, 8, gw=0), "gw=0"),
        (lambda: RegNetBottleneck(8, 21, gw=8), "gw=8"),
        (lambda: C2f_GGhostBottleneck(8, 8, g=2), "g=2"),
        (lambda: C2f_GGhostBottleneck(8, 8, blocks=2), "blocks=2"),
        (lambda: C2f_DepthwiseSeparable(8, 8, g=2), "g=2"),
        (lambda: ShuffleUnit(24, 32, g=3), "g=3"),
        (lambda: ShuffleUnit(24, 44, 2, 8, grouped=False), "g=8"),
        (lambda: C2f_ShuffleUnit(8, 46, g=4), "g=4"),
        (lambda: ShuffleUnit(8, 8, g=0), "g=0"),
        (lambda: ShuffleUnit(8, 8, 3), "s=3"),
        (lambda: ShuffleUnit(8, 8, 2), "c2=8"),
        (lambda: Fire(8, 1), "c2=1"),
        (lambda: Fire(8, 8, squeeze=0), "squeeze=0"),
        (lambda: Fire(8, 8, expand=1), "expand=1"),
        (lambda: C2f_Fire(8, 8, g=2), "g=2"),
        (lambda: XceptionBlock(8, 8, reps=0), "reps=0"),
        (lambda: C2f_XceptionBlock(8, 8, g=2), "g=2"),
        (lambda: CReLU(8, 1), "c2=1"),
        (lambda: C2f_CReLU(8, 8, g=2), "g=2"),
    ],
)
def test_what_cannot_be_built_says_so(make: Callable[[], nn.Module], given: str) -> None:
    """An impossible argument raises a ValueError that names the block, what was given and what would do."""
    with refused(ValueError, given):
        make()


def test_wide_groups_and_narrow_stages() -> None:
    """A group width beyond the stage's width is one group, not a broken stage."""
    for c2 in (2, 3, 10, 24):
        assert GGhostStage(8, c2, gw=64).eval()(torch.zeros(1, 8, 4, 4)).shape == (1, c2, 4, 4)

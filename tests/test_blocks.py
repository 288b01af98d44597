"""Every block of the table, alone: shapes, gradients, fusing, pickling. A new row is tested here without an edit."""

from __future__ import annotations

import io
import itertools
import pickle

import pytest
import torch
from factories import build, every_block, fuse, newest_only, our_blocks, randomise
from torch import nn
from torch.nn import functional
from ultralytics.nn.modules.block import C2f
from ultralytics.nn.modules.conv import Conv, RepConv

from ghost_yolo import BLOCKS
from ghost_yolo.blocks.gghost import GGhostStage
from ghost_yolo.blocks.ghost import GhostBottleneck, GhostConv
from ghost_yolo.blocks.ghostv2 import GhostBottleneckV2, GhostConvV2
from ghost_yolo.registry import Block

SHAPES = {"odd": (2, 9, 7), "tiny": (2, 2, 3), "row": (2, 1, 5), "square": (1, 8, 8)}


@every_block
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_keeps_the_map(block: Block, shape: tuple[int, int, int]) -> None:
    """With stride 1 a block keeps height and width, whatever they are, and gives c2 finite channels."""
    b, h, w = shape

    y = build(block).eval()(torch.randn(b, 16, h, w))

    assert y.shape == (b, 24, h, w)
    assert y.isfinite().all()


@every_block
def test_one_pixel_in_eval(block: Block) -> None:
    """A map of one pixel passes in eval mode, as the host's stride probe and small images need."""
    assert build(block).eval()(torch.randn(1, 16, 1, 1)).shape == (1, 24, 1, 1)


@every_block
@pytest.mark.parametrize("side", [2, 3, 6])
def test_trains_on_a_batch_of_one(block: Block, side: int) -> None:
    """A training batch of one image, be it of 2x2 pixels, gives every parameter a gradient of its own size."""
    module = build(block).train()

    module(torch.randn(1, 16, side, side)).square().sum().backward()

    without = [name for name, p in module.named_parameters() if p.grad is None or p.grad.shape != p.shape]
    assert without == []


@newest_only
@our_blocks
@pytest.mark.parametrize("c2", [24, 23])
def test_fuses_completely_and_exactly(block: Block, c2: int) -> None:
    """The host's fuse() leaves no BN behind and changes no output, at odd widths too."""
    module = build(block, c2=c2).double().eval()
    x = torch.randn(2, 16, 7, 5, dtype=torch.float64)

    before = module(x)
    fuse(module)

    assert not [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(module(x), before, rtol=0, atol=1e-10)


@every_block
def test_pickles(block: Block) -> None:
    """A block survives pickling under its own class path, before and after fusing."""
    module, x = build(block).eval(), torch.randn(1, 16, 6, 6)
    for _ in range(2):
        again = pickle.loads(pickle.dumps(module))

        assert type(again) is block.cls
        torch.testing.assert_close(again(x), module(x), rtol=0, atol=0)
        fuse(module)


@newest_only
@every_block
@pytest.mark.parametrize("fused", [False, True])
def test_loads_safely(block: Block, fused: bool) -> None:
    """Torch's restricted loader knows every class inside a block."""
    from ultralytics.nn.tasks import _SafeLoad  # the host's own allow-list, for the fused forwards

    module, file = build(block).eval(), io.BytesIO()
    if fused:
        fuse(module)
    torch.save(module, file)
    file.seek(0)
    with _SafeLoad.loading(file):
        file.seek(0)
        again = torch.load(file, weights_only=True)

    assert type(again) is block.cls


@pytest.mark.parametrize("k,s", [(3, 2), (5, 2), (5, 1)])
@pytest.mark.parametrize("cls", [GhostBottleneck, GhostBottleneckV2])
def test_bottleneck_strides(cls: type[GhostBottleneck], k: int, s: int) -> None:
    """A bottleneck of any kernel, stride and squeeze ratio halves odd and even maps like a padded convolution."""
    module = cls(16, 24, k, s, e=2.0, se=0.25)

    assert module(torch.randn(2, 16, 9, 6)).shape == (2, 24, -(-9 // s), -(-6 // s))


@pytest.mark.parametrize(
    "c1,c2,s,kind", [(16, 16, 1, "identity"), (16, 24, 1, "projection"), (16, 16, 2, "projection")]
)
def test_both_shortcuts(c1: int, c2: int, s: int, kind: str) -> None:
    """The input is added itself where shape and width are kept, else through a projection."""
    module = GhostBottleneck(c1, c2, s=s)

    assert (module.shortcut is not None) is (kind == "projection")


def test_shortcut_can_be_left_out() -> None:
    """Without a shortcut the output is the second Ghost module's."""
    torch.manual_seed(0)
    module, x = GhostBottleneck(16, 16, shortcut=False).eval(), torch.randn(1, 16, 5, 5)

    torch.testing.assert_close(module(x), module.ghost2(module.ghost1(x)))


def test_attention_is_on() -> None:
    """In the C2f shell the V2 gate changes the output: it is not an idle module."""
    x = torch.randn(1, 16, 8, 8)
    module = GhostConvV2(16, 24).eval()

    assert not torch.allclose(module(x), GhostConv.forward(module, x))


@pytest.mark.parametrize("s", [1, 2])
def test_attention_is_off_on_a_line(s: int) -> None:
    """On a map one pixel high or wide the gate is exactly 1; on any other it is that of the halved map, bit for bit."""
    module = randomise(GhostConvV2(16, 24, 3, s)).eval()
    gate = module.attention
    for h, w in itertools.product((1, 2, 3, 4, 7, 8), repeat=2):
        x = torch.randn(2, 16, h, w)
        expected = GhostConv.forward(module, x)
        if min(h, w) > 1:
            opening = gate.vertical(gate.horizontal(gate.cv1(functional.avg_pool2d(x, 2)))).sigmoid()
            expected = expected * functional.interpolate(opening, size=expected.shape[-2:], mode="nearest")
        assert torch.equal(module(x), expected), (h, w)


def test_pooled_branch_is_used() -> None:
    """G-Ghost's cheap half depends on the pooled summary of the blocks."""
    torch.manual_seed(0)
    stage, x = GGhostStage(24, 24).eval(), torch.randn(1, 24, 6, 6)
    before = stage(x)
    nn.init.constant_(stage.merge[1].bn.bias, 1.0)

    assert not torch.allclose(stage(x), before)


def test_split_forward_is_the_same() -> None:
    """The host's `forward_split`, which some export formats take, gives what forward gives."""
    for block in BLOCKS:
        if issubclass(block.cls, C2f):
            module, x = build(block).eval(), torch.randn(1, 16, 6, 6)
            torch.testing.assert_close(module.forward_split(x), module(x))


@our_blocks
def test_is_built_from_the_hosts_conv(block: Block) -> None:
    """No BN stands outside the host's Conv and RepConv, where fuse() would miss it."""
    module = build(block)
    inside = {id(m.bn) for m in module.modules() if isinstance(m, (Conv, RepConv))}

    assert [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and id(m) not in inside] == []

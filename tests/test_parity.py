"""The same weights in timm's and torchvision's modules and in ours give the same output."""

from __future__ import annotations

import pytest
import torch
from factories import randomise
from torch import nn

from ghost_yolo.blocks.fire import Fire
from ghost_yolo.blocks.ghost import GhostBottleneck, GhostConv
from ghost_yolo.blocks.ghostv2 import GhostBottleneckV2, GhostConvV2
from ghost_yolo.blocks.ghostv3 import GatedGhostConvV3, GhostBottleneckV3, GhostConvV3, UngatedGhostBottleneckV3
from ghost_yolo.blocks.mobilenet import DepthwiseSeparable
from ghost_yolo.blocks.partial import FasterBlock
from ghost_yolo.blocks.xception import XceptionBlock

timm = pytest.importorskip("timm.models.ghostnet")


def hold_against(theirs: nn.Module, ours: nn.Module, c1: int, h: int, w: int) -> None:
    """Copy the weights in order, shape by shape, and compare on one input."""
    theirs, ours = randomise(theirs).double().eval(), ours.double().eval()
    pairs = list(zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True))
    assert [tuple(a.shape) for (_, a), _ in pairs] == [tuple(b.shape) for _, b in pairs]
    ours.load_state_dict({name: value for (name, _), value in pairs})
    x = torch.randn(2, c1, h, w, dtype=torch.float64)

    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("c1,c2,k,ratio,d,s", [(16, 32, 1, 2, 3, 1), (16, 33, 1, 2, 3, 1), (8, 30, 3, 3, 5, 2)])
@pytest.mark.parametrize("version", [1, 2])
def test_module(c1: int, c2: int, k: int, ratio: int, d: int, s: int, version: int) -> None:
    """Ghost modules of both versions equal timm's, whatever ratio, kernels and stride."""
    torch.manual_seed(0)
    theirs = (timm.GhostModule if version == 1 else timm.GhostModuleV2)(c1, c2, k, ratio, d, s)
    ours = (GhostConv if version == 1 else GhostConvV2)(c1, c2, k, s, ratio, d)

    hold_against(theirs, ours, c1, 15, 18)


@pytest.mark.parametrize(
    "c1,mid,c2,k,s,se",
    [
        (16, 16, 16, 3, 1, 0),
        (16, 48, 24, 3, 2, 0),
        (24, 72, 40, 5, 2, 0.25),
        (40, 121, 41, 5, 1, 0.25),
        (80, 184, 80, 3, 1, 0),
    ],
)
@pytest.mark.parametrize("mode", ["original", "attn"])
def test_bottleneck(c1: int, mid: int, c2: int, k: int, s: int, se: float, mode: str) -> None:
    """Bottlenecks of the papers' stages equal timm's: identity and projection, with stride and squeeze-and-excite."""
    torch.manual_seed(0)
    theirs = timm.GhostBottleneck(c1, mid, c2, k, s, se_ratio=se, mode=mode)
    ours = (GhostBottleneck if mode == "original" else GhostBottleneckV2)(c1, c2, k, s, se=se, mid=mid)

    hold_against(theirs, ours, c1, 17, 14)


@pytest.mark.parametrize(
    "c1,c2,d,s,mode", [(12, 32, 3, 1, "original"), (16, 33, 3, 1, "shortcut"), (8, 30, 5, 2, "shortcut")]
)
def test_module_v3(c1: int, c2: int, d: int, s: int, mode: str) -> None:
    """GhostNetV3's modules equal timm's, gated or not, where the primary convolution has no skip (timm gives it none)."""
    torch.manual_seed(0)
    theirs = timm.GhostModuleV3(c1, c2, 1, 2, d, s, mode=mode)
    ours = (GhostConvV3 if mode == "original" else GatedGhostConvV3)(c1, c2, 1, s, 2, d)

    hold_against(theirs, ours, c1, 15, 18)


@pytest.mark.parametrize(
    "c1,mid,c2,k,s,se",
    [(16, 16, 16, 3, 1, 0), (16, 48, 24, 3, 2, 0), (24, 72, 40, 5, 2, 0.25), (80, 184, 80, 3, 1, 0)],
)
@pytest.mark.parametrize("mode", ["original", "shortcut"])
def test_bottleneck_v3(c1: int, mid: int, c2: int, k: int, s: int, se: float, mode: str) -> None:
    """GhostNetV3's bottlenecks equal timm's: the depthwise convolution of a stride is branched, the shortcut is not."""
    torch.manual_seed(0)
    theirs = timm.GhostBottleneckV3(c1, mid, c2, k, s, se_ratio=se, mode=mode)
    ours = (UngatedGhostBottleneckV3 if mode == "original" else GhostBottleneckV3)(c1, c2, k, s, se=se, mid=mid)

    hold_against(theirs, ours, c1, 17, 14)


@pytest.mark.parametrize("c1,c2,s", [(32, 64, 1), (64, 128, 2), (64, 64, 1), (15, 9, 2)])
@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6])
def test_depthwise_separable(c1: int, c2: int, s: int, act: type[nn.Module]) -> None:
    """MobileNetV1's unit equals timm's, with stride and without, with the paper's activation and timm's."""
    from timm.models._efficientnet_blocks import DepthwiseSeparableConv

    torch.manual_seed(0)
    theirs = DepthwiseSeparableConv(c1, c2, 3, s, noskip=True, pw_act=True, act_layer=act)

    hold_against(theirs, DepthwiseSeparable(c1, c2, 3, s, act=act), c1, 15, 18)


@pytest.mark.parametrize("c1,squeezed,expanded", [(96, 16, 64), (128, 32, 128), (384, 48, 192)])
def test_fire(c1: int, squeezed: int, expanded: int) -> None:
    """Fire modules of the paper's table equal torchvision's."""
    from torchvision.models.squeezenet import Fire as Theirs

    torch.manual_seed(0)

    hold_against(Theirs(c1, squeezed, expanded, expanded), Fire(c1, 2 * expanded), c1, 9, 7)


@pytest.mark.parametrize(
    "c1,c2,reps,s,relu,late",
    [
        (64, 128, 2, 2, False, False),
        (32, 48, 2, 2, True, False),
        (40, 40, 3, 1, True, False),
        (24, 36, 2, 2, True, True),
    ],
)
def test_xception_block(c1: int, c2: int, reps: int, s: int, relu: bool, late: bool) -> None:
    """Blocks of the entry, middle and exit flow equal timm's, on odd and even maps."""
    from timm.models.xception import Block

    torch.manual_seed(0)
    theirs = Block(c1, c2, reps, s, start_with_relu=relu, grow_first=not late)

    hold_against(theirs, XceptionBlock(c1, c2, s, reps, relu=relu, late=late), c1, 17, 14)


@pytest.mark.parametrize("c,n_div", [(40, 4), (16, 2), (15, 4)])
def test_faster_block(c: int, n_div: int) -> None:
    """FasterNet's block equals timm's, which registers the partial convolution last and has no layer scale."""
    fasternet = pytest.importorskip("timm.models.fasternet")
    torch.manual_seed(0)
    theirs = fasternet.MLPBlock(c, n_div, 2.0, 0.0, 0.0)
    theirs.mlp = theirs._modules.pop("mlp")

    hold_against(theirs, FasterBlock(c, n_div), c, 9, 7)

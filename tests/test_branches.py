"""GhostNetV3's parallel branches: which there are, and that merging them changes nothing, in whatever order."""

from __future__ import annotations

import copy

import pytest
import torch
from factories import fuse, newest_only, randomise
from torch import nn
from ultralytics.nn.modules.conv import Conv
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from ghost_yolo.blocks.ghostv2 import GhostBottleneckV2, GhostConvV2
from ghost_yolo.blocks.ghostv3 import (
    BranchedConv,
    GatedGhostConvV3,
    GhostBottleneckV3,
    GhostConvV3,
    UngatedGhostBottleneckV3,
)


def is_merged(module: nn.Module) -> bool:
    """Whether no BN and no branch is left."""
    return not any(isinstance(m, nn.BatchNorm2d) or hasattr(m, "conv1") for m in module.modules())


@newest_only
@pytest.mark.parametrize("cls", [GhostConvV3, GatedGhostConvV3])
@pytest.mark.parametrize("c1,c2", [(8, 16), (8, 15), (12, 16), (5, 9)])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("s", [1, 2])
@pytest.mark.parametrize("d", [1, 3, 5])
def test_module_merges_exactly(cls: type[GhostConvV3], c1: int, c2: int, k: int, s: int, d: int) -> None:
    """Fused equals unfused to 1e-10 in float64, with and without the skip, for any kernel, stride and odd width."""
    torch.manual_seed(0)
    module = randomise(cls(c1, c2, k, s, d=d)).double().eval()
    x = torch.randn(2, c1, 9, 6, dtype=torch.float64)

    before = module(x)
    fuse(module)

    assert is_merged(module)
    assert before.shape == (2, c2, -(-9 // s), -(-6 // s))
    torch.testing.assert_close(module(x), before, rtol=0, atol=1e-10)


@newest_only
@pytest.mark.parametrize("cls", [UngatedGhostBottleneckV3, GhostBottleneckV3])
@pytest.mark.parametrize("c1,c2,k,s,se", [(16, 16, 3, 1, 0.0), (16, 23, 5, 2, 0.25), (8, 24, 3, 2, 0.0)])
def test_bottleneck_merges_exactly(cls: type[GhostBottleneckV3], c1: int, c2: int, k: int, s: int, se: float) -> None:
    """The branched depthwise convolution of a stride and the plain shortcut merge, too."""
    torch.manual_seed(0)
    module = randomise(cls(c1, c2, k, s, e=2.0, se=se)).double().eval()
    x = torch.randn(2, c1, 9, 6, dtype=torch.float64)

    before = module(x)
    fuse(module)

    assert is_merged(module)
    torch.testing.assert_close(module(x), before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("c1,c2,k,s,g", [(8, 8, 3, 1, 1), (8, 8, 1, 1, 4), (8, 8, 3, 1, 8), (4, 8, 3, 2, 2)])
def test_merging_by_itself_and_again(c1: int, c2: int, k: int, s: int, g: int) -> None:
    """Without the host's fuse(), fuse_convs() gives one biased convolution that equals the branches; twice is once."""
    torch.manual_seed(0)
    module = randomise(BranchedConv(c1, c2, k, s, g, nn.ReLU())).double().eval()
    x = torch.randn(2, c1, 7, 6, dtype=torch.float64)

    before = module(x)
    module.fuse_convs()
    merged = module.conv
    module.fuse_convs()

    assert module.conv is merged and is_merged(module)
    assert [name for name, _ in module.named_parameters()] == ["conv.weight", "conv.bias"]
    assert not any(p.requires_grad for p in module.parameters())
    torch.testing.assert_close(module.forward_fuse(x), before, rtol=0, atol=1e-10)


@newest_only
def test_merging_after_the_branches_lost_their_bn() -> None:
    """Branches whose BN the host has merged one by one, as it does under QAT, merge into the same convolution."""
    torch.manual_seed(0)
    module = randomise(BranchedConv(8, 8, 3)).double().eval()
    late = copy.deepcopy(module)
    for branch in late.modules():
        if isinstance(branch, Conv):
            branch.conv = fuse_conv_and_bn(branch.conv, branch.bn)
            del branch.bn
    for each in (module, late):
        each.fuse_convs()

    torch.testing.assert_close(late.conv.weight, module.conv.weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(late.conv.bias, module.conv.bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("c1,c2,k,s,g", [(8, 8, 3, 1, 1), (8, 8, 1, 1, 8), (8, 8, 3, 2, 8), (6, 4, 5, 1, 2)])
def test_branches_cost(c1: int, c2: int, k: int, s: int, g: int) -> None:
    """Three kernels, a 1x1 one where k > 1, and a BN for each of them and for a skip that keeps width and size."""
    scale, skip = k > 1, c1 == c2 and s == 1
    expected = c1 // g * c2 * (3 * k**2 + scale) + 2 * c2 * (3 + scale + skip)

    assert sum(p.numel() for p in BranchedConv(c1, c2, k, s, g).parameters()) == expected


@pytest.mark.parametrize("ours,ancestor", [(GatedGhostConvV3, GhostConvV2), (GhostBottleneckV3, GhostBottleneckV2)])
def test_deployed_like_v2(ours: type[nn.Module], ancestor: type[nn.Module]) -> None:
    """Merged, a V3 module has the weights of V2's and a bias in place of each BN that it merged."""
    module, plain = ours(16, 24), ancestor(16, 24)
    branched = [m for m in module.modules() if isinstance(m, BranchedConv)]
    for m in branched:
        m.fuse_convs()

    saved = sum(m.conv.out_channels for m in branched)
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in plain.parameters()) - saved


def test_branches_keep_the_gate() -> None:
    """The attention changes V3's output: it is not an idle module."""
    module, x = GatedGhostConvV3(16, 24).eval(), torch.randn(1, 16, 8, 8)

    assert not torch.allclose(module(x), GhostConvV3.forward(module, x))

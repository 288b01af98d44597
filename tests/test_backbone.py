"""Whole networks as backbones: channels at every scale, exact strides, the networks' own maps, errors that say what is right."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from factories import NETWORK_YAMLS, ROOT, Run, fuse, newest_only, randomise, refused
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils.ops import make_divisible

from ghost_yolo.blocks.backbone import LEVELS, NETWORKS, Backbone
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import SCALES, path_of, with_scale

every_network = pytest.mark.parametrize("network", NETWORKS)
every_yaml = pytest.mark.parametrize("name", [item.name for item in NETWORK_YAMLS])


def chain(network: str, width: float) -> nn.Sequential:
    """Return a network's three levels as a YAML's rows build them."""
    c = [3, *(make_divisible(full * width, 8) for full in NETWORKS[network].channels)]
    return nn.Sequential(*(Backbone(c[i], c[i + 1], network, level, width) for i, level in enumerate(LEVELS)))


def maps_of(levels: nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the output of each level."""
    maps = []
    for level in levels:
        x = level(x)
        maps.append(x)
    return maps


def yaml_of(*rows: list[Any], **more: Any) -> dict[str, Any]:
    """Return a detector's content with these backbone rows."""
    backbone = [[-1, 1, "ghost_yolo.Backbone", row] for row in rows]
    return {"nc": 2, "backbone": backbone, "head": [[[0, -1, -1], 1, "Detect", ["nc"]]], **more}


@pytest.mark.parametrize("scale", SCALES)
@every_yaml
def test_channels_at_every_scale(name: str, scale: str) -> None:
    """At every scale the network is the one of the scale's width, and all rows before the head agree on the channels."""
    config = tasks.yaml_model_load(str(path_of(with_scale(name, scale)))) | {"scale": scale}
    _, width, _ = config["scales"][scale]
    with torch.device("meta"):
        layers = tasks.parse_model(config, 3, verbose=False)[0].eval()
        net = NETWORKS[layers[0].network].make(num_classes=1, width=width).eval()
        true = [y.shape[1] for y in net.features(torch.empty(1, 3, 64, 64))]
        outputs: list[torch.Tensor] = []
        x = torch.empty(1, 3, 480, 640)
        for layer in layers[:-1]:
            if layer.f != -1:
                x = [outputs[i] for i in layer.f] if isinstance(layer.f, list) else outputs[layer.f]
            x = layer(x)
            outputs.append(x)
    recorded = [make_divisible(full * width, 8) for full in NETWORKS[layers[0].network].channels]

    assert [tuple(y.shape[1:]) for y in outputs[:3]] == [
        (c, 480 // s, 640 // s) for c, s in zip(recorded, (8, 16, 32), strict=True)
    ]
    assert [layer.filling for layer in layers[:3]] == [c - t for c, t in zip(recorded, true, strict=True)]
    assert all(c == t for c, t in zip(recorded, true, strict=True)) or scale != "s"
    assert [tuple(outputs[i].shape[2:]) for i in layers[-1].f] == [(60, 80), (30, 40), (15, 20)]


@every_network
def test_table_names_the_channels(network: str) -> None:
    """The channels in the networks' table are those of the maps."""
    with torch.device("meta"):
        maps = NETWORKS[network].make(num_classes=1).eval().features(torch.empty(1, 3, 320, 96))

    assert [tuple(y.shape[1:]) for y in maps] == [
        (c, 320 // s, 96 // s) for c, s in zip(NETWORKS[network].channels, (8, 16, 32), strict=True)
    ]


@every_yaml
def test_strides_and_scale_of_a_yaml(name: str) -> None:
    """The host measures strides 8, 16 and 32, and the rows' parameters in the layer table are the network's levels'."""
    model = YOLO(str(path_of(with_scale(name, "n"))), verbose=False).model
    rows = model.model[:3]
    levels = NETWORKS[rows[0].network].make(num_classes=1, width=rows[0].width).levels()

    assert model.stride.tolist() == [8, 16, 32]
    assert [row.type for row in rows] == ["ghost_yolo.blocks.backbone.Backbone"] * 3
    assert [row.np for row in rows] == [sum(p.numel() for p in level.parameters()) for level in levels]
    assert model.eval()(torch.rand(1, 3, 64, 96))[0].isfinite().all()


@pytest.mark.parametrize(
    "network,width", [*((network, 0.5) for network in NETWORKS), ("ghostnet", 1.3), ("g_ghost_regnetx_032", 1.25)]
)
def test_the_networks_own_maps(network: str, width: float) -> None:
    """Chained rows give the maps of the whole network with its weights; what fills them up is zero and never read."""
    torch.manual_seed(0)
    net, levels = NETWORKS[network].make(num_classes=1, width=width), chain(network, width).eval()
    randomise(net).eval()
    for level, own in zip(levels, net.levels(), strict=True):
        level.m.load_state_dict(own.state_dict())
    x = torch.randn(1, 3, 64, 96)

    with torch.inference_mode():
        maps, expected = maps_of(levels, x), net.features(x)
        for y, own in zip(maps, expected, strict=True):
            torch.testing.assert_close(y[:, : own.shape[1]], own)
            assert not y[:, own.shape[1] :].any()
        dirty = maps[0].clone()
        dirty[:, expected[0].shape[1] :] = 9.0
        torch.testing.assert_close(levels[1](dirty), maps[1])


def test_some_widths_need_filling() -> None:
    """GhostNet 0.5 has 20 channels where the host records 24."""
    assert [level.filling for level in chain("ghostnet", 0.5)] == [4, 0, 0]


@every_network
def test_every_parameter_learns(network: str) -> None:
    """A training batch of one image gives every parameter a gradient; SqueezeNet's P5 has none, it is a pool."""
    levels = chain(network, 0.5).train()
    sum(y.square().mean() for y in maps_of(levels, torch.randn(1, 3, 64, 64))).backward()

    assert [name for name, p in levels.named_parameters() if p.grad is None] == []


@newest_only
@every_network
def test_fuses_exactly_and_pickles(network: str) -> None:
    """The host's fuse() leaves no BN in a backbone and changes no map; the fused one pickles."""
    torch.manual_seed(0)
    levels = randomise(chain(network, 0.5)).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        before = maps_of(levels, x)
    fuse(levels)

    assert not [m for m in levels.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.inference_mode():
        for y, expected in zip(maps_of(pickle.loads(pickle.dumps(levels)), x), before, strict=True):
            torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)


@newest_only
def test_loads_safely_in_a_fresh_process(tmp_path: Any, python: Run) -> None:
    """ULTRALYTICS_SAFE_LOAD=1 loads a checkpoint of a whole network and builds it again from its own YAML."""
    YOLO(str(path_of("yolov8n-ghostnetv3")), verbose=False).save(tmp_path / "model.pt")
    code = """
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, _SafeLoad
model = YOLO("model.pt").model
with _SafeLoad.loading("model.pt"):
    again = DetectionModel(model.yaml, verbose=False)
assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
"""
    python(code, ULTRALYTICS_SAFE_LOAD="1")


def test_a_width_of_ones_own() -> None:
    """Without scales, a number stands for `width`."""
    config = yaml_of([56, "ghostnet", 3, 1.3], [152, "ghostnet", 4, 1.3], [208, "ghostnet", 5, 1.3])
    layers = tasks.parse_model(config, 3, verbose=False)[0]

    assert [(row.width, row.filling) for row in layers[:3]] == [(1.3, 4), (1.3, 8), (1.3, 0)]


@pytest.mark.parametrize(
    "rows,names",
    [
        ([[40, "gostnet", 3]], ["row 0", "gostnet", "'ghostnet'", "xception"]),
        ([[40, "ghostnet", 2]], ["row 0", "level 2", "3, 4 or 5"]),
        ([[64, "ghostnet", 3]], ["row 0", "64", "[40, ghostnet, 3, width]"]),
        ([[40, "ghostnet", 3, "wide"]], ["row 0", "width='wide'"]),
        ([[40, "ghostnet", 3, 0]], ["row 0", "width=0"]),
        ([[112, "ghostnet", 4]], ["row 0", "level 3", "40 channels"]),
        ([[40, "ghostnet", 3], [160, "ghostnet", 5]], ["row 1", "level 4", "112 channels"]),
        ([[40, "ghostnet", 3], [40, "ghostnet", 3]], ["row 1", "40"]),
    ],
)
def test_rows_that_cannot_be(rows: list[list[Any]], names: list[str]) -> None:
    """A row of an unknown network, level, width or number of channels is named, with what would be right."""
    with refused(UserError, *names):
        tasks.parse_model(yaml_of(*rows), 3, verbose=False)


def test_as_many_classes_as_channels() -> None:
    """Older hosts leave a row's channels unscaled then; the error says so beside what to write."""
    with pytest.raises(ValueError, match=r"\[40, ghostnet, 3, width\].*as many channels as there are classes"):
        Backbone(3, 40, "ghostnet", 3, 0.5)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(channels: int) -> None:
    """Data of other than three channels is named as the cause where the network is the first row already."""
    with refused(UserError, "row 0", "ghostnet", f"channels: {channels}", "3"):
        tasks.parse_model(yaml_of([40, "ghostnet", 3]), channels, verbose=False)


def test_a_clipped_backbone() -> None:
    """A max_channels below the network's channels is named."""
    config = yaml_of([40, "ghostnet", 3, "width"], scales={"s": [1.0, 1.0, 32]}, scale="s")

    with refused(UserError, "max_channels", 40):
        tasks.parse_model(config, 3, verbose=False)


@every_yaml
def test_guide_names_widths_and_channels(name: str) -> None:
    """The guide's line about a YAML has its widths and its network's channels."""
    lines = (ROOT / "docs/guides/backbones.md").read_text(encoding="utf-8").splitlines()
    cells = next(line for line in lines if line.startswith(f"| `{name}` |")).replace("*", "").split("|")
    config = tasks.yaml_model_load(str(path_of(with_scale(name, "s"))))

    assert [float(width) for width in cells[3].split(",")] == [config["scales"][scale][1] for scale in SCALES]
    assert [int(c) for c in cells[4].split(",")] == [row[3][0] for row in config["backbone"][:3]]

"""The networks that a YAML's `ghost_yolo.Backbone` rows may name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ghost_yolo.nets.gghost import g_ghost_regnetx_032, g_ghost_regnetx_040, g_ghost_regnetx_080, g_ghost_regnetx_160
from ghost_yolo.nets.ghost import ghostnet, ghostnetv2, ghostnetv3
from ghost_yolo.nets.mobilenet import mobilenetv1
from ghost_yolo.nets.network import Network
from ghost_yolo.nets.separable import xception
from ghost_yolo.nets.shuffle import shufflenetv1
from ghost_yolo.nets.squeezenet import squeezenet1_0, squeezenet1_1


@dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
        make: Builds it; takes `num_classes` and `width`.
        channels: Widths of P3, P4 and P5 with width 1.0, which are the numbers to write in a YAML's rows.
        weights: Names of pretrained weights by width, as `timm/ghostnet_100`.
        note: What a user of these weights must know.
    """

    make: Callable[..., Network]
    channels: tuple[int, int, int]
    weights: dict[float, str] = field(default_factory=dict)
    note: str = ""


NETWORKS = {
    "ghostnet": Entry(ghostnet, (40, 112, 160), {1.0: "timm/ghostnet_100"}),
    "ghostnetv2": Entry(
        ghostnetv2,
        (40, 112, 160),
        {1.0: "timm/ghostnetv2_100", 1.3: "timm/ghostnetv2_130", 1.6: "timm/ghostnetv2_160"},
    ),
    "ghostnetv3": Entry(ghostnetv3, (40, 112, 160), {1.0: "timm/ghostnetv3_100"}),
    "g_ghost_regnetx_032": Entry(g_ghost_regnetx_032, (192, 432, 1008)),
    "g_ghost_regnetx_040": Entry(g_ghost_regnetx_040, (240, 560, 1360)),
    "g_ghost_regnetx_080": Entry(g_ghost_regnetx_080, (240, 720, 1920)),
    "g_ghost_regnetx_160": Entry(g_ghost_regnetx_160, (512, 896, 2048)),
    "mobilenetv1": Entry(
        mobilenetv1,
        (256, 512, 1024),
        {1.0: "timm/mobilenetv1_100", 1.25: "timm/mobilenetv1_125"},
        "timm trained these weights with ReLU6; the backbone has the paper's ReLU",
    ),
    "shufflenetv1": Entry(shufflenetv1, (240, 480, 960)),
    "squeezenet1_0": Entry(partial(squeezenet1_0, padded=True), (512, 512, 512), {1.0: "torchvision/squeezenet1_0"}),
    "squeezenet1_1": Entry(partial(squeezenet1_1, padded=True), (256, 512, 512), {1.0: "torchvision/squeezenet1_1"}),
    "xception": Entry(partial(xception, padded=True), (256, 728, 2048), {1.0: "timm/legacy_xception"}),
}

"""Fill the table of the networks that a YAML's `ghost_yolo.Backbone` rows may name."""

from __future__ import annotations

from functools import partial

from ghost_yolo.blocks.backbone import NETWORKS, NetworkEntry
from ghost_yolo.nets.gghost import g_ghost_regnetx_032, g_ghost_regnetx_040, g_ghost_regnetx_080, g_ghost_regnetx_160
from ghost_yolo.nets.ghost import ghostnet, ghostnetv2, ghostnetv3
from ghost_yolo.nets.mobilenet import mobilenetv1
from ghost_yolo.nets.separable import xception
from ghost_yolo.nets.shuffle import shufflenetv1
from ghost_yolo.nets.squeezenet import squeezenet1_0, squeezenet1_1

HALVES = (0.5, 0.5, 0.5)

NETWORKS |= {
    "ghostnet": NetworkEntry(ghostnet, (40, 112, 160), {1.0: "timm/ghostnet_100"}),
    "ghostnetv2": NetworkEntry(
        ghostnetv2,
        (40, 112, 160),
        {1.0: "timm/ghostnetv2_100", 1.3: "timm/ghostnetv2_130", 1.6: "timm/ghostnetv2_160"},
    ),
    "ghostnetv3": NetworkEntry(ghostnetv3, (40, 112, 160), {1.0: "timm/ghostnetv3_100"}),
    "g_ghost_regnetx_032": NetworkEntry(g_ghost_regnetx_032, (192, 432, 1008)),
    "g_ghost_regnetx_040": NetworkEntry(g_ghost_regnetx_040, (240, 560, 1360)),
    "g_ghost_regnetx_080": NetworkEntry(g_ghost_regnetx_080, (240, 720, 1920)),
    "g_ghost_regnetx_160": NetworkEntry(g_ghost_regnetx_160, (512, 896, 2048)),
    "mobilenetv1": NetworkEntry(
        mobilenetv1,
        (256, 512, 1024),
        {1.0: "timm/mobilenetv1_100", 1.25: "timm/mobilenetv1_125"},
        "timm trained these weights with ReLU6; the backbone has the paper's ReLU",
        mean=HALVES,
        std=HALVES,
    ),
    "shufflenetv1": NetworkEntry(shufflenetv1, (240, 480, 960)),
    "squeezenet1_0": NetworkEntry(
        partial(squeezenet1_0, padded=True), (512, 512, 512), {1.0: "torchvision/squeezenet1_0"}
    ),
    "squeezenet1_1": NetworkEntry(
        partial(squeezenet1_1, padded=True), (256, 512, 512), {1.0: "torchvision/squeezenet1_1"}
    ),
    "xception": NetworkEntry(
        partial(xception, padded=True), (256, 728, 2048), {1.0: "timm/legacy_xception"}, mean=HALVES, std=HALVES
    ),
}

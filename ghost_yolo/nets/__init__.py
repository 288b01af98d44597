"""Whole lightweight networks as classifiers, built from the blocks and named as torchvision and timm name theirs."""

import ultralytics  # noqa: F401 (whole, before any part of it: another thread may be importing it just now)

# No module bears the name of one of these functions: importing it would replace the function.
from ghost_yolo.nets import table as table  # fills blocks.backbone.NETWORKS
from ghost_yolo.nets.gghost import g_ghost_regnetx_032, g_ghost_regnetx_040, g_ghost_regnetx_080, g_ghost_regnetx_160
from ghost_yolo.nets.ghost import ghostnet, ghostnetv2, ghostnetv3
from ghost_yolo.nets.mobilenet import mobilenetv1
from ghost_yolo.nets.separable import xception
from ghost_yolo.nets.shuffle import shufflenetv1
from ghost_yolo.nets.squeezenet import squeezenet1_0, squeezenet1_1
from ghost_yolo.nets.weights import load_by_order

__all__ = [
    "g_ghost_regnetx_032",
    "g_ghost_regnetx_040",
    "g_ghost_regnetx_080",
    "g_ghost_regnetx_160",
    "ghostnet",
    "ghostnetv2",
    "ghostnetv3",
    "load_by_order",
    "mobilenetv1",
    "shufflenetv1",
    "squeezenet1_0",
    "squeezenet1_1",
    "xception",
]

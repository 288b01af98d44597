"""The host's heads with the depthwise class branch of YOLO11 (two depthwise 3x3 and 1x1 pairs), whatever else the YAML has.

The host chooses that branch only beside a C3k2, A2C2f or C2fCIB row. These modules name it, so that a YOLOv8 can have it and
a YOLO11 whose last C3k2 was swapped keeps it. Everything else is the host's: losses, most exports and fusing know subclasses.
Test-time augmentation (`augment=True`) and the exports to Hailo and IMX500 know the host's own heads only.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from torch import nn
from ultralytics.nn.modules.conv import Conv
from ultralytics.nn.modules.head import OBB, Detect, Pose, Segment
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import make_divisible

try:  # YOLO26's came with 8.4
    from ultralytics.nn.modules.head import OBB26, Pose26, Segment26
except ImportError:
    Segment26 = None


BRANCHES = frozenset({"cv2", "cv3", "cv4", "one2one_cv2", "one2one_cv3", "one2one_cv4"})


class LightBranch:
    """Mixed into a head: the class branch is the depthwise one, and every branch keeps the structure it was built with."""

    legacy = False  # the parser sets this on its own heads; here it is fixed
    building = False

    def __init__(self, *args: Any) -> None:
        """Build the head; the arguments are the host's, which differ by release and come from the parser."""
        self.building = True  # the host's own constructors replace branches of their base class
        super().__init__(*args)
        self.building = False

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a branch of another structure than the head has.

        When weights for another number of classes are loaded, the host puts the trained model's whole branch in place of
        a new one of other width, and a head of ours would silently become another one.
        """
        if name in BRANCHES and isinstance(value, nn.ModuleList) and not self.building:
            current = getattr(self, name, None)
            if current is not None and _structure(current) != _structure(value):
                LOGGER.warning(f"{type(self).__name__} keeps its own {name}: the other one is of another structure")
                return
        super().__setattr__(name, value)


def _structure(branches: nn.ModuleList) -> list[tuple[Any, ...]]:
    """Return what makes a branch another kind: its modules' types in order, their kernels, and whether they are depthwise."""
    return [
        (type(m), m.kernel_size, m.stride, m.groups > 1) if isinstance(m, nn.Conv2d) else (type(m),)
        for _, m in branches.named_modules(remove_duplicate=False)  # activations are shared
    ]


class LightMasks(LightBranch):
    """Mixed into a head with prototypes, whose width the parser scales for its own heads only."""

    def __init__(self, nc: int, nm: int, npr: int, width: Any = None, max_channels: Any = None, *rest: Any) -> None:
        """Build the head.

        Args:
            nc: Number of classes.
            nm: Number of masks.
            npr: Channels of the prototypes before scaling.
            width: The scale's width; a YAML row writes `width`, and the parser puts its value there, as with `nc`.
            max_channels: The scale's largest width, likewise `max_channels`.
            rest: What the parser appends: input channels, on newer hosts after reg_max and end2end.

        Raises:
            ValueError: If the row does not end in `width, max_channels`.
        """
        if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in (width, max_channels)):
            raise ValueError(
                f"{type(self).__name__} takes [nc, {nm}, {npr}, width, max_channels]: write the last two as these words"
            )
        super().__init__(nc, nm, make_divisible(min(npr, max_channels) * width, 8), *rest)


class LightDetect(LightBranch, Detect):
    """Detect with the depthwise class branch."""


class LightSegment(LightMasks, Segment):
    """Segment with the depthwise class branch."""


class LightPose(LightBranch, Pose):
    """Pose with the depthwise class branch."""


class LightOBB(LightBranch, OBB):
    """OBB with the depthwise class branch."""


class NarrowDetect(LightBranch, Detect):
    """Detect with one dense 3x3 in each branch, behind a 1x1 that narrows: dense, since depthwise is slow in INT8.

    The box branch is of the host's width; the class branch of half the width of P3 or the number of classes, at most 100 of
    these, whichever is more, as a multiple of 16.
    """

    def __init__(self, nc: int = 80, *rest: Any) -> None:
        """Build the head; the arguments are the host's Detect's, which differ by release and come from the parser."""
        super().__init__(nc, *rest)
        self.building = True
        branches: Any = self.get_submodule("cv2")
        widths = [branch[0].conv.in_channels for branch in branches]
        box = branches[0][0].conv.out_channels
        classes = make_divisible(max(widths[0] // 2, min(nc, 100)), 16)
        self.cv2 = nn.ModuleList(_narrow(c1, box, 4 * self.reg_max) for c1 in widths)
        self.cv3 = nn.ModuleList(_narrow(c1, classes, nc) for c1 in widths)
        if getattr(self, "one2one_cv2", None) is not None:
            self.one2one_cv2, self.one2one_cv3 = copy.deepcopy(self.cv2), copy.deepcopy(self.cv3)
        self.building = False


def _narrow(c1: int, c: int, c2: int) -> nn.Sequential:
    """Return a branch: 1x1 to width c, 3x3, and the 1x1 that predicts."""
    return nn.Sequential(Conv(c1, c), Conv(c, c, 3), nn.Conv2d(c, c2, 1))


HEADS: tuple[type[nn.Module], ...] = (LightDetect, LightSegment, LightPose, LightOBB)

if Segment26 is not None:

    class LightSegment26(LightMasks, Segment26):
        """Segment26 with the depthwise class branch."""

    class LightPose26(LightBranch, Pose26):
        """Pose26 with the depthwise class branch."""

        def __setattr__(self, name: str, value: Any) -> None:
            """Keep Pose26's decoding where the host binds another one by a head's exact type: Edge TPU, ExecuTorch."""
            bound = getattr(value, "__func__", None)
            if name == "kpts_decode" and isinstance(bound, partial) and "is_pose26" in bound.keywords:
                bound.keywords["is_pose26"] = True
            super().__setattr__(name, value)

    class LightOBB26(LightBranch, OBB26):
        """OBB26 with the depthwise class branch."""

    HEADS += (LightSegment26, LightPose26, LightOBB26)

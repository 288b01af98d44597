"""`model.yaml`: what a runner must know of a model, in the part of YAML that is JSON too, so that no parser is needed."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ghost_yolo.bench.end_to_end import CONF, IOU, MAX_DET
from ghost_yolo.bench.exporting import read_metadata
from ghost_yolo.bench.runtimes import runtime_of

LETTERBOX = {
    "resize": "as large as fits, bilinear (cv2.INTER_LINEAR), small photographs enlarged",
    "place": "in the middle",
    "bars": 114,
    "colours": "RGB, float32, divided by 255",
}
CENTRE_CROP = {
    "resize": "the shorter side to the size, by Pillow's bilinear filter, which widens where an image shrinks",
    "place": "the middle is cut out",
    "colours": "RGB, float32, divided by 255",
}
NMS = {
    "raw": "one class for each box; boxes of a class that overlap a surer one by more than iou are dropped",
    "rotated": "one class for each box; boxes that a surer one of their class overlaps by a probabilistic IoU of more than iou "
    "are dropped",
    "end2end": "none: the network itself has dropped what overlaps",
    "none": "none: a classifier",
}


def describe(file: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return what `model.yaml` says: the host's metadata of an exported file, and how it is used.

    Args:
        file: The exported file.
        names: Names of all files of the bundle, the one to be preferred first.
    """
    found = {name: _parsed(value) for name, value in read_metadata(file, runtime_of(str(file))).items()}
    task, end2end = found["task"], bool(found.get("end2end"))
    mode = "none" if task == "classify" else "end2end" if end2end else "rotated" if task == "obb" else "raw"
    own = {
        "names": {str(number): name for number, name in found["names"].items()},
        "imgsz": list(found["imgsz"]),
        "end2end": end2end,
        "preprocess": CENTRE_CROP if task == "classify" else LETTERBOX,
        "conf": CONF,
        "iou": IOU,
        "max_det": MAX_DET,
        "nms": NMS[mode],
        "files": list(names),
    }
    return {name: value for name, value in found.items() if name != "args"} | own


def write_description(file: Path, described: dict[str, Any]) -> None:
    """Write `model.yaml`."""
    file.write_text(json.dumps(described, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def _parsed(value: Any) -> Any:
    """Return a value that ONNX metadata hold as text."""
    if isinstance(value, str):
        with suppress(ValueError, SyntaxError):
            return ast.literal_eval(value)
    return value

"""What several test files share: constants, small models and helpers."""

from __future__ import annotations

from pathlib import Path

import yaml
from conftest import NEWEST, ROOT, Run, newest_only
from little import LITTLE as TINY
from little import QUICK, bench_row, interrupt, outputs, stock
from little import WORD as GHOST
from little import settled as calibrated

__all__ = [
    "GHOST",
    "QUICK",
    "ROOT",
    "TINY",
    "Run",
    "bench_row",
    "calibrated",
    "interrupt",
    "newest_only",
    "outputs",
    "stock",
]

TASK_MODELS = ["11/yolo11-seg", "v8/yolov8-cls"] + ["26/yolo26", "v8/yolov8-pose", "v8/yolov8-obb"] * NEWEST
SMALL_RUN = ("imgsz=64", "batch=4", "workers=0", "plots=False", "device=cpu", "exist_ok=True")


def run_folder(folder: Path, name: str) -> tuple[str, str]:
    """Return the options of the folder of a run."""
    return f"project={folder / 'runs'}", f"name={name}"


def write_data_yaml(folder: Path, **content: object) -> Path:
    """Write a data YAML with the usual splits."""
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", **content}))
    return file

"""What the tests of a trained model share: a little detector, smooth pictures, settled statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from ultralytics.utils import ROOT as HOST

from ghost_yolo import host
from ghost_yolo.bench import BenchRow
from ghost_yolo.ghostify import Settings
from ghost_yolo.redundancy.maps import SurveyImages, reestimate_batchnorm

MODELS = HOST / "cfg/models"
LITTLE: dict[str, Any] = {
    "nc": 3,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 4]],
        [-1, 1, "C2f", [16, True]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C2f", [32, True]],
    ],
    "head": [[-1, 1, "C2f", [32]], [[1, 4], 1, "Detect", ["nc"]]],
}
QUICK = Settings(reconstruct_steps=2, distill_steps=2)
WORD = "C2f_GhostBottleneck"
ACCURACY = {  # an accuracy record
    "model": "yolov8n.yaml", "data": "d.yaml", "split": "test", "imgsz": 320, "epochs": 60, "seed": 0,
    "map50_95": 0.5, "map50": 0.8, "conditions": "one <i>machine</i>",
}  # fmt: skip


def stock(name: str) -> dict[str, Any]:
    """Return the content of a stock YAML at scale n with three classes."""
    return yaml.safe_load((MODELS / f"{name}.yaml").read_text(encoding="utf-8")) | {"nc": 3, "scale": "n"}


def outputs(y: Any) -> list[torch.Tensor]:
    """Return the tensors that a model gives, its predictions first."""
    if isinstance(y, torch.Tensor):
        return [y]
    return [tensor for part in (y.values() if isinstance(y, dict) else y) for tensor in outputs(part)]


def photographs(folder: Path) -> Path:
    """Write eight smooth pictures."""
    rng = np.random.default_rng(0)
    for number in range(8):
        noise = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(noise, (80, 64), interpolation=cv2.INTER_CUBIC))
    return folder


def settled(config: dict[str, Any], photos: Path) -> Any:
    """Return a model of three classes with drawn weights and the BN statistics of the pictures."""
    torch.manual_seed(0)
    model = host.build(config)
    model.names = dict(enumerate("abc"))
    paths = sorted(photos.iterdir())
    reestimate_batchnorm(model, SurveyImages(paths, 64, 32), range(len(paths)))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.03
    return model.requires_grad_(requires_grad=False)


def interrupt(*args: Any) -> None:
    """Stand for Ctrl-C at this point."""
    raise KeyboardInterrupt


def bench_row(model: str, runtime: str = "pytorch", **values: Any) -> BenchRow:
    """Return a row of a benchmark on two threads."""
    known = {"scale": "n", "nc": 80, "imgsz": 640, "batch": 1, "precision": "fp32", "device": "cpu", "threads": 2}
    return BenchRow(model=model, runtime=runtime, **known | values)

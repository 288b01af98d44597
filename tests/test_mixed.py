"""Trainings of the experiments in mixed precision on a CPU."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from conftest import Run
from ultralytics.engine.trainer import BaseTrainer

KNOWS_CPU = "device=self.device.type)" in inspect.getsource(BaseTrainer)
SEEN = """
import sys, torch
from torch import nn
sys.argv = ["yolo", *sys.argv[1:]]
seen = set()
def note(module, inputs, output):
    if isinstance(module, nn.Conv2d):
        seen.add((module.training, output.dtype))
nn.modules.module.register_module_forward_hook(note)
from ultralytics.utils import loss
plain = loss.BboxLoss.forward
def measure(self, distances, boxes, *rest):
    seen.add(("loss", distances.dtype, boxes.dtype))
    return plain(self, distances, boxes, *rest)
loss.BboxLoss.forward = measure
from experiments.mixed import main
main()
print("seen", *sorted(":".join(str(part) for part in one) for one in seen))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the host's training
def test_convolutions_of_a_training_are_in_bfloat16(labelled: Path, tmp_path: Path, run: Run) -> None:
    """The batches are computed in bfloat16, losses and validation in float32; a host that cannot is refused and not trained in float32."""
    (tmp_path / "train.py").write_text(SEEN)
    settings = [
        "model=yolov8n.yaml",
        f"data={labelled}",
        "imgsz=64",
        "epochs=1",
        "batch=4",
        "workers=0",
        "device=cpu",
        "plots=False",
    ]
    done = run("python", tmp_path / "train.py", "train", *settings, f"project={tmp_path}", "name=train", ok=KNOWS_CPU)

    if KNOWS_CPU:
        assert (
            done.stdout.splitlines()[-1]
            == "seen False:torch.float32 True:torch.bfloat16 loss:torch.float32:torch.float32"
        )
    else:
        assert (
            "does not train in mixed precision on a CPU" in done.stderr
            and not (tmp_path / "train/weights/last.pt").exists()
        )

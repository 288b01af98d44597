"""Where a distillation step spends its time: batch, trained model, student, backward pass; two memory formats in turn.

python benchmarks/distill_step.py best.pt --images images/ --act relu --threads 1
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from ghost_yolo.data.images import find_images
from ghost_yolo.ghostify.activations import BATCH_SIZE
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.distill import compared_rows, distillation_loss
from ghost_yolo.ghostify.student import build_reshaped
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.utils.system import conditions

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PARTS = ("batch", "trained model", "loss", "backward")


def main(
    model: Annotated[Path, typer.Argument(help="Trained checkpoint.")],
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    act: Annotated[str, typer.Option(help="Activation of the student.")] = "relu",
    imgsz: Annotated[int, typer.Option(help="Image side in pixels.")] = 320,
    rounds: Annotated[int, typer.Option(help="Steps of each memory format, in turn.")] = 10,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Print the median seconds of each part of a step; `loss` holds both models' passes."""
    torch.set_num_threads(threads)
    teacher = open_checkpoint(model).model
    student = build_reshaped(teacher, {}, act, (), 0)
    calibration, rows = CalibrationImages(find_images([images]), imgsz), compared_rows(student)
    student.model.requires_grad_()
    seconds: dict[str, list[list[float]]] = {name: [] for name in FORMATS}
    for _ in range(rounds + 1):
        for name, layout in FORMATS.items():
            for each in (teacher, student.model):
                each.to(memory_format=layout)
            marks = [time.perf_counter()]
            batch = calibration.batch(range(BATCH_SIZE)).contiguous(memory_format=layout)
            marks.append(time.perf_counter())
            with torch.no_grad():
                teacher(batch)
            marks.append(time.perf_counter())
            loss = distillation_loss(teacher, student.model, batch, rows)
            marks.append(time.perf_counter())
            torch.autograd.backward(loss)
            marks.append(time.perf_counter())
            seconds[name].append([after - before for before, after in itertools.pairwise(marks)])
    table = Table("memory format", *PARTS, title=str(conditions("cpu", threads)))
    for name, steps in seconds.items():
        table.add_row(name, *(f"{median(values):.3f}" for values in zip(*steps[1:], strict=True)))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

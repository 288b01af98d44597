"""Where a distillation step spends its time: batch, trained model, student, backward pass, optimizer; variants in turn.

python benchmarks/distill_step.py best.pt --images images/ --act relu --threads 1
"""

from __future__ import annotations

import copy
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from ghost_yolo.data.images import find_images
from ghost_yolo.ghostify.activations import BATCH_SIZE
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.distill import GRAD_CLIP_NORM, compared_rows, distillation_loss
from ghost_yolo.ghostify.muon import Muon
from ghost_yolo.ghostify.student import Candidate, build_reshaped
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.system import conditions

WARMUP = 2  # steps, which compile
PARTS = ("batch", "trained model", "loss", "backward", "optimizer")
compiled_loss = torch.compile(distillation_loss)


@dataclass(frozen=True)
class StepVariant:
    """How a step is computed.

    Attributes:
        layout: Memory format of images and weights.
        fused: Whether the trained model's BatchNorm is folded into its convolutions.
        bfloat16: Whether convolutions run in bfloat16 (autocast).
        compiled: Whether loss and gradients are computed by `torch.compile`.
    """

    layout: torch.memory_format = torch.channels_last
    fused: bool = False
    bfloat16: bool = False
    compiled: bool = False


VARIANTS = {
    "contiguous": StepVariant(torch.contiguous_format),
    "channels_last": StepVariant(),
    "trained model fused": StepVariant(fused=True),
    "bfloat16": StepVariant(bfloat16=True),
    "compiled": StepVariant(compiled=True),
}


def main(
    model: Annotated[Path, typer.Argument(help="Trained checkpoint.")],
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    act: Annotated[str, typer.Option(help="Activation of the student.")] = "relu",
    imgsz: Annotated[int, typer.Option(help="Image side in pixels.")] = 320,
    rounds: Annotated[int, typer.Option(help="Steps of each variant, in turn.")] = 10,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Print the median seconds of each part of a step; `loss` holds both models' passes."""
    torch.set_num_threads(threads)
    opened = open_checkpoint(model)
    teacher = opened.model
    teachers = {False: teacher, True: copy.deepcopy(teacher).fuse(verbose=False)}
    student = build_reshaped(teacher, {}, act, (), 0)
    calibration = CalibrationImages(find_images([images]), imgsz, crop=opened.task == "classify")
    student.model.requires_grad_()
    optimizer = Muon(student.model.parameters(), 0.0, 0.0)
    seconds: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}
    for _ in range(WARMUP + rounds):
        for name, variant in VARIANTS.items():
            marks = time_step(teachers[variant.fused], student, calibration, optimizer, variant)
            seconds[name].append([after - before for before, after in itertools.pairwise(marks)])
    table = Table(
        "variant", *PARTS, "all but trained model", "before the first step", title=str(conditions("cpu", threads))
    )
    for name, steps in seconds.items():
        parts = [median(values) for values in zip(*steps[WARMUP:], strict=True)]
        started = sum(map(sum, steps[:WARMUP])) - WARMUP * sum(parts)
        table.add_row(name, *(f"{value:.3f}" for value in (*parts, sum(parts) - parts[1], started)))
    Console(width=160).print(table)


def time_step(
    teacher: HostModel, student: Candidate, images: CalibrationImages, optimizer: Muon, variant: StepVariant
) -> list[float]:
    """Return the times at which the parts of a step began, and at which it ended."""
    for each in (teacher, student.model):
        each.to(memory_format=variant.layout)
    optimizer.zero_grad()
    marks = [time.perf_counter()]
    batch = images.batch(range(BATCH_SIZE)).contiguous(memory_format=variant.layout)
    marks.append(time.perf_counter())
    with torch.autocast("cpu", torch.bfloat16, enabled=variant.bfloat16):
        with torch.no_grad():
            teacher(batch)
        marks.append(time.perf_counter())
        loss_of = compiled_loss if variant.compiled else distillation_loss
        loss = loss_of(teacher, student.model, batch, compared_rows(student), weigh=True)
    marks.append(time.perf_counter())
    torch.autograd.backward(loss)
    marks.append(time.perf_counter())
    nn.utils.clip_grad_norm_(student.model.parameters(), GRAD_CLIP_NORM)
    optimizer.step()
    return [*marks, time.perf_counter()]


if __name__ == "__main__":
    typer.run(main)

"""The way of a photograph to boxes around a network: letterbox and NMS of the bundle's runner, each timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ghost_yolo.bench.results import PARTS
from ghost_yolo.bench.runtimes import LoadedModel
from ghost_yolo.bundle import run as runner
from ghost_yolo.errors import UserError

CONF, IOU, MAX_DET = 0.25, 0.7, 300  # the host's for prediction
TASKS = ("detect", "segment", "pose", "obb")


@dataclass
class Pipeline:
    """A network with letterbox and NMS around it.

    Attributes:
        model: The network; its image is overwritten.
        photo: The photograph (h, w, 3), decoded.
        known: What the runner must know of the model.
    """

    model: LoadedModel
    photo: Any
    known: runner.Description

    def __post_init__(self) -> None:
        """Prepare the letterbox."""
        self.letterbox = runner.Letterbox(self.known.size, self.known.channels)

    def __call__(self) -> dict[str, float]:
        """Run once, and return the milliseconds of each part."""
        clock = [time.perf_counter()]
        image, geometry = self.letterbox(self.photo)
        clock.append(time.perf_counter())
        self.model.image[...] = (
            image if isinstance(self.model.image, np.ndarray) else self.model.image.new_tensor(image)
        )
        output = self.model()
        clock.append(time.perf_counter())
        rows, _ = runner.decode([*outputs(output, self.known.task)], self.known)
        if self.known.task == "obb":
            runner.corners_of(geometry.to_photo_rotated(rows))
        else:
            geometry.to_photo(rows[:, :4].reshape(-1, 2, 2))
        clock.append(time.perf_counter())
        return {name: 1e3 * (clock[i + 1] - clock[i]) for i, name in enumerate(PARTS)}


def build_pipeline(
    model: LoadedModel, photo: Path, task: str, nc: int, channels: int, kpt_shape: Sequence[int] = ()
) -> Pipeline:
    """Return the pipeline of a model.

    Raises:
        UserError: If the photograph cannot be read, or the model is of a task without boxes or of outputs that are not known.
    """
    if task not in TASKS:
        raise UserError(f"--end-to-end is for {', '.join(TASKS)}; the model is for {task}")
    image = next(runner.read_pictures(str(photo), channels)).image
    if image is None:
        raise UserError(f"--image {photo} cannot be read as an image")
    size = tuple(model.image.shape[2:])
    known = runner.Description(task, [""] * nc, size, channels, tuple(kpt_shape), CONF, IOU, MAX_DET, [])
    pipeline = Pipeline(model, image, known)
    try:
        pipeline()
    except runner.RunError as error:
        raise UserError(str(error)) from error
    return pipeline


def outputs(output: Any, task: str) -> Iterator[Any]:
    """Yield the arrays that a file gives; of PyTorch's nested outputs the boxes, and for masks their prototypes."""
    if isinstance(output, np.ndarray):
        yield output if output.ndim in (3, 4) else output[None]  # NCNN gives no batch
        return
    if hasattr(output, "detach"):
        yield output.numpy()
        return
    for part in output:
        if isinstance(part, dict):  # of training
            continue
        yield from outputs(part, task)
        if task != "segment" and not isinstance(part, np.ndarray):
            return

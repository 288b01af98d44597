"""Ablation of ghostify: one idea is left out at a time, and the converted model is validated.

    python -m experiments.ablation best.pt --images train/ --data datasets/bccd.yaml -o ablation.md

There is no distillation by default, since it would hide much of what the ideas give.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import typer
from ultralytics import YOLO

from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import Settings, ghostify, reconstruct
from ghost_yolo.ghostify.activations import cache_activations
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.tables import to_markdown
from ghost_yolo.utils.files import write_atomic

PACKAGE = "ghost_yolo.ghostify"
as_they_are = CalibrationImages.batch
# Idea and what stands in its place: the name in PACKAGE that is replaced, and its replacement.
IDEAS: dict[str, tuple[str, Callable[..., Any]] | None] = {
    "nothing": None,
    "closed-form initialisation: random weights": ("pipeline.init_from_teacher", lambda *_: False),
    "inputs from the new model: inputs from the trained model": (
        "pipeline.cache_activations",
        lambda teacher, _, *rest: cache_activations(teacher, teacher, *rest),
    ),
    "plain squared error: relative error by channel": ("reconstruct.mse_loss", reconstruct.relative_error),
    "augmented images: as they are": (
        "calibration.CalibrationImages.batch",
        lambda self, indices, **_: as_they_are(self, indices, augment=False),
    ),
    "BatchNorm re-estimation: running statistics": ("reconstruct.update_bn", lambda *_: None),
}


def main(
    model: Annotated[Path, typer.Argument(help="Trained checkpoint.")],
    images: Annotated[Path, typer.Option(help="Folder of calibration images.")],
    data: Annotated[str, typer.Option(help="Dataset YAML; its val split is evaluated.")],
    block: Annotated[str, typer.Option(help="Module name for the rows.")] = "C2f_GhostBottleneck",
    where: Annotated[str, typer.Option(help="backbone, neck, head or all.")] = "backbone",
    reconstruct_steps: Annotated[int, typer.Option(help="As in `ghost-yolo ghostify`.")] = 100,
    distill_steps: Annotated[int, typer.Option(help="As in `ghost-yolo ghostify`.")] = 0,
    seeds: Annotated[str, typer.Option(help="Random seeds, separated by commas.")] = "0",
    only: Annotated[str, typer.Option(help="Only ideas whose names contain one of these, separated by commas.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Markdown table; printed if not given.")] = None,
) -> None:
    """Leave one idea out at a time."""
    numbers = [int(seed) for seed in seeds.split(",")]
    lines = []
    for idea in select(only):
        scores = []
        for seed in numbers:
            settings = Settings(reconstruct_steps=reconstruct_steps, distill_steps=distill_steps, seed=seed)
            scores.append(score_without(idea, model, images, data, block, where, settings))
        lines.append([idea, *(f"{score:.3f}" for score in scores)])
        print(*lines[-1], sep=": ", file=sys.stderr)
    text = to_markdown(["left out", *(f"val mAP50-95, seed {seed}" for seed in numbers)], lines)
    print(text, end="") if out is None else write_atomic(out, text)


def select(only: str) -> list[str]:
    """Return the ideas whose names contain one of these texts, separated by commas; all for an empty text.

    Raises:
        UserError: If there is none.
    """
    found = [idea for idea in IDEAS if any(text in idea for text in only.split(","))]
    if not found:
        raise UserError(f"--only {only}: no idea has that in its name. There are: {'; '.join(IDEAS)}")
    return found


def score_without(idea: str, model: Path, images: Path, data: str, block: str, where: str, settings: Settings) -> float:
    """Return mAP50-95 on val of a model that was converted without an idea, at the size at which it was trained."""
    replacement = IDEAS[idea]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if replacement:
            stack.enter_context(patch(f"{PACKAGE}.{replacement[0]}", replacement[1]))
        light = Path(folder) / "light.pt"
        ghostify(model, [images], light, [block], where, settings=settings)
        found = YOLO(light).val(data=data, plots=False, workers=0, verbose=False, project=folder, name="val")
    return float(found.box.map)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (UserError, OSError) as error:
        sys.exit(f"ablation: {error}")

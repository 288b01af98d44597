"""Ablation of ghostify: one idea is left out at a time, and the converted model is validated.

    python -m experiments.ablation best.pt --images train/ --data datasets/bccd.yaml -o ablation.md
    python -m experiments.ablation best.pt --images train/ --data datasets/bccd.yaml --act relu -o ablation.md

There is no distillation by default, since it would hide much of what the ideas give.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import typer

from experiments.ideas import BLOCK_IDEAS, IDEAS, PASS_IDEAS, SHAPE_IDEAS, STEP_IDEAS
from ghost_yolo.accuracy import evaluate
from ghost_yolo.errors import UserError
from ghost_yolo.export.files import file_name
from ghost_yolo.ghostify import Delivery, Settings, ghostify
from ghost_yolo.ghostify.reshape import parse_shares
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.tables import to_markdown
from ghost_yolo.utils.files import write_atomic

PACKAGE = "ghost_yolo.ghostify"


def main(
    model: Annotated[Path, typer.Argument(help="Trained checkpoint.")],
    images: Annotated[Path, typer.Option(help="Folder of calibration images.")],
    data: Annotated[str, typer.Option(help="Dataset YAML; its val split is evaluated.")],
    block: Annotated[str, typer.Option(help="Module name for the rows.")] = "C2f_GhostBottleneck",
    where: Annotated[str, typer.Option(help="backbone, neck, head or all.")] = "backbone",
    act: Annotated[str, typer.Option(help="As in `ghost-yolo ghostify`; no block is then replaced.")] = "",
    width: Annotated[str, typer.Option(help="As in `ghost-yolo ghostify`; no block is then replaced.")] = "",
    reconstruct_steps: Annotated[int, typer.Option(help="As in `ghost-yolo ghostify`.")] = 100,
    distill_steps: Annotated[int, typer.Option(help="As in `ghost-yolo ghostify`.")] = 0,
    runtime: Annotated[str, typer.Option(help="The file for it is validated; the checkpoint if not given.")] = "",
    precision: Annotated[str, typer.Option(help="Of that file: fp32 or int8.")] = "fp32",
    seeds: Annotated[str, typer.Option(help="Random seeds, separated by commas.")] = "0",
    only: Annotated[str, typer.Option(help="Only ideas whose names contain one of these, separated by commas.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Markdown table; printed if not given.")] = None,
) -> None:
    """Leave one idea out at a time."""
    numbers = [int(seed) for seed in seeds.split(",")]
    shape, lines = {"act": act, "width": parse_shares(width)}, []
    ideas = IDEAS | (SHAPE_IDEAS if act or width else BLOCK_IDEAS)
    ideas |= (STEP_IDEAS | (PASS_IDEAS if act or width else {})) if distill_steps else {}
    change: dict[str, Any] = shape if act or width else {"blocks": [block], "where": where}
    change["delivery"] = Delivery(runtime, precision)
    for idea in select(ideas, only):
        scores = []
        for seed in numbers:
            settings = Settings(reconstruct_steps=reconstruct_steps, distill_steps=distill_steps, seed=seed)
            scores.append(score_without(ideas[idea], model, images, data, change, settings))
        lines.append([idea, *(f"{score:.3f}" for score in scores)])
        print(*lines[-1], sep=": ", file=sys.stderr)
    text = to_markdown(["left out", *(f"val mAP50-95, seed {seed}" for seed in numbers)], lines)
    print(text, end="") if out is None else write_atomic(out, text)


def select(ideas: Collection[str], only: str) -> list[str]:
    """Return the ideas whose names contain one of these texts, separated by commas; all for an empty text.

    Raises:
        UserError: If there is none.
    """
    found = [idea for idea in ideas if any(text in idea for text in only.split(","))]
    if not found:
        raise UserError(f"--only {only}: no idea has that in its name. There are: {'; '.join(ideas)}")
    return found


def score_without(
    replaced: Mapping[str, Any], model: Path, images: Path, data: str, change: Mapping[str, Any], settings: Settings
) -> float:
    """Return mAP50-95 on val, at squares as deployed, of a model that was converted without an idea, or of its exported file."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name, replacement in replaced.items():
            stack.enter_context(patch(f"{PACKAGE}.{name}", replacement))
        light = Path(folder) / "light.pt"
        ghostify(model, [images], light, settings=settings, **change)
        runtime, precision = change["delivery"].runtime, change["delivery"].precision
        file = light.with_name(file_name(light.stem, runtime, precision)) if runtime else light
        return evaluate(file, data, "val", open_checkpoint(model).trained_imgsz, resamples=0).map50_95


if __name__ == "__main__":
    try:
        typer.run(main)
    except (UserError, OSError) as error:
        sys.exit(f"ablation: {error}")

"""What each idea in ghostify is worth: one is left out at a time, and the light model is validated.

    python experiments/ideas.py best.pt --images train/ --data datasets/bccd.yaml -o ideas.md

The last pass is off unless asked for, as it would hide much of what went before.
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
from ghost_yolo.ghostify import Settings, ghostify, pipeline, reconstruct
from ghost_yolo.ghostify.activations import recorder
from ghost_yolo.ghostify.calibration import Pictures
from ghost_yolo.utils.files import write_whole

as_given = Pictures.batch
LEFT_OUT: dict[str, tuple[tuple[Any, str, Callable[..., Any]], ...]] = {
    "nothing": (),
    "the structure of the trained block: weights as drawn": ((pipeline, "begin", lambda *_: False),),
    "the new model's own inputs: the trained one's": (
        (pipeline, "recorder", lambda teacher, _, *rest: recorder(teacher, teacher, *rest)),
    ),
    "plain squared error: relative by channel": ((reconstruct, "mse_loss", reconstruct.relative_error),),
    "varied photographs: as they are": (
        (Pictures, "batch", lambda self, indices, **_: as_given(self, indices, varied=False)),
    ),
    "BN statistics estimated anew: the running ones": ((reconstruct, "update_bn", lambda *_: None),),
}


def main(
    model: Annotated[Path, typer.Argument(help="Trained checkpoint.")],
    images: Annotated[Path, typer.Option(help="Folder of photographs without labels.")],
    data: Annotated[str, typer.Option(help="Dataset YAML; its val split is evaluated.")],
    block: Annotated[str, typer.Option(help="The word for the rows.")] = "C2f_GhostBottleneck",
    where: Annotated[str, typer.Option(help="backbone, neck, head or all.")] = "backbone",
    steps: Annotated[int, typer.Option(help="As of ghostify.")] = 100,
    polish: Annotated[int, typer.Option(help="As of ghostify.")] = 0,
    seeds: Annotated[str, typer.Option(help="One run of each for each, as 0,1,2.")] = "0",
    only: Annotated[str, typer.Option(help="Leave out only ideas with one of these words in their names, as nothing,plain.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Markdown table to write; printed if not given.")] = None,
) -> None:  # fmt: skip
    """Leave one idea out at a time."""
    drawn = [int(seed) for seed in seeds.split(",")]
    lines = [["left out", *(f"val mAP50-95, seed {seed}" for seed in drawn)], ["---", *["---:"] * len(drawn)]]
    for name, patches in chosen(only).items():
        scores = []
        for seed in drawn:
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                light = Path(folder) / "light.pt"
                for patched in patches:
                    stack.enter_context(patch.object(*patched))
                ghostify(model, [images], light, [block], where, settings=Settings(steps, polish, seed))
                scores.append(score(light, data, Path(folder)))
        lines.append([name, *(f"{value:.3f}" for value in scores)])
        print(*lines[-1], sep=": ", file=sys.stderr)
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    print(text, end="") if out is None else write_whole(out, text)


def chosen(only: str) -> dict[str, tuple[tuple[Any, str, Callable[..., Any]], ...]]:
    """Return the ideas with one of these words in their names, with commas between them; all for an empty text."""
    found = {name: patches for name, patches in LEFT_OUT.items() if any(word in name for word in only.split(","))}
    if not found:
        raise UserError(f"--only {only}: no idea has that in its name. There are: {'; '.join(LEFT_OUT)}")
    return found


def score(light: Path, data: str, folder: Path) -> float:
    """Return mAP50-95 on val at the size at which the model was trained."""
    found = YOLO(light).val(data=data, plots=False, workers=0, verbose=False, project=str(folder), name="val")
    return float(found.box.map)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (UserError, OSError) as error:
        sys.exit(f"ideas.py: {error}")

"""The `ghost-yolo ghostify` command."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import Format, Where


def ghostify(
    model: Annotated[Path, typer.Argument(help="Trained checkpoint (.pt) of a YOLOv8, YOLO11 or YOLO26, any task.")],
    images: Annotated[
        list[Path], typer.Option(help="Photographs without labels: file or folder (not those in it); repeat for more.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New checkpoint; its report goes beside it as .json.")],
    block: Annotated[
        str | None,
        typer.Option(help="The word for the C2f and C3k2 rows; with --budget candidates, commas between them."),
    ] = None,
    where: Annotated[
        Where, typer.Option(help="C2f and C3k2 rows of backbone or neck, class branch of the head, or all.")
    ] = Where.backbone,
    budget: Annotated[
        float | None, typer.Option(help="Share of the cost that may stay: choose by itself what to swap by what.")
    ] = None,
    cost: Annotated[
        str, typer.Option(help="Of --budget: gflops, or ms on the CPU in pytorch, onnx, openvino or ncnn.")
    ] = "gflops",
    rounds: Annotated[int, typer.Option(help="Of --cost in ms: how often every model has its turn.")] = 40,
    steps: Annotated[int, typer.Option(help="Batches of 8 from which each block learns.")] = 100,
    polish: Annotated[int, typer.Option(help="Batches of 8 of the last pass over the whole model.")] = 250,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    imgsz: Annotated[int, typer.Option(help="Image side in pixels; 0 for the one it was trained at.")] = 0,
    cache: Annotated[float, typer.Option(help="Most that recorded maps may take on disk, in GiB.")] = 4.0,
    device: Annotated[str, typer.Option(help="Where the models run, as in `yolo`.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads, of --cost too; 0 for the physical cores.")] = 0,
    style: Annotated[Format, typer.Option("--format", help="How to print the table.")] = Format.text,
) -> None:
    """Make a trained YOLO light without labels: swap blocks and fit each to the one it replaces. Ctrl-C keeps the blocks so far."""
    with redirect_stdout(sys.stderr):  # what the host says must not mix with a report that is piped
        from ghost_yolo.ghostify.config import Settings
        from ghost_yolo.ghostify.pipeline import ghostify as make_light
        from ghost_yolo.tables import render_report
        from ghost_yolo.utils.system import versions

        settings = Settings(steps, polish, seed, imgsz, cache, device, threads, cost, rounds)
        try:
            words = tuple(word.strip() for word in block.split(",")) if block else ()
            report = make_light(model, images, out, words, where.value, budget, settings)
        except KeyboardInterrupt:
            kept = Path(f"{out}.part")
            goes_on = f"the same command goes on from {kept}" if kept.exists() else "before the first block was fitted"
            print(f"\nstopped: {goes_on}", file=sys.stderr)
            raise typer.Exit(130) from None
    print(render_report(report, versions(), style.value), end="")
    print(f"wrote {out}, and {out.with_suffix('.json')} with all figures", file=sys.stderr)

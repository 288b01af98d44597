"""Command `bundle`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import show
from ghost_yolo.cli.export import parse_sides
from ghost_yolo.errors import UserError


def bundle(
    model: Annotated[Path, typer.Argument(help="Trained checkpoint (.pt): detect, segment, pose, obb or classify.")],
    images: Annotated[
        list[Path],
        typer.Option(help="Photographs without labels: a file, or a folder without its subfolders. Repeatable."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder to write.")],
    to: Annotated[
        str,
        typer.Option(
            help="Comma-separated: onnx,openvino,ncnn,web; the runner prefers the first, web is a page for browsers."
        ),
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="Comma-separated: fp32,int8.")] = "fp32",
    imgsz: Annotated[
        str, typer.Option(help="Image size in pixels: 640, or height,width such as 480,640. Default: as trained.")
    ] = "",
    holdout: Annotated[
        float, typer.Option(help="Share of the photographs held out of calibration, for the agreement.")
    ] = 0.2,
    threads: Annotated[int, typer.Option(help="CPU threads of the measured times; 0 for all CPUs.")] = 0,
    rounds: Annotated[int, typer.Option(help="Rounds of the measured times.")] = 20,
    ort: Annotated[
        Path | None,
        typer.Option(help="For web: onnxruntime-web from npm, unpacked. Without it the page loads a public copy."),
    ] = None,
    beside: Annotated[
        Path | None, typer.Option(help="For web: a second checkpoint, such as the stock one, beside the model.")
    ] = None,
) -> None:
    """Write one folder that runs without torch: models, runner, measured times, proof and model card.

    The folder is written whole or not at all.
    """
    sides = parse_sides(imgsz) if imgsz else []
    runtimes, web = parse_targets(to)
    if not web and (ort or beside):
        raise UserError(f"--{'ort' if ort else 'beside'} is for the page: --to {to},web")
    with redirect_stdout(sys.stderr):
        from ghost_yolo.bundle import BundlePlan, WebPlan
        from ghost_yolo.bundle import bundle as write_bundle
        from ghost_yolo.bundle.card import render_table

        plan = BundlePlan(
            checkpoint=model,
            images=tuple(images),
            out=out,
            runtimes=runtimes,
            precisions=tuple(precision.split(",")),
            size=(sides[0], sides[-1]) if sides else None,
            holdout=holdout,
            threads=threads,
            rounds=rounds,
            web=WebPlan(ort, beside) if web else None,
        )
        made = write_bundle(plan)
    show(render_table(made.files))
    print("".join(f"ghost-yolo: warning: {line}\n" for line in made.warnings), end="", file=sys.stderr)
    print(f"wrote {out}", file=sys.stderr)
    if web:
        print(f"to see the page: python -m http.server --directory {out / 'web'}", file=sys.stderr)


def parse_targets(to: str) -> tuple[tuple[str, ...], bool]:
    """Return the runtimes of `--to`, and whether a page is asked for, which takes the files of onnx."""
    names = to.split(",")
    if "web" not in names:
        return tuple(names), False
    runtimes = [name for name in names if name != "web"]
    return (*runtimes, *([] if "onnx" in runtimes else ["onnx"])), True

"""Commands about redundancy in feature maps and filters."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import Format, new_folder


def ghosts(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) of any Ultralytics model, or of ours.")],
    image: Annotated[list[Path] | None, typer.Option(help="Photograph or folder; repeat for more.")] = None,
    layer: Annotated[int | None, typer.Option(help="Measure and draw this layer alone.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="With --layer: measure all layers nevertheless.")] = False,
    inner: Annotated[
        bool, typer.Option("--inner", help="Measure also what the convolutions in C2f and C3k2 rows give.")
    ] = False,
    within: Annotated[float, typer.Option(help="Relative error (of the variance) that counts as reproduced.")] = 0.1,
    imgsz: Annotated[
        int | None, typer.Option(help="Longer side in pixels; the one it was trained at, else 640.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of samples, shuffles and the untrained network.")] = 0,
    device: Annotated[str, typer.Option(help="Where the model runs, as in `yolo`.")] = "",
    style: Annotated[Format, typer.Option("--format", help="How to print the table.")] = Format.text,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New folder for figures and tables; runs/ghosts if not given.")
    ] = None,
) -> None:
    """Measure, layer by layer, how many feature maps a cheap kernel makes from another map."""
    with redirect_stdout(sys.stderr):
        from ghost_yolo.data.images import find_images
        from ghost_yolo.model.checkpoint import open_checkpoint
        from ghost_yolo.redundancy import report
        from ghost_yolo.redundancy.survey import Settings, survey
        from ghost_yolo.tables import render_report
        from ghost_yolo.utils.system import versions

        folder, photos = new_folder(out, "ghosts"), find_images(image or [])
        network = open_checkpoint(model, device)
        settings = Settings(within, seed, imgsz or network.trained_imgsz, inner)
        result = survey(network, photos, layer, everything or layer is None, settings)
        told = report.ghosts_report(result, settings, str(model), len(photos))
        report.write_ghosts(folder, result, told, versions(), within)
    print(render_report(told, versions(), style.value), end="")
    print(f"wrote {folder}", file=sys.stderr)


def pairs(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) of any Ultralytics model, or of ours.")],
    seed: Annotated[int, typer.Option(help="Of the random filters.")] = 0,
    style: Annotated[Format, typer.Option("--format", help="How to print the table.")] = Format.text,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New folder for figure and tables; runs/pairs if not given.")
    ] = None,
) -> None:
    """Find, convolution by convolution, how nearly opposite its filters are in pairs (CReLU's analysis)."""
    with redirect_stdout(sys.stderr):
        from ghost_yolo.model.checkpoint import open_checkpoint
        from ghost_yolo.redundancy import report
        from ghost_yolo.redundancy.filters import pairs as compare_filters
        from ghost_yolo.tables import render_report
        from ghost_yolo.utils.system import versions

        folder = new_folder(out, "pairs")
        found = compare_filters(open_checkpoint(model).model, seed)
        told = report.pairs_report(found, str(model), seed)
        report.write_pairs(folder, found, told, versions())
    print(render_report(told, versions(), style.value), end="")
    print(f"wrote {folder}", file=sys.stderr)


def correlate(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Folders (or ghosts.json) of `ghosts` and .json files of `ghostify`, of one or several models."
        ),
    ],
    block: Annotated[str | None, typer.Option(help="Which block's swaps count, where there are several.")] = None,
    seed: Annotated[int, typer.Option(help="Of drawn orders, where a model has more than 9 stages.")] = 0,
    style: Annotated[Format, typer.Option("--format", help="How to print the tables.")] = Format.text,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New folder for figure and tables; runs/correlate if not given.")
    ] = None,
) -> None:
    """Hold the redundancy of each stage beside what swapping it cost: does the picture foretell the cost?"""
    with redirect_stdout(sys.stderr):
        from ghost_yolo.redundancy import correlate, report
        from ghost_yolo.tables import render_report
        from ghost_yolo.utils.system import versions

        folder, contents = new_folder(out, "correlate"), correlate.read(results)
        stages = correlate.join(contents, block)
        told = report.correlate_report(stages, correlate.bound(contents), seed, correlate.photographs(contents))
        report.write_correlation(folder, stages, told, versions())
    print(render_report(told, versions(), style.value), end="")
    print(f"wrote {folder}", file=sys.stderr)

"""Commands about time."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import Format, check_target, emit
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import path_of


def bench(
    models: Annotated[list[str], typer.Argument(help="YAMLs, checkpoints or exported files; ratios are to the first.")],
    runtimes: Annotated[
        str | None, typer.Option(help="Of pytorch,onnx,openvino,ncnn; those that are installed if not given.")
    ] = None,
    precisions: Annotated[str, typer.Option(help="Of fp32,fp16,int8.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, or the number of a GPU.")] = "cpu",
    nc: Annotated[int, typer.Option(help="Number of classes of YAMLs.")] = 80,
    imgsz: Annotated[int, typer.Option(help="Image side in pixels.")] = 640,
    batch: Annotated[int, typer.Option(help="Images in one forward pass.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of the CPU; 0 for as many as there are physical cores.")] = 0,
    rounds: Annotated[int, typer.Option(help="How often every model has its turn.")] = 20,
    passes: Annotated[int, typer.Option(help="Forward passes in a turn.")] = 5,
    data: Annotated[str | None, typer.Option(help="Dataset YAML that calibrates int8; smear if not given.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Say also where the time goes by operator kind.")] = False,
    keep: Annotated[Path | None, typer.Option(help="New folder in which the exported files stay.")] = None,
    style: Annotated[Format, typer.Option("--format", help="How to write the report.")] = Format.text,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; replaced only once complete.")] = None,
) -> None:
    """Time models against each other, round by round, in the runtimes in which they are deployed. Ctrl-C keeps the rounds so far."""
    check_target(out)
    with redirect_stdout(sys.stderr):
        from ghost_yolo.bench.plan import Plan
        from ghost_yolo.bench.runner import bench as measure
        from ghost_yolo.bench.runtimes import installed
        from ghost_yolo.bench.tables import render

        chosen = tuple(runtimes.split(",")) if runtimes is not None else installed()
        sizes = {"nc": nc, "imgsz": imgsz, "batch": batch, "threads": threads, "rounds": rounds, "passes": passes}
        words = {"device": device, "data": data or str(path_of("smear")), "profile": profile, "keep": keep}
        measured = measure(Plan(tuple(models), chosen, tuple(precisions.split(",")), **sizes, **words))  # type: ignore[arg-type]
        report = render(measured, style.value)
    try:
        emit(report, out)
    except OSError:
        print(report, end="")  # what was measured is not lost with the file
        raise
    if measured.interrupted:
        raise typer.Exit(130)
    if measured.failed:
        print("\n".join(f"ghost-yolo: {line}" for line in measured.failed), file=sys.stderr)
        raise typer.Exit(1)


def report(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Page to write; its figures go into a folder beside it.")
    ] = Path("report.html"),
    times: Annotated[
        list[Path] | None,
        typer.Option("--bench", help="JSON of `ghost-yolo bench`; repeat for more; nothing is timed."),
    ] = None,
    accuracy: Annotated[
        list[Path] | None, typer.Option(help="JSON with one accuracy record or a list of them; repeat for more.")
    ] = None,
    no_bench: Annotated[bool, typer.Option("--no-bench", help="Time nothing.")] = False,
    scales: Annotated[str, typer.Option(help="Scales at which all models are counted.")] = "n,s,m,l,x",
    imgsz: Annotated[int, typer.Option(help="Image side in pixels of what is counted and timed here.")] = 640,
) -> None:
    """Write one page on which change pays: the published table taken apart, like for like, GFLOPs against time."""
    if times and no_bench:
        raise UserError("--bench gives times and --no-bench leaves them out: leave one of the two out.")
    check_target(out)
    with redirect_stdout(sys.stderr):
        from ghost_yolo.report.collect import collect
        from ghost_yolo.report.page import figures_folder, write_page

        folder = figures_folder(out)
        write_page(out, collect(times or [], accuracy or [], scales.split(","), imgsz, timing=not no_bench))
    print(f"wrote {out} and {folder}", file=sys.stderr)

"""Commands `bench` and `report`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import Format, check_target, emit, show
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import path_of


def bench(
    models: Annotated[
        list[str], typer.Argument(help="Model YAMLs, checkpoints or exported files. Ratios are to the first one.")
    ],
    runtimes: Annotated[
        str | None, typer.Option(help="Comma-separated: pytorch,onnx,openvino,ncnn. Default: all that are installed.")
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: fp32,fp16,int8,default. Default: fp32, and what OpenVINO itself chooses for this CPU."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or the number of a GPU.")] = "cpu",
    nc: Annotated[
        int | None, typer.Option(help="Number of classes for models built from YAMLs. Default: each YAML's own.")
    ] = None,
    imgsz: Annotated[int, typer.Option(help="Image size in pixels.")] = 640,
    batch: Annotated[int, typer.Option(help="Batch size.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for the number of physical cores.")] = 0,
    rounds: Annotated[int, typer.Option(help="Number of rounds; every model is timed once per round.")] = 20,
    passes: Annotated[int, typer.Option(help="Forward passes of each model per round.")] = 5,
    data: Annotated[
        str | None, typer.Option(help="Dataset YAML for int8 calibration. Default: the generated smear dataset.")
    ] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Time photograph to boxes, with letterbox and NMS as parts.")
    ] = False,
    image: Annotated[
        Path | None, typer.Option(help="Photograph for --end-to-end. Default: Ultralytics' sample image.")
    ] = None,
    mixed: Annotated[
        bool,
        typer.Option(
            "--mixed", help="Time all rows side by side, whatever their runtime; ratios are to the first row."
        ),
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Also report the time by operator type.")] = False,
    keep: Annotated[Path | None, typer.Option(help="New folder in which to keep the exported files.")] = None,
    style: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output file. Default: standard output.")] = None,
) -> None:
    """Benchmark the latency of models in PyTorch, ONNX Runtime, OpenVINO and NCNN.

    Models are interleaved round by round, so that a change in the machine's speed affects all of them.
    Ctrl-C ends the benchmark and reports the rounds so far.
    """
    check_target(out)
    with redirect_stdout(sys.stderr):
        from ultralytics.utils import ASSETS

        from ghost_yolo.bench import BenchPlan
        from ghost_yolo.bench import bench as run_bench
        from ghost_yolo.bench.runtimes import DEFAULT, installed
        from ghost_yolo.bench.tables import render

        plan = BenchPlan(
            models=tuple(models),
            runtimes=tuple(runtimes.split(",")) if runtimes is not None else installed(),
            precisions=tuple((precisions or f"fp32,{DEFAULT}").split(",")),
            device=device,
            nc=nc,
            imgsz=imgsz,
            batch=batch,
            threads=threads,
            rounds=rounds,
            passes=passes,
            data=data or str(path_of("smear")),
            profile=profile,
            keep=keep,
            mixed=mixed,
            photo=(image or ASSETS / "bus.jpg") if end_to_end else None,
        )
        result = run_bench(plan)
        text = render(result, style.value)
    emit(text, out)
    if result.interrupted:
        raise typer.Exit(130)
    if result.failed:
        print("\n".join(f"ghost-yolo: {line}" for line in result.failed), file=sys.stderr)
        raise typer.Exit(1)


def report(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="HTML page to write; its figures are also written as PNG beside it.")
    ] = Path("report.html"),
    benches: Annotated[
        list[Path] | None,
        typer.Option("--bench", help="JSON file of `ghost-yolo bench`, instead of timing here. Repeatable."),
    ] = None,
    accuracy: Annotated[
        list[Path] | None, typer.Option(help="JSON file with an accuracy record or a list of them. Repeatable.")
    ] = None,
    deployed: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON file of exported files with their accuracy and time, as experiments write it. Repeatable."
        ),
    ] = None,
    no_bench: Annotated[bool, typer.Option("--no-bench", help="Do not time any model.")] = False,
    scales: Annotated[str, typer.Option(help="Comma-separated scales at which models are compared.")] = "n,s,m,l,x",
    imgsz: Annotated[int, typer.Option(help="Image size in pixels.")] = 640,
) -> None:
    """Write an HTML report: published table, model sizes at every scale, latency and accuracy.

    Without --bench and --no-bench, a quick benchmark of a few models is run.
    """
    if benches and no_bench:
        raise UserError("--bench and --no-bench exclude each other: give one of them.")
    check_target(out)
    with redirect_stdout(sys.stderr):
        from ghost_yolo.bench.tables import render
        from ghost_yolo.report.collect import collect
        from ghost_yolo.report.page import figures_folder, write_page

        folder = figures_folder(out)
        data = collect(benches or [], accuracy or [], scales.split(","), imgsz, not no_bench, deployed or [])
    try:
        with redirect_stdout(sys.stderr):
            write_page(out, data)
    except OSError:
        show("" if benches else "".join(render(result, "text") for result in data.benches.values()))
        raise
    print(f"wrote {out} and {folder}", file=sys.stderr)

"""The `ghost-yolo ghostify` command."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import Format, Where, show


def ghostify(
    model: Annotated[
        Path,
        typer.Argument(
            help="Trained checkpoint (.pt) of a YOLOv8, YOLO11 or YOLO26: detect, segment, pose, obb or classify."
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Option(help="Calibration images without labels: a file, or a folder without its subfolders. Repeatable."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Checkpoint to write; the report is written beside it as .json.")
    ],
    block: Annotated[
        str | None,
        typer.Option(
            help="Module name to replace C2f and C3k2 rows by; with --budget or --target a comma-separated list of candidates."
        ),
    ] = None,
    where: Annotated[
        Where,
        typer.Option(help="Part to replace: C2f and C3k2 rows of backbone or neck, class branch of the head, or all."),
    ] = Where.backbone,
    act: Annotated[
        str,
        typer.Option(
            help="Activation of the whole model: relu, relu6, leakyrelu, hardswish or silu; every row is fitted in closed form."
        ),
    ] = "",
    width: Annotated[
        str,
        typer.Option(help="Share of the channels to keep, or two: up to P3 and behind it, as 0.5,0.625."),
    ] = "",
    budget: Annotated[
        float | None,
        typer.Option(help="Keep at most this share of the cost (0 to 1); rows and blocks are selected automatically."),
    ] = None,
    cost: Annotated[
        str, typer.Option(help="Cost that --budget limits: gflops, or CPU latency in pytorch, onnx, openvino or ncnn.")
    ] = "gflops",
    rounds: Annotated[
        int, typer.Option(help="Measurement rounds of each time: of --runtime, or of a --cost that is a latency.")
    ] = 40,
    reconstruct_steps: Annotated[
        int,
        typer.Option(
            help="Training steps per block for its reconstruction, 8 images each, at least 1; with --act and --width alone "
            "there is none."
        ),
    ] = 100,
    distill_steps: Annotated[
        int | None,
        typer.Option(
            help="Training steps for the distillation of the whole model, 8 images each; 0 to skip; by default 250, and 800 "
            "with --act, --width or --target."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    imgsz: Annotated[int, typer.Option(help="Image size in pixels; 0 for the size used in training.")] = 0,
    cache: Annotated[float, typer.Option(help="Maximum disk space for cached activations, in GiB.")] = 4.0,
    device: Annotated[str, typer.Option(help="Device to run on, as in yolo: cpu, 0, ...")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for the number of physical cores.")] = 0,
    target: Annotated[
        str,
        typer.Option(
            help="Speed-up over the baseline, as 10x, or share of its time, as 0.2: activation, width and blocks are searched."
        ),
    ] = "",
    runtime: Annotated[
        str, typer.Option(help="Also write the file for this runtime, and time it: openvino, onnx, ncnn or pytorch.")
    ] = "",
    precision: Annotated[
        str, typer.Option(help="Precision of that file: fp32, or int8, calibrated on the images.")
    ] = "fp32",
    baseline: Annotated[
        str, typer.Option(help="Runtime and precision in which the trained model would be run otherwise.")
    ] = "onnx:fp32",
    data: Annotated[
        str,
        typer.Option(
            help="Data YAML with labels, for the true accuracy beside the agreement; nothing is fitted on it."
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    holdout: Annotated[
        float,
        typer.Option(help="Share of the images to hold out of all fitting, for the agreement with the trained model."),
    ] = 0.2,
    maps_weight: Annotated[
        float | None,
        typer.Option(
            help="With --act, --width or --target: weight of the error of the maps beside the loss of the predictions; by default 10."
        ),
    ] = None,
    mixed_precision: Annotated[
        bool,
        typer.Option(
            "--mixed-precision",
            help="Distill in bfloat16: faster on some CPUs with units for it, slower on others.",
        ),
    ] = False,
    style: Annotated[Format, typer.Option("--format", help="Format of the printed report.")] = Format.text,
) -> None:
    """Make a trained YOLO fast on a CPU without labels: activation, width, blocks, INT8.

    Fit the changed model to the trained one in closed form, reconstruct blocks, and distill the whole model. To start with:
    --act relu --runtime openvino --precision int8. Fewer channels (--width) are faster still; --target searches for a speed.

    The same command resumes an interrupted run.
    """
    with redirect_stdout(sys.stderr):  # the host's messages must not mix with the report
        from ghost_yolo.export.files import file_name
        from ghost_yolo.ghostify.config import Delivery, Settings, parse_baseline, resume_file
        from ghost_yolo.ghostify.pipeline import ghostify as run_ghostify
        from ghost_yolo.ghostify.reshape import parse_shares
        from ghost_yolo.ghostify.target import parse_target
        from ghost_yolo.tables import render_report
        from ghost_yolo.utils.system import versions

        settings = Settings(
            reconstruct_steps=reconstruct_steps,
            distill_steps=distill_steps,
            seed=seed,
            imgsz=imgsz,
            cache=cache,
            device=device,
            threads=threads,
            cost=cost,
            rounds=rounds,
            holdout=holdout,
            maps_weight=maps_weight,
            mixed_precision=mixed_precision,
        )
        delivery = Delivery(
            runtime=runtime,
            precision=precision,
            target=parse_target(target),
            baseline=parse_baseline(baseline),
            data=data,
            split=split,
        )
        blocks = tuple(name.strip() for name in block.split(",")) if block else ()
        try:
            shares = parse_shares(width)
            report = run_ghostify(model, images, out, blocks, where.value, budget, settings, act, shares, delivery)
        except KeyboardInterrupt:
            file = resume_file(out)
            hint = f"the same command resumes from {file}" if file.exists() else "before the first result"
            print(f"\ninterrupted: {hint}", file=sys.stderr)
            raise typer.Exit(130) from None
    show(render_report(report, versions(), style.value))
    exported = [out.with_name(file_name(out.stem, runtime, precision))] if runtime else []
    written = [file for file in (out, out.with_suffix(".json"), out.with_suffix(".png"), *exported) if file.exists()]
    print(f"wrote {', '.join(map(str, dict.fromkeys(written)))}", file=sys.stderr)

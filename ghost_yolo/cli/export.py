"""Command `verify`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import show
from ghost_yolo.errors import UserError

SHOWN = 8  # photographs of a folder on which an exported file is compared


def verify(
    model: Annotated[
        str, typer.Argument(help="Checkpoint, model YAML with its scale letter, or an exported file with --checkpoint.")
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Further arguments of `yolo export`: simplify=False opset=17.")
    ] = None,
    imgsz: Annotated[
        str, typer.Option(help="Image size in pixels: 640, or height,width such as 480,640. Default: as trained.")
    ] = "",
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Export with dynamic input size.")] = False,
    image: Annotated[
        str,
        typer.Option(
            help="Image file to compare on; with --checkpoint also a folder. Default: Ultralytics' sample image."
        ),
    ] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint that an exported file was made from: nothing is exported then.")
    ] = None,
) -> None:
    """Export a model to ONNX and verify its outputs against PyTorch, on noise and on an image; or verify an exported file.

    The file is written beside the checkpoint; one that differs is not, and what is there stays. With --checkpoint MODEL is a file for ONNX Runtime, OpenVINO or NCNN of any
    precision, and where it differs the first layer that does is named.
    The exit status is 1 if a box differs by more than 0.05 pixels or a score by more than 0.001, or if there is no box to
    compare; float16 and INT8 have tolerances of their own.
    """
    with redirect_stdout(sys.stderr):
        from ghost_yolo.bench.runtimes import runtime_of

        exported = bool(runtime_of(model))
    if exported != (checkpoint is not None):
        raise UserError(f"{model}: give --checkpoint with an exported file, and only with one")
    if exported and (imgsz or dynamic or arguments):
        raise UserError(
            f"{model} has its size already: --imgsz, --dynamic and arguments of the export are for a checkpoint"
        )
    given = {"imgsz": parse_sides(imgsz)} if imgsz else {}
    with redirect_stdout(sys.stderr):
        from ghost_yolo.export.verify import export_and_verify, parse_arguments

        if checkpoint is not None:
            from ghost_yolo.data.images import find_images
            from ghost_yolo.export.any_file import verify_file

            verification = verify_file(Path(model), checkpoint, find_images([Path(image)])[:SHOWN] if image else [])
        else:
            options = {**given, "dynamic": dynamic, **parse_arguments(arguments or [])}
            verification = export_and_verify(model, image, **options)
    show(f"{verification}\n")
    if not verification.passed:
        raise typer.Exit(1)


def parse_sides(imgsz: str) -> list[int]:
    """Return one or two image sides.

    Raises:
        UserError: If the text is anything else.
    """
    sides = imgsz.split(",")
    if len(sides) > 2 or not all(side.strip().isdecimal() and int(side) for side in sides):
        raise UserError(f"--imgsz {imgsz}: give one side in pixels, or height,width")
    return [int(side) for side in sides]

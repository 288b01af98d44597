"""Command `verify`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from ghost_yolo.cli.common import show
from ghost_yolo.errors import UserError


def verify(
    model: Annotated[str, typer.Argument(help="Checkpoint, or model YAML with its scale letter.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Further arguments of `yolo export`: simplify=False opset=17.")
    ] = None,
    imgsz: Annotated[
        str, typer.Option(help="Image size in pixels: 640, or height,width such as 480,640. Default: as trained.")
    ] = "",
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Export with dynamic input size.")] = False,
    image: Annotated[str, typer.Option(help="Image file to compare on. Default: Ultralytics' sample image.")] = "",
) -> None:
    """Export a model to ONNX and verify its outputs against PyTorch, on noise and on an image.

    The file is written beside the checkpoint.
    The exit status is 1 if a box differs by more than 0.05 pixels or a score by more than 0.001.
    """
    given = {"imgsz": parse_sides(imgsz)} if imgsz else {}
    with redirect_stdout(sys.stderr):
        from ghost_yolo.export.verify import export_and_verify, parse_arguments

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

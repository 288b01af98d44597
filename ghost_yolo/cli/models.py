"""Commands `compare`, `swap`, `cfg`, `pretrained` and `doctor`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import Format, Where, check_target, emit, refuse_options, show
from ghost_yolo.model.catalog import packaged, path_of


def compare(
    context: typer.Context,
    published: Annotated[bool, typer.Option("--published", help="Rebuild the published YOLOv8-Ghost table.")] = False,
    models: Annotated[
        list[str] | None, typer.Option(help="Model YAML or checkpoint. Repeatable. Default: all packaged models.")
    ] = None,
    scale: Annotated[str, typer.Option(help="Scale of the packaged models: n, s, m, l or x.")] = "s",
    nc: Annotated[
        int | None, typer.Option(help="Number of classes for models built from YAMLs. Default: each YAML's own.")
    ] = None,
    imgsz: Annotated[int, typer.Option(help="Image size in pixels.")] = 640,
    style: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output file. Default: standard output.")] = None,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="Model YAMLs or checkpoints, as with --models.")
    ] = None,
) -> None:
    """Compare layers, parameters, GFLOPs and checkpoint size with stock YOLOv8 of the same task, scale and data.

    With --published, the exit status is 1 if a figure differs from the published one.
    """
    if published:
        refuse_options(context, "--published", ("models", "more", "scale", "nc", "imgsz"))
    check_target(out)
    with redirect_stdout(sys.stderr):  # the host prints on standard output, which may be piped
        from ghost_yolo.compare import compare, compare_published, render_comparison
        from ghost_yolo.utils.system import versions

        chosen = [*(models or []), *(more or [])]
        result = compare_published() if published else compare(chosen, scale, nc, imgsz)
    emit(render_comparison(result, versions(), style.value), out)
    if not all(all(entry.match.values()) for entry in result.entries):
        raise typer.Exit(1)


def swap(
    model: Annotated[
        str, typer.Argument(help="Model YAML: a file, or a name that Ultralytics knows, for example yolov8s-seg.yaml.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output file.")],
    block: Annotated[
        str | None, typer.Option(help="Module for the C2f and C3k2 rows, for example C2f_GhostBottleneck.")
    ] = None,
    where: Annotated[
        Where,
        typer.Option(
            help="Part to swap: the C2f and C3k2 rows of backbone or neck, the class branch of the head, or all."
        ),
    ] = Where.backbone,
) -> None:
    """Replace the blocks of a model YAML (YOLOv8, YOLO11, YOLO26; detect, segment, pose, obb, classify) by lighter ones."""
    check_target(out)
    with redirect_stdout(sys.stderr):
        from ghost_yolo.model import yaml_edit

        done = yaml_edit.swap(model, where.value, block)
    emit(done.text, out)
    show(f"{done.figures}\n{yaml_edit.how_to_train(out, done.scale)}\n")


def cfg(
    name: Annotated[
        str | None, typer.Argument(help="Packaged YAML, models with their scale letter: yolov8m-ghost, smear.")
    ] = None,
) -> None:
    """List the packaged YAMLs, or print the path of one: yolo train model=$(ghost-yolo cfg yolov8m-ghost)."""
    if name is not None:
        show(f"{path_of(name)}\n")
        return
    lines = "".join(f"{item.name:32} {item.summary}\n" for item in packaged().values())
    show(f"{lines}\nModels take a scale letter after the 8: ghost-yolo cfg yolov8n-ghost (or s, m, l, x).\n")


def pretrained(
    model: Annotated[
        str, typer.Option(help="YAML with a network as its backbone, for example cfg/yolov8s-ghostnet.yaml.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write, for `yolo train model=init.pt`.")],
    weights: Annotated[
        Path | None, typer.Option(help="Weight file of the classifier. Default: downloaded by timm or torchvision.")
    ] = None,
) -> None:
    """Initialise a detector's backbone from a pretrained classifier."""
    check_target(out)
    with redirect_stdout(sys.stderr):
        from ghost_yolo.model.pretrained import initialise

        report = initialise(model, weights, out)
    show(report)


def doctor() -> None:
    """Diagnostics: versions, auto-registration in a fresh process, and which module names resolve to this package."""
    with redirect_stdout(sys.stderr):
        from ghost_yolo.doctor import examine

        report, healthy = examine()
    show(f"{report}\n")
    if not healthy:
        raise typer.Exit(1)

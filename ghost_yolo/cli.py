"""The `ghost-yolo` command. Thin: each command parses, calls one function and prints."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.models import packaged, path_of
from ghost_yolo.registry import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class Format(str, Enum):
    """How a report is written."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


@app.callback()
def describe() -> None:
    """Lightweight backbones for stock Ultralytics YOLO. Training, prediction and export are the `yolo` command's."""


@app.command()
def compare(
    published: Annotated[
        bool, typer.Option("--published", help="Rebuild the widely copied YOLOv8-vs-Ghost table.")
    ] = False,
    models: Annotated[list[str] | None, typer.Option(help="YAML or checkpoint of yours; repeat for more.")] = None,
    scale: Annotated[
        str | None, typer.Option(help="Scale of the default models: n, s, m, l or x; s if not given.")
    ] = None,
    nc: Annotated[
        int | None, typer.Option(help="Number of classes, 80 if not given; a checkpoint keeps its own.")
    ] = None,
    imgsz: Annotated[int | None, typer.Option(help="Image side in pixels, 640 if not given.")] = None,
    style: Annotated[Format, typer.Option("--format", help="How to write the report.")] = Format.text,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; replaced only once complete.")] = None,
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Compare layers, parameters, GFLOPs and checkpoint size with stock YOLOv8 of the same scale and classes."""
    chosen = [*(models or []), *(more or [])]
    if published and (chosen or scale or nc not in (None, 1) or imgsz not in (None, 640)):
        raise UserError(
            "--published rebuilds a fixed table (nc=1, 640): leave out --models, --scale, --nc and --imgsz."
        )
    check_target(out)
    with redirect_stdout(sys.stderr):  # what the host says must not mix with a report that is piped
        from ghost_yolo.report import compare as comparison
        from ghost_yolo.report.render import render

        asked = {"scale": scale, "nc": nc, "imgsz": imgsz}
        given = {name: value for name, value in asked.items() if value is not None}
        result = comparison.compare_published() if published else comparison.compare(chosen, **given)  # type: ignore[arg-type]
    emit(render(result, comparison.versions(), style.value), out)
    if not all(all(entry.match.values()) for entry in result.entries):
        raise typer.Exit(1)


@app.command()
def ghosts(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) of any Ultralytics model, or of ours.")],
    image: Annotated[list[Path] | None, typer.Option(help="Photograph or folder; repeat for more.")] = None,
    layer: Annotated[int | None, typer.Option(help="Measure and draw this layer alone.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="With --layer: measure all layers nevertheless.")] = False,
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
        from ghost_yolo.photos import find_photos
        from ghost_yolo.redundancy import maps, report
        from ghost_yolo.redundancy.survey import Settings, survey
        from ghost_yolo.report.compare import versions
        from ghost_yolo.report.render import write

        folder, photos = new_folder(out, "ghosts"), find_photos(image or [])
        network = maps.open_checkpoint(model, device)
        settings = Settings(within, seed, imgsz or maps.trained_at(network))
        result = survey(network, photos, layer, everything or layer is None, settings)
        told = report.ghosts_report(result, settings, str(model), len(photos))
        report.write_ghosts(folder, result, told, versions(), within)
    print(write(told, versions(), style.value), end="")
    print(f"wrote {folder}", file=sys.stderr)


@app.command()
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
        from ghost_yolo.redundancy import maps, report
        from ghost_yolo.redundancy.pairs import pairs as compare_filters
        from ghost_yolo.report.compare import versions
        from ghost_yolo.report.render import write

        folder = new_folder(out, "pairs")
        found = compare_filters(maps.open_checkpoint(model, "cpu"), seed)
        told = report.pairs_report(found, str(model), seed)
        report.write_pairs(folder, found, told, versions())
    print(write(told, versions(), style.value), end="")
    print(f"wrote {folder}", file=sys.stderr)


@app.command()
def cfg(
    name: Annotated[str | None, typer.Argument(help="A model with its scale, as yolov8m-ghost, or smear.")] = None,
) -> None:
    """List the packaged YAMLs, or print the path of one: yolo train model=$(ghost-yolo cfg yolov8m-ghost)."""
    if name is not None:
        print(path_of(name))
        return
    for item in packaged().values():
        print(f"{item.name:32} {item.summary}")
    print("\nModels take a scale letter after the 8: ghost-yolo cfg yolov8n-ghost (or s, m, l, x).")


@app.command()
def doctor() -> None:
    """Say which versions meet here, whether the blocks load by themselves and which words are whose."""
    with redirect_stdout(sys.stderr):
        from ghost_yolo.doctor import examine

        report, healthy = examine()
    print(report)
    if not healthy:
        raise typer.Exit(1)


def check_target(out: Path | None) -> None:
    """Raise an error, before any work, for a file that cannot be written."""
    if out is not None and out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file.")
    if out is not None and not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}.")


def new_folder(out: Path | None, command: str) -> Path:
    """Return the folder to write, or raise an error, before any work, for one that already holds something."""
    if out is None:
        from ultralytics.utils.files import increment_path

        return Path(increment_path(Path("runs") / command))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} already exists; name a new folder.")
    return out


def emit(text: str, out: Path | None) -> None:
    """Print a report or write it whole."""
    if out is None:
        print(text, end="")
        return
    from ghost_yolo.files import write_whole

    write_whole(out, text)
    print(f"wrote {out}", file=sys.stderr)


def main() -> None:
    """Run the command; what the user can put right is shown as one line, without a traceback."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # a foreign checkpoint must not make the host call pip
    try:
        app()
    except (UserError, OSError) as error:
        sys.exit(f"ghost-yolo: {error}")

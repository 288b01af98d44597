"""The `ghost-yolo` command. Thin: each command parses, calls one function and prints."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.ghostify.command import ghostify
from ghost_yolo.models import packaged, path_of
from ghost_yolo.registry import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(ghostify)


class Format(str, Enum):
    """How a report is written."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


class Where(str, Enum):
    """The part of a model in which blocks are swapped."""

    backbone = "backbone"
    neck = "neck"
    head = "head"
    all = "all"


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
def swap(
    model: Annotated[str, typer.Argument(help="A model YAML of yours, or Ultralytics' by name: yolov8s-seg.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; replaced only once complete.")],
    block: Annotated[str | None, typer.Option(help="The word for the C2f and C3k2 rows: C2f_GhostBottleneck.")] = None,
    where: Annotated[
        Where, typer.Option(help="C2f and C3k2 rows of backbone or neck, class branch of the head, or all.")
    ] = Where.backbone,
) -> None:
    """Put a light block into a stock or own YAML (YOLOv8, YOLO11, YOLO26; any task) and keep all else."""
    check_target(out)
    with redirect_stdout(sys.stderr):
        from ghost_yolo import swapfile

        done = swapfile.swap(model, where.value, block)
    emit(done.text, out)
    print(f"{done.figures}\n{swapfile.how_to_train(out, done.scale)}")


@app.command()
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
        from ghost_yolo.deploy.bench import bench as measure
        from ghost_yolo.deploy.plan import Plan
        from ghost_yolo.deploy.runtimes import installed
        from ghost_yolo.report.latency import render

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
def pretrained(
    model: Annotated[str, typer.Option(help="YAML with a whole network, as cfg/yolov8s-ghostnet.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write: yolo train model=init.pt.")],
    weights: Annotated[
        Path | None, typer.Option(help="Weight file of the classifier; downloaded by timm or torchvision if not given.")
    ] = None,
) -> None:
    """Start a detector from a classifier's weights, and say which tensors moved and which did not."""
    check_target(out)
    with redirect_stdout(sys.stderr):
        from ghost_yolo.pretrained import initialise

        report = initialise(model, weights, out)
    print(report, end="")


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
    if out is not None and not os.access(out if out.exists() and not out.is_file() else out.resolve().parent, os.W_OK):
        raise UserError(f"--out {out}: you may not write there.")


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

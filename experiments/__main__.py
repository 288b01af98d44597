"""The commands that the Snakefile runs: `python -m experiments COMMAND`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
MixedPrecision = Annotated[
    bool, typer.Option(help="Compute in bfloat16 on a CPU too: faster on some that have units for it.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="File or folder to write.")]


@app.command()
def prepare(data: str, out: Out) -> None:
    """Prepare the images of a dataset YAML and write the folders of its splits."""
    from experiments import training

    training.prepare(data, out)


@app.command()
def images(splits: Path, count: int, out: Out) -> None:
    """Link so many training images, evenly spaced by name; all of them for 0."""
    from experiments import training

    training.link_images(splits, count, out)


@app.command()
def train(settings: list[str], out: Out, mixed_precision: MixedPrecision = False) -> None:
    """Train by `yolo train` with these key=value; an interrupted training is resumed."""
    from experiments import training

    training.train(out, settings, mixed_precision=mixed_precision)


@app.command()
def prune(
    weights: Path,
    settings: list[str],
    gflops: Annotated[float, typer.Option(help="Share of the model's GFLOPs that is left, such as 0.38.")],
    out: Out,
    steps: Annotated[int, typer.Option(help="Number of prunings, each followed by a fine-tuning.")] = 1,
    mixed_precision: MixedPrecision = False,
) -> None:
    """Prune a trained YOLOv8 by Torch-Pruning, and fine-tune it with labels by these key=value of `yolo train`; resumed."""
    from experiments import pruned

    pruned.run(weights, gflops, steps, out, settings, mixed_precision=mixed_precision)


@app.command()
def evaluate(
    weights: Path,
    data: str,
    split: str,
    imgsz: int,
    device: str,
    out: Out,
    file: Annotated[Path | None, typer.Option(help="Exported file of these weights, to be validated instead.")] = None,
) -> None:
    """Validate a checkpoint or exported file and keep what was counted for each image; test is read once for each."""
    from experiments import scores

    if split == "test":
        scores.require_same_weights(out, file or weights)
    scores.evaluate(weights, data, split, imgsz, device, file).write(out)


@app.command()
def deploy(
    weights: Path,
    deployment: str,
    imgsz: int,
    images: Annotated[Path, typer.Option(help="Images for INT8, no labels.")],
    teacher: Annotated[Path, typer.Option(help="Trained model that says what is found in them.")],
    out: Out,
    threads: Annotated[int, typer.Option(help="CPU threads with which variants in INT8 are timed.")] = 0,
) -> None:
    """Export a checkpoint for a runtime and a precision, such as openvino-int8, into a new folder."""
    from experiments import deploy as deploying

    deploying.deploy(weights, deployment, imgsz, images, teacher, out, threads)


@app.command()
def table(config: str, dataset: str, split: str, out: Out, bench: Path | None = None) -> None:
    """Write the table of a data set, and beside it an accuracy record of each run; `config` is JSON."""
    from experiments import table as tables

    tables.write(json.loads(config), dataset, split, out, bench)


@app.command()
def page(table: Path, out: Out) -> None:
    """Draw page and plot of a table; what stands around the markers of the page stays, and the records are copied beside it."""
    from experiments import page as pages

    pages.write(table, out)


@app.command()
def agreement(
    teacher: Path,
    models: list[Path],
    images: Annotated[Path, typer.Option(help="Images that no model was fitted on.")],
    data: Annotated[str, typer.Option(help="Data YAML.")],
    out: Out,
    imgsz: int = 320,
    split: Annotated[str, typer.Option(help="Split of it; test once, when nothing is chosen any more.")] = "val",
) -> None:
    """Score models of a teacher with and without labels, and how well one predicts the other."""
    from experiments import agreement as study

    study.write(study.measure(teacher, images, data, imgsz, models, split), out)


@app.command()
def predict_accuracy(config: str, dataset: str, data: str, splits: Path, out: Out) -> None:
    """Score all files of a data set without labels on its val images, beside their true accuracy; `config` is JSON."""
    from experiments import predicting
    from experiments.records import write_json

    images = Path(json.loads(splits.read_text(encoding="utf-8"))["val"])
    write_json(out, predicting.measure(json.loads(config), dataset, data, images))


@app.command()
def pool(files: list[Path], out: Out) -> None:
    """Correlate agreement and accuracy over the files of several data sets, and plot them."""
    from experiments import predicting

    predicting.pool(files, out)


if __name__ == "__main__":
    try:
        app()
    except (UserError, OSError) as error:
        sys.exit(f"experiments: {error}")

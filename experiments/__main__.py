"""The commands that the Snakefile runs: `python -m experiments COMMAND`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option("--out", "-o", help="File or folder to write.")]


@app.command()
def prepare(data: Annotated[str, typer.Argument(help="Dataset YAML.")], out: Out) -> None:
    """Prepare a data set and write the folders of its splits."""
    from experiments import training

    training.prepare(data, out)


@app.command()
def images(
    splits: Annotated[Path, typer.Argument(help="What `prepare` wrote.")],
    count: Annotated[int, typer.Argument(help="How many; 0 for all.")],
    out: Out,
) -> None:
    """Make a folder of the first training images."""
    from experiments import training

    training.link_images(splits, count, out)


@app.command()
def train(
    settings: Annotated[list[str], typer.Argument(help="Settings of `yolo train` as key=value.")], out: Out
) -> None:
    """Train by `yolo train`; an interrupted training is resumed."""
    from experiments import training

    training.train(out, settings)


@app.command()
def evaluate(
    weights: Annotated[Path, typer.Argument(help="Checkpoint.")],
    data: Annotated[str, typer.Option(help="Dataset YAML.")],
    split: Annotated[str, typer.Option(help="val or test.")],
    imgsz: Annotated[int, typer.Option(help="Image side in pixels.")],
    out: Out,
    device: Annotated[str, typer.Option(help="As in `yolo`.")] = "cpu",
) -> None:
    """Validate a checkpoint and keep what was counted for each image."""
    from experiments import scores

    scores.evaluate(weights, data, split, imgsz, device).write(out)


@app.command()
def table(
    config: Annotated[str, typer.Argument(help="The whole configuration as JSON.")],
    dataset: Annotated[str, typer.Argument(help="One of its data sets.")],
    split: Annotated[str, typer.Argument(help="val or test.")],
    out: Out,
    bench: Annotated[Path | None, typer.Option(help="JSON of `ghost-yolo bench`.")] = None,
) -> None:
    """Write the table of a data set as JSON, and an accuracy record of each run beside it."""
    from experiments import records

    records.write(json.loads(config), dataset, split, out, bench)


@app.command()
def page(
    table: Annotated[Path, typer.Argument(help="What `table` wrote; the records lie beside it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Markdown page; what stands around its table stays.")],
) -> None:
    """Draw the page and the plot of a table; records are copied to the folder of the page's name."""
    from experiments import page as pages

    pages.write(table, out)


if __name__ == "__main__":
    try:
        app()
    except (UserError, OSError) as error:
        sys.exit(f"experiments: {error}")

"""The `ghost-yolo` command. Thin: each command parses, calls one function and prints."""

from __future__ import annotations

import gc
import os
import sys

import typer

from ghost_yolo.cli.bench import bench, report
from ghost_yolo.cli.ghostify import ghostify
from ghost_yolo.cli.models import cfg, compare, doctor, pretrained, swap
from ghost_yolo.cli.redundancy import correlate, ghosts, pairs
from ghost_yolo.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (compare, swap, ghostify, bench, report, ghosts, pairs, correlate, cfg, pretrained, doctor):
    app.command()(command)


@app.callback()
def describe() -> None:
    """Lightweight backbones for stock Ultralytics YOLO. Training, prediction and export are the `yolo` command's."""


def main() -> None:
    """Run the command; print a UserError as one line, without a traceback."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # a foreign checkpoint must not make the host run pip
    gc.set_threshold(10_000)  # importing torch creates a million permanent objects: collect less often
    try:
        app()
    except (UserError, OSError) as error:
        sys.exit(f"ghost-yolo: {error}")

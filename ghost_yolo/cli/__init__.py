"""The `ghost-yolo` command: each subcommand parses its options, calls one function and prints."""

from __future__ import annotations

import gc
import os
import sys

import typer

from ghost_yolo.cli.bench import bench, report
from ghost_yolo.cli.export import verify
from ghost_yolo.cli.ghostify import ghostify
from ghost_yolo.cli.models import cfg, compare, doctor, pretrained, swap
from ghost_yolo.cli.process import orderly_end, prepare_streams
from ghost_yolo.cli.redundancy import correlate, ghosts, pairs
from ghost_yolo.errors import UserError

MAX_ERROR = 1800  # characters of an error that are printed

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (compare, swap, ghostify, bench, verify, report, ghosts, pairs, correlate, cfg, pretrained, doctor):
    app.command()(command)


@app.callback()
def describe() -> None:
    """Lightweight blocks and backbones for Ultralytics YOLO. Train, predict and export with the `yolo` command."""


def main() -> None:
    """Run the command; print a UserError as one line, without a traceback."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # a foreign checkpoint must not make the host run pip
    prepare_streams()
    gc.set_threshold(10_000)  # importing torch creates a million permanent objects: collect less often
    try:
        with orderly_end():
            app()
    except (UserError, OSError) as error:
        text = str(error)
        sys.exit(f"ghost-yolo: {text[:MAX_ERROR]}{' ...' if len(text) > MAX_ERROR else ''}")

"""The `ghost-yolo` command: each subcommand parses its options, calls one function and prints."""

from __future__ import annotations

import gc
import os

import typer

from ghost_yolo import _hook
from ghost_yolo.cli.bench import bench, report
from ghost_yolo.cli.bundle import bundle
from ghost_yolo.cli.export import verify
from ghost_yolo.cli.ghostify import ghostify
from ghost_yolo.cli.models import cfg, compare, doctor, pretrained, swap
from ghost_yolo.cli.process import run_program
from ghost_yolo.cli.redundancy import correlate, ghosts, pairs
from ghost_yolo.cli.voc import voc

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (
    compare,
    swap,
    ghostify,
    bench,
    verify,
    bundle,
    report,
    ghosts,
    pairs,
    correlate,
    voc,
    cfg,
    pretrained,
    doctor,
):
    app.command()(command)


@app.callback()
def describe() -> None:
    """Lightweight blocks and backbones for Ultralytics YOLO. Train, predict and export with the `yolo` command."""


def main() -> None:
    """Run the command."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # a foreign checkpoint must not make the host run pip
    gc.set_threshold(10_000)  # importing torch creates a million permanent objects: collect less often
    _hook.install(always=True)
    run_program("ghost-yolo", app)

"""Option types and output checks that the commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from enum import Enum
from pathlib import Path

import typer

from ghost_yolo.errors import UserError
from ghost_yolo.utils.files import require_writable


class Format(str, Enum):
    """Output format of a table."""

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


def check_target(out: Path | None) -> None:
    """Check, before any work, that the output file can be written."""
    if out is not None and out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file.")
    if out is not None:
        require_writable(out)


def refuse_options(context: typer.Context, option: str, others: Sequence[str]) -> None:
    """Check that options which `option` excludes are not given.

    Raises:
        UserError: If one of them is.
    """
    given = [name for name in others if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if given:
        names = ", ".join(f"--{name}" if name != "more" else "models" for name in given)
        raise UserError(f"{option} excludes {names}: leave them out")


def new_folder(out: Path | None, command: str) -> Path:
    """Return the output folder; raise an error, before any work, where it already holds something."""
    if out is None:
        from ultralytics.utils.files import increment_path

        out = Path(increment_path(Path("runs") / command))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} already exists; name a new folder.")
    parent = next(parent for parent in out.resolve().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--out {out}: you may not write in {parent}.")
    return out


def emit(text: str, out: Path | None) -> None:
    """Print a text, or write it to a file; it is printed where the file cannot be written."""
    if out is None:
        show(text)
        return
    from ghost_yolo.utils.files import write_atomic

    try:
        write_atomic(out, text)
    except OSError:
        show(text)
        raise
    print(f"wrote {out}", file=sys.stderr)


def show(text: str) -> None:
    """Print a result, on standard error where standard output is closed or full, so that it is not lost.

    Raises:
        Exit: With status 1, if standard output failed.
    """
    try:
        print(text, end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest is flushed again at exit
        print(f"ghost-yolo: standard output: {error.strerror}. The result:\n{text}", end="", file=sys.stderr)
        raise typer.Exit(1) from error


def finish(text: str, folder: Path, write: Callable[[], None]) -> None:
    """Write the output folder, then print the report; it is printed where the folder cannot be written too."""
    try:
        with redirect_stdout(sys.stderr):
            write()
    finally:
        show(text)
    print(f"wrote {folder}", file=sys.stderr)

"""Option types and output checks that the commands share."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path

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


def new_folder(out: Path | None, command: str) -> Path:
    """Return the output folder; raise an error, before any work, where it already holds something."""
    if out is None:
        from ultralytics.utils.files import increment_path

        return Path(increment_path(Path("runs") / command))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} already exists; name a new folder.")
    return out


def emit(text: str, out: Path | None) -> None:
    """Print a text, or write it to a file."""
    if out is None:
        print(text, end="")
        return
    from ghost_yolo.utils.files import write_whole

    write_whole(out, text)
    print(f"wrote {out}", file=sys.stderr)

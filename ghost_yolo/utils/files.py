"""Atomic files and folders, and content hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ghost_yolo.errors import OutputExistsError, UserError


@contextmanager
def whole_folder(root: Path) -> Iterator[Path]:
    """Yield an empty folder beside `root` and rename it to `root` on success; leave nothing behind on failure.

    Raises:
        OutputExistsError: If `root` already holds something: existing files are never overwritten.
    """
    if root.exists() and any(root.iterdir()):
        raise OutputExistsError(
            f"{root} already holds something. Move or remove that folder, then run the command again."
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    work.chmod(0o755)  # mkdtemp's folder would be readable by its owner alone
    try:
        yield work
        if root.exists():
            root.rmdir()  # empty, or it is no longer ours to replace; Windows does not move onto a folder
        work.replace(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def require_writable(file: Path) -> None:
    """Check, before any work, that an output can be written.

    Raises:
        UserError: If its folder is missing, or may not be written to.
    """
    if not file.parent.is_dir():
        raise UserError(f"--out {file}: there is no folder {file.parent}.")
    place = file if file.exists() and not file.is_file() else file.resolve().parent  # a pipe or a device, or the folder
    if not os.access(place, os.W_OK):
        raise UserError(f"--out {file}: you may not write there.")


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8; one that is already there keeps its mode and is replaced only once the new one is complete.

    Raises:
        OSError: If the folder is missing or cannot be written to.
    """
    data = content.encode() if isinstance(content, str) else content
    file = file.resolve()  # a link stays a link
    if file.exists() and not file.is_file():  # a pipe or a device is written to, not replaced
        file.write_bytes(data)
        return
    work = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        with work.open("xb") as opened:
            opened.write(data)
        if file.exists():
            shutil.copymode(file, work)
        work.replace(file)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def fingerprint(files: Sequence[Path]) -> str:
    """Return a short hash of files' contents, so that a changed image or checkpoint counts as another setting."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]

"""Atomic files and folders, and content hashes."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ghost_yolo.errors import OutputExistsError, UserError

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves stays there
    fcntl = None  # type: ignore[assignment]

LOCK, TEMPORARY = ".lock", ".tmp"


@contextmanager
def atomic_folder(root: Path) -> Iterator[Path]:
    """Yield an empty folder beside `root` and rename it to `root` on success; leave nothing behind on failure.

    Raises:
        OutputExistsError: If `root` already holds something, or does so at the end: existing files are never overwritten.
    """
    _require_empty(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(root.parent, f".{root.name}-")
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    work.chmod(0o755)  # mkdtemp's folder would be readable by its owner alone
    try:
        with _locked(work / LOCK):
            yield work
            (work / LOCK).unlink(missing_ok=True)
        _require_empty(root)
        if root.exists():
            root.rmdir()  # Windows does not rename onto a folder
        work.replace(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _require_empty(root: Path) -> None:
    """Raise an error for a folder that holds something."""
    if root.exists() and any(root.iterdir()):
        raise OutputExistsError(
            f"{root} already holds something. Move or remove that folder, then run the command again."
        )


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a temporary folder; those of the same prefix that killed processes left are removed first."""
    _remove_stale(Path(tempfile.gettempdir()), prefix)
    with (
        tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder,
        _locked(Path(folder) / LOCK),
    ):
        yield Path(folder)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock on a file, so that others see that its folder is in use."""
    with file.open("w") as opened:
        if fcntl:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove_stale(parent: Path, prefix: str) -> None:
    """Remove the temporary files and folders of a prefix whose process is gone: nobody holds their lock any more."""
    if not fcntl:
        return
    for path in parent.glob(f"{glob.escape(prefix)}*"):
        lock = path / LOCK if path.is_dir() else path
        try:
            with lock.open("rb") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.suffix == TEMPORARY:
                    path.unlink(missing_ok=True)
        except OSError:  # in use, somebody else's, or gone
            continue


def require_writable(file: Path) -> None:
    """Check, before any work, that an output can be written.

    Raises:
        UserError: If its folder is missing, or may not be written to.
    """
    if not file.parent.is_dir():
        raise UserError(f"--out {file}: there is no folder {file.parent}.")
    target = (
        file if file.exists() and not file.is_file() else file.resolve().parent
    )  # a pipe or a device, or the folder
    if not os.access(target, os.W_OK):
        raise UserError(f"--out {file}: you may not write there.")


def write_atomic(file: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8; an existing one keeps its mode and is replaced only once the new one is complete.

    Raises:
        OSError: If the folder is missing or cannot be written to.
    """
    data = content.encode() if isinstance(content, str) else content
    file = file.resolve()  # a link stays a link
    if file.exists() and not file.is_file():  # a pipe or a device is written to, not replaced
        file.write_bytes(data)
        return
    _remove_stale(file.parent, f".{file.name}-")
    work = file.with_name(f".{file.name}-{secrets.token_hex(8)}{TEMPORARY}")
    try:
        with work.open("xb") as opened:
            if fcntl:
                fcntl.flock(opened, fcntl.LOCK_EX)
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

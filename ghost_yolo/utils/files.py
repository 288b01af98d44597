"""Atomic files and folders, and content hashes."""

from __future__ import annotations

import filecmp
import glob
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ghost_yolo.errors import OutputExistsError, UserError

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves stays there
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"
RANDOM = "[0-9a-z_]" * 8  # what tempfile puts between prefix and suffix
NEW_SECONDS = 5  # an empty folder of this age may be another process's that has not locked it yet


@contextmanager
def atomic_folder(root: Path, accept_equal: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `root` and rename it to `root` on success; leave nothing behind on failure.

    Args:
        root: Folder to make.
        accept_equal: Whether a `root` that already holds the same files is a success, as when two processes prepare one
            data set at the same time.

    Raises:
        OutputExistsError: If `root` already holds something, or does so at the end: existing files are never overwritten.
        UserError: If it is the current folder or the root of a file system, which cannot be replaced.
    """
    root = root.resolve()  # a link stays a link
    if root == Path.cwd() or os.path.ismount(root):  # Path.is_mount is not on Windows before 3.12
        raise UserError(f"{root} cannot be replaced by a finished folder; name a new one inside it")
    if not accept_equal:
        _require_empty(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(root.parent, f".{root.name}-")
    work = Path(tempfile.mkdtemp(TEMPORARY, f".{root.name}-", root.parent))
    work.chmod(0o755)  # mkdtemp's folder would be readable by its owner alone
    try:
        with _locked(work):
            yield work
            _publish(work, root, accept_equal)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, root: Path, accept_equal: bool) -> None:
    """Rename a finished folder to `root`; keep a `root` that already holds the same files where that is accepted."""
    try:
        with suppress(FileNotFoundError):
            root.rmdir()  # Windows does not rename onto a folder
        work.replace(root)
    except OSError as error:
        if accept_equal and _holds(root, work):
            return
        _require_empty(root)
        if not root.is_dir():
            raise
        raise OutputExistsError(f"{root} was made by another process at the same time.") from error


def _holds(root: Path, work: Path) -> bool:
    """Return whether a folder holds every file of another, with the same content; it may hold more, as the host's caches."""
    files = [path.relative_to(work) for path in work.rglob("*") if path.is_file()]
    return all((root / file).is_file() and filecmp.cmp(work / file, root / file, shallow=False) for file in files)


def _require_empty(root: Path) -> None:
    """Raise an error for a folder that holds something."""
    if root.exists() and any(root.iterdir()):
        raise OutputExistsError(
            f"{root} already holds something. Move or remove that folder, then run the command again."
        )


@contextmanager
def current_folder(folder: Path) -> Iterator[None]:
    """Make a folder the current one."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a temporary folder; those of the same prefix that killed processes left are removed first."""
    _remove_stale(Path(tempfile.gettempdir()), prefix)
    with (
        tempfile.TemporaryDirectory(TEMPORARY, prefix, ignore_cleanup_errors=True) as folder,
        _locked(Path(folder)),
    ):
        yield Path(folder)


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock on a file or folder, so that others see that it is in use.

    Raises:
        OSError: Without `wait`, if another process holds it, or the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDONLY) if fcntl else None
    try:
        if descriptor is not None:
            with suppress(OSError) if wait else nullcontext():  # where there are no locks, nothing is removed either
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _remove_stale(parent: Path, prefix: str) -> None:
    """Remove the temporary files and folders of a prefix whose process is gone: nobody holds their lock any more.

    Only names of RANDOM and TEMPORARY are ours: a hidden folder of the user's may begin like them, and what is being written
    as `best.pt-old` begins like a temporary file of `best.pt`.
    """
    if not fcntl:
        return
    for path in parent.glob(f"{glob.escape(prefix)}{RANDOM}{TEMPORARY}"):
        with suppress(OSError), _locked(path, wait=False):  # OSError: in use, somebody else's, or gone
            if _is_new(path):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_new(path: Path) -> bool:
    """Return whether a file or folder may have been made this moment, by a process that has not locked it yet."""
    is_empty = not any(path.iterdir()) if path.is_dir() else not path.stat().st_size
    return is_empty and time.time() - path.stat().st_mtime < NEW_SECONDS


def require_writable(file: Path, name: str = "--out") -> None:
    """Check, before any work, that an output can be written.

    Raises:
        UserError: If its folder is missing, or may not be written to.
    """
    if not file.parent.is_dir():
        raise UserError(f"{name} {file}: there is no folder {file.parent}.")
    is_special = file.exists() and not file.is_file()  # a pipe or a device, which is written to itself
    target = file if is_special else file.resolve().parent
    if not os.access(target, os.W_OK):
        raise UserError(f"{name} {file}: you may not write there.")


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
    work = file.with_name(f".{file.name}-{secrets.token_hex(4)}{TEMPORARY}")
    try:
        work.touch(exist_ok=False)
        with _locked(work):  # to the end: another writer of this name would take it for a killed process's
            work.write_bytes(data)
            if file.exists():
                shutil.copymode(file, work)
            work.replace(file)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def sha256(file: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def fingerprint(files: Sequence[Path]) -> str:
    """Return a short hash of files' contents, so that a changed image or checkpoint counts as another setting."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]

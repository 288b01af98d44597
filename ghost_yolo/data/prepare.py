"""Prepare a public data set from a Pascal VOC folder, and compare it with the one on which figures were measured."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ultralytics.utils import LOGGER

from ghost_yolo.data.splits import Draw
from ghost_yolo.data.voc import convert, require_voc
from ghost_yolo.errors import DatasetError
from ghost_yolo.utils.files import atomic_folder


@dataclass(frozen=True)
class Content:
    """Files of a folder: how many, their bytes, and the SHA-256 of their names and contents."""

    files: int
    size: int
    sha256: str

    def __str__(self) -> str:
        """Return it for messages."""
        return f"{self.files} files of {self.size:,} bytes with SHA-256 {self.sha256}"


def content_of(folder: Path, patterns: Iterable[str]) -> Content:
    """Return what a folder holds, of the files that match one of the patterns.

    The SHA-256 is that of the lines which `sha256sum` prints for these files, sorted by name, in that folder.
    """
    names = sorted(
        f.relative_to(folder).as_posix() for pattern in patterns for f in folder.glob(pattern) if f.is_file()
    )
    lines, size = hashlib.sha256(), 0
    for name in names:
        data = (folder / name).read_bytes()
        size += len(data)
        lines.update(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode())
    return Content(len(names), size, lines.hexdigest())


def local_copy(variable: str, usage: str) -> Path | None:
    """Return the VOC folder that an environment variable names, None where it is not set.

    Raises:
        DatasetError: If it names something else.
    """
    local = os.environ.get(variable)
    if not local:
        return None
    try:
        require_voc(Path(local))
    except DatasetError as error:
        raise DatasetError(f"{variable}: {error} {usage}") from error
    return Path(local)


def warn_if_other(folder: Path, name: str, found: Content, expected: Content) -> None:
    """Warn of a data set on which figures cannot be compared.

    A folder of the user's own is trusted, and may be changed on purpose: corrected boxes, other splits.
    """
    if found != expected:
        LOGGER.warning(f"{folder} is not the {name} of {expected} but {found}: figures on it cannot be compared")


def prepare_from(voc: Path, root: Path, names: Mapping[int, str], splits: tuple[str, ...] | Draw) -> None:
    """Write the YOLO data set at `root` from a VOC folder, completely or not at all, and report it."""
    with atomic_folder(root, accept_equal=True) as work:
        result = convert(voc, work, names, splits)
    for line in result.warnings:
        LOGGER.warning(line)
    LOGGER.info(f"{root}:\n{result.table}")

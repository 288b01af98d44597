"""A data set's folder appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(root: Path) -> Iterator[Path]:
    """Yield an empty folder beside `root` and move it there when the block ends well; else leave nothing behind.

    Raises:
        FileExistsError: If `root` already holds something: what a user put there is never overwritten.
    """
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(
            f"{root} exists but is not this data set in whole. Move or remove that folder, then run the command again."
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    work.chmod(0o755)  # mkdtemp's folder would be readable by its owner alone
    try:
        yield work
        work.replace(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)

"""Progress bars on standard error, so that reports can be piped, and quiet passages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def progress(items: Sequence[Item], text: str) -> Iterator[Item]:
    """Yield the items under a progress bar."""
    yield from track(items, text, console=Console(stderr=True))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the host's info lines out of a report; its warnings stay."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(level)

"""One progress bar for all long work, on standard error so that reports can be piped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def progress(items: Sequence[Item], text: str) -> Iterator[Item]:
    """Yield the items under a progress bar."""
    yield from track(items, text, console=Console(stderr=True))

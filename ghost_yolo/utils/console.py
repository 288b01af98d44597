"""Progress bars on standard error, so that reports can be piped, and quiet passages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


_subject: ContextVar[str] = ContextVar("subject", default="")  # of all progress bars, behind their texts


def progress(items: Sequence[Item], text: str) -> Iterator[Item]:
    """Yield the items under a progress bar."""
    subject = _subject.get()
    yield from track(items, f"{text} ({subject})" if subject else text, console=Console(stderr=True))


@contextmanager
def progress_of(subject: str) -> Iterator[None]:
    """Name in every progress bar what is worked on, where the same is done for several."""
    token = _subject.set(subject)
    try:
        yield
    finally:
        _subject.reset(token)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the host's info lines out of a report; its warnings stay."""
    from ultralytics.utils import LOGGER

    with log_level(LOGGER, logging.WARNING):
        yield


@contextmanager
def log_level(logger: logging.Logger, level: int) -> Iterator[None]:
    """Let a logger print from a level on only."""
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)

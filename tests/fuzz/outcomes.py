"""What an input may lead to, in bounds of time and memory: a result that is right, or a UserError of one line."""

from __future__ import annotations

import io
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from ghost_yolo.cli import main
from ghost_yolo.errors import UserError

SECONDS, WAITING, MEMORY, MAX_TEXT = 30, 200, 2 * 2**30, 2000
OUTCOMES: list[str] = []  # of the input at hand, one for each function or command that was given it


class TooSlow(BaseException):
    """An input took more than SECONDS."""


class BadRefusalError(AssertionError):
    """An error has no text, several lines or MAX_TEXT characters, or an input was refused only when MEMORY was taken."""


def set_limits() -> None:
    """Limit what this process may take to MEMORY more than now, and let its clocks end an input."""
    most = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _interrupt)


def _interrupt(*_: Any) -> None:
    """End a slow input."""
    raise TooSlow


def attempt(work: Callable[[], None]) -> None:
    """Do the work within its time; a UserError of reasonable length is right."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAITING)
    try:
        work()
        OUTCOMES.append("right")
    except (UserError, OSError) as error:  # what the command line prints as one line
        if any(text in str(error) for text in ("allocate memory", "bad_alloc", "MemoryError")):
            raise BadRefusalError(str(error)[:300]) from error
        if not 0 < len(str(error)) < MAX_TEXT:
            raise BadRefusalError(f"{len(str(error))} characters: {str(error)[:300]}") from error
        OUTCOMES.append("refused")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def command(*words: str | Path) -> str:
    """Run `ghost-yolo` with these words in this process, and return what it printed.

    Raises:
        UserError: If it ended with a line of error.
        BadRefusalError: If it ended with several, or with a status alone.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    status: Any = None
    argv = ["ghost-yolo", *map(str, words)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code
    printed, told = ((stream.flush(), stream.buffer.getvalue().decode())[1] for stream in (out, err))
    if isinstance(status, str) and "\n" not in status:
        raise UserError(status)
    if status or "Traceback" in told:
        raise BadRefusalError(f"{argv[1]} ended with {status!s:.300}: {told[-300:]}")
    return printed

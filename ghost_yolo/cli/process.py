"""A command as a process: its signals, its standard streams, its errors."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

from ghost_yolo.errors import UserError

MAX_ERROR = 1800  # characters of an error that are printed
ENDING = ("SIGTERM", "SIGHUP")  # SIGHUP does not exist on Windows


class Lenient:
    """A text stream that may fail: what is written to it then is lost, and nothing else.

    Standard error holds progress and messages; `2>&1 | head -1` must not end a run of hours.
    """

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text if that is possible."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def prepare_streams() -> None:
    """Make standard output and error take any text, where they are closed or in another encoding too."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open until the end)
    if sys.stdout is None:
        sys.stdout = sys.stderr
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stderr = cast("TextIO", Lenient(sys.stderr))


@contextmanager
def orderly_end() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does, with status 128 + signal."""
    received = []

    def interrupt(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, interrupt)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as end:
        if received:
            raise SystemExit(128 + received[0]) from end
        raise


def run_program(name: str, work: Callable[[], int | None]) -> None:
    """Do the work of a command or script, and exit with the status that it returns.

    A UserError is printed as one line, without a traceback. Ctrl-C, SIGTERM and SIGHUP end the work in order.
    """
    prepare_streams()
    try:
        with orderly_end():
            sys.exit(work())
    except (UserError, OSError) as error:
        text = " ".join(map(str.strip, str(error).splitlines()))  # a parser's or the host's may have several
        sys.exit(f"{name}: {text[:MAX_ERROR]}{' ...' if len(text) > MAX_ERROR else ''}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)

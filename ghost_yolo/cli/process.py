"""The command as a process: its signals and its standard streams."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

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

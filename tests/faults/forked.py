"""The bench worker as a fork: a new interpreter would load torch for seconds in every run. Importing this replaces its start."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import types
from typing import Any

from ghost_yolo.bench import worker


class Forked:
    """What `Worker` uses of subprocess.Popen."""

    def __init__(self, command: list[str], stderr: io.BufferedWriter, **_: Any) -> None:
        """Fork, and serve in the child, in a process group of its own; its session shows the harness whose it is."""
        (commands, self_in), (self_out, answers) = os.pipe(), os.pipe()
        self.pid, self.returncode = os.fork(), None
        if self.pid == 0:
            os.setpgid(0, 0)
            _serve(int(command[-1]), commands, answers, stderr.fileno())
        os.close(commands)
        os.close(answers)
        self.stdin, self.stdout = os.fdopen(self_in, "wb"), os.fdopen(self_out, "rb")

    def poll(self) -> int | None:
        """Return the status of a child that has ended."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for its end."""
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def kill(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)

    def communicate(self) -> None:
        """Close the pipes and wait."""
        self.stdin.close()
        self.stdout.close()
        self.wait()


def _serve(parent: int, commands: int, answers: int, log: int) -> None:
    """Be the worker, and never return."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for descriptor, place in ((commands, 0), (answers, 1), (log, 2)):
        os.dup2(descriptor, place)
    os.closerange(3, 256)  # the other ends too: the worker ends when its input does
    sys.stdin, sys.stdout, sys.stderr = (open(place, "r" if place == 0 else "w", closefd=False) for place in range(3))  # noqa: SIM115 (open until the end)
    try:
        worker.serve(parent)
    finally:
        os._exit(0)


worker.subprocess = types.SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE)

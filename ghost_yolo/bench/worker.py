"""Worker process for work that may crash or whose memory is measured: it answers calls, one JSON line each.

The child imports only what a call needs, so that its memory is that of the runtime and the model. Ctrl-C does not reach it:
the parent ends it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ghost_yolo.bench.runtimes import RUNTIMES, InferenceConfig, peak_memory_mb
from ghost_yolo.errors import UserError, WorkerError


class Worker:
    """The parent's side: start the process, call, close.

    Args:
        log: File for everything that the child and its libraries print.
        threads: Threads of libraries that read their number from the environment only.
    """

    def __init__(self, log: Path, threads: int) -> None:
        """Start the process."""
        self.log, self.threads = log, threads
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the process."""
        env = os.environ | {
            "OMP_NUM_THREADS": str(self.threads),
            "YOLO_AUTOINSTALL": "false",
            "PYTHONIOENCODING": "utf-8",
        }
        with self.log.open("ab") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "ghost_yolo.bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=env,
                start_new_session=True,  # Ctrl-C in the terminal is the parent's
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
            )

    def call(self, name: str, *arguments: Any) -> Any:
        """Return what a method of `Calls` returns in the child; a process that has ended is restarted first.

        Raises:
            WorkerError: If the call failed, or the process ended.
        """
        if self.process.poll() is not None:
            self.close()
            self.process = self._start()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([name, arguments], default=str).encode() + b"\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise WorkerError(f"its process ended {_describe_status(self.process.wait())}; {_last_line(self.log)}")
        result, error = json.loads(answer)
        if error:
            raise WorkerError(error)
        return result

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()  # closes the pipes and waits


def _describe_status(status: int) -> str:
    """Describe an exit status."""
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


def _last_line(log: Path) -> str:
    """Return the last line that a process printed."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"last output: {lines[-1].strip()}" if lines else "no output"


class Calls:
    """The child's side: the methods that can be called."""

    run: Callable[[], object]

    def prepare(self, model: str, folder: str, nc: int, imgsz: int) -> dict[str, Any]:
        """Build or load a model, save it, and return its ModelInfo as a dict."""
        from ghost_yolo.bench.exporting import prepare

        return asdict(prepare(model, Path(folder), nc, imgsz))

    def export(self, checkpoint: str, folder: str, *settings: Any) -> str:
        """Export a prepared model and return the file or folder that the runtime opens."""
        from ghost_yolo.bench.exporting import export

        return str(export(Path(checkpoint), Path(folder), *settings))

    def open(self, runtime: str, file: str, config: dict[str, Any], passes: int) -> None:
        """Load a file into a runtime and warm up."""
        self.run = RUNTIMES[runtime].open(Path(file), InferenceConfig(**config))
        self.time(passes)

    def time(self, passes: int) -> dict[str, Any]:
        """Time forward passes, after an untimed one that fills the caches.

        Returns:
            `ms`, the milliseconds of each, and `memory_mb`, the peak memory of this process so far.
        """
        self.run()
        times = []
        for _ in range(passes):
            start = time.perf_counter()
            self.run()
            times.append((time.perf_counter() - start) * 1e3)
        return {"ms": times, "memory_mb": peak_memory_mb()}

    def profile_operators(self, runtime: str, file: str, config: dict[str, Any], passes: int) -> dict[str, float]:
        """Return the milliseconds of a forward pass by operator type."""
        from ghost_yolo.bench.profiler import profile_operators

        return profile_operators(runtime, Path(file), InferenceConfig(**config), passes)


def serve() -> None:
    """Answer calls until standard input ends; everything that libraries print goes to the log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    calls = Calls()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = [getattr(calls, name)(*arguments), None]
        except UserError as error:
            answer = [None, str(error)]
        except (Exception, SystemExit) as error:  # noqa: BLE001 (any error of a runtime or of the host becomes the row's error)
            lines = str(error).strip().splitlines() or [""]
            answer = [None, f"{type(error).__name__}: {lines[0]}"]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()

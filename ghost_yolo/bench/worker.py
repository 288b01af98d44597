"""Worker process for work that may crash or whose memory is measured: it answers calls, one JSON line each.

The child imports only what a call needs, so that its memory is that of the runtime and the model. Ctrl-C does not reach it:
the parent ends it, with the processes that it started. It also ends by itself as soon as its parent is gone.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ghost_yolo import _hook
from ghost_yolo.bench.outputs import require_sound_outputs
from ghost_yolo.bench.runtimes import RUNTIMES, InferenceConfig, LoadedModel, peak_memory_mb
from ghost_yolo.errors import UserError, WorkerError

MAX_ERROR = 1000  # characters of an error that a row keeps
PR_SET_PDEATHSIG = 1  # of Linux's prctl
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has no SIGKILL


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
                [sys.executable, "-m", "ghost_yolo.bench.worker", str(os.getpid())],
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
        """End the process and those that it started."""
        if self.process.poll() is None:
            _kill_group(self.process.pid)
            self.process.kill()
        self.process.communicate()  # closes the pipes and waits


def _kill_group(leader: int) -> None:
    """End a process that started a session of its own, and its children: an exporter runs converters."""
    with suppress(ProcessLookupError):
        if sys.platform != "win32":
            os.killpg(leader, KILL)


def _describe_status(status: int) -> str:
    """Describe an exit status."""
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


def _last_line(log: Path) -> str:
    """Return the last line that a process printed."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"last output: {lines[-1].strip()[:MAX_ERROR]}" if lines else "no output"


class Calls:
    """The child's side: the methods that can be called."""

    model: LoadedModel
    pipeline: Callable[[], dict[str, float]] | None

    def prepare(self, model: str, folder: str, nc: int | None, imgsz: int) -> dict[str, Any]:
        """Build or load a model, save it, and return its ModelInfo as a dict."""
        from ghost_yolo.bench.exporting import prepare

        return asdict(prepare(model, Path(folder), nc, imgsz))

    def export(self, checkpoint: str, folder: str, *settings: Any) -> str:
        """Export a prepared model and return the file or folder that the runtime opens."""
        from ghost_yolo.bench.exporting import export

        _kill_at_parents_end(0)  # converters that it starts would stay: `_watch` ends them too
        return str(export(Path(checkpoint), Path(folder), *settings))

    def open(
        self, runtime: str, file: str, config: dict[str, Any], passes: int, nms: bool, photo: list[Any] | None = None
    ) -> None:
        """Load a file into a runtime, check that it computes, and warm up; `photo` are the settings of `build_pipeline`."""
        self.model = RUNTIMES[runtime].open(Path(file), InferenceConfig(**config))
        require_sound_outputs(self.model, nms=nms)
        self.pipeline = None
        if photo:
            from ghost_yolo.bench.end_to_end import build_pipeline

            self.pipeline = build_pipeline(self.model, Path(photo[0]), *photo[1:])
        self.time(passes)

    def time(self, passes: int) -> dict[str, Any]:
        """Time forward passes, after an untimed one that fills the caches.

        Returns:
            `ms`, the milliseconds of each, and `memory_mb`, the peak memory of this process so far; end to end also `parts`,
            those of letterbox, network and NMS, of which `ms` are the network's.
        """
        if self.pipeline is not None:
            self.pipeline()
            parts = [self.pipeline() for _ in range(passes)]
            return {"ms": [one["network"] for one in parts], "memory_mb": peak_memory_mb(), "parts": parts}
        self.model()
        times = []
        for _ in range(passes):
            start = time.perf_counter()
            self.model()
            times.append((time.perf_counter() - start) * 1e3)
        return {"ms": times, "memory_mb": peak_memory_mb()}

    def profile_operators(self, runtime: str, file: str, config: dict[str, Any], passes: int) -> dict[str, float]:
        """Return the milliseconds of a forward pass by operator type."""
        from ghost_yolo.bench.profiler import profile_operators

        return profile_operators(runtime, Path(file), InferenceConfig(**config), passes)


def end_with_parent(parent: int) -> None:
    """End this process within a second after its parent, however that ended."""
    _kill_at_parents_end(KILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _kill_at_parents_end(number: int) -> None:
    """Let Linux send a signal, 0 for none, when the parent ends: a library may hold the interpreter's lock for long."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def _watch(parent: int) -> None:
    """End this process and its children once the parent is gone."""
    while _lives(parent):
        time.sleep(0.5)
    _kill_group(os.getpid())
    os._exit(1)


def _lives(parent: int) -> bool:
    """Return whether the parent still runs; elsewhere than on Windows an orphan gets another parent."""
    if sys.platform == "win32":
        import psutil

        return psutil.pid_exists(parent)
    return os.getppid() == parent


def serve(parent: int) -> None:
    """Answer calls until standard input ends; everything that libraries print goes to the log."""
    end_with_parent(parent)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    calls = Calls()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = [getattr(calls, name)(*arguments), None]
        except UserError as error:
            answer = [None, str(error)[:MAX_ERROR]]
        except (Exception, SystemExit) as error:  # noqa: BLE001 (any error of a runtime or of the host becomes the row's error)
            lines = str(error).strip().splitlines() or [""]
            answer = [None, f"{type(error).__name__}: {lines[0]}"[:MAX_ERROR]]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _hook.install(always=True)
    serve(int(sys.argv[1]))

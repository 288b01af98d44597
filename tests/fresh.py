"""Processes that start with the heavy libraries loaded, but with neither Ultralytics nor this package.

Most of what a fresh interpreter does in a test is to load torch, torchvision, scipy and matplotlib. A `Zygote` is a
process that has loaded them once; each run is a fork of it. Run as a script, this file is that process.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path

HEAVY = ("torch", "torchvision", "cv2", "PIL.Image", "matplotlib.pyplot", "scipy.stats", "scipy.optimize", "requests")
LATE = {"ultralytics", "ghost_yolo"}  # what the tests import, in whatever order
SUPPORTED = sys.platform == "linux"  # Windows has no fork, and on macOS a fork of a process with threads may crash


class Zygote:
    """A process to fork others from."""

    def __init__(self, *modules: str) -> None:
        """Start it; it loads the libraries, and these modules too, while the tests go on."""
        command = [sys.executable, __file__, *modules]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, arguments: list[str], cwd: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Do what `python WORDS` does there, and return what it printed."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {"arguments": arguments, "cwd": cwd, "env": env, "out": str(out), "err": str(err)}
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, *(f.read_text(encoding="utf-8") for f in (out, err)))

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def _serve() -> dict:
    """Fork for each request; return it in the child, and end the parent when there are no more."""
    for line in sys.stdin.buffer:
        child = os.fork()
        if child == 0:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)


def _enter(cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """Take over directory, environment and standard streams."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    flags = os.O_WRONLY | os.O_CREAT
    for descriptor, file, flag in ((0, os.devnull, os.O_RDONLY), (1, out, flags), (2, err, flags)):
        opened = os.open(file, flag)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (the old one has read ahead)


def _execute(arguments: list[str]) -> None:
    """Run code, a module or a script as the interpreter itself runs it."""
    kind, rest = arguments[0], arguments[1:]
    sys.path[:0] = [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path
    ]
    sys.path.insert(0, str(Path(kind).parent) if kind not in ("-c", "-m") else "")
    sys.argv = [kind, *rest[1:]] if kind in ("-c", "-m") else arguments
    if kind == "-c":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    elif kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(kind, run_name="__main__")


def _outcome(arguments: list[str]) -> int:
    """Return the exit status, with the message or the traceback printed, as at the end of an interpreter."""
    try:
        _execute(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (whatever ends it is printed)
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    """Exit without the interpreter's own end, which frees each object of the heavy libraries one by one."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    del sys.path[0]  # the folder of the tests
    with contextlib.redirect_stdout(sys.stderr):  # the answers stand alone on standard output
        for name in (*HEAVY, *sys.argv[1:]):
            importlib.import_module(name)
    assert sys.argv[1:] or not LATE & {name.partition(".")[0] for name in sys.modules}
    gc.freeze()  # pages that no child's garbage collection writes to stay shared
    request = _serve()
    arguments = request.pop("arguments")
    _enter(**request)
    _end(_outcome(arguments))

"""Two threads that import Ultralytics and this package at the same moment never wait for each other for ever."""

from __future__ import annotations

import pytest
from factories import Run

CODE = """
import faulthandler, importlib, threading
faulthandler.dump_traceback_later(120, exit=True)  # a deadlock ends with the stacks of both threads
start, errors = threading.Barrier(2), []
def load(name):
    start.wait()
    try:
        importlib.import_module(name)
    except ImportError as error:
        errors.append(error)
    except RuntimeError as error:  # importlib's own way out of a circle of locks
        assert "deadlock detected" in str(error)
        errors.append(error)
threads = [threading.Thread(target=load, args=(name,)) for name in {names!r}]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
REGISTERED = """
assert not errors, errors
import ultralytics.nn.tasks as tasks
assert "ghost_yolo.C2f_GhostBottleneck" in vars(tasks), "not registered"
"""


SECOND = """
import faulthandler, importlib, threading
from importlib.machinery import SourceFileLoader
faulthandler.dump_traceback_later(120, exit=True)
execute, errors = SourceFileLoader.exec_module, []
def exec_module(loader, module):
    if module.__name__ == "ultralytics":  # its lock is held, and nothing of it is imported yet
        waiting.start()
        waiting.join(1)
    execute(loader, module)
SourceFileLoader.exec_module = exec_module
def load(name):
    try:
        importlib.import_module(name)
    except Exception as error:
        errors.append(error)
first, waiting = [threading.Thread(target=load, args=(name,)) for name in ("ultralytics", {ours!r})]
first.start()
for thread in (first, waiting): thread.join()
"""


@pytest.mark.parametrize("ours", ["registry", "host", "blocks.ghost", "nets", "compare", "accuracy", "data.images"])
def test_a_thread_waits_for_the_host(ours: str, python: Run) -> None:
    """What is imported while another thread is at the very beginning of Ultralytics waits for it, and both succeed."""
    assert "Warning" not in python(SECOND.format(ours=f"ghost_yolo.{ours}") + REGISTERED).stderr


@pytest.mark.parametrize("ours", ["ghost_yolo.registry", "ghost_yolo.host"])
def test_both_threads_succeed(ours: str, python: Run) -> None:
    """Importing Ultralytics and a module of ours works in both threads, and the blocks are registered."""
    assert "Warning" not in python(CODE.format(names=("ultralytics", ours)) + REGISTERED).stderr


def test_no_thread_hangs(python: Run) -> None:
    """Two threads inside Ultralytics' circular imports may fail, as without this package, but both end."""
    python(CODE.format(names=("ultralytics.nn.tasks", "ghost_yolo.registry")))

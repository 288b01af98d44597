"""The commands as processes: signals, and processes that outlive their parent."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from factories import ROOT, Run

from ghost_yolo.bench.worker import Worker

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
BENCH = ["bench", "yolov8n.yaml", "--imgsz", "32", "--runtimes", "pytorch", "--rounds", "5000", "--passes", "1"]


def survivors(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Return the processes that still run after so long; nobody may reap the orphans of a container."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        processes = [each for each in processes if _runs(each)]
        if not processes:
            break
        time.sleep(0.05)
    return processes


def _runs(process: psutil.Process) -> bool:
    """Return whether a process runs."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Command:
    """A command in a process of its own, with a temporary folder of its own."""

    def __init__(self, folder: Path, *words: str | Path) -> None:
        """Start it in this folder."""
        self.folder, self.temporary, self.output = folder, folder / "temporary", b""
        self.temporary.mkdir(exist_ok=True)
        env = os.environ | {"TMPDIR": str(self.temporary), "FORCE_COLOR": "1", "COLUMNS": "100", "PYTHONWARNINGS": ""}
        program = [sys.executable, "-m", "ghost_yolo", *map(str, words)]
        self.process = subprocess.Popen(program, cwd=folder, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.children: list[psutil.Process] = []

    def wait_for(self, pattern: bytes) -> None:
        """Wait until the progress bars show this; remember the processes that then run."""
        assert self.process.stderr is not None
        while not re.search(pattern, self.output):
            more = os.read(self.process.stderr.fileno(), 1 << 16)
            assert more, self.output.decode()
            self.output += more
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: int) -> int:
        """Send a signal and return the exit status, once all processes are gone."""
        self.process.send_signal(number)
        assert self.process.stderr is not None
        self.output += self.process.stderr.read()
        self.process.stderr.close()
        status = self.process.wait()
        assert survivors(self.children, 5) == []
        return status

    @property
    def left(self) -> list[str]:
        """What lies in the temporary folder."""
        return [path.name for path in self.temporary.iterdir() if path.name.startswith("ghost")]


@posix
@pytest.mark.slow
@pytest.mark.weekly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_bench_as_ctrl_c_does(number: int, tmp_path: Path) -> None:
    """The rounds so far are written, the workers end, no temporary folder is left, and the status names the signal."""
    command = Command(tmp_path, *BENCH, "--format", "json", "-o", "out.json")
    command.wait_for(rb"Timing[^\r\n]*[1-9]\d*%")

    assert command.children and command.end(number) == 128 + number
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert 0 < row["rounds"] < 5000 and row["error"] is None and b"Traceback" not in command.output
    assert command.left == []


@posix
@pytest.mark.slow
def test_sigterm_ends_ghostify_as_ctrl_c_does(best: Path, image_folder: Path, tmp_path: Path) -> None:
    """The cached activations go, and the resume file stays and is named."""
    steps = ["--reconstruct-steps", "20", "--distill-steps", "100000"]
    block = ["--block", "C2f_GhostBottleneck", "--images", image_folder, "-o", "light.pt"]
    command = Command(tmp_path, "ghostify", best, *block, *steps)
    command.wait_for(rb"Distill")
    time.sleep(1)

    assert command.end(signal.SIGTERM) == 143
    assert command.left == [] and (tmp_path / "light.pt.part").exists() and not (tmp_path / "light.pt").exists()
    assert b"light.pt.part" in command.output and b"Traceback" not in command.output


@posix
@pytest.mark.slow
@pytest.mark.weekly
def test_a_killed_bench_leaves_no_process(tmp_path: Path) -> None:
    """Workers end with their parent, and the next start removes its folders."""
    command = Command(tmp_path, *BENCH)
    command.wait_for(rb"Timing[^\r\n]*%")
    start = time.monotonic()

    assert command.children and command.end(signal.SIGKILL) == -signal.SIGKILL
    assert time.monotonic() - start < 3 and command.left
    again = Command(tmp_path, *BENCH)
    again.wait_for(rb"Timing[^\r\n]*%")
    again.end(signal.SIGTERM)
    assert again.left == []


@posix
@pytest.mark.parametrize("linux", [True, False])
def test_a_worker_ends_with_its_parent(linux: bool, tmp_path: Path) -> None:
    """A parent that is killed takes its worker and the worker's child with it, by Linux's own means and without."""
    worker = (
        "import subprocess, sys, time; from ghost_yolo.bench import worker\n"
        f"linux = {linux}\n"
        "linux or setattr(worker, '_kill_at_parents_end', lambda number: None)\n"
        "worker.end_with_parent(int(sys.argv[1]))\n"
        "linux or subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('ready', 'w').close(); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {worker!r}, str(os.getpid())], start_new_session=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path) as started:
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        family = psutil.Process(started.pid).children(recursive=True)
        started.kill()

    assert len(family) == (1 if linux else 2) and survivors(family, 2) == []


def test_a_worker_is_closed_with_its_children(tmp_path: Path) -> None:
    """Closing twice is harmless."""
    worker = Worker(tmp_path / "log.txt", 1)
    worker.close()
    worker.close()

    assert worker.process.poll() is not None


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_status_of_a_signal(name: str, python: Run) -> None:
    """Ctrl-C's way is taken, with the status of the signal."""
    if not hasattr(signal, name) or sys.platform == "win32":
        pytest.skip("there is no such signal")
    code = (
        "import os, signal, sys, time\n"
        "from ghost_yolo.cli.process import orderly_end\n"
        f"number = signal.{name}\n"
        "with orderly_end():\n"
        "    try: os.kill(os.getpid(), number); time.sleep(9)\n"
        "    except KeyboardInterrupt: print('cleaned', flush=True); sys.exit(130)"
    )
    done = python(code, ok=False)

    assert (done.returncode, done.stdout) == (128 + getattr(signal, name), "cleaned\n")


SCRIPTS = {"train.py": "ultralytics.cfg.entrypoint", "export.py": "ghost_yolo.export.verify.export_and_verify"}


@posix
@pytest.mark.parametrize(
    "script,name", [("train.py", "SIGTERM"), ("train.py", "SIGHUP"), ("train.py", "SIGINT"), ("export.py", "SIGTERM")]
)
def test_status_of_the_scripts(script: str, name: str, python: Run, tmp_path: Path) -> None:
    """The scripts at top level end as the command does: nothing temporary is left, and no traceback is printed."""
    module, _, function = SCRIPTS[script].rpartition(".")
    code = (
        f"import os, runpy, signal, sys, time, {module} as module\n"
        "from ghost_yolo.utils.files import temporary_folder\n"
        "def work(*_, **__):\n"
        "    with temporary_folder('ghost_yolo-'):\n"
        f"        os.kill(os.getpid(), signal.{name}); time.sleep(9)\n"
        f"module.{function} = work\n"
        f"sys.argv = ['{script}', 'model=best.pt']\n"
        f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    )
    (tmp_path / "temporary").mkdir()
    done = python(code, ok=False, TMPDIR=str(tmp_path / "temporary"), fresh=True)

    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), "")
    assert not [*(tmp_path / "temporary").glob("ghost*")]

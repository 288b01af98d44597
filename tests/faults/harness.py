"""Commands that are killed at a random moment: forks of a process that has loaded everything they need."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import psutil
from factories import own_settings
from fresh import Zygote

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MODULES = (
    "ghost_yolo.cli",
    "ghost_yolo.data.bccd",
    "ghost_yolo.data.smear",
    "ghost_yolo.bench.exporting",
    "ghost_yolo.bench.runner",
    "ghost_yolo.ghostify.pipeline",
    "ghost_yolo.export.verify",
    "ghost_yolo.model.pretrained",
    "ghost_yolo.redundancy.measurements",
    "ghost_yolo.redundancy.report",
    "onnx",
    "onnxruntime",
    "timm",
    "ghost_yolo.report.page",
    "ultralytics.models.yolo.detect",
)
PATIENCE = 5  # seconds until no process of a killed command may be left
LEAD = """
import os, signal, sys, tempfile, torch
os.setsid()
torch.set_num_threads(1)  # the other cores may be busy
tempfile.tempdir = None
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
with open(os.environ["FAULTS_PID"], "w") as file:
    file.write(str(os.getpid()))
"""
COMMAND = "from ghost_yolo.cli import main; main()"


@dataclass
class Command:
    """A command under test in a folder of its own.

    Attributes:
        zygote: The process to fork from.
        folder: Working directory; the settings, the temporary folder and the process number are kept beside it.
        code: Python code of the command.
        arguments: Its arguments.
    """

    zygote: Zygote
    folder: Path
    code: str
    arguments: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the folders."""
        self.folder.mkdir(parents=True)
        self.temporary.mkdir()

    @property
    def temporary(self) -> Path:
        """Folder for temporary files."""
        return self.folder.with_name(f"{self.folder.name}-tmp")

    @property
    def pid_file(self) -> Path:
        """File that holds the number of the running process."""
        return self.folder.with_name(f"{self.folder.name}-pid")

    def run(self, before: str = "") -> subprocess.CompletedProcess[str]:
        """Run it to its end, after some code."""
        places = {"TMPDIR": str(self.temporary), "FAULTS_PID": str(self.pid_file), "FAULTS_MARK": str(self.folder)}
        env = os.environ | {"YOLO_CONFIG_DIR": str(own_settings(self.folder.parent))} | places | self.env
        return self.zygote.run(["-c", LEAD + before + self.code, *self.arguments], str(self.folder), env)

    def complete(self) -> float:
        """Run it to its end, and return how many seconds it took."""
        start = time.monotonic()
        done = self.run()
        assert done.returncode == 0, done.stderr[-4000:]
        return time.monotonic() - start

    def kill(self, number: signal.Signals, after: float) -> bool:
        """Run it and send a signal after some seconds; return whether it came before the end.

        Raises:
            AssertionError: If a process of the command is left after PATIENCE seconds, or an error was not told in one line.
        """
        self.pid_file.unlink(missing_ok=True)
        thread = threading.Thread(target=self._send, args=(number, after), daemon=True)
        thread.start()
        done = self.run()
        thread.join(after + PATIENCE)
        self.require_no_process()
        expected = (0, -number, 128 + number, *([1] if number == signal.SIGINT else []))  # 1: from the host's command
        assert done.returncode in expected, f"{number!r}: {done.returncode} {done.stderr[-3000:]}"
        return done.returncode != 0

    def _send(self, number: signal.Signals, after: float) -> None:
        """Send a signal some seconds after the process has begun."""
        end = time.monotonic() + 60
        while not self.pid_file.exists() or not self.pid_file.read_text():
            time.sleep(0.005)
            assert time.monotonic() < end, "it has not begun"
        time.sleep(after)
        try:
            os.kill(int(self.pid_file.read_text()), number)
        except ProcessLookupError:  # it was faster
            return

    def require_no_process(self) -> None:
        """Wait until no process of the command is left: of its session, or with its mark in the environment."""
        session, end = int(self.pid_file.read_text()), time.monotonic() + PATIENCE
        while left := [process for process in psutil.process_iter() if self._is_ours(process, session)]:
            assert time.monotonic() < end, f"still running: {left}"
            time.sleep(0.05)

    def _is_ours(self, process: psutil.Process, session: int) -> bool:
        """Return whether a process belongs to the command and has not ended."""
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return os.getsid(process.pid) == session or process.environ().get("FAULTS_MARK") == str(self.folder)
        except (psutil.Error, ProcessLookupError, PermissionError):
            return False


def kill_often(command: Command, result: Path, kills: int, seed: int, check: Callable[[], None]) -> str:
    """Kill a command at seeded random moments, run it to its end, and check what is there after each.

    Args:
        command: The command.
        result: What it makes last; it is removed, with all beside it, when it is there, so that the next run has work.
        kills: Number of kills.
        seed: Random seed of moments and signals.
        check: What must hold at any moment.

    Returns:
        How often it was killed and started, as printed.
    """

    def settle(*, wanted: bool) -> None:
        assert result.exists() or not wanted
        check()
        if result.exists():
            shutil.rmtree(command.folder)
            command.folder.mkdir()

    generator, killed = random.Random(seed), 0
    seconds = command.complete()
    settle(wanted=True)
    for turn in range(4 * kills):
        start = time.monotonic()
        if command.kill(SIGNALS[turn % len(SIGNALS)], generator.uniform(0, seconds)):
            killed += 1
        else:  # the first run also filled caches
            seconds = min(seconds, time.monotonic() - start)
        settle(wanted=False)
        if killed == kills:
            break
    command.complete()
    check()
    assert killed == kills, f"{killed} of {kills} kills came before the end"
    assert names_in(command.temporary) == [], "temporary files are left after the next start"
    return f"{killed} kills in {turn + 1} runs of {seconds:.1f} s"


SPLITS = "{'train': 12, 'val': 4}"
SMEAR = f"from ghost_yolo.data import smear; smear.SPLITS = {SPLITS}; smear.prepare('data')"
BCCD = "from ghost_yolo.data import bccd; bccd.prepare('data', {0: 'RBC'})"


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, hidden ones too, but for empty temporary folders.

    One that was made this moment may be another process's, so the next start leaves it.
    """
    return sorted(
        path.name for path in folder.iterdir() if path.suffix != ".tmp" or path.is_file() or any(path.iterdir())
    )


def write_voc(root: Path) -> Path:
    """Write a VOC folder of twelve photographs."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    for split in ("train", "val", "test"):
        names = [f"{split}{index}" for index in range(4)]
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))
        for name in names:
            (root / f"Annotations/{name}.xml").write_text(
                f"<annotation><object><name>RBC</name>{box}</object></annotation>"
            )
            image = np.random.RandomState(0).randint(0, 255, (480, 640, 3), np.uint8)
            cv2.imwrite(str(root / f"JPEGImages/{name}.jpg"), image)
    return root

"""Doing runs: several commands at once, each with a log, all of which go on after an interruption."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import psutil
from checks import check
from runs import Run

from ghost_yolo.errors import UserError

ROOT = Path(__file__).resolve().parents[1]  # where `cfg/` is


@dataclass
class Job:
    """A command that is running."""

    run: Run
    process: subprocess.Popen[bytes]
    log: TextIO
    start: float


def do(runs: Sequence[Run], jobs: int) -> list[str]:
    """Do what is not yet finished, stage after stage, and say what could not be done.

    Raises:
        UserError: If a folder holds another training.
        KeyboardInterrupt: All commands are then stopped; the same call goes on.
    """
    for run in runs:
        check(run)
    left = []
    for stage in sorted({run.stage for run in runs}):
        for run in runs:  # again: what it starts from may have been made anew just now
            if run.stage == stage:
                check(run)
        ready, waiting = [], [run for run in runs if run.stage == stage and not run.finished()]
        for run in waiting:
            reason = why_not(run)
            if reason:
                left.append(f"{run.name}: {reason}")
                print(left[-1], flush=True)
            else:
                ready.append(run)
        left += at_once(ready, jobs)
    return left


def why_not(run: Run) -> str:
    """Return why a run cannot be begun now, "" if it can."""
    if run.needs and not run.needs.finished():
        return f"needs {run.needs.name}, which has not ended"
    other = who_runs(run)
    return f"process {other} is at it; run the same command again when it has ended" if other else ""


def who_runs(run: Run) -> int | None:
    """Return the process that trains into the run's folder already, if there is one."""
    named = {f"name={run.name}", f"project={run.folder.parent}"}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if named <= set(words) or f"model={run.last}" in words or ("ghostify" in words and str(run.file) in words):
            return int(process.pid)
    return None


def at_once(runs: Sequence[Run], jobs: int) -> list[str]:
    """Do runs that do not need each other, a few at once, and say which failed."""
    waiting, active, failed = list(runs), list[Job](), list[str]()
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                active.append(begin(waiting.pop(0)))
            time.sleep(0.2)
            for job in [job for job in active if job.process.poll() is not None]:
                active.remove(job)
                failed += ended(job)
    finally:
        for job in active:  # on Ctrl-C the terminal has told them, too; after an error nobody has
            if job.process.poll() is None:
                job.process.send_signal(signal.SIGINT)
        for job in active:
            job.process.wait()
            job.log.close()
    return failed


def begin(run: Run) -> Job:
    """Start the command of a run."""
    run.folder.mkdir(parents=True, exist_ok=True)
    if not run.is_training:  # the report of a checkpoint that was never written
        for suffix in (".json", ".png"):
            run.file.with_suffix(suffix).unlink(missing_ok=True)
    words = run.command()
    program = shutil.which(words[0], path=str(Path(sys.executable).parent)) or shutil.which(words[0])
    if program is None:
        raise UserError(f"there is no command {words[0]!r} beside {sys.executable}; install the package there")
    log = (run.folder / "log.txt").open("a", encoding="utf-8")
    print(f"{'goes on' if words != run.words else 'begins'}: {run.name} (log: {log.name})", flush=True)
    process = subprocess.Popen([program, *words[1:]], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    return Job(run, process, log, time.perf_counter())


def ended(job: Job) -> list[str]:
    """Say how a command ended; a failure is also returned."""
    job.log.close()
    minutes = (time.perf_counter() - job.start) / 60
    if job.process.returncode == 0 and job.run.finished():
        print(f"done: {job.run.name}, {minutes:.1f} min", flush=True)
        return []
    lines = Path(job.log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
    failure = f"{job.run.name}: exit {job.process.returncode}: {lines[-1]} (log: {job.log.name})"
    print(failure, flush=True)
    return [failure]

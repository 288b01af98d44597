"""Time models against each other: same runtime and precision, interleaved round by round, each in its own process."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ghost_yolo.bench.plan import Candidate, Plan, Subject, candidates_of
from ghost_yolo.bench.runtimes import RUNTIMES, file_mb, runtime_of
from ghost_yolo.bench.worker import Worker
from ghost_yolo.errors import UserError, WorkerError
from ghost_yolo.utils import system
from ghost_yolo.utils.console import progress

INTERRUPTED = "interrupted before its first round"
WARMUP = 3  # forward passes before the first round


@dataclass(frozen=True)
class Measured:
    """What came of a plan, complete or not."""

    plan: Plan
    candidates: list[Candidate]
    conditions: dict[str, Any]
    versions: dict[str, str]
    interrupted: bool

    @property
    def failed(self) -> list[str]:
        """Why rows could not be measured, each reason once."""
        reasons: dict[str, list[str]] = {}
        for row in self.candidates:
            if row.failed:
                reasons.setdefault(row.failed, []).append(row.subject.name if row.subject.error else row.title)
        return [f"{'; '.join(dict.fromkeys(rows))}: {reason}" for reason, rows in reasons.items()]


def bench(plan: Plan) -> Measured:
    """Measure what a plan says. What fails is a row with its error; Ctrl-C ends it with what there is.

    Raises:
        UserError: If the plan itself cannot be.
    """
    plan.check()
    threads = plan.threads or system.default_threads()
    conditions = system.conditions(plan.device, threads)
    with _folder(plan.keep) as folder, _folder(None) as logs:
        candidates = candidates_of(plan, folder)
        interrupted = False
        try:
            _make_files(plan, candidates, threads, logs)
            for group in _groups(candidates):
                _time(plan, group, threads, logs)
        except KeyboardInterrupt:
            interrupted = True
    for candidate in candidates:
        if not candidate.times and not candidate.failed:
            candidate.error = INTERRUPTED
    kinds = list(dict.fromkeys(candidate.kind for candidate in candidates))
    candidates.sort(key=lambda candidate: kinds.index(candidate.kind))  # side by side what is held against each other
    return Measured(plan, candidates, conditions, system.versions(), interrupted)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Yield a folder as an absolute path; a temporary one where none is to be kept."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="ghost-yolo-bench-") as folder:
        yield Path(folder).resolve()


def _make_files(plan: Plan, candidates: list[Candidate], threads: int, logs: Path) -> None:
    """Build or load every model, then export it for every row. One process does it all, and a new one after a crash."""
    subjects = list({id(row.subject): row.subject for row in candidates}.values())
    with closing(Worker(logs / "export.log", threads)) as worker:
        for subject in progress(subjects, "Preparing"):
            _prepare(plan, subject, subjects, worker)
        for row in progress(candidates, "Exporting"):
            if not row.failed:
                _export(plan, row, worker)


def _prepare(plan: Plan, subject: Subject, subjects: list[Subject], worker: Worker) -> None:
    """Learn what a model is; it must do the same task as the first, at the size asked for."""
    try:
        facts = worker.call("prepare", subject.name, subject.folder, plan.nc, plan.imgsz)
    except WorkerError as error:
        subject.error = str(error)
        return
    first = next((other for other in subjects if other.facts), None)
    if first and facts["task"] != first.facts["task"]:
        subject.error = f"its task is {facts['task']}, that of {first.name} is {first.facts['task']}: not comparable"
        return
    size = facts.get("imgsz", [plan.imgsz]), facts.get("batch", plan.batch)
    if not facts.get("dynamic") and (set(size[0]) != {plan.imgsz} or size[1] != plan.batch):
        sides = ",".join(map(str, size[0]))
        subject.error = f"it was exported for imgsz={sides} and batch={size[1]}; give --imgsz and --batch to match"
    subject.facts = facts


def _export(plan: Plan, row: Candidate, worker: Worker) -> None:
    """Set the file that the row's runtime opens."""
    facts, runtime = row.subject.facts, RUNTIMES[row.runtime]
    ready = bool(runtime_of(row.subject.name)) or not runtime.format
    row.precision = row.precision or facts["precision"]
    try:
        runtime.require(row.precision, exporting=not runtime_of(row.subject.name))
        folder = row.subject.folder / f"{row.runtime}-{row.precision}"
        how = (row.runtime, row.precision, plan.imgsz, plan.batch, _dataset(plan.data))
        row.file = Path(facts["file"] if ready else worker.call("export", facts["file"], folder, *how))
        row.file_mb = facts["file_mb"] if not runtime.format else file_mb(row.file)
    except UserError as error:
        row.error = str(error)


def _dataset(data: str) -> str:
    """Return a path that holds in any folder; a bare name that is no file here is the host's own."""
    return str(Path(data).resolve()) if Path(data).is_file() else data


def _groups(candidates: list[Candidate]) -> list[list[Candidate]]:
    """Return the rows that are held against each other, in the order given."""
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for row in candidates:
        if not row.failed:
            groups.setdefault((row.runtime, row.precision), []).append(row)
    return list(groups.values())


def _time(plan: Plan, group: list[Candidate], threads: int, logs: Path) -> None:
    """Time the rows of a group in turn; the order of each round is drawn anew, and only one computes at a time."""
    order = random.Random(0)
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker(logs / "run.log", threads))) for _ in group]
        running = [
            pair
            for pair in zip(group, workers, strict=True)
            if _call(pair, "open", *_how(plan, pair[0], threads), WARMUP)
        ]
        for _ in progress(range(plan.rounds), f"Timing {group[0].kind}"):
            order.shuffle(running)
            running = [pair for pair in running if _turn(pair, plan.passes)]
        for pair in running if plan.profile else ():
            _profile(plan, pair, threads)


def _how(plan: Plan, row: Candidate, threads: int) -> tuple[Any, ...]:
    """Return runtime, file and set-up as a worker takes them."""
    return row.runtime, row.file, asdict(row.setup(plan, threads))


def _call(pair: tuple[Candidate, Worker], name: str, *arguments: Any) -> bool:
    """Call a row's process and return whether it went well; else the row keeps the error."""
    row, worker = pair
    try:
        worker.call(name, *arguments)
    except WorkerError as error:
        row.error = str(error)
    return row.error is None


def _turn(pair: tuple[Candidate, Worker], passes: int) -> bool:
    """Give a row its turn of a round and return whether it went well."""
    row, worker = pair
    try:
        said = worker.call("time", passes)
    except WorkerError as error:
        row.error = f"{error}, after {len(row.times)} rounds"
        return False
    row.times.append(median(said["ms"]))
    row.memory_mb = said["memory_mb"]
    return True


def _profile(plan: Plan, pair: tuple[Candidate, Worker], threads: int) -> None:
    """Set where the time of a row goes."""
    row, worker = pair
    try:
        row.operators = worker.call("operators", *_how(plan, row, threads), max(plan.passes, 3))
    except WorkerError as error:
        row.unprofiled = str(error)

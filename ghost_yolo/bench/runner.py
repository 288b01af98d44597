"""Time models against each other: same runtime and precision, interleaved round by round, one process for each model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from ghost_yolo.bench.plan import BenchPlan, ModelInfo
from ghost_yolo.bench.results import BenchResult, BenchRow, add_statistics
from ghost_yolo.bench.runtimes import RUNTIMES, InferenceConfig, file_mb, runtime_of
from ghost_yolo.bench.worker import Worker
from ghost_yolo.errors import UserError, WorkerError
from ghost_yolo.utils import system
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.files import temporary_folder

INTERRUPTED = "interrupted before its first round"
WARMUP = 3  # forward passes before the first round


@dataclass
class _Job:
    """A row being measured, with what only the runner needs.

    Attributes:
        row: The row.
        folder: Folder of the model's checkpoint and exports.
        exported: Whether the model was given as an exported file.
        info: What the model is, once prepared.
        file: File or folder that the runtime opens, once exported.
        worker: Process that runs the model while its group is timed.
    """

    row: BenchRow
    folder: Path
    exported: bool
    info: ModelInfo | None = None
    file: Path | None = None
    worker: Worker | None = None

    def call(self, name: str, *arguments: object) -> object:
        """Call the row's process; a failure becomes the row's error."""
        assert self.worker is not None
        try:
            return self.worker.call(name, *arguments)
        except WorkerError as error:
            self.row.error = f"{error}, after {len(self.row.times)} rounds" if self.row.times else str(error)
            return None

    def pipeline(self, photo: Path | None) -> list[object] | None:
        """Return the settings of letterbox and NMS around the model; None where only the network is timed."""
        assert self.info is not None
        info = self.info
        return [photo.resolve(), info.task, info.nc, info.channels, info.kpt_shape or ()] if photo else None

    def inference(self) -> tuple[str, Path | None, dict[str, object]]:
        """Return runtime, file and configuration as the process takes them."""
        row = self.row
        assert self.info is not None
        config = InferenceConfig(row.batch, row.imgsz, self.info.channels, row.precision, row.device, row.threads)
        return row.runtime, self.file, asdict(config)


def bench(plan: BenchPlan) -> BenchResult:
    """Measure the models of a plan. A failure becomes the error of its row; Ctrl-C ends the run with the rounds so far.

    Raises:
        UserError: If a setting of the plan is out of its range.
    """
    plan.validate()
    plan = replace(plan, threads=plan.threads or system.default_threads())
    conditions = system.conditions(plan.device, plan.threads)
    conditions |= {name: getattr(plan, name) for name in ("imgsz", "batch", "rounds", "passes")}
    conditions |= {"photograph": plan.photo.name} if plan.photo else {}
    conditions |= {"ratios": "across runtimes"} if plan.mixed else {}
    interrupted = False
    with _folder(plan.keep) as folder, _folder(None) as logs:
        jobs = _jobs(plan, folder)
        try:
            _create_files(plan, jobs, logs)
            for group in _groups(jobs, mixed=plan.mixed):
                _time(plan, group, logs)
        except KeyboardInterrupt:
            interrupted = True
    return BenchResult(_finish(plan, jobs), conditions, system.runtime_versions(), interrupted, plan.unavailable)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Yield an absolute path of a folder to keep, or of a temporary one."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with temporary_folder("ghost-yolo-bench-") as folder:
        yield folder.resolve()


def _jobs(plan: BenchPlan, folder: Path) -> list[_Job]:
    """Return a job for each model, runtime and precision; the precision of an exported file is not known yet."""
    jobs = []
    for number, name in enumerate(plan.models, 1):
        own_runtime, subfolder = runtime_of(name), folder / f"{number}-{Path(name).stem}"
        for runtime, precision in [(own_runtime, "")] if own_runtime else plan.combinations:
            row = BenchRow(name, "", None, plan.imgsz, plan.batch, runtime, precision, plan.device, plan.threads)
            jobs.append(_Job(row, subfolder, exported=bool(own_runtime)))
    return jobs


def _create_files(plan: BenchPlan, jobs: list[_Job], logs: Path) -> None:
    """Build or load every model, then export it for every row, all in one process; a crash starts a new one."""
    first: tuple[str, str] | None = None  # name and task of the first model that could be prepared
    with closing(Worker(logs / "export.log", plan.threads)) as worker:
        for name in progress(plan.models, "Preparing"):
            info = _prepare(plan, [job for job in jobs if job.row.model == name], first, worker)
            if info and first is None:
                first = name, info.task
        for job in progress(jobs, "Exporting"):
            if not job.row.error:
                _export(plan, job, worker)


def _prepare(plan: BenchPlan, jobs: list[_Job], first: tuple[str, str] | None, worker: Worker) -> ModelInfo | None:
    """Prepare one model and describe it in its rows; None where that failed.

    Args:
        plan: The plan.
        jobs: All jobs of the model.
        first: Name and task of the first model.
        worker: Process that prepares the model.
    """
    info, name = None, jobs[0].row.model
    try:
        info = ModelInfo(**worker.call("prepare", name, jobs[0].folder, plan.nc, plan.imgsz))
        error = info.mismatch(plan)
        if first and info.task != first[1]:
            error = f"its task is {info.task}, that of {first[0]} is {first[1]}: not comparable"
    except WorkerError as failure:
        error = str(failure)
    for job in jobs:
        job.info, job.row.error = info, error or None
        if info and not error:
            job.row.precision = job.row.precision or info.precision
            job.row.scale, job.row.nc, job.row.gflops = info.scale, info.nc, info.gflops
    return info


def _export(plan: BenchPlan, job: _Job, worker: Worker) -> None:
    """Set the file that the row's runtime opens, and its size."""
    row, info, runtime = job.row, job.info, RUNTIMES[job.row.runtime]
    assert info is not None
    try:
        runtime.require(row.precision, exporting=not job.exported)
        if job.exported or not runtime.format:
            job.file = Path(info.file)
        else:
            folder, data = job.folder / f"{row.runtime}-{row.precision}", _dataset(plan.data)
            job.file = Path(
                worker.call("export", info.file, folder, row.runtime, row.precision, row.imgsz, row.batch, data)
            )
        row.file_mb = file_mb(job.file) if runtime.format else info.file_mb
    except UserError as error:
        row.error = str(error)


def _dataset(data: str) -> str:
    """Return a path that is valid in any folder; a bare name that is no file here is one of the host's datasets."""
    return str(Path(data).resolve()) if Path(data).is_file() else data


def _groups(jobs: list[_Job], *, mixed: bool) -> list[list[_Job]]:
    """Return the jobs that are timed against each other, without those that failed."""
    groups: dict[str, list[_Job]] = {}
    for job in jobs:
        if not job.row.error:
            groups.setdefault("" if mixed else job.row.backend, []).append(job)
    return list(groups.values())


def _time(plan: BenchPlan, group: list[_Job], logs: Path) -> None:
    """Time the models of a group round by round, in a new random order each round; only one computes at a time."""
    order = random.Random(0)
    with ExitStack() as stack:
        for job in group:
            job.worker = stack.enter_context(closing(Worker(logs / "run.log", plan.threads)))
            job.call("open", *job.inference(), WARMUP, job.info is not None and job.info.nms, job.pipeline(plan.photo))
        running = _running(group)
        for _ in progress(range(plan.rounds), f"Timing {'all' if plan.mixed else group[0].row.backend}"):
            order.shuffle(running)
            for job in running:
                _time_round(job, plan.passes)
            running = _running(running)
        for job in running if plan.profile else ():
            _profile(job, max(plan.passes, 3))


def _running(jobs: Sequence[_Job]) -> list[_Job]:
    """Return the jobs that have not failed."""
    return [job for job in jobs if not job.row.error]


def _time_round(job: _Job, passes: int) -> None:
    """Add the time of one round to a row."""
    answer = job.call("time", passes)
    if isinstance(answer, dict):
        job.row.times.append(median(answer["ms"]))
        job.row.peak_memory_mb = answer["memory_mb"]
        parts = answer.get("parts", [])
        for name in parts[0] if parts else ():
            job.row.parts.setdefault(name, []).append(median(one[name] for one in parts))


def _profile(job: _Job, passes: int) -> None:
    """Profile a model by operator type."""
    assert job.worker is not None
    try:
        job.row.operators = job.worker.call("profile_operators", *job.inference(), passes)
    except WorkerError as error:
        job.row.profile_error = str(error)


def _finish(plan: BenchPlan, jobs: list[_Job]) -> list[BenchRow]:
    """Return the rows with their figures, those of one runtime and precision side by side."""
    rows = [job.row for job in jobs]
    for row in rows:
        if not row.times and not row.error:
            row.error = INTERRUPTED
    if not plan.mixed:
        backends = list(dict.fromkeys(row.backend for row in rows))
        rows.sort(key=lambda row: backends.index(row.backend))
    add_statistics(rows, plan.models[0], mixed=plan.mixed)
    return rows

"""Savings of each option, one row replaced by one block: GFLOPs by counting, or latency by `ghost-yolo bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from ghost_yolo import host
from ghost_yolo.bench import BenchPlan, BenchRow, bench
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.cost import model_cost, target_costs
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.student import Candidate, SwapPlan, build_student
from ghost_yolo.registry import PREFIX
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.files import temporary_folder

GROUP_SIZE = 4  # models timed beside the teacher: each is a process with its model in memory
LATENCIES = "latencies"  # names in the run state
SELECTED_LATENCY = "selected latency"
OptionKey = tuple[int, str]  # row and module name


@dataclass(frozen=True)
class Saving:
    """Saving of one option.

    Attributes:
        amount: GFLOPs or milliseconds; negative if the option costs more.
        interval: 95 % confidence interval of milliseconds; None for GFLOPs, which are exact.
    """

    amount: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Savings:
    """Cost of the teacher and the savings of all options.

    Attributes:
        unit: GFLOPs, or ms in a runtime.
        total: Cost of the teacher.
        options: Savings by row and module name.
    """

    unit: str
    total: float
    options: Mapping[OptionKey, Saving]


@dataclass(frozen=True)
class Latency:
    """Latency of a model and of the teacher, timed in the same rounds.

    Attributes:
        row: Row of the model; its ratio is to the teacher.
        teacher: Row of the teacher.
        conditions: Machine, workload and versions.
    """

    row: BenchRow
    teacher: BenchRow
    conditions: Mapping[str, Any]

    @property
    def ratio(self) -> float:
        """Median ratio to the teacher's latency."""
        return _measured(self.row.ratio)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the ratio."""
        return _measured(self.row.ratio_low), _measured(self.row.ratio_high)

    @property
    def teacher_ms(self) -> float:
        """Median milliseconds of the teacher."""
        return _measured(self.teacher.median_ms)

    def to_dict(self) -> dict[str, Any]:
        """Return the latency as plain values."""
        return {"row": self.row.to_dict(), "teacher": self.teacher.to_dict(), "conditions": dict(self.conditions)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Latency:
        """Return the latency that `to_dict` wrote."""
        return cls(BenchRow.from_dict(values["row"]), BenchRow.from_dict(values["teacher"]), values["conditions"])


def _measured(figure: float | None) -> float:
    """Return a figure of a row that was timed."""
    assert figure is not None, "rows that could not be timed are errors, and there are enough rounds for an interval"
    return figure


def measure_savings(run: GhostifyRun, candidates: Sequence[Candidate]) -> Savings:
    """Return the savings of all options of the candidates; measured latencies are kept in the run state."""
    cost, imgsz = run.config.settings.cost, run.config.settings.imgsz
    if cost == "gflops":
        return Savings("GFLOPs", model_cost(run.teacher, imgsz).gflops, count_savings(run.teacher, candidates, imgsz))
    latencies = time_options(run, [candidate.plan for candidate in candidates])
    total = median(latency.teacher_ms for latency in latencies.values())  # of all groups, as one may be an outlier
    return Savings(
        f"ms in {RUNTIMES[cost].title}", total, {key: time_saving(value, total) for key, value in latencies.items()}
    )


def time_saving(latency: Latency, total: float) -> Saving:
    """Return the saving in milliseconds of an option, relative to the teacher's latency `total`."""
    low, high = latency.interval
    return Saving(total * (1 - latency.ratio), (total * (1 - high), total * (1 - low)))


def count_savings(teacher: HostModel, candidates: Sequence[Candidate], imgsz: int) -> dict[OptionKey, Saving]:
    """Return the GFLOPs that each option saves."""
    targets, savings = candidates[0].targets, {}
    before = target_costs(teacher, targets, imgsz)
    for candidate in candidates:
        after = target_costs(candidate.model, targets, imgsz)
        for row, block in candidate.plan.items():
            saved = (b.gflops - a.gflops for t, b, a in zip(targets, before, after, strict=True) if t.row == row)
            savings[row, block] = Saving(sum(saved))
    return savings


def time_options(run: GhostifyRun, plans: Sequence[SwapPlan]) -> dict[OptionKey, Latency]:
    """Return the latency of the teacher with one option each, timed in small groups with the teacher to bound the memory.

    The run state is updated after each group. New blocks have random weights: the latency depends on the architecture only.
    """
    keys = list(dict.fromkeys((row, block) for plan in plans for row, block in sorted(plan.items())))
    known = run.state.results.get(LATENCIES, {})
    latencies = {key: Latency.from_dict(values) for key, values in known.items()}
    missing = [key for key in keys if key not in latencies]
    for group in (missing[i : i + GROUP_SIZE] for i in range(0, len(missing), GROUP_SIZE)):
        plans_by_name = {f"{row}-{block.removeprefix(PREFIX)}": {row: block} for row, block in group}
        latencies |= dict(zip(group, time_plans(run, plans_by_name), strict=True))
        run.state.add(LATENCIES, {key: value.to_dict() for key, value in latencies.items()})
    return latencies


def time_selection(run: GhostifyRun, plan: SwapPlan) -> Latency:
    """Return the latency of a whole selection, to verify the sum of the savings; it is timed once."""
    if SELECTED_LATENCY not in run.state.results:
        (latency,) = time_plans(run, {"selected": plan})
        run.state.add(SELECTED_LATENCY, latency.to_dict())
    return Latency.from_dict(run.state.results[SELECTED_LATENCY])


def time_plans(run: GhostifyRun, plans: Mapping[str, SwapPlan]) -> list[Latency]:
    """Time the students of plans against the teacher: one image, fp32, on the CPU.

    Args:
        run: The run; its teacher is timed from the checkpoint as given.
        plans: Plan by name.

    Raises:
        UserError: If a model cannot be exported or run.
        KeyboardInterrupt: If the benchmark was interrupted; the rounds so far are too few.
    """
    settings = run.config.settings
    with temporary_folder("ghost-yolo-students-") as folder:
        files = [write_student(run.teacher, plan, folder / f"{name}.pt") for name, plan in plans.items()]
        models = (str(Path(run.config.model).resolve()), *map(str, files))
        result = bench(
            BenchPlan(models, (settings.cost,), imgsz=settings.imgsz, threads=settings.threads, rounds=settings.rounds)
        )
    if result.interrupted:
        raise KeyboardInterrupt
    rows = [replace(row, model=Path(row.model).stem) for row in result.rows]
    if failed := [f"{row.model}: {row.error}" for row in rows if row.error]:
        raise UserError(
            f"--cost {settings.cost}: {'; '.join(failed)}. Remove the block from --block, or give another --cost"
        )
    conditions = result.conditions | result.versions
    return [Latency(row, rows[0], conditions) for row in rows[1:]]


def write_student(teacher: HostModel, plan: SwapPlan, file: Path) -> Path:
    """Write the checkpoint of a plan's student, and return its path."""
    student = build_student(teacher, plan)
    host.save(student, file, {"task": host.task_of(student)})
    return file

"""What each word saves in each row, each alone in the trained model: GFLOPs by counting, or milliseconds by `ghost-yolo bench`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from ghost_yolo import host
from ghost_yolo.bench import BenchPlan, bench
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.cost import cost_of_model, cost_of_places
from ghost_yolo.ghostify.state import RunState
from ghost_yolo.ghostify.student import student_of, targets_of
from ghost_yolo.registry import PREFIX

COSTS = ("gflops", *RUNTIMES)
TOGETHER = 4  # models that are timed beside the trained one: each is a process with its model in memory
TRAINED = "trained model"


@dataclass(frozen=True)
class Saving:
    """What the model costs less by a word in a row.

    Attributes:
        amount: GFLOPs or milliseconds; below 0 where the word costs more.
        interval: 95 % confidence interval of milliseconds; None for GFLOPs, which are counted.
    """

    amount: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Savings:
    """What the trained model costs, in which unit, and what is saved by row and word."""

    unit: str
    total: float
    each: Mapping[tuple[int, str], Saving]


@dataclass(frozen=True)
class Timed:
    """A model timed against the trained one, in the same rounds.

    Attributes:
        name: What was timed.
        ms: Median milliseconds of a forward pass.
        trained_ms: The same of the trained model.
        ratio: The first by the second, paired round by round, median.
        low, high: Its 95 % confidence interval.
        conditions: Machine and set-up.
    """

    name: str
    ms: float
    trained_ms: float
    ratio: float
    low: float
    high: float
    conditions: Mapping[str, str | int | float]


def require_cost(cost: str, budget: float | None) -> None:
    """Raise an error, before any work, for a cost that there is not, or that has no budget, or whose runtime is not installed."""
    if cost not in COSTS:
        raise UserError(f"--cost {cost}: give one of {', '.join(COSTS)}")
    if cost in RUNTIMES and budget is None:
        raise UserError(f"--cost {cost} says of what --budget is a share; give a budget, too, such as --budget 0.7")
    if cost in RUNTIMES:
        RUNTIMES[cost].require("fp32")


def savings_of(teacher: Any, plans: Sequence[Mapping[int, str]], models: Sequence[Any], part: RunState) -> Savings:
    """Return what each word saves in each row; what was timed is kept in the part file, and not timed again.

    Args:
        teacher: The trained model.
        plans: Row to word, for each candidate; the same rows.
        models: What `student_of` makes of each.
        part: Its settings say `cost` and `imgsz`.
    """
    cost, imgsz = part.settings["cost"], part.settings["imgsz"]
    if cost == "gflops":
        return Savings("GFLOPs", cost_of_model(teacher, imgsz).gflops, counted(teacher, plans, models, imgsz))
    timed = time_all(teacher, plans, part)
    total = median(row.trained_ms for row in timed.values())  # of all groups: one of them may have had a bad minute
    amounts = {key: [total * (1 - ratio) for ratio in (t.ratio, t.high, t.low)] for key, t in timed.items()}
    return Savings(
        f"ms in {RUNTIMES[cost].title}", total, {key: Saving(amount, (a, b)) for key, (amount, a, b) in amounts.items()}
    )


def counted(
    teacher: Any, plans: Sequence[Mapping[int, str]], models: Sequence[Any], imgsz: int
) -> dict[tuple[int, str], Saving]:
    """Return the GFLOPs that each word saves in each row."""
    places, found = targets_of(models[0], plans[0]), {}
    before = cost_of_places(teacher, places, imgsz)
    for planned, model in zip(plans, models, strict=True):
        after = cost_of_places(model, places, imgsz)
        for row, word in planned.items():
            each = (b.gflops - a.gflops for place, b, a in zip(places, before, after, strict=True) if place.row == row)
            found[row, word] = Saving(sum(each))
    return found


def time_all(teacher: Any, plans: Sequence[Mapping[int, str]], part: RunState) -> dict[tuple[int, str], Timed]:
    """Return the times of every word in every row, in groups of a few with the trained model in each, so that memory is bounded.

    The part file grows by each group. New blocks have drawn weights: the time is that of the architecture.
    """
    wanted = list(dict.fromkeys((row, word) for planned in plans for row, word in sorted(planned.items())))
    timed = {key: Timed(**row) for key, row in part.done.get("times", {}).items()}
    left = [key for key in wanted if key not in timed]
    for group in (left[i : i + TOGETHER] for i in range(0, len(left), TOGETHER)):
        models = ((f"{row}-{word.removeprefix(PREFIX)}", student_of(teacher, {row: word})) for row, word in group)
        rows = time_against(teacher, models, part)
        timed |= dict(zip(group, rows, strict=True))
        part.add("times", {key: asdict(row) for key, row in timed.items()})
    return timed


def time_whole(teacher: Any, words: Mapping[int, str], part: RunState) -> Timed:
    """Return the time of a whole set, timed once against the trained model: savings that were added are held against this."""
    if "whole time" not in part.done:
        models = [("chosen model", student_of(teacher, words))]
        (timed,) = time_against(teacher, models, part)
        part.add("whole time", asdict(timed))
    return Timed(**part.done["whole time"])


def time_against(teacher: Any, others: Iterable[tuple[str, Any]], part: RunState) -> list[Timed]:
    """Time models against the trained one by `ghost-yolo bench`: one image, fp32, on the CPU.

    Args:
        teacher: The trained model.
        others: Name and model; each is written to a file before the next is asked for.
        part: Its settings say `cost`, a word of RUNTIMES, `imgsz`, `threads` and `rounds`.

    Raises:
        UserError: If one of them cannot be exported or run.
        KeyboardInterrupt: If it was interrupted; the rounds so far are too few to choose by.
    """
    runtime, imgsz = part.settings["cost"], part.settings["imgsz"]
    turns = {key: part.settings[key] for key in ("threads", "rounds")}
    with tempfile.TemporaryDirectory(prefix="ghostify-") as folder:
        files = []
        for name, model in chain([(TRAINED, teacher)], others):  # one at a time in memory
            files.append(Path(folder) / f"{name}.pt")
            host.save(model, files[-1], {"task": host.task_of(model)})
        plan = BenchPlan(tuple(map(str, files)), (runtime,), imgsz=imgsz, **turns)
        measured = bench(plan)
    if measured.interrupted:
        raise KeyboardInterrupt
    if measured.failed:
        reasons = "; ".join(f"{Path(row.model).stem}: {row.error}" for row in measured.rows if row.error)
        raise UserError(f"--cost {runtime}: {reasons}. Leave that word out of --block, or give another --cost.")
    rows: list[Any] = list(measured.rows)  # none failed, so no figure is None
    first = rows.pop(0)
    conditions = measured.conditions | {"runtime": RUNTIMES[runtime].title, "precision": "fp32"} | measured.versions
    return [
        Timed(
            Path(row.model).stem, row.median_ms, first.median_ms, row.ratio, row.ratio_low, row.ratio_high, conditions
        )
        for row in rows
    ]

"""Rows of the table from the scores that were kept: seeds taken together, models held against stock; nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from runs import Run
from scores import Scores, file_of, interval, read

from ghost_yolo.errors import UserError
from ghost_yolo.report.sources import Group, Timed

Triple = tuple[float, float, float]  # a figure and the ends of its interval
DUELS = {  # key: what it is held against besides stock
    "ghostify-all-tune": "stock-tune",
    "ghostify-all-distil": "ghostify-all-tune",
    "ghostify-budget": "ghostify-all",
    "ghostfast": "narrow",
    "ghost": "host-ghost",
}
SAME_COST = 0.01  # most that GFLOPs of a timed model may differ from those of the trained one


@dataclass(frozen=True)
class Row:
    """A model, its seeds taken together: each figure is the mean over them.

    Attributes:
        key: What it is.
        model: As the table shows it.
        how: How it came to its weights.
        seeds: That were trained.
        parameters: Of the fused model.
        gflops: Of the fused model, one image.
        ms: Median time of a forward pass; None where it was not timed.
        time_ratio: To the first model's of the bench.
        time_interval: Its 95 % interval, by bootstrap over rounds; None for the first model.
        val: mAP50-95 on val.
        score: mAP50-95 on the split that the table is about, with its interval.
        spread: Standard deviation of that over seeds; None for one seed.
        map50: On the same split.
        difference: Of the scores, to the stock model of the same scale, from scratch; None for itself.
        ratio: The same as a ratio.
    """

    key: str
    model: str
    how: str
    seeds: list[int]
    parameters: int
    gflops: float
    ms: float | None
    time_ratio: float | None
    time_interval: tuple[float, float] | None
    val: float
    score: Triple
    spread: float | None
    map50: float
    difference: Triple | None
    ratio: Triple | None


@dataclass(frozen=True)
class Model:
    """The runs of a model with their scores, one a seed."""

    runs: Sequence[Run]
    val: Sequence[Scores]
    scores: Sequence[Scores]

    @property
    def point(self) -> float:
        """Mean mAP50-95 over seeds."""
        return fmean(scores.facts["map50_95"] for scores in self.scores)

    @property
    def draws(self) -> NDArray[np.float64]:
        """(resamples,), the same for each resample."""
        return np.mean([scores.draws[:, 0] for scores in self.scores], axis=0)


def split_of(runs: Sequence[Run]) -> str:
    """Return the split that a table is about: test where all runs have been evaluated on it."""
    return "test" if all(is_tested(run) for run in runs) else "val"


def is_tested(run: Run) -> bool:
    """Return whether the weights that were evaluated on val have been evaluated on test."""
    if not file_of(run, "test").is_file():
        return False
    return bool(read(run, "test").facts["weights"] == read(run, "val").facts["weights"])


def rows_of(runs: Sequence[Run], timed: Group | None = None) -> list[Row]:
    """Return a row a model, the best first.

    Args:
        runs: Those that were evaluated on val.
        timed: Times of the same models.
    """
    made = models_of(runs)
    rows = [row_of(model, stock_of(model, made), timed) for model in made]
    return sorted(rows, key=lambda row: -row.score[0])


def models_of(runs: Sequence[Run]) -> list[Model]:
    """Return the models of runs, their seeds taken together, with the scores that were kept."""
    split = split_of(runs)
    models: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        models.setdefault((run.key, run.model), []).append(run)
    return [Model(group, [read(run, "val") for run in group], [read(run, split) for run in group]) for group in models.values()]  # fmt: skip


def stock_of(model: Model, models: Sequence[Model]) -> Model | None:
    """Return what a model is held against: the stock one from scratch; at another scale and for itself nothing."""
    return None if model.runs[0].key == "stock" else same_seeds(model, "stock", models)


def same_seeds(model: Model, key: str, models: Sequence[Model]) -> Model | None:
    """Return the model of a key that was trained from the same seeds at the same scale, if there is one."""
    known = [(run.seed, run.scale) for run in model.runs]
    return next(
        (m for m in models if m.runs[0].key == key and [(run.seed, run.scale) for run in m.runs] == known), None
    )


@dataclass(frozen=True)
class Duel:
    """Two models held against each other: the ratio of their scores, its interval from the same resamples of both."""

    one: str
    other: str
    ratio: Triple


def duels_of(runs: Sequence[Run]) -> list[Duel]:
    """Return the questions of which the answer is not in the ratios to stock, as far as both models are there."""
    models = models_of(runs)
    found = (
        (model, same_seeds(model, DUELS[model.runs[0].key], models)) for model in models if model.runs[0].key in DUELS
    )
    return [Duel(label(a.runs[0]), label(b.runs[0]), ratio(a, b)) for a, b in found if b is not None and b.point > 0]


def label(item: Row | Run) -> str:
    """Return what a model is called: its YAML where it was trained from scratch, else its key."""
    return item.model if item.how == "from scratch" else item.key


def row_of(model: Model, stock: Model | None, timed: Group | None) -> Row:
    """Return the figures of a model."""
    run, facts = model.runs[0], model.scores[0].facts
    time = time_of(run, facts, timed)
    scores = [scores.facts["map50_95"] for scores in model.scores]
    return Row(
        key=run.key,
        model=run.model,
        how=run.how,
        seeds=[run.seed for run in model.runs],
        parameters=facts["parameters"],
        gflops=facts["gflops"],
        ms=time.median_ms if time else None,
        time_ratio=time.ratio if time else None,
        time_interval=interval_of(time),
        val=fmean(scores.facts["map50_95"] for scores in model.val),
        score=(model.point, *interval(model.draws)),
        spread=stdev(scores) if len(scores) > 1 else None,
        map50=fmean(scores.facts["map50"] for scores in model.scores),
        difference=difference(model, stock) if stock else None,
        ratio=ratio(model, stock) if stock and stock.point > 0 else None,
    )


def difference(model: Model, stock: Model) -> Triple:
    """Return how much better a model is, the interval from the same resamples of both."""
    require_same_images(model, stock)
    return (model.point - stock.point, *interval(model.draws - stock.draws))


def ratio(model: Model, stock: Model) -> Triple:
    """Return the share of the stock model's score, the interval from the same resamples of both."""
    require_same_images(model, stock)
    base = np.where(stock.draws > 0, stock.draws, np.nan)
    return (model.point / stock.point, *interval(model.draws / base))


def require_same_images(one: Model, other: Model) -> None:
    """Raise an error where two models were not evaluated on the same images: their resamples are then not the same."""
    if len({tuple(sorted(scores.names)) for scores in [*one.scores, *other.scores]}) > 1:
        raise UserError(
            f"{one.runs[0].name} and {other.runs[0].name} were evaluated on other images; remove one's scores"
        )


def interval_of(time: Timed | None) -> tuple[float, float] | None:
    """Return the interval of a ratio of times, if it has one."""
    if time is None or time.ratio_low is None or time.ratio_high is None or time.ratio_low == time.ratio_high:
        return None
    return time.ratio_low, time.ratio_high


def time_of(run: Run, facts: dict[str, Any], timed: Group | None) -> Timed | None:
    """Return the time of a model's architecture.

    Raises:
        UserError: If what was timed has other GFLOPs, at another size or number of classes, say.
    """
    wanted = Path(run.timed_as)
    for row in timed.rows if timed else ():
        same = row.model == run.timed_as or (wanted.suffix == ".pt" and Path(row.model).parts[-2:] == wanted.parts)
        if same and row.gflops and abs(row.gflops / facts["gflops"] - 1) > SAME_COST:
            raise UserError(
                f"--times: {row.model} was timed with {row.gflops:.3f} GFLOPs, and {run.name} has {facts['gflops']:.3f}. "
                f"Time it with --nc {facts['nc']} and the --imgsz of the training."
            )
        if same:
            return row
    return None

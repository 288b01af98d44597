"""Rows of the table from the scores: means over seeds and paired comparisons of models; nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from experiments.plan import Run
from experiments.scores import Scores, interval, resample
from ghost_yolo.errors import UserError
from ghost_yolo.report.sources import Group, Timed

Triple = tuple[float, float, float]  # a figure and the ends of its interval
STOCK = "stock"  # key of the model that all are compared with
SAME_COST = 0.01  # largest relative difference between the GFLOPs of a timed and a trained model


@dataclass(frozen=True)
class Row:
    """A model; each figure is the mean over its seeds.

    Attributes:
        key: Its name in the configuration.
        label: Its name in table and plot.
        how: How it came to its weights.
        seeds: Random seeds.
        parameters: Of the fused model.
        gflops: Of the fused model, one image.
        ms: Median time of a forward pass; None where it was not timed.
        time_ratio: To the first model of the bench.
        time_interval: Its 95 % interval, by bootstrap over rounds; None for the first model.
        val: mAP50-95 on val.
        score: mAP50-95 on the split of the table, with its interval.
        spread: Standard deviation of that over seeds; None for one seed.
        map50: On the same split.
        difference: Of the score to that of the stock model of the same scale; None for itself.
        ratio: The same as a ratio.
    """

    key: str
    label: str
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
class PairedComparison:
    """The ratio of the scores of two models, its interval from the same resamples of both."""

    label: str
    baseline: str
    ratio: Triple


@dataclass(frozen=True)
class Evaluated:
    """A run with its scores on val and on the split of the table, and (resamples,) of the latter."""

    run: Run
    val: Scores
    scores: Scores
    draws: NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """The runs of one model, one per seed."""

    runs: Sequence[Evaluated]

    @property
    def first(self) -> Run:
        """One of its runs."""
        return self.runs[0].run

    @property
    def variant(self) -> tuple[str, list[int]]:
        """Scale and seeds, which two models must share to be compared."""
        return self.first.scale, [evaluated.run.seed for evaluated in self.runs]

    @property
    def point(self) -> float:
        """Mean mAP50-95 over seeds."""
        return fmean(self.points)

    @property
    def points(self) -> list[float]:
        """mAP50-95 of each seed."""
        return [float(evaluated.scores.facts["map50_95"]) for evaluated in self.runs]

    @property
    def draws(self) -> NDArray[np.float64]:
        """(resamples,), the mean over seeds in each resample."""
        return np.mean([evaluated.draws for evaluated in self.runs], axis=0)


def group_seeds(runs: Sequence[Run], val: Sequence[Scores], scores: Sequence[Scores], resamples: int) -> list[Model]:
    """Return the models of runs, with the bootstrap of all of them."""
    draws = resample([kept.images for kept in scores], resamples)
    models: dict[tuple[str, str], list[Evaluated]] = {}
    for run, *rest in zip(runs, val, scores, draws, strict=True):
        models.setdefault((run.key, run.scale), []).append(Evaluated(run, *rest))
    return [Model(group) for group in models.values()]


def counterpart(model: Model, key: str, models: Sequence[Model]) -> Model | None:
    """Return the model of a key that was trained from the same seeds at the same scale, if there is one."""
    found = (other for other in models if other.first.key == key and other.variant == model.variant)
    return next(found, None)


def rows_of(models: Sequence[Model], bench: Group | None = None) -> list[Row]:
    """Return a row per model, the most accurate first."""
    stock = [None if model.first.key == STOCK else counterpart(model, STOCK, models) for model in models]
    rows = [row_of(model, other, bench) for model, other in zip(models, stock, strict=True)]
    return sorted(rows, key=lambda row: -row.score[0])


def row_of(model: Model, stock: Model | None, bench: Group | None) -> Row:
    """Return the figures of a model."""
    run, facts = model.first, model.runs[0].scores.facts
    time = time_of(run, facts["gflops"], facts["nc"], bench)
    return Row(
        key=run.key,
        label=run.label,
        how=run.how,
        seeds=model.variant[1],
        parameters=facts["parameters"],
        gflops=facts["gflops"],
        ms=time.median_ms if time else None,
        time_ratio=time.ratio if time else None,
        time_interval=time_interval(time),
        val=fmean(evaluated.val.facts["map50_95"] for evaluated in model.runs),
        score=(model.point, *interval(model.draws)),
        spread=stdev(model.points) if len(model.runs) > 1 else None,
        map50=fmean(evaluated.scores.facts["map50"] for evaluated in model.runs),
        difference=(model.point - stock.point, *interval(model.draws - stock.draws)) if stock else None,
        ratio=ratio(model, stock) if stock and stock.point > 0 else None,
    )


def ratio(model: Model, baseline: Model) -> Triple:
    """Return the ratio of two scores, its interval from the same resamples of both."""
    base = np.where(baseline.draws > 0, baseline.draws, np.nan)
    return (model.point / baseline.point, *interval(model.draws / base))


def compare_pairs(models: Sequence[Model], pairs: Mapping[str, str]) -> list[PairedComparison]:
    """Return the paired comparisons, by key and key of the baseline, as far as both models are there."""
    wanted = ((model, counterpart(model, pairs.get(model.first.key, ""), models)) for model in models)
    return [
        PairedComparison(model.first.label, baseline.first.label, ratio(model, baseline))
        for model, baseline in wanted
        if baseline is not None and baseline.point > 0
    ]


def time_of(run: Run, gflops: float, nc: int, bench: Group | None) -> Timed | None:
    """Return the time of a run's architecture.

    Raises:
        UserError: If what was timed has other GFLOPs, for example at another size or number of classes.
    """
    wanted = Path(run.timed_as)
    for row in bench.rows if bench else ():
        same = row.model == run.timed_as or (wanted.suffix == ".pt" and Path(row.model).parts[-2:] == wanted.parts)
        if same and row.gflops and abs(row.gflops / gflops - 1) > SAME_COST:
            raise UserError(
                f"{row.model} was timed with {row.gflops:.3f} GFLOPs, and {run.name} has {gflops:.3f}. "
                f"Time it with --nc {nc} and the --imgsz of the training."
            )
        if same:
            return row
    return None


def time_interval(time: Timed | None) -> tuple[float, float] | None:
    """Return the interval of a ratio of times; the first model of a bench has none."""
    if time is None or time.ratio_low is None or time.ratio_high is None or time.ratio_low == time.ratio_high:
        return None
    return time.ratio_low, time.ratio_high

"""The table of an experiment from its scores: means over seeds and paired comparisons of models; nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.plan import Dataset, Run, read_plan
from experiments.records import STOCK, PairedComparison, Row, Table, Timing, Triple, write_json
from experiments.scores import Scores
from ghost_yolo.accuracy.counts import interval, resample
from ghost_yolo.bench.results import BenchRow, group_rows
from ghost_yolo.errors import UserError
from ghost_yolo.report.sources import read_bench

SAME_COST = 0.01  # largest relative difference between the GFLOPs of a timed and a trained model


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


def write(config: Mapping[str, Any], name: str, split: str, out: Path, bench: Path | None) -> None:
    """Write the table of a data set, and beside it an accuracy record of each run for `ghost-yolo report`.

    Args:
        config: The configuration.
        name: Of the data set.
        split: `val` or `test`.
        out: The table, JSON.
        bench: JSON of `ghost-yolo bench`; its first runtime and precision are used.
    """
    plan, folder = read_plan(config), Path(config["runs"]) / name
    dataset, runs, resamples = plan.datasets[name], list(plan.runs[name].values()), int(config["resamples"])
    val, scores = ([Scores.read(folder / run.name / f"scores-{kind}.npz") for run in runs] for kind in ("val", split))
    models = group_seeds(runs, val, scores, resamples)
    shared = conditions(dataset, scores[0], resamples)
    timed = next(iter(group_rows(read_bench(bench).rows).values())) if bench else []
    timing = Timing(timed[0].backend, timed[0].workload, timed[0].model) if timed else None
    out.parent.mkdir(parents=True, exist_ok=True)
    Table(split, shared, timing, rows_of(models, timed), compare_pairs(models, plan.compare)).write(out)
    for evaluated in (evaluated for model in models for evaluated in model.runs):
        write_json(out.with_name(f"{evaluated.run.name}-{split}.json"), record_of(evaluated, dataset, shared))


def conditions(dataset: Dataset, scores: Scores, resamples: int) -> str:
    """Describe what all models share."""
    facts = scores.facts
    used = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{dataset.data}, {dataset.imgsz} x {dataset.imgsz}, {dataset.epochs} epochs from scratch, batch {dataset.batch}, "
        f"otherwise Ultralytics' defaults (optimizer auto), best epoch by Ultralytics' fitness on val; {facts['machine']}; "
        f"evaluated with {used}; {facts['split']}: {facts['images']} images, {facts['boxes']} boxes; "
        f"intervals: {resamples} resamples of the images"
    )


def record_of(evaluated: Evaluated, dataset: Dataset, shared: str) -> dict[str, Any]:
    """Return the accuracy record of a run."""
    run, facts = evaluated.run, evaluated.scores.facts
    low, high = interval(evaluated.draws)
    trained = {"model": run.weights if run.base else run.model, "data": dataset.data, "split": facts["split"]}
    trained |= {"imgsz": dataset.imgsz, "epochs": run.epochs, "seed": run.seed}
    score = {"map50_95": facts["map50_95"], "map50": facts["map50"], "map50_95_low": low, "map50_95_high": high}
    counts = {key: facts[key] for key in ("parameters", "gflops", "nc", "images", "boxes")}
    text = f"{run.how}, trained with ultralytics {facts['trained_with']}; {shared}"
    return trained | score | counts | {"how": run.how, "conditions": text}


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


def rows_of(models: Sequence[Model], timed: Sequence[BenchRow] = ()) -> list[Row]:
    """Return a row per model, the most accurate first."""
    stock = [None if model.first.key == STOCK else counterpart(model, STOCK, models) for model in models]
    rows = [row_of(model, other, timed) for model, other in zip(models, stock, strict=True)]
    return sorted(rows, key=lambda row: -row.score[0])


def row_of(model: Model, stock: Model | None, timed: Sequence[BenchRow]) -> Row:
    """Return the figures of a model."""
    run, facts = model.first, model.runs[0].scores.facts
    time = time_of(run, facts["gflops"], facts["nc"], timed)
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


def time_of(run: Run, gflops: float, nc: int, timed: Sequence[BenchRow]) -> BenchRow | None:
    """Return the time of a run's architecture.

    Raises:
        UserError: If what was timed has other GFLOPs, for example at another size or number of classes.
    """
    wanted = Path(run.timed_as)
    for row in timed:
        same = row.model == run.timed_as or (wanted.suffix == ".pt" and Path(row.model).parts[-2:] == wanted.parts)
        if same and row.gflops and abs(row.gflops / gflops - 1) > SAME_COST:
            raise UserError(
                f"{row.model} was timed with {row.gflops:.3f} GFLOPs, and {run.name} has {gflops:.3f}. "
                f"Time it with --nc {nc} and the --imgsz of the training."
            )
        if same:
            return row
    return None


def time_interval(time: BenchRow | None) -> tuple[float, float] | None:
    """Return the interval of a ratio of times; the first model of a bench has none."""
    if time is None or time.ratio_low is None or time.ratio_high is None or time.ratio_low == time.ratio_high:
        return None
    return time.ratio_low, time.ratio_high

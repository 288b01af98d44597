"""The table of an experiment from its scores: means over seeds and paired comparisons of models; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.artifacts import STOCK, Artifact, reference_deployment
from experiments.making import Making, making_of, mean_making
from experiments.pareto import fastest_rivals, with_line
from experiments.plan import Run, conversion_of, read_plan
from experiments.records import PairedComparison, RivalComparison, Row, Table, Timing, Triple, write_json
from experiments.scores import Scores
from experiments.settings import Dataset, converted
from ghost_yolo.accuracy.counts import interval, ratio_of, resample
from ghost_yolo.bench.results import BenchRow, group_rows
from ghost_yolo.errors import UserError
from ghost_yolo.report.sources import read_bench

SAME_COST = 0.01  # largest relative difference between the GFLOPs of a timed and a trained model


@dataclass(frozen=True)
class Evaluated:
    """A checkpoint or exported file with its scores on val and on the split of the table, and (resamples,) of the latter."""

    artifact: Artifact
    val: Scores
    scores: Scores
    draws: NDArray[np.float64]

    @property
    def run(self) -> Run:
        """Where its weights come from."""
        return self.artifact.run


@dataclass(frozen=True)
class Model:
    """The runs of one model in one deployment, one per seed."""

    runs: Sequence[Evaluated]

    @property
    def first(self) -> Run:
        """One of its runs."""
        return self.runs[0].run

    @property
    def artifact(self) -> Artifact:
        """The checkpoint or exported file of that run."""
        return self.runs[0].artifact

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
        bench: JSON of `ghost-yolo bench`.
    """
    plan, folder = read_plan(config), Path(config["runs"]) / name
    dataset, known, resamples = plan.datasets[name], plan.artifacts(name), int(config["resamples"])
    val, scores = ([Scores.read(folder / path / f"scores-{kind}.npz") for path in known] for kind in ("val", split))
    models = group_seeds(list(known.values()), val, scores, resamples)
    mixed_precision = converted(config.get("mixed_precision", False), "bool")
    shared = conditions(dataset, [kept.facts for kept in scores], resamples, mixed_precision=mixed_precision)
    timed, timing = times_of(bench, known.values()) if bench else ([], None)
    made = {artifact.name: making_of(artifact, plan.runs[name], folder) for artifact in known.values()}
    out.parent.mkdir(parents=True, exist_ok=True)
    rows, rivals = rows_of(models, timed, made)
    pairs = compare_pairs(models, plan.compare)
    Table(split, shared, timing, rows, pairs, reference_deployment(dataset.deploy), rivals).write(out)
    for earlier in out.parent.glob(f"*-seed*-{split}.json"):  # records, also of models that are no longer there
        earlier.unlink()
    for evaluated in (evaluated for model in models for evaluated in model.runs):
        file = f"{evaluated.artifact.name.replace('/', '-')}-{split}.json"
        write_json(out.with_name(file), record_of(evaluated, dataset, shared))


def times_of(bench: Path, artifacts: Iterable[Artifact]) -> tuple[list[BenchRow], Timing]:
    """Return the times of a bench: of checkpoints in its first runtime and precision, of exported files in their own."""
    rows = read_bench(bench).rows
    if rows[0].ratio is None:
        raise UserError(f"{bench}: {rows[0].model}, to which all times are relative, was not timed: {rows[0].error}")
    known = {artifact.file: artifact for artifact in artifacts if artifact.deployment}
    if not known:
        rows = next(iter(group_rows(rows).values()))
        return rows, Timing(rows[0].backend, rows[0].workload, rows[0].model)
    return rows, Timing("each file in its own runtime", rows[0].workload, known[rows[0].model].label)


def conditions(dataset: Dataset, known: Sequence[Mapping[str, Any]], resamples: int, *, mixed_precision: bool) -> str:
    """Describe what all models share; where they were evaluated on several machines or by several versions, those."""
    precision = " in mixed precision (bfloat16 on a CPU)" if mixed_precision else ""
    facts = known[0]
    used = [", ".join(f"{name} {version}" for name, version in one["versions"].items()) for one in known]
    machines = " and ".join(dict.fromkeys(one["machine"] for one in known))
    return (
        f"{dataset.data}, {dataset.imgsz} x {dataset.imgsz}, {dataset.epochs} epochs from scratch{precision}, "
        f"batch {dataset.batch}, otherwise Ultralytics' defaults (optimizer auto), best epoch by Ultralytics' fitness on val; {machines}; "
        f"evaluated with {' and with '.join(dict.fromkeys(used))}; {facts['split']}: {facts['images']} images, {facts['boxes']} boxes; "
        f"intervals: {resamples} resamples of the images"
    )


def record_of(evaluated: Evaluated, dataset: Dataset, shared: str) -> dict[str, Any]:
    """Return the accuracy record of a run."""
    run, facts = evaluated.run, evaluated.scores.facts
    low, high = interval(evaluated.draws)
    artifact = evaluated.artifact
    model = artifact.file if artifact.deployment or run.base or run.teacher else run.model
    trained = {"model": model, "data": dataset.data, "split": facts["split"]}
    trained |= {"imgsz": dataset.imgsz, "epochs": run.epochs, "seed": run.seed}
    score = {"map50_95": facts["map50_95"], "map50": facts["map50"], "map50_95_low": low, "map50_95_high": high}
    counts = {key: facts[key] for key in ("parameters", "gflops", "nc", "images", "boxes")}
    text = f"{run.how}, trained with ultralytics {facts['trained_with']}; {shared}"
    return trained | score | counts | {"how": run.how, "conditions": text}


def group_seeds(
    artifacts: Sequence[Artifact], val: Sequence[Scores], scores: Sequence[Scores], resamples: int
) -> list[Model]:
    """Return the models of checkpoints or exported files, with the bootstrap of all of them."""
    draws = resample([kept.images for kept in scores], resamples)
    models: dict[tuple[str, str, str], list[Evaluated]] = {}
    for artifact, *rest in zip(artifacts, val, scores, draws, strict=True):
        key = (artifact.run.key, artifact.run.scale, artifact.deployment)
        models.setdefault(key, []).append(Evaluated(artifact, *rest))
    return [Model(group) for group in models.values()]


def counterpart(model: Model, key: str, models: Sequence[Model], deployment: str) -> Model | None:
    """Return the model of a key and deployment that was trained from the same seeds at the same scale, if there is one."""
    named = (other for other in models if (other.first.key, other.artifact.deployment) == (key, deployment))
    return next((other for other in named if other.variant == model.variant), None)


def rows_of(
    models: Sequence[Model], timed: Sequence[BenchRow] = (), made: Mapping[str, Making] | None = None
) -> tuple[list[Row], list[RivalComparison]]:
    """Return a row per model and deployment, the most accurate first, and the fastest rivals of the converted ones."""
    reference = reference_deployment(model.artifact.deployment for model in models)
    rows = []
    for model in models:
        stock = counterpart(model, STOCK, models, reference)
        rows.append(row_of(model, None if stock is model else stock, timed, made or {}))
    draws = [model.draws for model in models]
    runs = {model.first.name: model.first for model in models}
    rivals = fastest_rivals(rows, draws, [conversion_of(model.first, runs) is not None for model in models])
    return sorted(with_line(rows, draws), key=lambda row: -row.score[0]), rivals


def row_of(model: Model, stock: Model | None, timed: Sequence[BenchRow], made: Mapping[str, Making]) -> Row:
    """Return the figures of a model."""
    run, facts = model.first, model.runs[0].scores.facts
    time = time_of(model.artifact, facts["gflops"], facts["nc"], timed)
    makings = [made[evaluated.artifact.name] for evaluated in model.runs if evaluated.artifact.name in made]
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
        scale=run.scale,
        deployment=model.artifact.deployment,
        file=model.artifact.file,
        **mean_making(makings),
    )


def ratio(model: Model, baseline: Model) -> Triple:
    """Return the ratio of two scores, its interval from the same resamples of both."""
    return ratio_of(model.point, model.draws, baseline.point, baseline.draws)


def compare_pairs(models: Sequence[Model], pairs: Mapping[str, str]) -> list[PairedComparison]:
    """Return the paired comparisons, by key and key of the baseline, as far as both models are there."""
    wanted = (
        (model, counterpart(model, pairs.get(model.first.key, ""), models, model.artifact.deployment))
        for model in models
    )
    return [
        PairedComparison(model.artifact.label, baseline.artifact.label, ratio(model, baseline))
        for model, baseline in wanted
        if baseline is not None and baseline.point > 0
    ]


def time_of(artifact: Artifact, gflops: float, nc: int, timed: Sequence[BenchRow]) -> BenchRow | None:
    """Return the time of an exported file, or of a checkpoint's architecture.

    Raises:
        UserError: If what was timed has other GFLOPs, for example at another size or number of classes.
    """
    wanted = Path(artifact.timed_as)
    for row in timed:
        same = row.model == artifact.timed_as or (wanted.suffix == ".pt" and Path(row.model).parts[-2:] == wanted.parts)
        if same and row.gflops and abs(row.gflops / gflops - 1) > SAME_COST:
            raise UserError(
                f"{row.model} was timed with {row.gflops:.3f} GFLOPs, and {artifact.name} has {gflops:.3f}. "
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

"""What is kept of an experiment: the table as JSON, and an accuracy record of each run for `ghost-yolo report`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.plan import Dataset, Plan, Run, read_plan
from experiments.scores import Scores, interval
from experiments.table import Model, PairedComparison, Row, compare_pairs, group_seeds, rows_of
from ghost_yolo.report.sources import Group, read_bench
from ghost_yolo.utils.files import write_whole


@dataclass(frozen=True)
class Timing:
    """How the models were timed: runtime and precision, sizes, and the first model of the bench."""

    title: str
    sizes: str
    baseline: str


@dataclass(frozen=True)
class Table:
    """The table of a data set.

    Attributes:
        split: On which the models were evaluated.
        conditions: What all models share.
        timing: How they were timed; None if they were not.
        rows: The models, the most accurate first.
        comparisons: Further pairs of models.
    """

    split: str
    conditions: str
    timing: Timing | None
    rows: list[Row]
    comparisons: list[PairedComparison]

    @classmethod
    def read(cls, file: Path) -> Table:
        """Read a table that was kept."""
        kept = json.loads(file.read_text(encoding="utf-8"))
        timing = Timing(**kept["timing"]) if kept["timing"] else None
        rows = [Row(**row) for row in kept["rows"]]
        comparisons = [PairedComparison(**pair) for pair in kept["comparisons"]]
        return cls(kept["split"], kept["conditions"], timing, rows, comparisons)


def write(config: Mapping[str, Any], name: str, split: str, out: Path, bench: Path | None) -> None:
    """Write the table of a data set, and beside it an accuracy record of each run.

    Args:
        config: The configuration.
        name: Of the data set.
        split: `val` or `test`.
        out: The table, JSON.
        bench: JSON of `ghost-yolo bench`; its first runtime and precision are used.
    """
    plan, folder = read_plan(config), Path(config["runs"]) / name
    runs = list(plan.runs[name].values())
    val, scores = ([Scores.read(folder / run.name / f"scores-{kind}.npz") for run in runs] for kind in ("val", split))
    models = group_seeds(runs, val, scores, int(config["resamples"]))
    said = conditions(plan.datasets[name], scores[0], int(config["resamples"]))
    timed = read_bench(bench).groups[0] if bench else None
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, asdict(table_of(plan, models, split, said, timed)))
    for evaluated in (evaluated for model in models for evaluated in model.runs):
        record = record_of(evaluated.run, plan.datasets[name], evaluated.scores, said)
        low, high = interval(evaluated.draws)
        record |= {"map50_95_low": low, "map50_95_high": high}
        write_json(out.with_name(f"{evaluated.run.name}-{split}.json"), record)


def table_of(plan: Plan, models: Sequence[Model], split: str, said: str, timed: Group | None) -> Table:
    """Return the table of models."""
    timing = Timing(timed.title, timed.sizes, timed.rows[0].model) if timed else None
    return Table(split, said, timing, rows_of(models, timed), compare_pairs(models, plan.compare))


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


def record_of(run: Run, dataset: Dataset, scores: Scores, said: str) -> dict[str, Any]:
    """Return the accuracy record of a run, without its interval."""
    facts = scores.facts
    model = run.weights if run.base else run.model
    trained = {"model": model, "data": dataset.data, "split": facts["split"], "imgsz": dataset.imgsz}
    trained |= {"epochs": run.epochs, "seed": run.seed}
    kept = {key: facts[key] for key in ("map50_95", "map50", "parameters", "gflops", "nc", "images", "boxes")}
    text = f"{run.how}, trained with ultralytics {facts['trained_with']}; {said}"
    return trained | kept | {"how": run.how, "conditions": text}


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file."""
    write_whole(file, json.dumps(content, indent=2) + "\n")

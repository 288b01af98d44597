"""The summary of a report, computed from its data, and the selections that the text and the plots share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import mean

from ghost_yolo.bench.results import BenchRow, group_rows
from ghost_yolo.compare import ComparedRow, Comparison
from ghost_yolo.model.catalog import is_stock, labels, without_scale
from ghost_yolo.report.collect import ReportData
from ghost_yolo.report.sources import AccuracyRecord

STOCK = "yolov8"
MAX_NAMED = 4  # models of a list that are named; the others are counted


def family(model: str) -> str:
    """Return the name of a compared model without scale letter and folder: `ghost`, or `ghost (host's)`."""
    return without_scale(labels([model])[model]).removeprefix(f"{STOCK}-")


def describe_size(scales: dict[str, list[ComparedRow]]) -> str:
    """Return number of classes and image side of the compared models."""
    row = next(iter(scales.values()))[0].row
    return f"nc {row.nc}, {row.imgsz} x {row.imgsz}"


def changes(scales: dict[str, list[ComparedRow]], figure: str) -> dict[str, dict[str, float]]:
    """Return a figure's change against the stock model in percent, by model and scale."""
    result: dict[str, dict[str, float]] = {}
    for scale, entries in scales.items():
        for entry in entries:
            result.setdefault(family(entry.row.model), {})[scale] = (entry.change or {})[figure]
    return result


def summarise_published(result: Comparison) -> str:
    """Return how many of the published figures are reproduced."""
    matches = [match for entry in result.entries for match in entry.match.values()]
    return (
        f"{sum(matches)} of the {len(matches)} figures of the published table are reproduced (kb within 2 %). The table "
        "compares light models of scale n with a YOLOv8 of scale s, so most of the difference comes from the scale."
    )


def summarise_scales(scales: dict[str, list[ComparedRow]]) -> str:
    """Return what the Ghost block saves at the same scale, and which model has the fewest GFLOPs."""
    gflops = changes(scales, "gflops")
    ghost = gflops["ghost"].values()
    means = {name: mean(values.values()) for name, values in gflops.items()}
    lightest, heavier = min(means, key=lambda name: means[name]), [name for name in means if means[name] > 0]
    span = " to ".join(dict.fromkeys(f"{bound:+.0f} %" for bound in (max(ghost), min(ghost))))
    more = f" More GFLOPs than the stock model on average: {', '.join(heavier)}." if heavier else ""
    return (
        f"At the same scale, Ghost blocks in the backbone change the GFLOPs by {span} (scale{'s' if len(scales) > 1 else ''} "
        f"{', '.join(scales)}). The model with the fewest GFLOPs is {lightest}: {means[lightest]:+.0f} % on average.{more}"
    )


def comparable_rows(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """Return the first model and the models of its scale, the fastest first; nothing where none has a ratio to it."""
    timed = [row for row in rows if row.measured]
    if not timed or timed[0].ratio is None:
        return []
    first, *others = timed
    same = [row for row in others if row.ratio is not None and (row.scale == first.scale or not row.scale)]
    return [first, *sorted(same, key=lambda row: row.ratio or 0)] if same else []


def summarise_times(rows: Sequence[BenchRow]) -> list[str]:
    """Return which models of one runtime and precision are faster than the first, with their share of the GFLOPs."""
    compared = comparable_rows(rows)
    if not compared:
        return []
    first, *others = compared
    names = labels([row.model for row in rows if row.measured])
    faster = [row for row in others if (row.ratio_high or row.ratio or 0) < 1]
    slower = [row for row in others if (row.ratio_low or row.ratio or 0) > 1]
    unclear = [row for row in others if row not in faster and row not in slower]
    parts = [
        "faster: " + _list_models(faster, first, names) if faster else "no model of its scale is faster",
        *(["slower: " + _list_models(slower, first, names)] if slower else []),
        *(["no clear difference: " + _list_models(unclear, first, names)] if unclear else []),
    ]
    return [f"{first.backend}, compared with {names[first.model]}: {'; '.join(parts)}."]


def _list_models(rows: list[BenchRow], first: BenchRow, names: dict[str, str]) -> str:
    """Return the fastest models, and how many more there are."""
    chosen = sorted(rows, key=lambda row: row.ratio or 0)[:MAX_NAMED]
    rest = f" and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
    return ", ".join(_describe_model(row, first, names) for row in chosen) + rest


def _describe_model(row: BenchRow, first: BenchRow, names: dict[str, str]) -> str:
    """Return a model with its share of the time and of the GFLOPs."""
    share = row.gflops_ratio(first)
    gflops = f", {100 * share:.0f} % of the GFLOPs" if share else ""
    gain = f", realised gain {row.realised_gain:.2f}" if row.realised_gain else ""
    return f"{names[row.model]} ({100 * (row.ratio or 0):.0f} % of the time{gflops}{gain})"


def slug(text: str) -> str:
    """Return a text as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def group_by_task(records: Sequence[AccuracyRecord]) -> dict[str, list[AccuracyRecord]]:
    """Return the records whose accuracies are comparable, by task."""
    groups: dict[str, list[AccuracyRecord]] = {}
    for record in records:
        groups.setdefault(record.task, []).append(record)
    return groups


def accuracy_axes(data: ReportData, records: Sequence[AccuracyRecord]) -> dict[str, dict[str, float]]:
    """Return the costs to plot accuracy against: axis title to each model's cost, where two or more models have one."""
    profiled = {entry.row.model: entry.row.gflops for entries in data.scales.values() for entry in entries}
    axes = {f"GFLOPs ({describe_size(data.scales)})": profiled}
    for prefix, result in zip(prefixes(data), data.benches.values(), strict=True):
        for backend, rows in group_rows(result.rows).items():
            axes[f"milliseconds, {prefix}{backend}"] = {row.model: row.median_ms for row in rows if row.median_ms}
    models = {record.model for record in records}
    return {title: costs for title, costs in axes.items() if len(models & set(costs)) > 1}


def prefixes(data: ReportData) -> list[str]:
    """Return what distinguishes the plots of one benchmark from those of another: `1-`, `2-`; "" for a single one."""
    return (
        [f"{number}-" for number in range(1, len(data.benches) + 1)]
        if len(data.benches) > 1
        else [""] * len(data.benches)
    )


def accuracy_points(
    records: Sequence[AccuracyRecord], costs: dict[str, float], names: dict[str, str]
) -> tuple[list[tuple[float, float, str, bool]], list[tuple[float, float]]]:
    """Return a point for each model, the mean over seeds, and its error bar: the record's interval, or the extremes."""
    points, ends = [], []
    for model in dict.fromkeys(record.model for record in records if record.model in costs):
        runs = [record for record in records if record.model == model]
        values = [run.map50_95 for run in runs]
        low, high = runs[0].map50_95_low, runs[0].map50_95_high
        own = len(runs) == 1 and low is not None and high is not None
        points.append((costs[model], mean(values), names[model], is_stock(model)))
        ends.append((low or 0.0, high or 0.0) if own else (min(values), max(values)))
    return points, ends

"""What the figures say, in words that are computed from them, and the choices that words and figures share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import mean

from ghost_yolo.compare import ComparedRow, Comparison
from ghost_yolo.model.catalog import is_stock, labels, without_scale
from ghost_yolo.report.collect import Found
from ghost_yolo.report.sources import Group, Timed, Trained

STOCK = "yolov8"


def family(model: str) -> str:
    """Return a short name of a model of the comparison, whatever its scale: `ghost`, or `ghost (host's)`."""
    return without_scale(labels([model])[model]).removeprefix(f"{STOCK}-")


def sizes(scales: dict[str, list[ComparedRow]]) -> str:
    """Return classes and image side of the comparison."""
    row = next(iter(scales.values()))[0].row
    return f"nc {row.nc}, {row.imgsz} x {row.imgsz}"


def changes(scales: dict[str, list[ComparedRow]], figure: str) -> dict[str, dict[str, float]]:
    """Return a figure's change against stock in percent, by model and scale."""
    result: dict[str, dict[str, float]] = {}
    for scale, entries in scales.items():
        for entry in entries:
            result.setdefault(family(entry.row.model), {})[scale] = (entry.change or {})[figure]
    return result


def published(result: Comparison) -> str:
    """Say whether the published figures are reproduced."""
    verdicts = [holds for entry in result.entries for holds in entry.match.values()]
    return (
        f"{sum(verdicts)} of the {len(verdicts)} figures of the published table are reproduced (kb within 2 %). Its light models are of "
        "scale n, its YOLOv8 of scale s: what it shows is mostly the scale, not the blocks."
    )


def scales(found: dict[str, list[ComparedRow]]) -> str:
    """Say what the Ghost shell saves at its own scale, and which model is the lightest."""
    gflops = changes(found, "gflops")
    ghost = gflops["ghost"].values()
    means = {name: mean(values.values()) for name, values in gflops.items()}
    lightest, heaviest = min(means, key=lambda name: means[name]), [name for name in means if means[name] > 0]
    saves = " to ".join(dict.fromkeys(f"{bound:+.0f} %" for bound in (max(ghost), min(ghost))))
    more = f" Heavier than stock on average: {', '.join(heaviest)}." if heaviest else ""
    return (
        f"Like for like, the Ghost shell changes GFLOPs by {saves} (scale{'s' if len(found) > 1 else ''} "
        f"{', '.join(found)}); the lightest model is {lightest} with {means[lightest]:+.0f} % on average.{more}"
    )


def rivals(group: Group) -> list[Timed]:
    """Return the first model and those of its scale, the fastest first; nothing where none has a ratio to it."""
    if not group.rows or group.rows[0].ratio is None:
        return []
    first, *others = group.rows
    same = [row for row in others if row.ratio is not None and (row.scale == first.scale or not row.scale)]
    return [first, *sorted(same, key=lambda row: row.ratio or 0)] if same else []


def time(group: Group) -> list[str]:
    """Say for one runtime and precision which models are faster than the first, and what became of the saved GFLOPs."""
    if not rivals(group):
        return []
    first, *others = rivals(group)
    names = labels([row.model for row in group.rows])
    faster = [row for row in others if (row.ratio_high or row.ratio or 0) < 1]
    slower = [row for row in others if (row.ratio_low or row.ratio or 0) > 1]
    unclear = [row for row in others if row not in faster and row not in slower]
    parts = [
        f"{group.title}, against {names[first.model]}: ",
        "faster " + some(faster, first, names) if faster else "none of its scale is faster",
        "; slower " + some(slower, first, names) if slower else "",
        "; no clear difference " + some(unclear, first, names) if unclear else "",
        ".",
    ]
    return ["".join(parts)]


def some(rows: list[Timed], first: Timed, names: dict[str, str], most: int = 4) -> str:
    """Return the fastest models in words, and how many more there are."""
    chosen = sorted(rows, key=lambda row: row.ratio or 0)[:most]
    rest = f" and {len(rows) - most} more" if len(rows) > most else ""
    return ", ".join(said(row, first, names) for row in chosen) + rest


def said(row: Timed, first: Timed, names: dict[str, str]) -> str:
    """Return a model with its part of the time and of the GFLOPs."""
    share = row.gflops_part(first)
    gflops = f" for {100 * share:.0f} % of the GFLOPs" if share else ""
    gain = f", realised gain {row.realised_gain:.2f}" if row.realised_gain else ""
    return f"{names[row.model]} ({100 * (row.ratio or 0):.0f} % of the time{gflops}{gain})"


def slug(text: str) -> str:
    """Return a text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def by_task(records: Sequence[Trained]) -> dict[str, list[Trained]]:
    """Return the records whose accuracies may be held against each other."""
    groups: dict[str, list[Trained]] = {}
    for record in records:
        groups.setdefault(record.task, []).append(record)
    return groups


def axes(found: Found, records: Sequence[Trained]) -> dict[str, dict[str, float]]:
    """Return what accuracies can be drawn against: by title, a figure of each model; only where two or more have one."""
    counted = {entry.row.model: entry.row.gflops for entries in found.scales.values() for entry in entries}
    choices = {f"GFLOPs ({sizes(found.scales)})": counted}
    for bench in found.benches:
        for group in bench.groups:
            timed = {row.model: row.median_ms for row in group.rows if row.median_ms}
            choices[f"milliseconds, {bench.prefix}{group.title}"] = timed
    models = {record.model for record in records}
    return {title: values for title, values in choices.items() if len(models & set(values)) > 1}


def accuracy_points(
    records: Sequence[Trained], across: dict[str, float], names: dict[str, str]
) -> tuple[list[tuple[float, float, str, bool]], list[tuple[float, float]]]:
    """Return a point for each model, the mean over its records, and its whiskers: the record's interval, or the extremes."""
    points, ends = [], []
    for model in dict.fromkeys(record.model for record in records if record.model in across):
        runs = [record for record in records if record.model == model]
        values = [run.map50_95 for run in runs]
        low, high = runs[0].map50_95_low, runs[0].map50_95_high
        own = len(runs) == 1 and low is not None and high is not None
        points.append((across[model], mean(values), names[model], is_stock(model)))
        ends.append((low or 0.0, high or 0.0) if own else (min(values), max(values)))
    return points, ends

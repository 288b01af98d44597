"""Table and plot of the files that are deployed: accuracy against measured time, and what it took to make them."""

from __future__ import annotations

from experiments.artifacts import STOCK
from experiments.records import RivalComparison, Row, Table, Timing, signed, with_interval
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.report import deployed as report
from ghost_yolo.report.deployed import DeployedFile, DeployedFiles
from ghost_yolo.report.figures import png

RIVALS = (
    "\nEach converted file and the fastest other file that is not shown to be less accurate, with the difference of mAP50-95. Faster "
    "and slower are those of this run of the bench; between two runs the same file's ratio has differed by up to 8 %:\n"
)
HEADER = ["model", "runtime", "precision", "{} mAP50-95", "ratio to stock", "time", "above the line", "ms", "training, s", "since, s",
          "labels since", "GFLOPs", "parameters", "seeds"]  # fmt: skip
ABOVE = (
    "`above the line`: mAP50-95 less that of the line of the plot at the slow end of the file's time, in the same resamples; in each of "
    "them a slower file of the line counts at least as much as a faster one. A file that is faster than the whole line is compared "
    "with the fastest file on it."
)
SECONDS = (
    "`training` is the training from scratch that a file comes from, `since` is what was done after it: conversion, pruning, fine-tuning "
    "and the export. Training and fine-tuning: epochs times the median epoch; all else is wall-clock. The training of a teacher of "
    "Ultralytics' distillation is not counted."
)


def cells(row: Row) -> list[str]:
    """Return the cells of a row."""
    runtime, precision = row.deployment.split("-")
    spread = "" if row.spread is None else f", sd {row.spread:.3f}"
    return [
        f"`{row.label}`",
        RUNTIMES[runtime].title,
        precision,
        with_interval(row.score) + spread,
        with_interval(row.ratio) if row.ratio else "",
        time_of(row),
        signed(row.above) if row.above else "",
        "" if row.ms is None else f"{row.ms:.1f}",
        *("" if seconds is None else f"{seconds:.0f}" for seconds in (row.training, row.seconds)),
        {None: "", True: "yes", False: "no"}[row.labels],
        f"{row.gflops:.3f}",
        str(row.parameters),
        ", ".join(map(str, row.seeds)),
    ]


def time_of(row: Row) -> str:
    """Return the cell of the time: its ratio, with its interval where there is one."""
    if row.time_ratio is None:
        return ""
    return with_interval((row.time_ratio, *row.time_interval)) if row.time_interval else f"{row.time_ratio:.3f}"


def notes(table: Table) -> list[str]:
    """Explain what is peculiar to exported files."""
    kept = [f"`{row.title}`: {', '.join(row.excluded)}" for row in table.rows if row.excluded]
    return [
        "Each file was evaluated by Ultralytics' validator, image by image in squares; parameters and GFLOPs are its checkpoint's.",
        f"`ratio to stock` is the ratio to the mAP50-95 of the stock model's {table.reference} file of the same scale.",
        *([ABOVE] if any(row.above for row in table.rows) else []),
        SECONDS,
        *([f"In float32 in an INT8 file: {'; '.join(kept)}."] if kept else []),
    ]


def rivals(table: Table) -> list[str]:
    """Say which file that is not converted each converted one has to beat."""
    lines = [
        f"- `{pair.label}` / `{pair.rival}`: {pair.verdict}{less_accurate(pair)}, {pair.time:.2f} of its time, at {signed(pair.difference)}."
        if pair.rival
        else f"- `{pair.label}`: all others are shown to be less accurate."
        for pair in table.rivals
    ]
    return [RIVALS, *lines, ""] if lines else []


def less_accurate(pair: RivalComparison) -> str:
    """Say so where a converted file is shown to be less accurate than its rival."""
    return " and less accurate" if pair.difference[2] < 0 else ""


def timed(table: Table) -> list[DeployedFile]:
    """Return the rows that have a time, as the report draws them."""
    return [deployed_file(row, row.time_ratio) for row in table.rows if row.time_ratio is not None]


def deployed_file(row: Row, time: float) -> DeployedFile:
    """Return a row as the report draws it."""
    left, right = row.time_interval or (time, time)
    score, low, high = row.score
    return DeployedFile(
        row.label, row.deployment, row.key == STOCK, score, (low, high), time=time, time_ends=(left, right)
    )


def caption(table: Table) -> str:
    """Describe the plot."""
    return report.caption(timed(table))


def draw(table: Table, timing: Timing) -> bytes:
    """Return the plot of scores against ratios of times as PNG."""
    return png(report.draw(DeployedFiles(table.split, timing.baseline, table.conditions, timed(table))))

"""Table and plot of the files that are deployed: accuracy against measured time, and what it took to make them."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.artifacts import STOCK
from experiments.records import Row, Table, Timing, with_interval
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.model.catalog import SCALES, labels
from ghost_yolo.report.figures import png, scatter

HEADER = ["model", "runtime", "precision", "{} mAP50-95", "ratio to stock", "time", "ms", "seconds to make", "labels",
          "GFLOPs", "parameters", "seeds", "file"]  # fmt: skip
SECONDS = (
    "`seconds to make` are those of training or conversion and of the export; a conversion or fine-tuning starts from a "
    "trained model, whose training is not counted again."
)
NO_LINE = "There are no files of stock at two scales that were timed, so there is no line."


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
        "" if row.ms is None else f"{row.ms:.1f}",
        "" if row.seconds is None else f"{row.seconds:.0f}",
        {None: "", True: "yes", False: "no"}[row.labels],
        f"{row.gflops:.3f}",
        str(row.parameters),
        ", ".join(map(str, row.seeds)),
        f"`{row.file}`",
    ]


def time_of(row: Row) -> str:
    """Return the cell of the time: its ratio, with its interval where there is one."""
    if row.time_ratio is None:
        return ""
    return with_interval((row.time_ratio, *row.time_interval)) if row.time_interval else f"{row.time_ratio:.3f}"


def time_ends(row: Row) -> tuple[float, float]:
    """Return the ends of the bar of a time that was measured, of no length where it has no interval."""
    assert row.time_ratio is not None
    return row.time_interval or (row.time_ratio, row.time_ratio)


def notes(table: Table) -> list[str]:
    """Explain what is peculiar to exported files."""
    kept = [f"`{row.title}`: {', '.join(row.excluded)}" for row in table.rows if row.excluded]
    return [
        "Each file was evaluated by Ultralytics' validator, image by image in squares; parameters and GFLOPs are its checkpoint's.",
        f"`ratio to stock` is the ratio to the mAP50-95 of the stock model's {table.reference} file of the same scale.",
        SECONDS,
        *([f"In float32 in an INT8 file: {'; '.join(kept)}."] if kept else []),
    ]


def timed(table: Table) -> list[Row]:
    """Return the rows that have a time."""
    return [row for row in table.rows if row.time_ratio is not None]


def line_of(rows: Sequence[Row]) -> list[Row]:
    """Return the stock file of each scale through which the line goes, of the smallest scale first.

    It is the fastest one whose score is within the interval of the most accurate one of its scale.
    """
    line = []
    for scale in SCALES:
        stock = [row for row in rows if row.key == STOCK and row.scale == scale]
        if stock:
            low = max(stock, key=lambda row: row.score[0]).score[1]
            sound = [row for row in stock if row.score[0] >= low]
            line.append(min(sound, key=lambda row: row.time_ratio or 0.0))
    return line


def is_dominated(row: Row, rows: Sequence[Row]) -> bool:
    """Return whether another file is at least as fast and as accurate, and better in one of them."""
    own = (-(row.time_ratio or 0.0), row.score[0])
    others = ((-(other.time_ratio or 0.0), other.score[0]) for other in rows)
    return any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in others)


def short_deployments(rows: Sequence[Row]) -> dict[str, str]:
    """Return the deployments as a plot names them: by their precision alone where there is one of each."""
    known = list(dict.fromkeys(row.deployment for row in rows))
    precisions = [name.partition("-")[2] for name in known]
    return dict(zip(known, precisions if len(set(precisions)) == len(known) else known, strict=True))


def caption(table: Table) -> str:
    """Describe the plot."""
    line = line_of(timed(table))
    joined = (
        f"The line joins {' and '.join(row.title for row in line)}: at each scale the fastest stock file within the "
    )
    joined += "interval of the most accurate one."
    meant = [f"{short} is {name}" for name, short in short_deployments(timed(table)).items() if short != name]
    names = f" In names, {', '.join(meant)}." if meant else ""
    return (
        f"{joined if len(line) > 1 else NO_LINE} Bars are 95 % intervals; squares are stock. "
        f"Grey: another file is both as fast and as accurate.{names}"
    )


def draw(table: Table, timing: Timing) -> bytes:
    """Return the plot of scores against ratios of times as PNG."""
    rows = timed(table)
    short, deployments = labels([row.label for row in rows]), short_deployments(rows)
    names = [f"{short[row.label]} {deployments[row.deployment]}" for row in rows]
    points = [
        (row.time_ratio or 0.0, row.score[0], name, row.key == STOCK) for row, name in zip(rows, names, strict=True)
    ]
    figure = scatter(
        points,
        f"time / time of {timing.baseline}",
        f"{table.split} mAP50-95, 95 % interval",
        error_bars=[row.score[1:] for row in rows],
        x_bars=[time_ends(row) for row in rows],
        line=[rows.index(row) for row in line_of(rows)],
        grey={index for index, row in enumerate(rows) if is_dominated(row, rows)},
    )
    return png(figure)

"""Page and plot of a table that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments import deployed
from experiments.artifacts import STOCK
from experiments.records import PairedComparison, Row, Table, Timing, with_interval
from ghost_yolo.model.catalog import labels
from ghost_yolo.report.figures import png, scatter
from ghost_yolo.tables import to_markdown
from ghost_yolo.utils.files import write_atomic

START, END = "<!-- accuracy -->", "<!-- /accuracy -->"
HEADER = ["model", "{} mAP50-95", "ratio to stock", "time", "GFLOPs", "parameters", "{} mAP50", "ms", "seeds"]
INTERVALS = (
    "The intervals do not include the variation between seeds, and are not corrected for the number of models. mAP is a little higher "
    "in resamples, which repeat images, so that intervals lie a little high."
)
READ_ONCE = (
    "Each model was evaluated on test once. The line, and which file is compared with which, follow from those figures."
)
NO_LINE = "The stock model was timed at one scale only, so there is no line of stock models."

CHECKPOINTS = [
    "`ratio to stock` is the ratio to the mAP50-95 of the stock model of the same scale from scratch, in the same resamples."
]


def write(file: Path, out: Path) -> None:
    """Write the page of a table, the plot beside it, and copy the records to the folder of the page's name.

    Args:
        file: The table, JSON, with the records beside it.
        out: The page; what stands around the markers of the table stays.
    """
    table = Table.read(file)
    plot = out.with_suffix(".png")
    if table.timing and any(row.ms is not None for row in table.rows):
        write_atomic(plot, (deployed.draw if table.deployed else draw)(table, table.timing))
    lines = [
        "",
        markdown(table),
        *origins(table),
        *notes(table),
        *map(describe, table.comparisons),
        *deployed.rivals(table),
    ]
    text = "\n".join([*lines, *time_notes(table, plot), ""])
    write_atomic(out, between_markers(out, text))
    folder = out.with_suffix("")
    if folder.resolve() != file.parent.resolve():
        folder.mkdir(exist_ok=True)
        for earlier in folder.glob("*-seed*.json"):  # records, also of models that are no longer there
            earlier.unlink()
        for record in file.parent.glob("*.json"):
            write_atomic(folder / record.name, record.read_bytes())


def markdown(table: Table) -> str:
    """Return the table; figures on val have a column of their own beside those on test."""
    names, cells_of, before = (deployed.HEADER, deployed.cells, 4) if table.deployed else (HEADER, cells, 6)
    header = [name.format(table.split) for name in names]
    lines = [cells_of(row) for row in table.rows]
    if table.split != "val":
        header.insert(before, "val mAP50-95")
        for line, row in zip(lines, table.rows, strict=True):
            line.insert(before, f"{row.val:.3f}")
    return to_markdown(header, lines)


def cells(row: Row) -> list[str]:
    """Return the cells of a row."""
    spread = "" if row.spread is None else f", sd {row.spread:.3f}"
    ms = "" if row.ms is None else f"{row.ms:.1f}"
    time = "" if row.time_ratio is None else f"{row.time_ratio:.2f}"
    time += " ({:.2f} to {:.2f})".format(*row.time_interval) if row.time_interval else ""
    score = [with_interval(row.score) + spread, with_interval(row.ratio) if row.ratio else ""]
    rest = [f"{row.map50:.3f}", ms, ", ".join(map(str, row.seeds))]
    return [f"`{row.label}`", *score, time, f"{row.gflops:.3f}", str(row.parameters), *rest]


def origins(table: Table) -> list[str]:
    """Return how the models came to their weights as a list, models of one way in one line."""
    ways: dict[str, list[str]] = {}
    for row in table.rows:
        ways.setdefault(row.how, []).append(f"`{row.label}`")
    return [
        "How the models were made:\n",
        *(f"- {', '.join(dict.fromkeys(models))}: {how}." for how, models in ways.items()),
        "",
    ]


def notes(table: Table) -> list[str]:
    """Explain how the table is to be read."""
    what = deployed.notes(table) if table.deployed else CHECKPOINTS
    one_seed = len({seed for row in table.rows for seed in row.seeds}) == 1
    return [
        f"{table.conditions}.",
        "\nParameters and GFLOPs are those of the fused model at the training size.",
        f"In brackets: 95 % intervals by bootstrap over the {table.split} images.",
        *what,
        *([] if one_seed else ["Figures are means over the seeds."]),
        INTERVALS,
        "The best epoch of each training and the settings of ghostify were chosen on val.",
        *([READ_ONCE] if table.split == "test" else []),
        "",
    ]


def describe(pair: PairedComparison) -> str:
    """Return a paired comparison as a line of a list."""
    low, high = pair.ratio[1:]
    verdict = "better" if low > 1 else "worse" if high < 1 else "no significant difference"
    return f"- `{pair.label}` / `{pair.baseline}`: {with_interval(pair.ratio)}: {verdict}."


def line_of(table: Table) -> str:
    """Say what the line of the plot joins."""
    stock = [row.label for row in table.rows if row.key == STOCK and row.ms is not None]
    return f"The line joins {' and '.join(stock)}." if len(stock) > 1 else NO_LINE


def time_notes(table: Table, plot: Path) -> list[str]:
    """Show the plot and describe it."""
    timing = table.timing
    if timing is None or all(row.ms is None for row in table.rows):
        return ["\nThe models were not timed."]
    missing = [f"`{row.title}`" for row in table.rows if row.ms is None]
    rest = f" Not timed, and not in the plot: {', '.join(missing)}." if missing else ""
    caption = deployed.caption(table) if table.deployed else line_of(table)
    paired = (
        "paired round by round. Compare the ratios: the speed of the machine varies, and the medians of `ms` with it."
    )
    return [
        f"\n`ms`: {timing.title}, {timing.sizes}. `time`: its ratio to `{timing.baseline}`, {paired}{rest}",
        f"\n![mAP50-95 against measured time]({plot.name})\n\n*{caption}*",
    ]


def draw(table: Table, timing: Timing) -> bytes:
    """Return the plot of the scores against the ratios of times as PNG, the stock models joined by a line."""
    rows: Sequence[Row] = [row for row in table.rows if row.time_ratio is not None]
    short = labels([row.label for row in rows])
    points = [(row.time_ratio or 0.0, row.score[0], short[row.label], row.key == STOCK) for row in rows]
    x = f"time / {Path(timing.baseline).stem}'s, {timing.title}"
    return png(scatter(points, x, f"{table.split} mAP50-95, 95 % interval", [row.score[1:] for row in rows]))


def between_markers(out: Path, text: str) -> str:
    """Return the page with the text between its markers; a new page if there are none."""
    old = out.read_text(encoding="utf-8") if out.is_file() else ""
    before, start, rest = old.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        before, after = "# Accuracy\n\n", "\n"
    return f"{before}{START}{text}{END}{after}"

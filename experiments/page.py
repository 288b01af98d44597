"""Page, records and plot from the rows and the scores that were kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runs import Run
from scores import interval, read
from table import Duel, Row, Triple, duels_of, label, rows_of, split_of

from ghost_yolo.model.catalog import labels
from ghost_yolo.report.figures import png, scatter
from ghost_yolo.report.sources import Group, read_bench
from ghost_yolo.utils.files import write_whole

VAL = "val mAP50-95"
HEADER = ("model", "how", "seeds", "parameters", "GFLOPs", "ms", "time", VAL, "{} mAP50-95", "{} mAP50", "/ stock's")
START, END = "<!-- accuracy -->", "<!-- /accuracy -->"
PAIRED = "paired round by round, which is the one to compare: the machine's speed changes, and medians of `ms` with it."
NO_LINE = "No second scale of the stock model was trained and timed, so there is no line of stock models."


def record_of(run: Run, split: str, data: str, imgsz: int, conditions: str) -> dict[str, Any]:
    """Return the accuracy record of a run, as `ghost-yolo report --accuracy` reads it."""
    kept = read(run, split)
    low, high = interval(kept.draws[:, 0])
    model = run.model if run.needs is None else f"{run.name}/{run.file.relative_to(run.folder)}"
    facts = {key: kept.facts[key] for key in ("map50_95", "map50")}
    asked = {"model": model, "data": data, "split": split, "imgsz": imgsz, "epochs": run.epochs, "seed": run.seed}
    counted = {key: kept.facts[key] for key in ("parameters", "gflops", "nc", "images", "boxes")}
    said = f"{run.how}, trained with ultralytics {kept.facts['trained_with']}; {conditions}"
    return asked | facts | {"map50_95_low": low, "map50_95_high": high} | counted | {"how": run.how, "conditions": said}


def markdown(rows: Sequence[Row], split: str) -> str:
    """Return the table."""
    header = [name.format(split) for name in HEADER]
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)], *(cells(row) for row in rows)]
    shown = [
        place for place, name in enumerate(HEADER) if split != "val" or name != VAL
    ]  # on val it would stand there twice
    return "".join(f"| {' | '.join(line[place] for place in shown)} |\n" for line in lines)


def cells(row: Row) -> list[str]:
    """Return a row for people."""
    seeds = ", ".join(map(str, row.seeds))
    spread = "" if row.spread is None else f", sd {row.spread:.3f}"
    time = ["" if value is None else f"{value:.{digits}f}" for value, digits in ((row.ms, 1), (row.time_ratio, 2))]
    time[1] += " ({:.2f} to {:.2f})".format(*row.time_interval) if row.time_interval else ""
    cost = [str(row.parameters), f"{row.gflops:.3f}", *time]
    score = [f"{row.val:.3f}", triple(row.score) + spread, f"{row.map50:.3f}", triple(row.ratio) if row.ratio else ""]
    return [f"`{label(row)}`", row.how, seeds, *cost, *score]


def triple(figure: Triple) -> str:
    """Return a figure with its interval."""
    return "{:.3f} ({:.3f} to {:.3f})".format(*figure)


def plot(rows: Sequence[Row], split: str, timed: Group) -> bytes:
    """Return the scores against the times as PNG, the stock models from scratch joined by a line.

    Times are ratios that were paired round by round: medians of milliseconds differ when the machine's speed does.
    """
    short = labels([label(row) for row in rows])
    points = [(row.time_ratio or 0.0, row.score[0], short[label(row)], row.key == "stock") for row in rows]
    whiskers = [row.score[1:] for row in rows]
    across = f"time / {Path(timed.rows[0].model).stem}'s, {timed.title}"
    return png(scatter(points, across, f"{split} mAP50-95, 95 % interval", whiskers))


def write(out: Path, runs: Sequence[Run], data: str, imgsz: int, conditions: str, times: Path | None) -> None:
    """Write the page `out`, the plot beside it, and in the folder of the same name a record a run and the raw table.

    Args:
        out: The page to write.
        runs: Those that were evaluated on val.
        data: Dataset YAML.
        imgsz: Image side in pixels.
        conditions: What all runs share, in words.
        times: JSON of `ghost-yolo bench`; its first runtime and precision are taken.
    """
    timed = read_bench(times).groups[0] if times else None
    split, rows = split_of(runs), rows_of(runs, timed)
    facts = read(runs[0], split).facts
    said = f"{facts['images']} images, {facts['boxes']} boxes; intervals: {facts['resamples']} resamples of the images"
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        record = record_of(run, split, data, imgsz, f"{conditions}; {said}")
        write_whole(folder / f"{run.name}-{split}.json", json.dumps(record, indent=2) + "\n")
    duels = duels_of(runs)
    text = {"split": split, "rows": [asdict(row) for row in rows], "duels": [asdict(duel) for duel in duels]}
    write_whole(folder / "table.json", json.dumps(text, indent=2) + "\n")
    drawn = [row for row in rows if row.ms is not None]
    if timed and drawn:
        write_whole(out.with_suffix(".png"), plot(drawn, split, timed))
    about = [
        f"{conditions}; {split}: {said}.",
        *notes(rows, split),
        "",
        *(said_of(duel) for duel in duels),
        *time_notes(rows, timed, out.with_suffix(".png")),
    ]
    write_whole(out, between(out, "\n".join(["", markdown(rows, split), *about, ""])))


def between(out: Path, text: str) -> str:
    """Return a page with the text between its markers; what people wrote around them stays."""
    old = out.read_text(encoding="utf-8") if out.is_file() else ""
    before, start, rest = old.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        before, after = "# Accuracy\n\n", "\n"
    return f"{before}{START}{text}{END}{after}"


def notes(rows: Sequence[Row], split: str) -> list[str]:
    """Say how the table is to be read."""
    alone = len({seed for row in rows for seed in row.seeds}) == 1
    return [
        "\nParameters and GFLOPs are of the fused model at the size at which it was trained.",
        f"In brackets 95 % intervals by bootstrap over the {split} images;",
        "`/ stock's` is the ratio of the mAP50-95 to that of the stock model from scratch, both in the same resamples.",
        "What another seed would give is not in the intervals." if alone else "Figures are means over the seeds.",
        "The best epoch of each training and the settings of ghostify were chosen on val; nothing was chosen on test.",
    ]


def said_of(duel: Duel) -> str:
    """Return two models held against each other as a line of a list."""
    low, high = duel.ratio[1:]
    word = "better" if low > 1 else "worse" if high < 1 else "neither is shown to be better"
    return f"- `{duel.one}` / `{duel.other}`: {triple(duel.ratio)}: {word}."


def time_notes(rows: Sequence[Row], timed: Group | None, picture: Path) -> list[str]:
    """Show the plot and say what is in it."""
    if timed is None or all(row.ms is None for row in rows):
        return ["\nNothing was timed."]
    missing = [f"`{label(row)}`" for row in rows if row.ms is None]
    rest = f" Not timed, and not in the plot: {', '.join(missing)}." if missing else ""
    stock = [row.model for row in rows if row.key == "stock" and row.ms is not None]
    says = f"The line joins {' and '.join(stock)}." if len(stock) > 1 else NO_LINE
    return [
        f"\n`ms`: {timed.title}, {timed.sizes}; `time`: its ratio to `{timed.rows[0].model}`, {PAIRED}{rest}",
        f"\n![mAP50-95 against measured time]({picture.name})\n\n*{says}*",
    ]

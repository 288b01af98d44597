"""Table, records and plot from the scores that were kept; nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from runs import Run
from scores import RESAMPLES, Scores, file_of, interval, read

from ghost_yolo.files import write_whole
from ghost_yolo.registry import UserError
from ghost_yolo.report.figures import png, scatter
from ghost_yolo.report.sources import Group, Timed, labels, read_bench

Triple = tuple[float, float, float]  # a figure and the ends of its interval
VAL = "val mAP50-95"
HEADER = ("model", "how", "seeds", "parameters", "GFLOPs", "ms", "time", VAL, "{} mAP50-95", "{} mAP50", "/ stock's")  # fmt: skip
START, END = "<!-- accuracy -->", "<!-- /accuracy -->"
SAME_COST = 0.01  # most that GFLOPs of a timed model may differ from those of the trained one


@dataclass(frozen=True)
class Row:
    """A model, its seeds taken together: each figure is the mean over them.

    Attributes:
        key: What it is.
        model: As the table shows it.
        how: How it came to its weights.
        seeds: That were trained.
        parameters: Of the fused model.
        gflops: Of the fused model, one image.
        ms: Median time of a forward pass; None where it was not timed.
        time_ratio: To the first model's of the bench.
        val: mAP50-95 on val.
        score: mAP50-95 on the split that the table is about, with its interval.
        spread: Standard deviation of that over seeds; None for one seed.
        map50: On the same split.
        difference: Of the scores, to the stock model of the same scale, from scratch; None for itself.
        ratio: The same as a ratio.
    """

    key: str
    model: str
    how: str
    seeds: list[int]
    parameters: int
    gflops: float
    ms: float | None
    time_ratio: float | None
    val: float
    score: Triple
    spread: float | None
    map50: float
    difference: Triple | None
    ratio: Triple | None


@dataclass(frozen=True)
class Model:
    """The runs of a model with their scores, one a seed."""

    runs: Sequence[Run]
    val: Sequence[Scores]
    scores: Sequence[Scores]

    @property
    def point(self) -> float:
        """Mean mAP50-95 over seeds."""
        return fmean(scores.facts["map50_95"] for scores in self.scores)

    @property
    def draws(self) -> NDArray[np.float64]:
        """(RESAMPLES,), the same for each resample."""
        return np.mean([scores.draws[:, 0] for scores in self.scores], axis=0)


def split_of(runs: Sequence[Run]) -> str:
    """Return the split that a table is about: test where all runs have been evaluated on it."""
    return "test" if all(file_of(run, "test").is_file() for run in runs) else "val"


def rows_of(runs: Sequence[Run], timed: Group | None = None) -> list[Row]:
    """Return a row a model, the best first.

    Args:
        runs: Those that were evaluated on val.
        timed: Times of the same models.
    """
    split = split_of(runs)
    models: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        models.setdefault((run.key, run.model), []).append(run)
    made = [Model(group, [read(run, "val") for run in group], [read(run, split) for run in group]) for group in models.values()]  # fmt: skip
    rows = [row_of(model, stock_of(model, made), timed) for model in made]
    return sorted(rows, key=lambda row: -row.score[0])


def stock_of(model: Model, models: Sequence[Model]) -> Model | None:
    """Return what a model is held against: the stock one from scratch; at another scale and for itself nothing."""
    stock = next((other for other in models if other.runs[0].key == "stock"), None)
    if stock is None or model.runs[0].key == "stock":
        return None
    return stock if [run.seed for run in stock.runs] == [run.seed for run in model.runs] else None


def row_of(model: Model, stock: Model | None, timed: Group | None) -> Row:
    """Return the figures of a model."""
    run, facts = model.runs[0], model.scores[0].facts
    time = time_of(run, facts, timed)
    scores = [scores.facts["map50_95"] for scores in model.scores]
    return Row(
        key=run.key,
        model=run.model,
        how=run.how,
        seeds=[run.seed for run in model.runs],
        parameters=facts["parameters"],
        gflops=facts["gflops"],
        ms=time.median_ms if time else None,
        time_ratio=time.ratio if time else None,
        val=fmean(scores.facts["map50_95"] for scores in model.val),
        score=(model.point, *interval(model.draws)),
        spread=stdev(scores) if len(scores) > 1 else None,
        map50=fmean(scores.facts["map50"] for scores in model.scores),
        difference=difference(model, stock) if stock else None,
        ratio=ratio(model, stock) if stock and stock.point > 0 else None,
    )


def difference(model: Model, stock: Model) -> Triple:
    """Return how much better a model is, the interval from the same resamples of both."""
    require_same_images(model, stock)
    return (model.point - stock.point, *interval(model.draws - stock.draws))


def ratio(model: Model, stock: Model) -> Triple:
    """Return the share of the stock model's score, the interval from the same resamples of both."""
    require_same_images(model, stock)
    base = np.where(stock.draws > 0, stock.draws, np.nan)
    return (model.point / stock.point, *interval(model.draws / base))


def require_same_images(one: Model, other: Model) -> None:
    """Raise an error where two models were not evaluated on the same images: their resamples are then not the same."""
    if len({tuple(sorted(scores.names)) for scores in [*one.scores, *other.scores]}) > 1:
        raise UserError(
            f"{one.runs[0].name} and {other.runs[0].name} were evaluated on other images; remove one's scores"
        )


def time_of(run: Run, facts: dict[str, Any], timed: Group | None) -> Timed | None:
    """Return the time of a model's architecture.

    Raises:
        UserError: If what was timed has other GFLOPs, at another size or number of classes, say.
    """
    wanted = Path(run.timed_as)
    for row in timed.rows if timed else ():
        same = row.model == run.timed_as or (wanted.suffix == ".pt" and Path(row.model).parts[-2:] == wanted.parts)
        if same and row.gflops and abs(row.gflops / facts["gflops"] - 1) > SAME_COST:
            raise UserError(
                f"--times: {row.model} was timed with {row.gflops:.3f} GFLOPs, and {run.name} has {facts['gflops']:.3f}. "
                f"Time it with --nc {facts['nc']} and the --imgsz of the training."
            )
        if same:
            return row
    return None


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
    cost = [str(row.parameters), f"{row.gflops:.3f}", *time]
    score = [f"{row.val:.3f}", triple(row.score) + spread, f"{row.map50:.3f}", triple(row.ratio) if row.ratio else ""]
    return [f"`{label(row)}`", row.how, seeds, *cost, *score]


def triple(figure: Triple) -> str:
    """Return a figure with its interval."""
    return "{:.3f} ({:.3f} to {:.3f})".format(*figure)


def plot(rows: Sequence[Row], split: str, timed: Group) -> bytes:
    """Return the scores against the times as PNG, the stock models from scratch joined by a line."""
    short = labels([label(row) for row in rows])
    points = [(row.ms or 0.0, row.score[0], short[label(row)], row.key == "stock") for row in rows]
    whiskers = [row.score[1:] for row in rows]
    return png(
        scatter(points, f"milliseconds a forward pass, {timed.title}", f"{split} mAP50-95, 95 % interval", whiskers)
    )


def label(row: Row) -> str:
    """Return what a row is called: its YAML where it was trained from scratch, else its key."""
    return row.model if row.how == "from scratch" else row.key


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
    said = f"{facts['images']} images, {facts['boxes']} boxes; intervals: {RESAMPLES} resamples of the images"
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        record = record_of(run, split, data, imgsz, f"{conditions}; {said}")
        write_whole(folder / f"{run.name}-{split}.json", json.dumps(record, indent=2) + "\n")
    text = {"split": split, "rows": [asdict(row) for row in rows]}
    write_whole(folder / "table.json", json.dumps(text, indent=2) + "\n")
    drawn = [row for row in rows if row.ms is not None]
    if timed and drawn:
        write_whole(out.with_suffix(".png"), plot(drawn, split, timed))
    about = [f"{conditions}; {split}: {said}.", *notes(rows, split), *time_notes(rows, timed, out.with_suffix(".png"))]
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
    seeds = {seed for row in rows for seed in row.seeds}
    alone = "One seed: what another would give is not in the intervals." if len(seeds) == 1 else ""
    return [
        f"""
Means over seeds; parameters and GFLOPs are of the fused model at the size it was trained at. In brackets 95 % intervals by bootstrap over the
{split} images, for `/ stock's`, the ratio of the mAP50-95 to that of the stock model from scratch, with the same resamples of both. {alone}
The best epoch of a training and the settings of ghostify were chosen on val, nothing on test.
""".strip()
    ]


def time_notes(rows: Sequence[Row], timed: Group | None, picture: Path) -> list[str]:
    """Show the plot and say what is in it."""
    if timed is None or all(row.ms is None for row in rows):
        return ["\nNothing was timed."]
    missing = [f"`{label(row)}`" for row in rows if row.ms is None]
    rest = f" Not timed, and not in the plot: {', '.join(missing)}." if missing else ""
    line = sum(row.key == "stock" and row.ms is not None for row in rows) > 1
    says = (
        "the line joins the stock models"
        if line
        else "no second scale of the stock model was trained, so there is no line"
    )
    return [
        f"\n`ms`: {timed.title}, {timed.sizes}; `time`: its ratio to `{timed.rows[0].model}`.{rest}",
        f"\n![mAP50-95 against measured time]({picture.name})\n\n*{says[0].upper()}{says[1:]}.*",
    ]

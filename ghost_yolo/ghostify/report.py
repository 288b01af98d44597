"""What ghostifying did, as a report: a row a place, and the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ghost_yolo.ghostify.calibration import Pictures
from ghost_yolo.ghostify.cost import cost_of_model, cost_of_places
from ghost_yolo.ghostify.search import Trade
from ghost_yolo.ghostify.student import Target
from ghost_yolo.registry import PREFIX
from ghost_yolo.tables import Report

POINTS = 10  # of the trade-off curve, in the table

CONVENTIONS = {
    "layer": "name in the model: a row, or one level of the head's class branch",
    "parameters, gflops": "of the module as deployed, every BN merged; 2 x MACs of one image at imgsz",
    "error": "mean squared error of the module's maps to the trained one's, each channel in units of its variance, over 64 "
    "recorded views right after it was fitted; 1 is what constants would give",
    "seconds": "wall clock, recording included; the whole has the last pass in it, and what an interrupted run took before",
}
CHOSEN = {
    "harm": "disagreement of the predictions plus relative error of the maps that the head takes in, when this block alone, fitted "
    "briefly, stands in the trained model; those of a set are added",
    "error of an option": "as the error, of this block alone in the trained model after its brief fit; of a head the mean over its "
    "levels",
}
TIMED = {
    "saved": "of the trained model's milliseconds when this block alone stands in it: those milliseconds times 1 - ratio, where "
    "the ratio is the median of times paired round by round, and its confidence interval is by bootstrap over rounds. What may "
    "as well be noise, as its interval reaches 0, is never chosen; those of a set are added",
}


@dataclass(frozen=True)
class Fitted:
    """A place, its reconstruction error and the seconds that it took."""

    place: Target
    error: float
    seconds: float


def report_of(
    teacher: Any,
    student: Any,
    fitted: Sequence[Fitted],
    seconds: float,
    pictures: Pictures,
    asked: dict[str, Any],
    trade: Trade | None,
) -> Report:
    """Return the report of a fitted student.

    Args:
        teacher: The trained model.
        student: The light one.
        fitted: What was fitted.
        seconds: What the whole took.
        pictures: What it was fitted on.
        asked: The settings.
        trade: What the budget had to choose from.
    """
    imgsz = asked["imgsz"]
    places = [item.place for item in fitted]
    before, after = (cost_of_places(model, places, imgsz) for model in (teacher, student))
    rows = [
        row_of(item.place.name.removeprefix("model."), item.place.word, a, b, item.error, item.seconds)
        for item, a, b in zip(fitted, before, after, strict=True)
    ]
    whole = row_of("whole", "", cost_of_model(teacher, imgsz), cost_of_model(student, imgsz), None, seconds)
    lines = [cells(row) for row in [*rows, whole]]
    header = ["layer", "word", "parameters", "after", "GFLOPs", "after", "error", "seconds"]
    number = len(pictures.skipped)
    skipped = f", {number} {'file' if number == 1 else 'files'} skipped that cannot be read" if number else ""
    note = (
        f"{asked['model']}: {len(pictures)} photographs at {imgsz}{skipped}; {asked['steps']} steps a block, {asked['polish']} "
        f"over the whole, seed {asked['seed']}. Parameters {percent(whole, 'parameters')}, GFLOPs {percent(whole, 'gflops')}."
    )
    used = {"photographs": len(pictures), "skipped": [str(path) for path in pictures.skipped]}
    notes, tables, more = [note], [(header, lines)], {"settings": asked, **used, "whole": whole}
    if trade is not None:
        tables += [options_table(trade), curve_table(trade)]
        more |= curve_of(trade)
        notes.append(held_against(trade))
    conventions = CONVENTIONS | (CHOSEN if trade else {}) | (TIMED if trade and trade.whole else {})
    return Report(rows, tables, conventions, notes, more)


def row_of(layer: str, word: str, before: Any, after: Any, error: float | None, seconds: float) -> dict[str, Any]:
    """Return the raw numbers of a row."""
    counted = {
        f"{figure}_{when}": getattr(cost, figure)
        for figure in ("parameters", "gflops")
        for when, cost in (("before", before), ("after", after))
    }
    return {"layer": layer, "word": word, **counted, "error": error, "seconds": seconds}


def curve_of(trade: Trade) -> dict[str, Any]:
    """Return the raw numbers of a trade-off."""
    whole = asdict(trade.whole) if trade.whole else None
    return {
        "cost": {"unit": trade.unit, "trained": trade.total, "budget": trade.budget},
        "options": [asdict(option) for option in trade.options],
        "curve": [asdict(choice) for choice in trade.front],
        "chosen": asdict(trade.chosen),
        "predicted": trade.chosen.cost / trade.total,
        "timed_whole": whole,
    }


def held_against(trade: Trade) -> str:
    """Return the chosen set's share as predicted, and where it was timed, as measured."""
    predicted = f"Budget {trade.budget:g}: the chosen set has {trade.chosen.cost / trade.total:.3f} of the {trade.unit}"
    whole = trade.whole
    if whole is None:
        return f"{predicted}."
    said = whole.conditions
    advice = (
        "give a smaller one, or more --rounds"
        if whole.high < 1
        else "it may save no time at all; give more --rounds, with nothing else running"
    )
    above = f" That is above the budget: {advice}." if whole.ratio > trade.budget else ""
    return (
        f"{predicted} by adding up savings measured one by one; timed whole against the trained model it has {whole.ratio:.3f} "
        f"(95 % {whole.low:.3f} to {whole.high:.3f}): {whole.trained_ms:.2f} ms became {whole.ms:.2f}.{above} {said['runtime']} "
        f"{said['precision']}, {said['cpu']}, {said['threads']} threads, load before {said['load_before']}, batch {said['batch']}, "
        f"{said['rounds']} rounds of {said['passes']} passes, models in turn."
    )


def options_table(trade: Trade) -> tuple[list[str], list[list[str]]]:
    """Return what each candidate saves in each row and what harm it does, row by row; a time has its interval."""
    lines = []
    for option in sorted(trade.options, key=lambda option: option.row):
        saved = f"{option.saving:.3f}"
        saved += " ({:.3f} to {:.3f})".format(*option.interval) if option.interval else ""
        figures = [saved, f"{option.error:.4f}", f"{option.harm:.4f}", "" if option.saves else "no sure saving"]
        lines.append([str(option.row), option.word.removeprefix(PREFIX), *figures])
    return ["row", "candidate", f"{trade.unit} saved", "error", "harm", ""], lines


def curve_table(trade: Trade) -> tuple[list[str], list[list[str]]]:
    """Return the trade-off: about ten of the best sets from the untouched model to the lightest, and the chosen one."""
    total, front = trade.total, trade.front
    shown = {*range(0, len(front), max(len(front) // POINTS, 1)), len(front) - 1, front.index(trade.chosen)}
    lines = []
    for choice in (front[i] for i in sorted(shown)):
        words = ", ".join(f"{row} {word.removeprefix(PREFIX)}" for row, word in sorted(choice.words.items()))
        mark = "chosen" if choice == trade.chosen else ""
        lines.append([mark, f"{choice.cost:.3f}", f"{choice.cost / total:.3f}", f"{choice.harm:.4f}", words])
    return ["best sets", trade.unit, "share", "harm", "rows and words"], lines


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table for people."""
    figures = [str(row[f"parameters_{when}"]) for when in ("before", "after")]
    figures += [f"{row[f'gflops_{when}']:.3f}" for when in ("before", "after")]
    error = "" if row["error"] is None else f"{row['error']:.4f}"
    return [row["layer"], row["word"].removeprefix(PREFIX), *figures, error, f"{row['seconds']:.1f}"]


def percent(row: dict[str, Any], figure: str) -> str:
    """Return the change of a figure."""
    return f"{(row[f'{figure}_after'] / row[f'{figure}_before'] - 1) * 100:+.1f} %"

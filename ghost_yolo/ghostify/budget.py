"""Choose which blocks to swap, and by what: try each briefly, measure harm and saving, take the best set under a budget."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from matplotlib.figure import Figure

from ghost_yolo.ghostify.cost import cost_of_places
from ghost_yolo.ghostify.features import BATCH, bytes_each, recorder, views_within
from ghost_yolo.ghostify.fit import error_of, fit
from ghost_yolo.ghostify.pictures import GIB, Pictures
from ghost_yolo.ghostify.polish import distance
from ghost_yolo.ghostify.student import places_of
from ghost_yolo.registry import PREFIX, UserError

CANDIDATES = ("C2f_GhostBottleneck", "C2f_DepthwiseSeparable", "C2f_PartialConv", "NarrowELAN")
STEPS = 40  # of a trial fit
VIEWS = 64  # photographs of a trial fit, and of its harm


@dataclass(frozen=True)
class Option:
    """A word for a row, tried by itself in the trained model.

    Attributes:
        row: The layer's index.
        word: What stands there instead.
        saving: What the model costs less by it, GFLOPs.
        harm: What it does to the predictions (`polish.distance`).
        error: Relative error of its maps, the mean over a head's levels; `fit.error_of`.
    """

    row: int
    word: str
    saving: float
    harm: float
    error: float


@dataclass(frozen=True)
class Choice:
    """A set of options: what remains of the model's GFLOPs, the sum of the harms, and the words by row."""

    gflops: float
    harm: float
    words: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trade:
    """What can be had for which cost.

    Attributes:
        options: Each word in each row by itself.
        front: The sets that no other beats.
        chosen: The best of them within the budget.
        budget: Share of the GFLOPs that may stay.
        total: GFLOPs of the untouched model.
    """

    options: Sequence[Option]
    front: Sequence[Choice]
    chosen: Choice
    budget: float
    total: float


def front_of(options: Iterable[Option], total: float) -> list[Choice]:
    """Return every set of which no other is both cheaper and less harmful, from the untouched model on.

    Exact: row by row, each set so far takes each of the row's options or none, and what is beaten is dropped. Harms are added,
    as though blocks did not know of each other.
    """
    rows: dict[int, list[Option]] = {}
    for option in options:
        rows.setdefault(option.row, []).append(option)
    front = [Choice(total, 0.0)]
    for row, choices in rows.items():
        grown = [
            Choice(before.gflops - o.saving, before.harm + o.harm, {**before.words, row: o.word})
            for before in front
            for o in choices
        ]
        front = _unbeaten([*front, *grown])
    return front


def _unbeaten(choices: Iterable[Choice]) -> list[Choice]:
    """Return the choices that no other beats, dearest first."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.gflops, c.harm)):
        if not kept or choice.harm < kept[-1].harm:
            kept.append(choice)
    return kept[::-1]


def best_of(front: Sequence[Choice], budget: float, total: float) -> Choice:
    """Return the least harmful set within a share of the model's GFLOPs.

    Raises:
        UserError: If no set is that cheap.
    """
    least = front[-1].gflops
    within = [choice for choice in front if choice.gflops <= budget * total]
    if not within:
        raise UserError(
            f"--budget {budget:g}: the cheapest set has {least / total:.2f} of the {total:.2f} GFLOPs; give more, candidates "
            "that save more, or --where all."
        )
    return within[0]


def survey(
    teacher: Any,
    plans: Sequence[Mapping[int, str]],
    models: Sequence[Any],
    pictures: Pictures,
    asked: Mapping[str, Any],
) -> list[Option]:
    """Fit each word briefly in each row, by itself in the trained model, and measure what it saves and harms.

    Args:
        teacher: The trained model.
        plans: Row to word, for each candidate; the same rows.
        models: What `student_of` makes of each.
        pictures: Photographs without labels.
        asked: Settings: seed, cache, imgsz.
    """
    options, places = [], places_of(models[0], plans[0])
    count = views_within(bytes_each(teacher, places, asked["imgsz"]), VIEWS, asked["cache"] * GIB)
    torch.manual_seed(asked["seed"])
    with recorder(teacher, teacher, pictures, count) as recorded:
        for row in plans[0]:
            features = [recorded.at(place) for place in places if place.row == row]
            words = {planned[row]: model for planned, model in zip(plans, models, strict=True)}  # a head has one only
            for word, model in words.items():
                hybrid = copy.deepcopy(teacher)
                hybrid.model[row] = copy.deepcopy(model.model[row])
                torch.manual_seed(asked["seed"])
                errors = []
                for known in features:
                    block = hybrid.get_submodule(known.place.name)
                    fit(block, known, STEPS, f"Trying {word.removeprefix(PREFIX)} in {known.place.name}")
                    errors.append(error_of(block, known))
                here = [known.place for known in features]
                before, after = (cost_of_places(m, here, asked["imgsz"]) for m in (teacher, hybrid))
                saving = sum(cost.gflops for cost in before) - sum(cost.gflops for cost in after)
                harm = harm_of(teacher, hybrid, pictures, asked["seed"])
                options.append(Option(row, word, saving, harm, sum(errors) / len(errors)))
    return options


@torch.no_grad()
def harm_of(teacher: Any, hybrid: Any, pictures: Pictures, seed: int) -> float:
    """Return how far the model with one block swapped is from the trained one, on views that are the same for all."""
    torch.manual_seed(seed)
    starts = range(0, VIEWS, BATCH)
    return sum(distance(teacher, hybrid, pictures.batch(range(i, i + BATCH)), ()).item() for i in starts) / len(starts)


def drawn(trade: Trade) -> bytes:
    """Return the trade-off curve as PNG, with each option by itself, the chosen set and the budget."""
    total, chosen = trade.total, trade.chosen
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for word in dict.fromkeys(option.word for option in trade.options):
        own = [option for option in trade.options if option.word == word]
        shares = [1 - option.saving / total for option in own]
        axes.plot(shares, [option.harm for option in own], "x", label=f"{word.removeprefix(PREFIX)}, one row")
    curve = [(choice.gflops / total, choice.harm) for choice in trade.front]
    axes.plot(*zip(*curve, strict=True), ".-", color="black", linewidth=0.8, markersize=3, label="best sets")
    axes.plot(chosen.gflops / total, chosen.harm, "o", color="black", label="chosen")
    axes.axvline(trade.budget, color="grey", linestyle=":", label="budget")
    axes.set(xlabel="share of the GFLOPs that remains", ylabel="harm after trial fits, summed over the rows")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()

"""Choose which blocks to swap, and by what: try each briefly, measure harm and saving, take the best set under a budget."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.activations import BATCH, Features, bytes_each, recorder, views_within
from ghost_yolo.ghostify.calibration import Pictures
from ghost_yolo.ghostify.closed_form import begin
from ghost_yolo.ghostify.distill import distance
from ghost_yolo.ghostify.reconstruct import error_of, fit
from ghost_yolo.ghostify.savings import Savings, Timed
from ghost_yolo.ghostify.state import RunState
from ghost_yolo.ghostify.student import targets_of
from ghost_yolo.registry import PREFIX
from ghost_yolo.utils.system import GIB

CANDIDATES = ("C2f_GhostBottleneck", "C2f_DepthwiseSeparable", "C2f_PartialConv", "NarrowELAN")
STEPS = 40  # of a trial fit
VIEWS = 64  # photographs of a trial fit, and of its harm


@dataclass(frozen=True)
class Option:
    """A word for a row, tried by itself in the trained model.

    Attributes:
        row: Of the model.
        word: What takes its place.
        saving: What the model costs less by it, GFLOPs or milliseconds.
        harm: What it does to the predictions (`polish.distance`).
        error: Relative error of its maps, the mean over a head's levels; `fit.error_of`.
        interval: 95 % confidence interval of a saving in milliseconds; None for GFLOPs, which are counted.
    """

    row: int
    word: str
    saving: float
    harm: float
    error: float
    interval: tuple[float, float] | None = None

    @property
    def saves(self) -> bool:
        """Whether it saves anything at all: the interval of a time that was saved must lie above 0."""
        return (self.interval[0] if self.interval else self.saving) > 0


@dataclass(frozen=True)
class Choice:
    """A set of options: what remains of the model's cost, the sum of the harms, and the words by row."""

    cost: float
    harm: float
    words: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trade:
    """What can be had for which cost.

    Attributes:
        options: Each word in each row by itself.
        front: The sets that no other beats.
        chosen: The best of them within the budget.
        budget: Share of the cost that may stay.
        total: Cost of the untouched model.
        unit: GFLOPs, or ms in some runtime.
        whole: The chosen set in milliseconds, timed whole; None for GFLOPs.
    """

    options: Sequence[Option]
    front: Sequence[Choice]
    chosen: Choice
    budget: float
    total: float
    unit: str = "GFLOPs"
    whole: Timed | None = None


def front_of(options: Iterable[Option], total: float) -> list[Choice]:
    """Return every set of which no other is both cheaper and less harmful, from the untouched model on.

    Exact: row by row, each set so far takes each of the row's options or none, and what is beaten is dropped. Savings and harms
    are added, as though blocks did not know of each other. What saves nothing, or no time that stands out from the noise of its
    own measurement, is left out: it would do harm for nothing.
    """
    rows: dict[int, list[Option]] = {}
    for option in (option for option in options if option.saves):
        rows.setdefault(option.row, []).append(option)
    front = [Choice(total, 0.0)]
    for row, choices in rows.items():
        grown = [
            Choice(before.cost - o.saving, before.harm + o.harm, {**before.words, row: o.word})
            for before in front
            for o in choices
        ]
        front = _unbeaten([*front, *grown])
    return front


def _unbeaten(choices: Iterable[Choice]) -> list[Choice]:
    """Return the choices that no other beats, dearest first."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.cost, c.harm)):
        if not kept or choice.harm < kept[-1].harm:
            kept.append(choice)
    return kept[::-1]


def require_reachable(savings: Savings, part: RunState) -> None:
    """Raise the error of a budget that no set can keep, before any trial fit; times are then not kept: they may be noise."""
    options = [Option(*key, saved.amount, 0.0, 0.0, saved.interval) for key, saved in savings.each.items()]
    doubtful = sum(option.interval is not None and not option.saves for option in options)
    hint = (
        f" {doubtful} of {len(options)} savings may be noise: give more --rounds, with nothing else running."
        if doubtful
        else ""
    )
    try:
        best_of(front_of(options, savings.total), part.settings["budget"], savings.total, savings.unit, hint)
    except UserError:
        part.remove()
        raise


def best_of(front: Sequence[Choice], budget: float, total: float, unit: str = "GFLOPs", hint: str = "") -> Choice:
    """Return the least harmful set within a share of the model's cost.

    Raises:
        UserError: If no set is that cheap.
    """
    least = front[-1].cost
    within = [choice for choice in front if choice.cost <= budget * total]
    if not within:
        raise UserError(
            f"--budget {budget:g}: the cheapest set has {least / total:.2f} of the {total:.2f} {unit}; give more, candidates "
            f"that save more, or --where all.{hint}"
        )
    return within[0]


def survey(
    teacher: Any,
    plans: Sequence[Mapping[int, str]],
    models: Sequence[Any],
    pictures: Pictures,
    asked: Mapping[str, Any],
    savings: Savings,
) -> list[Option]:
    """Fit each word briefly in each row, by itself in the trained model, and measure what it harms.

    Args:
        teacher: The trained model.
        plans: Row to word, for each candidate; the same rows.
        models: What `student_of` makes of each.
        pictures: Photographs without labels.
        asked: Settings: seed, cache, imgsz.
        savings: What each word saves in each row.
    """
    options, places = [], targets_of(models[0], plans[0])
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
                errors = [tried(hybrid, teacher, known, word) for known in features]
                saved, harm = savings.each[row, word], harm_of(teacher, hybrid, pictures, asked["seed"])
                options.append(Option(row, word, saved.amount, harm, sum(errors) / len(errors), saved.interval))
    return options


def tried(hybrid: Any, teacher: Any, known: Features, word: str) -> float:
    """Fit a block briefly where it stands in the hybrid, and return its error."""
    name = known.place.name
    block = hybrid.get_submodule(name)
    begin(block, teacher.get_submodule(name), known.some())
    fit(block, known, STEPS, f"Trying {word.removeprefix(PREFIX)} in {name}")
    return error_of(block, known)


@torch.no_grad()
def harm_of(teacher: Any, hybrid: Any, pictures: Pictures, seed: int) -> float:
    """Return how far the model with one block swapped is from the trained one, on views that are the same for all.

    They are other views of the photographs than those of the trial fits, which the seed itself draws.
    """
    torch.manual_seed(seed + 1)
    starts = range(0, VIEWS, BATCH)
    return sum(distance(teacher, hybrid, pictures.batch(range(i, i + BATCH)), ()).item() for i in starts) / len(starts)

"""The trade-off of a budget as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ghost_yolo.ghostify.search import Option, Trade
from ghost_yolo.registry import PREFIX


def drawn(trade: Trade) -> bytes:
    """Return the trade-off curve as PNG, with each option by itself, the chosen set and the budget; bars are 95 % intervals."""
    total, chosen, whole = trade.total, trade.chosen, trade.whole
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for word in dict.fromkeys(option.word for option in trade.options):
        _draw(axes, [option for option in trade.options if option.word == word], total)
    curve = [(choice.cost / total, choice.harm) for choice in trade.front]
    axes.plot(*zip(*curve, strict=True), ".-", color="black", linewidth=0.8, markersize=3, label="best sets")
    axes.plot(chosen.cost / total, chosen.harm, "o", color="black", label="chosen")
    if whole is not None:
        bar = np.abs(np.array([[whole.low], [whole.high]]) - whole.ratio)
        axes.errorbar(
            whole.ratio, chosen.harm, xerr=bar, fmt="D", color="black", mfc="none", label="chosen, timed whole"
        )
    axes.axvline(trade.budget, color="grey", linestyle=":", label="budget")
    axes.set(xlabel=f"share of the {trade.unit} that remains", ylabel="harm after trial fits, summed over the rows")
    figure.legend(loc="outside lower center", ncols=3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _draw(axes: Axes, options: Sequence[Option], total: float) -> None:
    """Draw the options of a word, each by itself in the trained model."""
    savings = np.array([option.saving for option in options])
    ends = np.array([option.interval or (option.saving, option.saving) for option in options]).T
    bars = np.abs(ends - savings)[::-1] / total  # what is saved goes to the left
    label = f"{options[0].word.removeprefix(PREFIX)}, one row"
    axes.errorbar(1 - savings / total, [o.harm for o in options], xerr=bars, fmt="x", elinewidth=0.8, label=label)

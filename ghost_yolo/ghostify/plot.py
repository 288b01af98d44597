"""Plots: the trade-off of a budget between cost and sensitivity, and of files and candidates between speed-up and agreement."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ghost_yolo.ghostify.delivery import Delivered
from ghost_yolo.ghostify.savings import Latency
from ghost_yolo.ghostify.search import BlockOption, TradeOff
from ghost_yolo.ghostify.target import TimeTarget
from ghost_yolo.registry import PREFIX

COLOURS = {"trained": "grey", "exported": "black"}


def plot_trade_off(trade_off: TradeOff) -> bytes:
    """Return the plot as PNG: options, Pareto front, selection and budget; error bars are 95 % intervals."""
    total, selected = trade_off.total, trade_off.selected
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for block in dict.fromkeys(option.block for option in trade_off.options):
        _plot_options(axes, [option for option in trade_off.options if option.block == block], total)
    front = [(selection.cost / total, selection.sensitivity) for selection in trade_off.pareto_front]
    axes.plot(*zip(*front, strict=True), ".-", color="black", linewidth=0.8, markersize=3, label="Pareto front")
    axes.plot(trade_off.predicted, selected.sensitivity, "o", color="black", label="selected")
    if trade_off.measured is not None:
        _plot_measured(axes, trade_off.measured, selected.sensitivity)
    axes.axvline(trade_off.budget, color="grey", linestyle=":", label="budget")
    axes.set(xlabel=f"share of the {trade_off.unit} kept", ylabel="sensitivity, summed over the rows")
    figure.legend(loc="outside lower center", ncols=3)
    return _png(figure)


def _plot_options(axes: Axes, options: Sequence[BlockOption], total: float) -> None:
    """Plot the options of one block."""
    savings = np.array([option.saving for option in options])
    ends = np.array([option.interval or (option.saving, option.saving) for option in options]).T
    bars = np.abs(ends - savings)[::-1] / total  # reversed, since a larger saving is a smaller share
    label = f"{options[0].block.removeprefix(PREFIX)}, one row"
    sensitivities = [option.sensitivity for option in options]
    axes.errorbar(1 - savings / total, sensitivities, xerr=bars, fmt="x", elinewidth=0.8, label=label)


def _plot_measured(axes: Axes, latency: Latency, sensitivity: float) -> None:
    """Plot the measured share of the selection."""
    bars = np.abs(np.array(latency.interval)[:, None] - latency.ratio)
    axes.errorbar(latency.ratio, sensitivity, xerr=bars, fmt="D", color="black", mfc="none", label="selected, measured")


def plot_delivered(judged: Sequence[Delivered], target: TimeTarget | None = None) -> bytes:
    """Return the plot of speed-up against agreement as PNG: what was timed and scored, and the candidates of a target."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    if target is not None:
        _plot_candidates(axes, target)
    for item in drawn(judged):
        agreements, shares = (np.array(ends, float) for ends in (item.agreement, item.time_ratio))
        speeds = 1 / shares[[0, 2, 1]]
        (y, *low_high), (x, *slow_fast) = agreements, speeds
        bars = {"yerr": np.abs(np.array(low_high) - y)[:, None], "xerr": np.abs(np.array(slow_fast) - x)[:, None]}
        axes.errorbar(x, y, **bars, fmt="o", color=COLOURS[item.name], label=f"{item.name}, 95 %")
    axes.set(xlabel="speed-up over the baseline", ylabel="agreement with the trained model, mAP50-95")
    figure.legend(loc="outside lower center", ncols=5)
    return _png(figure)


def drawn(judged: Sequence[Delivered]) -> list[Delivered]:
    """Return the files that were both timed and scored: the trained model and the exported one, where there is one."""
    return [item for item in judged if item.agreement[0] is not None and item.time_ratio[0] is not None]


def _png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _plot_candidates(axes: Axes, target: TimeTarget) -> None:
    """Plot the options of a target: timed, fitted, distilled."""
    fitted = [option for option in target.options if option.agreement is not None]
    for name, label, marker in (("agreement", "fitted", "x"), ("distilled", "distilled", "o")):
        known = [option for option in fitted if getattr(option, name) is not None]
        values = [getattr(option, name) for option in known]
        axes.plot([1 / o.time_ratio for o in known], values, marker, color="tab:blue", mfc="none", label=label)
    for option in fitted:
        axes.annotate(option.title, (1 / option.time_ratio, option.agreement or 0), (5, 5), textcoords="offset points")
    speeds = [1 / option.time_ratio for option in target.options]
    axes.plot(
        speeds, [0] * len(speeds), "|", color="grey", label="timed untrained", transform=axes.get_xaxis_transform()
    )
    axes.axvline(1 / target.share, color="grey", linestyle=":", label="target")

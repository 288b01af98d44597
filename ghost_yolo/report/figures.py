"""Plots of the report as matplotlib figures, sized for a phone."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ghost_yolo.bench.results import BenchRow
from ghost_yolo.model.catalog import is_stock
from ghost_yolo.report.labels import Piece, Point, number_points, place_labels

WIDTH = 4.8  # inches; at 9.5 points text stays legible when a phone shrinks the figure to its width
STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "ghost_yolo",
    "text.parse_math": False,  # a dollar in a file's name is a dollar
}
MAX_NAMED = 8  # a plot with more points shows numbers, with the names below the plot: names would overlap
STOCK_COLOUR, LIGHT_COLOUR, GFLOPS_COLOUR, GREY = "#222222", "#7b3294", "#b8b8b8", "#a0a0a0"
SCALE_COLOURS = {"n": "#c6a5d8", "s": "#9e6ebd", "m": "#7b3294", "l": "#4d1a66", "x": "#1f0a2b"}
OPERATOR_COLOURS = ("#7b3294", "#e08214", "#1b9e77", "#4a90c2", "#d6604d", "#a6761d", "#666666")
OTHERS = "all others"


def style() -> AbstractContextManager[None]:
    """Return a context in which figures are drawn with STYLE, whatever the user's settings are."""
    return mpl.rc_context(STYLE)  # type: ignore[arg-type, unused-ignore]  # the newest wants its keys by name


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG with text as paths, so that it looks the same on every machine."""
    return _render(figure, "svg")


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    return _render(figure, "png")


def _render(figure: Figure, kind: str) -> bytes:
    """Return a figure in a file format; a character that the font lacks becomes a box."""
    out = io.BytesIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(out, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def _canvas(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of one plot."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def scales_figure(changes: dict[str, dict[str, float]], what: str) -> Figure:
    """Plot each model's ratio to the stock model, one dot for each scale.

    Args:
        changes: Model to scale letter to ratio.
        what: Name of the figure, for the axis.
    """
    with style():
        figure, axes = _canvas(1.0 + 0.27 * len(changes))
        scales = [letter for letter in SCALE_COLOURS if any(letter in row for row in changes.values())]
        for index, letter in enumerate(scales):
            shift = (index - (len(scales) - 1) / 2) * 0.15
            points = [(row[letter], line + shift) for line, row in enumerate(changes.values()) if letter in row]
            parts, lines = zip(*points, strict=True)
            axes.scatter(parts, lines, s=18, color=SCALE_COLOURS[letter], label=letter)
        _ratio_axis(axes, list(changes), [value for row in changes.values() for value in row.values()])
        axes.set_xlabel(f"{what} / {what} of the stock model")
        _legend_above(figure, len(scales))
    return figure


def _ratio_axis(axes: Axes, names: list[str], values: list[float]) -> None:
    """Set the y axis to the models, from top to bottom, and the x axis to ratios on a logarithmic scale."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    low, high = min([*values, 0.9]) * 0.95, max([*values, 1.1]) * 1.05
    wanted = (0.25, 0.35, 0.5, 0.7, 1, 1.5, 2, 3) if high / low < 8 else (0.1, 0.25, 0.5, 1, 2, 4, 8, 16)
    _logarithmic(axes, low, high, wanted)
    axes.tick_params(axis="y", length=0)
    axes.axvline(1, color=STOCK_COLOUR, linewidth=1)
    axes.grid(axis="x", alpha=0.35, linewidth=0.6)


def _logarithmic(axes: Axes, low: float, high: float, wanted: Iterable[float]) -> None:
    """Give the x axis a logarithmic scale with plain numbers at the wanted ticks, or at others where hardly one is within its ends."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [tick for tick in wanted if low <= tick <= high]
    if len(ticks) < 2:
        ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def _legend_above(figure: Figure, columns: int) -> None:
    """Put the legend above the plot."""
    figure.legend(loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.2, handletextpad=0.4)


def time_figure(rows: Sequence[BenchRow], names: dict[str, str]) -> Figure:
    """Plot measured time against GFLOPs, the stock models joined by a line."""
    points = [
        (row.gflops, row.median_ms, names[row.model], is_stock(row.model))
        for row in rows
        if row.gflops and row.median_ms
    ]
    return scatter(points, "GFLOPs", "milliseconds per forward pass", low_is_zero=True)


def scatter(
    points: Sequence[Point],
    x: str,
    y: str,
    error_bars: Sequence[tuple[float, float]] = (),
    low_is_zero: bool = False,
    x_bars: Sequence[tuple[float, float]] = (),
    line: Sequence[int] | None = None,
    grey: Collection[int] = (),
    log_x: bool = False,
) -> Figure:
    """Plot labelled points, some of them joined by a line.

    Args:
        points: x, y, label, and whether it is a stock model.
        x: Label of the x axis.
        y: Label of the y axis.
        error_bars: Lower and upper end in y for each point, if there are any.
        low_is_zero: Whether the axes begin at zero.
        x_bars: Lower and upper end in x for each point, if there are any.
        line: Indices of the points that a line joins; None for all stock models.
        grey: Indices of the points that are drawn in grey.
        log_x: Whether the x axis is logarithmic; the line stays straight in x and y, and is drawn as a curve.
    """
    joined = [index for index, point in enumerate(points) if point[3]] if line is None else line
    colours = [
        GREY if index in grey else STOCK_COLOUR if point[3] else LIGHT_COLOUR for index, point in enumerate(points)
    ]
    with style():
        crowded = len(points) > MAX_NAMED
        figure, axes = _canvas(4.2 + 0.11 * len(points) if crowded else 3.9)
        ends = sorted(points[index][:2] for index in joined)
        if len(ends) > 1:
            if log_x:
                between = np.geomspace(ends[0][0], ends[-1][0], 16)
                ends = sorted({*ends, *zip(between, np.interp(between, *zip(*ends, strict=True)), strict=True)})
            axes.plot(*zip(*ends, strict=True), color=STOCK_COLOUR, linewidth=1.2, alpha=0.7, zorder=1)
        bars = _draw_points(axes, points, colours, error_bars, x_bars)
        axes.margins(0.18)
        if log_x:
            times = [*(point[0] for point in points), *(end for bar in x_bars for end in bar)]
            low, high = min(times) * 0.75, max(times) * 1.3
            _logarithmic(axes, low, high, LogLocator(subs=(1, 2, 5)).tick_values(low, high))
        axes.grid(alpha=0.35, linewidth=0.6)
        axes.set(xlabel=x, ylabel=y)
        if low_is_zero:
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
        if crowded:
            points = number_points(figure, points)
        place_labels(figure, axes, points, colours, [*pairwise(ends), *bars])
    return figure


def _draw_points(
    axes: Axes,
    points: Sequence[Point],
    colours: Sequence[str],
    y_bars: Sequence[tuple[float, float]],
    x_bars: Sequence[tuple[float, float]],
) -> list[Piece]:
    """Draw points with their error bars, and return both ends of each bar."""
    pieces = list[Piece]()
    for index, ((x, y, _, stock), colour) in enumerate(zip(points, colours, strict=True)):
        low, high = y_bars[index] if y_bars else (y, y)
        left, right = x_bars[index] if x_bars else (x, x)
        y_error = [[max(y - low, 0)], [max(high - y, 0)]]  # a percentile interval may leave its figure out
        x_error = [[max(x - left, 0)], [max(right - x, 0)]] if x_bars else None
        axes.errorbar(x, y, y_error, x_error, fmt="none", ecolor=colour, elinewidth=1, capsize=2)
        axes.scatter(x, y, s=32, color=colour, marker="s" if stock else "o", zorder=2)
        pieces += [((x, low), (x, high)), *([((left, y), (right, y))] if x_bars else [])]
    return pieces


def ratios_figure(rows: Sequence[BenchRow], names: dict[str, str], first: BenchRow) -> Figure:
    """Plot GFLOPs and time of each model relative to the first model, the time with its interval."""
    with style():
        figure, axes = _canvas(1.2 + 0.55 * len(rows))
        for line, row in enumerate(rows):
            assert row.ratio  # the caller selects rows with a ratio
            ends = (row.ratio_low or row.ratio, row.ratio_high or row.ratio)
            error = [[max(row.ratio - ends[0], 0)], [max(ends[1] - row.ratio, 0)]]
            axes.barh(
                line - 0.19,
                row.gflops_ratio(first) or 0,
                0.36,
                color=GFLOPS_COLOUR,
                label="GFLOPs" if not line else None,
            )
            bar: dict[str, Any] = {"xerr": error, "error_kw": {"elinewidth": 1.2, "capsize": 3}}
            axes.barh(
                line + 0.19, row.ratio, 0.36, color=LIGHT_COLOUR, label="time, 95 % CI" if not line else None, **bar
            )
        axes.set_yticks(range(len(rows)), [names[row.model] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.axvline(1, color=STOCK_COLOUR, linewidth=1)
        axes.grid(axis="x", alpha=0.35, linewidth=0.6)
        axes.set_xlabel(f"relative to {names[first.model]}")
        _legend_above(figure, 2)
    return figure


def profile_figure(profile: dict[str, dict[str, float]], names: dict[str, str]) -> Figure:
    """Plot the time by operator type: one bar for each model, one colour for each type."""
    shown = largest_operators(profile)
    with style():
        figure, axes = _canvas(1.5 + 0.4 * len(profile) + 0.2 * ((len(shown) + 1) // 2))
        left = [0.0] * len(profile)
        for operator, colour in zip([*shown, OTHERS], [*OPERATOR_COLOURS[: len(shown)], "#dddddd"], strict=True):
            widths = [operator_times(row, shown)[operator] for row in profile.values()]
            axes.barh(range(len(profile)), widths, 0.65, left=left, color=colour, label=operator)
            left = [before + width for before, width in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(profile)), [names[model] for model in profile])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.35, linewidth=0.6)
        axes.set_xlabel("milliseconds per forward pass, profiled")
        _legend_above(figure, 2)
    return figure


def largest_operators(profile: dict[str, dict[str, float]]) -> list[str]:
    """Return the operator types that take most time over all models, as many as there are colours."""
    sums: dict[str, float] = {}
    for operators in profile.values():
        for operator, ms in operators.items():
            sums[operator] = sums.get(operator, 0.0) + ms
    return sorted(sums, key=lambda operator: -sums[operator])[: len(OPERATOR_COLOURS)]


def operator_times(operators: dict[str, float], shown: Sequence[str]) -> dict[str, float]:
    """Return a model's milliseconds by shown operator type, and those of all others."""
    rest = sum(ms for operator, ms in operators.items() if operator not in shown)
    return {operator: operators.get(operator, 0.0) for operator in shown} | {OTHERS: rest}

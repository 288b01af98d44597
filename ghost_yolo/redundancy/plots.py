"""The figures, as matplotlib figures; nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ghost_yolo.model.catalog import labels
from ghost_yolo.redundancy.correlate import COST, REDUNDANCY, Stage
from ghost_yolo.redundancy.filters import DRAWS, Convolution
from ghost_yolo.redundancy.kernels import SIZES
from ghost_yolo.redundancy.survey import GHOST, Row

HIGHEST = 1.2  # errors above are drawn there: no better than a constant
CELLS = 64  # maps in the grid
COLUMNS = 8
FRAMES = ("red", "limegreen", "dodgerblue")
SHADES = {1: "#c6a5d8", 3: "#7b3294", 5: "#1b9e77", 7: "#e08214"}
NETWORKS = {"trained": "this checkpoint", "untrained": "untrained network", "shuffled": "maps shuffled in space"}
FEW = 8  # filters below which a convolution's mean says nothing
TRAINED, RANDOM = "#7b3294", "black"


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG."""
    figure.savefig(file, dpi=120)


def depth_figure(rows: Sequence[Row], within: float) -> Figure:
    """Draw the share of reproducible maps and the median error by depth, with the two baselines beside."""
    figure = Figure(figsize=(15, 7), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey="row", squeeze=False)
    for column, (network, title) in enumerate(NETWORKS.items()):
        for d in SIZES:
            results = [getattr(row, network) for row in rows]
            for line, field in enumerate(("share", "median")):
                values = [np.nan if (v := getattr(result, field)[d]) is None else v for result in results]
                axes[line, column].plot(
                    np.minimum(values, HIGHEST), "o-", color=SHADES[d], label=f"{d} x {d}", markersize=4, clip_on=False
                )
        axes[0, column].set_title(title)
        axes[1, column].set_xticks(range(len(rows)), [f"{r.layer.index} {r.layer.module}" for r in rows], rotation=90)
        axes[1, column].axhline(within, color="black", linewidth=0.8, linestyle=":")
    axes[0, 0].set_ylabel(f"share of maps reproduced\nwithin {within:g} of their variance")
    axes[0, 0].set_ylim(0, max(0.1, axes[0, 0].get_ylim()[1]))  # a few copies must not look like many
    axes[1, 0].set_ylabel(f"median error, as a part\nof the variance (cut at {HIGHEST};\ndotted: the bound)")
    axes[1, 0].set_ylim(0, HIGHEST)
    axes[0, 2].legend(title="depthwise kernel")
    figure.supxlabel("layer")
    return figure


def maps_figure(row: Row, maps: torch.Tensor, photo: int) -> Figure:
    """Draw a layer's maps (c, h, w) as a grid, the most similar pairs framed alike; each map on its own grey scale."""
    frames = {number: FRAMES[i] for i, pair in enumerate(row.trained.pairs) for number in (pair.map, pair.partner)}
    rest = [number for number in range(len(maps)) if number not in frames]
    shown = sorted([*frames, *rest[: CELLS - len(frames)]])
    lines = ceil(len(shown) / COLUMNS)
    height, width = maps.shape[1:]
    figure = Figure(figsize=(12, 0.7 + lines * (1.5 * height / width + 0.22)), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axis in axes[len(shown) :]:
        axis.remove()
    for axis, number in zip(axes, shown, strict=False):
        picture(axis, maps[number], f"{number}", frames.get(number))
    hidden = f", {len(shown)} of them drawn" if len(shown) < len(maps) else ""
    figure.suptitle(
        f"layer {row.layer.index} ({row.layer.module}): {len(maps)} maps on photograph {photo + 1}{hidden}; "
        "framed: the most similar pairs over all"
    )
    return figure


def pairs_figure(row: Row, maps: torch.Tensor, photo: int) -> Figure:
    """Draw for each pair what the 3x3 kernel makes of the one map, beside the other and what is left."""
    pairs = row.trained.pairs
    figure = Figure(figsize=(12, 0.6 + 2.4 * max(len(pairs), 1)), layout="constrained")
    axes = figure.subplots(max(len(pairs), 1), 5, squeeze=False, width_ratios=(1, 0.6, 1, 1, 1))
    for line, pair, colour in zip(axes, pairs, FRAMES, strict=False):
        source, wanted = maps[pair.partner], maps[pair.map]
        made = torch.nn.functional.conv2d(source[None, None].double(), pair.kernel[None, None], padding=GHOST // 2)
        made = made[0, 0].float() + pair.bias
        scale = contrast(wanted)
        half = (scale[1] - scale[0]) / 2
        picture(line[0], source, f"map {pair.partner}", colour)
        draw_kernel(line[1], pair.kernel)
        picture(line[2], made, f"made from it (error {pair.error[GHOST]:.3f})", None, scale)
        picture(line[3], wanted, f"map {pair.map} (correlation {pair.correlation:+.3f})", colour, scale)
        picture(line[4], wanted - made, "what is left, same contrast", None, (-half, half))
    if not pairs:
        for axis in axes.ravel():
            axis.remove()
    figure.suptitle(
        f"layer {row.layer.index} ({row.layer.module}): the most similar pairs, chosen over all photographs to learn from, "
        f"drawn on photograph {photo + 1}; errors are over all held-out ones"
    )
    return figure


def contrast(values: torch.Tensor) -> tuple[float, float]:
    """Return the range that holds 99 % of the values: a single bright pixel would leave the rest black."""
    low, high = np.quantile(values.numpy(), (0.005, 0.995))
    return float(low), float(high)


def draw_kernel(axis: Axes, kernel: torch.Tensor) -> None:
    """Draw a kernel's weights, red above and blue below zero."""
    most = float(kernel.abs().max())
    axis.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-1.5 * most, vmax=1.5 * most)
    for (row, column), weight in np.ndenumerate(kernel.numpy()):
        axis.text(column, row, f"{weight:.2f}", ha="center", va="center", fontsize=8)
    axis.set_title("its 3 x 3 kernel", fontsize=9, pad=3)
    axis.set_xticks([])
    axis.set_yticks([])


def picture(
    axis: Axes, values: torch.Tensor, title: str, frame: str | None, scale: tuple[float, float] | None = None
) -> None:
    """Draw one map in grey, within `scale` or within its own contrast."""
    low, high = scale or contrast(values)
    axis.imshow(values.numpy(), cmap="gray", vmin=low, vmax=high, aspect="equal")
    axis.set_title(title, fontsize=9, pad=3, color=frame or "black")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(frame is not None)
        spine.set(color=frame, linewidth=3)


def cosines_figure(found: Sequence[Convolution]) -> Figure:
    """Draw the means by depth, and one histogram a convolution against random Gaussian filters."""
    lines = ceil(len(found) / COLUMNS)
    figure = Figure(figsize=(12, 3.5 + 1.5 * lines), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(3.5, 1.5 * lines), squeeze=False)[:, 0]
    draw_means(parts[0].subplots(), [item for item in found if len(item.filters) >= FEW])
    axes = parts[1].subplots(lines, COLUMNS, squeeze=False).ravel()
    for axis, item in zip(axes, found, strict=False):
        draw_histogram(axis, item)
    for axis in axes[len(found) :]:
        axis.set_visible(False)
    return figure


def draw_means(axis: Axes, found: Sequence[Convolution]) -> None:
    """Draw the mean similarity by depth; a convolution of few filters (one for each class) is close to nothing opposite."""
    for values, colour, label in (
        ([item.cosine.mean() for item in found], TRAINED, "this checkpoint"),
        ([item.random.mean() for item in found], RANDOM, f"random Gaussian filters, {DRAWS} draws"),
    ):
        axis.plot(values, "o-", markersize=3, color=colour, label=label)
    firsts = [i for i, item in enumerate(found) if i == 0 or item.layer != found[i - 1].layer]
    axis.set_xticks(firsts, [str(found[i].layer) for i in firsts], fontsize=7)
    axis.set_xlabel(f"layer (its convolutions of {FEW} filters or more in order)")
    axis.set_ylabel("mean cosine similarity\nto the most opposite filter")
    axis.margins(x=0.01)
    axis.grid(axis="y", alpha=0.4)
    axis.legend(title="below: filled, and outlined")


def draw_histogram(axis: Axes, item: Convolution) -> None:
    """Draw one convolution's similarities, filled, and those of all random draws as an outline, on their own range."""
    axis.set_yticks([])
    axis.tick_params(labelsize=7)
    axis.locator_params(axis="x", nbins=3)
    axis.set_title(f"{item.name.removeprefix('model.')}\n{' x '.join(map(str, item.shape))}", fontsize=7, pad=2)
    if not len(item.cosine):
        return
    both = np.concatenate((item.cosine, item.random.ravel()))
    bins = np.linspace(both.min(), both.max() + 1e-6, 31).tolist()
    axis.hist(item.cosine, bins, density=True, color=TRAINED, alpha=0.6, histtype="stepfilled")
    axis.hist(item.random.ravel(), bins, density=True, color=RANDOM, histtype="step")


def cost_figure(stages: Sequence[Stage], correlations: Sequence[dict[str, Any]]) -> Figure:
    """Draw each stage's cost over its redundancy, a column for each measure and a line for each cost that is known."""
    across, down = (list(dict.fromkeys(row[side] for row in correlations)) for side in ("redundancy", "cost"))
    figure = Figure(figsize=(3.9 * len(across) + 0.5, 1.2 + 3.2 * len(down)), layout="constrained")
    axes = figure.subplots(len(down), len(across), sharex="col", sharey="row", squeeze=False)
    for row in correlations:
        axis = axes[down.index(row["cost"]), across.index(row["redundancy"])]
        draw_stages(axis, stages, row["redundancy"], row["cost"])
        axis.set_title(agreement_title(row), fontsize=9)
    for axis, name in zip(axes[-1], across, strict=True):
        axis.set_xlabel(REDUNDANCY[name])
    for axis, name in zip(axes[:, 0], down, strict=True):
        axis.set_ylabel(COST[name])
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(across), title="model; number: stage")
    return figure


def agreement_title(row: dict[str, Any]) -> str:
    """Return what a panel says of its correlation, on two lines."""
    if row["within"] is None:
        return f"n = {row['n']}: no rank correlation,\none of them is the same for all"
    alike = "" if row["p_alike"] is None else f", p alike {row['p_alike']:.2g}"
    return f"n = {row['n']}, rho within models {row['within']:+.2f}\np {row['p']:.2g}{alike}"


def draw_stages(axis: Axes, stages: Sequence[Stage], x: str, y: str) -> None:
    """Draw the stages that have both figures, a colour a model, each with its number."""
    for model, label in labels([stage.model for stage in stages]).items():
        known = [s for s in stages if s.model == model and None not in (getattr(s, x), getattr(s, y))]
        places = [(getattr(s, x), getattr(s, y)) for s in known]
        axis.plot([place[0] for place in places], [place[1] for place in places], "o", label=label, alpha=0.8)
        for stage, place in zip(known, places, strict=True):
            axis.annotate(str(stage.layer), place, xytext=(4, 3), textcoords="offset points", fontsize=7)
    axis.margins(0.1)
    axis.grid(alpha=0.3)

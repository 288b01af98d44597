"""Plot the results of `ghosts`, `pairs` and `correlate` as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn.functional import conv2d

from ghost_yolo.model.catalog import labels
from ghost_yolo.redundancy.correlate import COST_LABELS, REDUNDANCY_LABELS, Stage, StageCorrelation
from ghost_yolo.redundancy.filters import NUM_RANDOM_DRAWS, FilterSimilarity
from ghost_yolo.redundancy.kernels import KERNEL_SIZES
from ghost_yolo.redundancy.ranks import RankCorrelation
from ghost_yolo.redundancy.survey import LayerRedundancy
from ghost_yolo.redundancy.two_pass import GHOST_KERNEL, MapPair

MAX_ERROR = 1.2  # larger errors are clipped: they are no better than a constant
MAX_CELLS = 64  # maps in the grid
COLUMNS = 8
PAIR_COLORS = ("red", "limegreen", "dodgerblue")
KERNEL_COLORS = {1: "#c6a5d8", 3: "#7b3294", 5: "#1b9e77", 7: "#e08214"}
NETWORK_TITLES = {
    "trained": "trained network",
    "untrained": "untrained network",
    "shuffled": "trained network, shuffled maps",
}
MIN_FILTERS = 8  # the mean of fewer filters is noise
TRAINED_COLOR, RANDOM_COLOR = "#7b3294", "black"


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG."""
    figure.savefig(file, dpi=120)


def depth_figure(layers: Sequence[LayerRedundancy], within: float) -> Figure:
    """Plot share of reproduced maps and median error by depth, with both baselines in columns of their own."""
    figure = Figure(figsize=(15, 7), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey="row", squeeze=False)
    for column, (network, title) in enumerate(NETWORK_TITLES.items()):
        results = [getattr(layer, network) for layer in layers]
        for d in KERNEL_SIZES:
            for line, field in enumerate(("share", "median")):
                values = [np.nan if (v := getattr(result, field)[d]) is None else v for result in results]
                axes[line, column].plot(
                    np.minimum(values, MAX_ERROR),
                    "o-",
                    color=KERNEL_COLORS[d],
                    label=f"{d} x {d}",
                    markersize=4,
                    clip_on=False,
                )
        axes[0, column].set_title(title)
        names = [f"{layer.source.index} {layer.source.module}" for layer in layers]
        axes[1, column].set_xticks(range(len(layers)), names, rotation=90)
        axes[1, column].axhline(within, color="black", linewidth=0.8, linestyle=":")
    axes[0, 0].set_ylabel(f"share of maps with\nrelative error <= {within:g}")
    axes[0, 0].set_ylim(0, max(0.1, axes[0, 0].get_ylim()[1]))  # a small share must not look large
    axes[1, 0].set_ylabel(f"median relative error\n(clipped at {MAX_ERROR}; dotted: {within:g})")
    axes[1, 0].set_ylim(0, MAX_ERROR)
    axes[1, 0].set_xlim(-0.5, len(layers) - 0.5)  # also where the last layers have too few positions
    axes[0, 2].legend(title="depthwise kernel")
    figure.supxlabel("layer")
    return figure


def maps_figure(layer: LayerRedundancy, maps: torch.Tensor, image_index: int) -> Figure:
    """Plot a layer's maps (c, h, w) as a grid; both maps of a similar pair have the same frame.

    Every map has its own grey scale.
    """
    pairs = layer.trained.pairs
    frames = {number: PAIR_COLORS[i] for i, pair in enumerate(pairs) for number in (pair.map, pair.partner)}
    others = [number for number in range(len(maps)) if number not in frames]
    shown = sorted([*frames, *others[: MAX_CELLS - len(frames)]])
    lines = ceil(len(shown) / COLUMNS)
    height, width = maps.shape[1:]
    figure = Figure(figsize=(12, 0.7 + lines * (1.5 * height / width + 0.22)), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axis in axes[len(shown) :]:
        axis.remove()
    for axis, number in zip(axes, shown, strict=False):
        draw_map(axis, maps[number], f"{number}", frames.get(number))
    count = f"{len(shown)} of {len(maps)} maps" if len(shown) < len(maps) else f"{len(maps)} maps"
    figure.suptitle(
        f"layer {layer.source.index} ({layer.source.module}): {count}, image {image_index + 1}; frames: the most similar pairs"
    )
    return figure


def pairs_figure(layer: LayerRedundancy, maps: torch.Tensor, image_index: int) -> Figure:
    """Plot for each pair the source map, its 3x3 kernel, the result, the target map and the residual."""
    pairs = layer.trained.pairs
    figure = Figure(figsize=(12, 0.8 + 2.4 * max(len(pairs), 1)), layout="constrained")
    axes = figure.subplots(max(len(pairs), 1), 5, squeeze=False, width_ratios=(1, 0.6, 1, 1, 1))
    for line, pair, color in zip(axes, pairs, PAIR_COLORS, strict=False):
        draw_pair(line, pair, maps, color)
    if not pairs:
        for axis in axes.ravel():
            axis.remove()
    figure.suptitle(
        f"layer {layer.source.index} ({layer.source.module}): the most similar pairs, chosen on the fit images and plotted "
        f"on image {image_index + 1}\nerror: mean relative error on all held-out images"
    )
    return figure


def draw_pair(axes: Sequence[Axes], pair: MapPair, maps: torch.Tensor, color: str) -> None:
    """Draw one pair into five axes."""
    source, target = maps[pair.partner], maps[pair.map]
    result = conv2d(source[None, None].double(), pair.kernel[None, None], padding=GHOST_KERNEL // 2)
    result = result[0, 0].float() + pair.bias
    limits = display_range(target)
    half = (limits[1] - limits[0]) / 2
    draw_map(axes[0], source, f"map {pair.partner}", color)
    draw_kernel(axes[1], pair.kernel)
    draw_map(axes[2], result, f"result (error {pair.error[GHOST_KERNEL]:.3f})", None, limits)
    draw_map(axes[3], target, f"map {pair.map} (correlation {pair.correlation:+.3f})", color, limits)
    draw_map(axes[4], target - result, "residual, same contrast", None, (-half, half))


def display_range(values: torch.Tensor) -> tuple[float, float]:
    """Return the central 99 % of the values, so that a single bright pixel does not darken the rest."""
    low, high = np.quantile(values.numpy(), (0.005, 0.995))
    return float(low), float(high)


def draw_kernel(axis: Axes, kernel: torch.Tensor) -> None:
    """Draw a kernel's weights, positive in red and negative in blue."""
    limit = 1.5 * float(kernel.abs().max())
    axis.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    for (row, column), weight in np.ndenumerate(kernel.numpy()):
        axis.text(column, row, f"{weight:.2f}", ha="center", va="center", fontsize=8)
    axis.set_title("3 x 3 kernel", fontsize=9, pad=3)
    axis.set_xticks([])
    axis.set_yticks([])


def draw_map(
    axis: Axes, values: torch.Tensor, title: str, frame: str | None, limits: tuple[float, float] | None = None
) -> None:
    """Draw one map in grey, within `limits` or within its own contrast."""
    low, high = limits or display_range(values)
    axis.imshow(values.numpy(), cmap="gray", vmin=low, vmax=high, aspect="equal")
    axis.set_title(title, fontsize=9, pad=3, color=frame or "black")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(frame is not None)
        spine.set(color=frame, linewidth=3)


def filters_figure(similarities: Sequence[FilterSimilarity]) -> Figure:
    """Plot the mean similarities by depth, and one histogram per convolution, with random Gaussian filters beside."""
    lines = ceil(len(similarities) / COLUMNS)
    figure = Figure(figsize=(12, 3.5 + 1.5 * lines), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(3.5, 1.5 * lines), squeeze=False)[:, 0]
    draw_means(parts[0].subplots(), [item for item in similarities if len(item.filters) >= MIN_FILTERS])
    axes = parts[1].subplots(lines, COLUMNS, squeeze=False).ravel()
    for axis, item in zip(axes, similarities, strict=False):
        draw_histogram(axis, item)
    for axis in axes[len(similarities) :]:
        axis.set_visible(False)
    return figure


def draw_means(axis: Axes, similarities: Sequence[FilterSimilarity]) -> None:
    """Draw the mean similarity by depth; a layer's index stands at its first convolution."""
    for values, color, label in (
        ([item.cosine.mean() for item in similarities], TRAINED_COLOR, "this checkpoint (histograms: filled)"),
        (
            [item.random.mean() for item in similarities],
            RANDOM_COLOR,
            f"random Gaussian filters, {NUM_RANDOM_DRAWS} draws (outlined)",
        ),
    ):
        axis.plot(values, "o-", markersize=3, color=color, label=label)
    firsts = [i for i, item in enumerate(similarities) if i == 0 or item.layer != similarities[i - 1].layer]
    axis.set_xticks(firsts, [str(similarities[i].layer) for i in firsts], fontsize=7)
    axis.set_xlabel(f"layer (convolutions of at least {MIN_FILTERS} filters)")
    axis.set_ylabel("mean cosine similarity\nto the most opposite filter")
    axis.margins(x=0.01)
    axis.grid(axis="y", alpha=0.4)
    axis.legend()


def draw_histogram(axis: Axes, item: FilterSimilarity) -> None:
    """Draw one convolution's similarities, filled, and those of all random draws, outlined."""
    axis.set_yticks([])
    axis.tick_params(labelsize=7)
    axis.locator_params(axis="x", nbins=3)
    axis.set_title(f"{item.name.removeprefix('model.')}\n{' x '.join(map(str, item.shape))}", fontsize=7, pad=2)
    if not len(item.cosine):
        return
    both = np.concatenate((item.cosine, item.random.ravel()))
    bins = np.linspace(both.min(), both.max() + 1e-6, 31).tolist()
    axis.hist(item.cosine, bins, density=True, color=TRAINED_COLOR, alpha=0.6, histtype="stepfilled")
    axis.hist(item.random.ravel(), bins, density=True, color=RANDOM_COLOR, histtype="step")


def correlation_figure(stages: Sequence[Stage], correlations: Sequence[StageCorrelation]) -> Figure:
    """Plot each cost over each redundancy, with a column for each measure of redundancy and a row for each cost."""
    across, down = (
        list(dict.fromkeys(getattr(item, side) for item in correlations)) for side in ("redundancy", "cost")
    )
    figure = Figure(figsize=(3.9 * len(across) + 0.5, 1.2 + 3.2 * len(down)), layout="constrained")
    axes = figure.subplots(len(down), len(across), sharex="col", sharey="row", squeeze=False)
    for item in correlations:
        axis = axes[down.index(item.cost), across.index(item.redundancy)]
        draw_stages(axis, stages, item.redundancy, item.cost)
        axis.set_title(correlation_title(item.ranks), fontsize=9)
    for axis, name in zip(axes[-1], across, strict=True):
        axis.set_xlabel(REDUNDANCY_LABELS[name])
    for axis, name in zip(axes[:, 0], down, strict=True):
        axis.set_ylabel(COST_LABELS[name])
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(across), title="model (numbers: layers)")
    return figure


def correlation_title(ranks: RankCorrelation) -> str:
    """Return the title of one panel, in two lines."""
    if ranks.rho_within is None:
        return f"n = {ranks.n}: no rank correlation,\none measure is constant"
    joint = "" if ranks.p_joint is None else f", p joint {ranks.p_joint:.2g}"
    return f"n = {ranks.n}, rho within models {ranks.rho_within:+.2f}\np {ranks.p:.2g}{joint}"


def draw_stages(axis: Axes, stages: Sequence[Stage], x: str, y: str) -> None:
    """Draw the stages that have both measures, one color per model, labelled by layer index."""
    for model, label in labels([stage.model for stage in stages]).items():
        known = [s for s in stages if s.model == model and None not in (getattr(s, x), getattr(s, y))]
        points = [(getattr(s, x), getattr(s, y)) for s in known]
        axis.plot([point[0] for point in points], [point[1] for point in points], "o", label=label, alpha=0.8)
        for stage, point in zip(known, points, strict=True):
            axis.annotate(str(stage.layer), point, xytext=(4, 3), textcoords="offset points", fontsize=7)
    axis.margins(0.1)
    axis.grid(alpha=0.3)

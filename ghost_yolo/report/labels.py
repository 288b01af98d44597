"""Labels of the points of a plot, none on another one or on a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

Point = tuple[float, float, str, bool]  # x, y, label, whether it is a stock model
Piece = tuple[tuple[float, float], tuple[float, float]]  # both ends of a line
LABEL_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
TWO_COLUMNS = 36  # characters of a numbered name, of which two stand side by side below a plot
MAX_RING = 14  # rings around a point that are searched for a free place for its label


def number_points(figure: Figure, points: Sequence[Point]) -> list[Point]:
    """Return the points with numbers as labels, from left to right, and list the names below the plot."""
    order = sorted(range(len(points)), key=lambda index: points[index][:2])
    numbers = {index: str(number) for number, index in enumerate(order, 1)}
    names = [f"{numbers[index]:>2}  {points[index][2]}" for index in order]
    columns = 2 if max(map(len, names)) <= TWO_COLUMNS else 1
    blank = [Line2D([], [], linestyle="") for _ in names]
    figure.legend(
        blank,
        names,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=0,
        handletextpad=0,
        fontsize=8.5,
    )
    return [(x_value, y_value, numbers[index], stock) for index, (x_value, y_value, _, stock) in enumerate(points)]


def place_labels(
    figure: Figure,
    axes: Axes,
    points: Sequence[Point],
    colours: Sequence[str],
    pairs: Sequence[Piece],
) -> None:
    """Write each label at the nearest free place around its point, with a thin line to it where it is not adjacent.

    Args:
        figure: The figure; its layout is fixed by this.
        axes: The plot.
        points: x, y, label, and whether it is a stock model.
        colours: Of the labels.
        pairs: Both ends of each line that labels must not cover.
    """
    figure.draw_without_rendering()  # fixes the layout, and with it the places
    figure.set_layout_engine("none")
    frame, to_points = axes.get_window_extent(), 72 / figure.dpi
    spots = [tuple(axes.transData.transform(point[:2])) for point in points]
    between = [axes.transData.transform(np.linspace(start, end, 60)) for start, end in pairs]
    occupied = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in spots]
    occupied += [Bbox.from_bounds(x - 1, y - 1, 2, 2) for piece in between for x, y in piece.tolist()]
    for (x_value, y_value, text, _), (x, y), colour in sorted(
        zip(points, spots, colours, strict=True), key=lambda triple: -triple[1][1]
    ):
        note = axes.annotate(
            text, (x_value, y_value), (0, 0), textcoords="offset points", fontsize=8.5, color=colour,
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "relpos": (0.5, 0.5), "shrinkB": 4},
        )  # fmt: skip
        size = axes.text(x_value, y_value, text, fontsize=8.5)  # without the line, for its size
        extent = size.get_window_extent()
        size.remove()
        ring, box = _free_box(x, y, extent.width, extent.height, occupied, frame, spots)
        occupied.append(box)
        note.set_position(((box.x0 - x) * to_points, (box.y0 - y) * to_points))
        if ring == 1 and note.arrow_patch is not None:
            note.arrow_patch.set_visible(False)


def _free_box(
    x: float,
    y: float,
    width: float,
    height: float,
    occupied: Sequence[Bbox],
    frame: Bbox,
    spots: Sequence[tuple[float, ...]],
) -> tuple[int, Bbox]:
    """Return ring and box, in pixels, of the first free place around a point; the last place tried where none is free.

    In the first ring, where no line leads to the point, no other of the spots may be nearer.
    """
    box = Bbox.from_bounds(x, y, width, height)
    for ring in range(1, MAX_RING):
        gap = 9 + (ring - 1) * height * 0.8
        for right, above in LABEL_DIRECTIONS:
            left = x + (gap if right > 0 else -gap - width if right < 0 else -width / 2)
            bottom = y + (gap if above > 0 else -gap - height if above < 0 else -height / 2)
            box = Bbox.from_bounds(left, bottom, width, height)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            centre = (left + width / 2, bottom + height / 2)
            own = ring > 1 or math.dist(centre, (x, y)) <= min(math.dist(centre, spot) for spot in spots)
            if inside and own and not any(box.overlaps(other) for other in occupied):
                return ring, box
    return MAX_RING, box

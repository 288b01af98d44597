"""The report's section on deployed files: the table that is read, its plot, and the command's option."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.text import Annotation, Text
from typer.testing import CliRunner

from ghost_yolo.cli import app
from ghost_yolo.errors import SourceError
from ghost_yolo.report import collect as collecting
from ghost_yolo.report import deployed, figures
from ghost_yolo.report import page as pages
from ghost_yolo.report.collect import ReportData
from ghost_yolo.report.page import PLOTS, render_page
from ghost_yolo.report.sections import Plot


@pytest.fixture
def deployed_table() -> dict[str, Any]:
    """A table of exported files as the experiments write it, reduced to what the report reads; one was not timed."""
    figures = {
        ("stock", "n"): (0.5, 0.5),
        ("stock", "s"): (0.6, 1.0),
        ("mine", "s"): (0.58, 0.4),
        ("worse", "s"): (0.4, 0.7),
    }
    rows: list[dict[str, Any]] = [
        {
            "label": f"{key}-{scale}",
            "key": key,
            "scale": scale,
            "deployment": "openvino-int8",
            "score": [score, score - 0.02, score + 0.02],
            "time_ratio": time,
            "time_interval": None if time == 1 else [time - 0.1, time + 0.1],
        }
        for (key, scale), (score, time) in figures.items()
    ]
    rows[2]["above"] = [0.08, -0.01, 0.11]
    rows.append(rows[0] | {"label": "untimed", "time_ratio": None, "time_interval": None})
    return {"split": "test", "conditions": "so <and> so", "timing": {"baseline": "stock-s"}, "rows": rows}


def test_deployed_files(deployed_table: dict[str, Any], tmp_path: Path) -> None:
    """The plot has both intervals of each timed file, the line through stock, and in grey what another file beats in both."""
    file = tmp_path / "table.json"
    file.write_text(json.dumps(deployed_table))
    table = deployed.read_deployed(file)
    axes = deployed.draw(table).axes[0]
    line = max(axes.lines, key=lambda it: len(it.get_xdata())).get_xydata().tolist()
    colours = [points.get_facecolor()[0].tolist() for points in axes.collections if len(points.get_facecolor())]
    section = deployed.deployed_section([table])
    html = render_page([section], datetime.now(timezone.utc))

    assert [one.label for one in table.files] == ["stock-n", "stock-s", "mine-s", "worse-s"]
    assert (line[0], line[-1]) == ([0.5, 0.5], [1.0, 0.6])
    assert [[*to_rgba(figures.GREY)] == colour for colour in colours] == [True, False, False, True]
    assert "+0.080 (-0.010 to +0.110)" in html
    assert "so &lt;and&gt; so" in html and "stock-n openvino-int8, stock-s openvino-int8, the Pareto front" in html
    assert [block.name.split("-")[0] in PLOTS for block in section.blocks if isinstance(block, Plot)] == [True]


@pytest.mark.parametrize(
    "change,named",
    [
        (lambda d: d.pop("timing"), "timing"),
        (lambda d: d.update(timing=None), "timing"),
        (lambda d: d.update(rows=d["rows"][-1:]), "time_ratio"),
        (lambda d: d["rows"][0].update(deployment=""), "such as openvino-int8"),
        (lambda d: d["rows"][0].update(deployment="openvino"), "such as openvino-int8"),
        (lambda d: d["rows"][0].update(score=[0.5, 0.4]), "list of 3"),
        (lambda d: d["rows"][0].update(score=[1.5, 0.4, 1.6]), "score[0] is 1.5"),
        (lambda d: d["rows"][0].update(score=[0.5, 0.6, 0.4]), "ends at 0.4, below"),
        (lambda d: d["rows"][0].update(time_interval=[0.6, 0.7]), "time_ratio 0.5 is not within"),
        (lambda d: d["rows"][0].update(time_ratio=0), "time_ratio is 0"),
        (lambda d: d["rows"][0].update(time_interval=[0, 0.7]), "time_interval[0] is 0"),
        (lambda d: d["rows"][0].pop("key"), "'key'"),
        (lambda d: d["rows"][2].update(above=[0.1, -1.5, 0.2]), "above[1] is -1.5"),
    ],
)
def test_foreign_deployed_files(change: Any, named: str, deployed_table: dict[str, Any], tmp_path: Path) -> None:
    """A file that is no table of exported files is refused; the error names file, value and what is right."""
    change(deployed_table)
    file = tmp_path / "table.json"
    file.write_text(json.dumps(deployed_table))
    with pytest.raises(SourceError, match=re.escape(named)) as refused:
        deployed.read_deployed(file)
    assert f"--deployed {file}" in str(refused.value) and "openvino-int8" in str(refused.value)


def test_the_option(deployed_table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's option, repeated, brings each table to the page."""
    written = list[ReportData]()
    monkeypatch.setattr(collecting, "compare_published", lambda: None)
    monkeypatch.setattr(collecting, "compare_deployed", lambda scale, imgsz: [])
    monkeypatch.setattr(pages, "write_page", lambda out, data: written.append(data))
    options = ["report", "--no-bench", "--scales", "n", "-o", str(tmp_path / "r.html")]
    for name in "ab":
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(deployed_table | {"split": name}))
        options += ["--deployed", str(file)]
    done = CliRunner().invoke(app, options)

    assert done.exit_code == 0, done.exception
    assert [table.split for table in written[0].deployed] == ["a", "b"]


def test_a_line_is_straight_in_time_on_a_logarithmic_axis() -> None:
    """The line of a plot with a logarithmic axis of times is interpolated in time, and the axis holds points and intervals."""
    stock = [(0.1, 0.5, "a", True), (0.3, 0.58, "b", True), (1.0, 0.6, "c", True)]
    bars = [(0.05, 0.09), (0.3, 0.3), (1.0, 1.0), (0.3, 0.3)]
    (axes,) = figures.scatter([*stock, (0.3, 0.55, "d", False)], "time", "mAP", x_bars=bars, log_x=True).axes
    line = max(axes.lines, key=lambda it: len(it.get_xdata()))
    x, y = line.get_xdata(), line.get_ydata()

    assert axes.get_xscale() == "log" and len(x) > 10
    assert y == pytest.approx(np.interp(x, [0.1, 0.3, 1.0], [0.5, 0.58, 0.6]))
    assert axes.get_xlim()[0] < 0.05 and axes.get_xlim()[1] > 1


@pytest.mark.parametrize("times", [[0.1], [0.06, 0.15], [0.31, 0.32], [6.0], [0.01, 1.0]])
def test_ticks_of_a_logarithmic_axis(times: list[float]) -> None:
    """Whatever the times, at least two plain numbers stand at the axis."""
    (axes,) = figures.scatter([(time, 0.5, "a", False) for time in times], "time", "mAP", log_x=True).axes
    low, high = axes.get_xlim()

    assert len([tick for tick in axes.get_xticks() if low <= tick <= high]) >= 2


def test_a_label_without_a_line_is_nearest_to_its_own_point() -> None:
    """In a crowded plot no point takes the label of the one beside it."""
    figure = deployed.draw(deployed.read_deployed(Path(__file__).parents[1] / "results/deployed-bccd/table.json"))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    notes = [it for it in axes.texts if isinstance(it, Annotation)]
    spots = [axes.transData.transform(note.xy) for note in notes]
    lone = [number for number, note in enumerate(notes) if note.arrow_patch and not note.arrow_patch.get_visible()]

    assert len(notes) == 36 and len(lone) > 5
    for number in lone:
        box = Text.get_window_extent(notes[number])  # an annotation's own would hold its line too
        centre = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        assert min(range(36), key=lambda other: math.dist(centre, spots[other])) == number

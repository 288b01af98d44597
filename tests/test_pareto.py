"""Above the line through stock, and beside rivals: the sums, the intervals, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_deployed import made_files

from experiments import deployed, pareto
from experiments.records import Row, Table


@pytest.fixture
def files() -> tuple[list[Row], list[Any]]:
    """Files of stock at two scales and a narrow one, with resamples that differ from their score by the same noise and some of their own."""
    rng, rows = np.random.default_rng(0), made_files()
    shared = rng.normal(0, 0.05, 1000)
    return rows, [row.score[0] + shared + rng.normal(0, 0.002, 1000) for row in rows]


def test_above_the_line_at_its_own_time(files: tuple[list[Row], list[Any]]) -> None:
    """At the slow end of its time (0.4), where the line has s in INT8 (0.55); what all files share in a resample is not in the interval."""
    above = {row.title: row.above for row in pareto.with_line(*files)}
    point, low, high = above["narrow-s openvino-int8"] or (0, 0, 0)

    assert [title for title, figure in above.items() if figure] == ["yolov8n.yaml onnx-fp32", "narrow-s openvino-int8"]
    assert point == pytest.approx(0.58 - 0.55)
    assert low == pytest.approx(point - 0.005, abs=0.002) and high == pytest.approx(point + 0.005, abs=0.002)


def test_between_two_files_the_line_is_straight(files: tuple[list[Row], list[Any]]) -> None:
    """Half of the way in time is half of the way in accuracy."""
    rows, draws = files
    rows[-1] = replace(rows[-1], time_ratio=0.3, time_interval=(0.3, 0.3))
    above = pareto.with_line(rows, draws)[-1].above
    assert above is not None and above[0] == pytest.approx(0.58 - (0.49 + 0.55) / 2)


def test_beyond_the_ends_the_line_is_level(files: tuple[list[Row], list[Any]]) -> None:
    """A file that is faster than all of the line is compared with the fastest file on it."""
    rows, draws = files
    rows[-1] = replace(rows[-1], time_ratio=0.1, time_interval=(0.1, 0.1))
    for chosen in (range(5), (1, 3, 4)):
        above = pareto.with_line([rows[index] for index in chosen], [draws[index] for index in chosen])[-1].above
        assert above is not None and above[0] == pytest.approx(0.58 - 0.49)


def test_a_slower_file_of_the_line_is_never_less_accurate(files: tuple[list[Row], list[Any]]) -> None:
    """In a resample in which the faster stock file is better, its score counts for the rest of the line, too."""
    rows, draws = files
    draws[3] = draws[1] - 1.0  # s in INT8, wherever its point lies
    point, low, high = pareto.with_line(rows, draws)[-1].above or (0, 0, 0)
    assert point == pytest.approx(0.03) and low > 0.08 and high < 0.1


def test_without_a_line(files: tuple[list[Row], list[Any]]) -> None:
    """Nothing is above it: without stock, without times, and for checkpoints."""
    rows, draws = files
    for count in (1, 2):  # and with one stock file
        assert pareto.with_line(rows[-count:], draws[-count:]) == rows[-count:]
    for change in ({"time_ratio": None}, {"deployment": ""}):
        assert all(row.above is None for row in pareto.with_line([replace(row, **change) for row in rows], draws))


def test_the_fastest_rival_that_is_as_accurate(files: tuple[list[Row], list[Any]]) -> None:
    """Faster ones that are shown to be less accurate do not count, nor converted ones; the times' intervals decide."""
    rows, draws = files
    ours = [False, False, False, False, True]
    (found,) = pareto.fastest_rivals(rows, draws, ours)
    slow = replace(rows[-1], time_ratio=0.95, time_interval=(0.9, 1.05))
    (even,) = pareto.fastest_rivals([*rows[:-1], slow], draws, ours)
    text = deployed.rivals(Table("test", "", None, rows, [], rivals=[found]))

    assert (found.rival, found.verdict) == ("yolov8s.yaml onnx-fp32", "faster") and found.time == pytest.approx(0.3)
    assert found.difference[0] == pytest.approx(-0.02) and even.verdict == "neither faster nor slower"
    assert "faster and less accurate, 0.30 of its time, at -0.020" in text[1]
    assert pareto.fastest_rivals(rows, draws, [True] * 5) == []
    assert deployed.rivals(Table("test", "", None, rows, [])) == []


def test_any_rival_that_is_as_accurate_counts(files: tuple[list[Row], list[Any]]) -> None:
    """The fastest one is named; one that may be as fast leaves the verdict open, and a faster one decides it."""
    rows, draws = files
    ours = [False, False, False, False, True]
    draws[1] = draws[-1]  # n in INT8 at 0.2 (0.1 to 0.3), where ours has 0.3 (0.2 to 0.4)
    assert [pair.verdict for pair in pareto.fastest_rivals(rows, draws, ours)] == ["neither faster nor slower"]
    rows[-1] = replace(rows[-1], time_ratio=0.35, time_interval=(0.31, 0.4))
    assert [pair.verdict for pair in pareto.fastest_rivals(rows, draws, ours)] == ["slower"]


def test_no_rival_is_as_accurate(files: tuple[list[Row], list[Any]]) -> None:
    """That is said, and not left out."""
    rows, draws = files
    found = pareto.fastest_rivals(rows, [*draws[:-1], draws[-1] + 1], [False, False, False, False, True])
    text = deployed.rivals(Table("test", "", None, rows, [], rivals=found))
    assert text[1] == "- `narrow-s openvino-int8`: all others are shown to be less accurate."

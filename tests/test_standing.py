"""Above the line through stock, and beside rivals: the sums, the intervals, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_deployed import made_files

from experiments import deployed, standing
from experiments.records import Row, Table


@pytest.fixture
def files() -> tuple[list[Row], list[Any]]:
    """Files of stock at two scales and a narrow one, with resamples that differ from their score by the same noise and some of their own."""
    rng, rows = np.random.default_rng(0), made_files()
    shared = rng.normal(0, 0.05, 1000)
    return rows, [row.score[0] + shared + rng.normal(0, 0.002, 1000) for row in rows]


def test_above_the_line_at_its_own_time(files: tuple[list[Row], list[Any]]) -> None:
    """The line joins n in INT8 (0.2, 0.49) and s in float32 (1, 0.6); what all files share in a resample is not in the interval."""
    above = {row.title: row.above for row in standing.with_line(*files)}
    point, low, high = above["narrow-s openvino-int8"] or (0, 0, 0)

    assert above["yolov8n.yaml openvino-int8"] is None and above["yolov8s.yaml onnx-fp32"] is None
    assert point == pytest.approx(0.58 - (0.49 + 0.11 * 0.1 / 0.8))
    assert low == pytest.approx(point - 0.005, abs=0.002) and high == pytest.approx(point + 0.005, abs=0.002)


def test_beyond_the_ends_the_line_is_level(files: tuple[list[Row], list[Any]]) -> None:
    """A file that is faster than all of the line is compared with its fastest file."""
    rows, draws = files
    rows[-1] = replace(rows[-1], time_ratio=0.1, time_interval=(0.1, 0.1))
    above = standing.with_line(rows, draws)[-1].above
    assert above is not None and above[0] == pytest.approx(0.58 - 0.49)


def test_without_a_line(files: tuple[list[Row], list[Any]]) -> None:
    """Nothing is above it: with stock at one scale, without times, and for checkpoints."""
    rows, draws = files
    assert all(row.above is None for row in standing.with_line([row for row in rows if row.scale == "n"], draws[:2]))
    for change in ({"time_ratio": None}, {"deployment": ""}):
        assert all(row.above is None for row in standing.with_line([replace(row, **change) for row in rows], draws))


def test_the_fastest_rival_that_is_as_accurate(files: tuple[list[Row], list[Any]]) -> None:
    """Faster ones that are shown to be less accurate do not count, nor files of ours; the times' intervals decide."""
    rows, draws = files
    ours = [False, False, False, False, True]
    (found,) = standing.fastest_rivals(rows, draws, ours)
    slow = replace(rows[-1], time_ratio=0.95, time_interval=(0.9, 1.05))
    (even,) = standing.fastest_rivals([*rows[:-1], slow], draws, ours)
    text = deployed.rivals(Table("test", "", None, rows, [], rivals=[found]))

    assert (found.rival, found.verdict) == ("yolov8s.yaml onnx-fp32", "faster") and found.time == pytest.approx(0.3)
    assert found.difference[0] == pytest.approx(-0.02) and even.verdict == "neither faster nor slower"
    assert "faster, 0.30 of its time, at -0.020" in text[1]
    assert standing.fastest_rivals(rows, draws, [True] * 5) == []
    assert deployed.rivals(Table("test", "", None, rows, [])) == []


def test_an_equal_and_faster_rival_is_named(files: tuple[list[Row], list[Any]]) -> None:
    """A file of ours that loses is said to be slower."""
    rows, draws = files
    draws[1], rows[-1] = draws[-1], replace(rows[-1], time_interval=(0.301, 0.4), time_ratio=0.35)
    (found,) = standing.fastest_rivals(rows, draws, [False, False, False, False, True])
    assert (found.rival, found.verdict) == ("yolov8n.yaml openvino-int8", "slower")

"""Statistics and tables of a benchmark: ratios, intervals, realised gain, operator types, every format."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields

import numpy as np
import pytest
from factories import bench_row

from ghost_yolo.bench import BenchResult, BenchRow
from ghost_yolo.bench.profiler import sum_by_operator
from ghost_yolo.bench.results import add_statistics, confidence_interval
from ghost_yolo.bench.tables import CONVENTIONS, JSON_ONLY, operator_table, render
from ghost_yolo.tables import FORMATS

KEYS = [each.name for each in fields(BenchRow)]


def timed(*rows: BenchRow) -> list[BenchRow]:
    """Return the rows with statistics, against the first."""
    add_statistics(rows, rows[0].model)
    return list(rows)


def result(*rows: BenchRow) -> BenchResult:
    """Return a result with these rows."""
    return BenchResult(timed(*rows), {"cpu": "some", "threads": 2}, {"torch": "2"})


def test_ratio_and_gain_by_hand() -> None:
    """Half the time is ratio 0.5; with half the GFLOPs the realised gain is 1, with a quarter it is a half."""
    stock = bench_row("a", times=[10.0, 20.0, 30.0, 40.0, 50.0], gflops=8.0)
    light = (bench_row(f"b{g}", times=[5.0, 10.0, 15.0, 20.0, 25.0], gflops=g) for g in (4.0, 2.0))
    rows = timed(stock, *light)

    assert [(r.median_ms, r.q25, r.q75) for r in rows] == [(30, 20, 40), (15, 10, 20), (15, 10, 20)]
    assert [(r.ratio, r.ratio_low, r.ratio_high) for r in rows] == [(1, 1, 1), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)]
    assert [r.realised_gain for r in rows] == [1, 1, 0.5]


def test_rounds_are_paired() -> None:
    """A machine that slows down for both models changes the times and not the ratio; unpaired rounds do not count."""
    rows = timed(bench_row("a", times=[1.0, 100.0, 7.0]), bench_row("b", times=[2.0, 200.0]))

    assert rows[1].ratio == 2 and rows[1].rounds == 2 and rows[1].ratio_low is None


def test_a_ratio_stays_within_runtime_and_precision() -> None:
    """The first model's time in another runtime or precision is no reference."""
    rows = timed(
        bench_row("a", times=[1.0]), bench_row("b", "onnx", times=[2.0]), bench_row("b", precision="fp16", times=[2.0])
    )

    assert [row.ratio for row in rows] == [1, None, None]


def test_unknown_figures_stay_unknown() -> None:
    """Without the first model's times there is no ratio, without GFLOPs no realised gain."""
    rows = timed(
        bench_row("a", error="broken"), bench_row("b", times=[2.0], gflops=8.0), bench_row("c.onnx", times=[1.0])
    )

    assert [(r.median_ms, r.ratio, r.realised_gain) for r in rows] == [
        (None, None, None),
        (2, None, None),
        (1, None, None),
    ]


def test_the_interval_covers_the_median() -> None:
    """The interval contains the median, is reproducible, and is narrow where rounds agree."""
    noisy, calm = (np.array([1 + spread * (n % 7 - 3) for n in range(50)]) for spread in (0.1, 0.001))
    (low, high), (lower, higher) = confidence_interval(noisy), confidence_interval(calm)

    assert low <= lower <= 1 <= higher <= high
    assert high - low > 0.05 and higher - lower < 0.01
    assert confidence_interval(noisy) == (low, high)
    assert confidence_interval(noisy[:4]) == (None, None)
    assert confidence_interval(np.ones(5)) == (1, 1)


@pytest.mark.parametrize("style", FORMATS)
def test_every_format_has_every_row(style: str) -> None:
    """A measured row shows its time, a failed one its reason, in each format."""
    text = render(result(bench_row("a.yaml", times=[1.25]), bench_row("b.yaml", error="no such thing")), style)

    assert all(part in text for part in ("a.yaml", "1.25", "b.yaml", "no such thing"))
    if style == "csv":
        columns = [key for key in KEYS if key not in JSON_ONLY]
        assert [list(row) for row in csv.DictReader(io.StringIO(text))] == [columns, columns]
    if style == "json":
        document = json.loads(text)
        assert list(document) == ["conventions", "versions", "conditions", "rows"]
        assert [list(row) for row in document["rows"]] == [KEYS, KEYS]
        assert {name for names in CONVENTIONS for name in names.split(", ")} <= set(KEYS)


def test_json_is_read_back() -> None:
    """What is written as JSON gives the same rows, conditions and versions."""
    rows = [
        bench_row("a", times=[1.5] * 5, gflops=8.0, operators={"Conv": 1.0}),
        bench_row("b", error="broken", nc=None),
    ]
    written = result(*rows)

    assert BenchResult.from_dict(json.loads(render(written, "json"))) == written


def test_a_reason_is_told_once() -> None:
    """A reason of all rows of a model names the model, a reason of one row names runtime and precision too."""
    rows = [
        bench_row("a", error="x"),
        bench_row("a", "onnx", error="x"),
        bench_row("b"),
        bench_row("b", "onnx", error="x"),
    ]

    assert result(*rows).failed == ["a; b, ONNX Runtime fp32: x"]


def test_operator_types_add_up() -> None:
    """Each node counts with its median pass; small types are summed, and the shares are those of the total."""
    sums = sum_by_operator(
        [("c1", "Conv", 4.0), ("c1", "Conv", 2.0), ("c1", "Conv", 99.0), ("c2", "Conv", 1.0), ("a", "Add", 0.02)]
    )
    rows = [bench_row("a", operators=sums), bench_row("b", operators={"Conv": 3.0, "Pool": 1.0})]
    _, lines = operator_table("PyTorch fp32", rows)

    assert sums == {"Conv": 5.0, "Add": 0.02}
    assert lines == [
        ["Conv", "5.000", "99.6", "3.000", "75.0"],
        ["Pool", "0.000", "0.0", "1.000", "25.0"],
        ["all others", "0.020", "0.4", "0.000", "0.0"],
        ["sum", "5.020", "100.0", "4.000", "100.0"],
    ]

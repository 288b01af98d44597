"""The bench's arithmetic and report: ratios, intervals, realised gain, where the time goes, every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import BENCH_FACTS as FACTS

from ghost_yolo.bench.plan import Candidate, Plan, Subject
from ghost_yolo.bench.profiler import by_kind
from ghost_yolo.bench.runner import Measured
from ghost_yolo.bench.tables import CONVENTIONS, confidence, profile_table, render, rows_of
from ghost_yolo.tables import FORMATS

KEYS = [
    "model",
    "scale",
    "nc",
    "imgsz",
    "batch",
    "runtime",
    "precision",
    "device",
    "threads",
    "median_ms",
    "q25",
    "q75",
    "rounds",
    "ratio",
    "ratio_low",
    "ratio_high",
    "gflops",
    "realised_gain",
    "peak_memory_mb",
    "file_mb",
    "error",
]


def candidate(name: str, times: list[float], gflops: float | None = 8.0, **more: Any) -> Candidate:
    """Return a row that was timed."""
    return Candidate(Subject(name, Path(), FACTS | {"gflops": gflops}), "pytorch", "fp32", times=times, **more)


def measured(*rows: Candidate, **plan: Any) -> Measured:
    """Return what a run with these rows gives."""
    names = tuple(dict.fromkeys(row.subject.name for row in rows))
    return Measured(Plan(names, **plan), list(rows), {"cpu": "some", "threads": 2}, {"torch": "2"}, interrupted=False)


def test_ratio_and_gain_by_hand() -> None:
    """Half the time is ratio 0.5; with half the GFLOPs all of the saving is realised, with a quarter half of it."""
    stock = candidate("a", [10.0, 20.0, 30.0, 40.0, 50.0])
    rows = rows_of(measured(stock, *(candidate(f"b{g}", [5.0, 10.0, 15.0, 20.0, 25.0], g) for g in (4.0, 2.0))))

    assert [(r.median_ms, r.q25, r.q75) for r in rows] == [(30, 20, 40), (15, 10, 20), (15, 10, 20)]
    assert [(r.ratio, r.ratio_low, r.ratio_high) for r in rows] == [(1, 1, 1), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)]
    assert [r.realised_gain for r in rows] == [1, 1, 0.5]


def test_rounds_are_paired() -> None:
    """A machine that slows down for both changes the times and not the ratio; rounds without a partner do not count."""
    rows = rows_of(measured(candidate("a", [1.0, 100.0, 7.0]), candidate("b", [2.0, 200.0])))

    assert rows[1].ratio == 2 and rows[1].rounds == 2 and rows[1].ratio_low is None


def test_nothing_is_made_up() -> None:
    """Without the first model's times there is no ratio, without GFLOPs no gain."""
    failed = candidate("a", [], error="broken")
    exported = candidate("c.onnx", [1.0], None)
    rows = rows_of(measured(failed, candidate("b", [2.0]), exported))

    assert [(r.median_ms, r.ratio, r.realised_gain) for r in rows] == [
        (None, None, None),
        (2, None, None),
        (1, None, None),
    ]
    assert rows[0].error == "broken"


def test_the_interval_covers_the_median() -> None:
    """The interval lies around the median, is the same each time, and is narrow where rounds agree."""
    noisy, calm = (np.array([1 + spread * (n % 7 - 3) for n in range(50)]) for spread in (0.1, 0.001))
    (low, high), (lower, higher) = confidence(noisy), confidence(calm)

    assert low <= lower <= 1 <= higher <= high
    assert high - low > 0.05 and higher - lower < 0.01
    assert confidence(noisy) == (low, high)
    assert confidence(noisy[:4]) == (None, None)


@pytest.mark.parametrize("style", FORMATS)
def test_every_format_has_every_row(style: str) -> None:
    """A measured row shows its time, a failed one its reason, in each format."""
    text = render(measured(candidate("a.yaml", [1.25]), candidate("b.yaml", [], error="no such thing")), style)

    assert all(word in text for word in ("a.yaml", "1.25", "b.yaml", "no such thing"))
    if style == "csv":
        assert [list(row) for row in csv.DictReader(io.StringIO(text))] == [KEYS, KEYS]
    if style == "json":
        document = json.loads(text)
        assert list(document) == ["conventions", "versions", "conditions", "rows"]
        assert [list(row) for row in document["rows"]] == [KEYS, KEYS]
        assert {name for names in CONVENTIONS for name in names.split(", ")} <= set(KEYS)


def test_operator_kinds_add_up() -> None:
    """Each node counts with its median pass; small kinds are put together, and the shares are those of the sum."""
    kinds = by_kind(
        [("c1", "Conv", 4.0), ("c1", "Conv", 2.0), ("c1", "Conv", 99.0), ("c2", "Conv", 1.0), ("a", "Add", 0.02)]
    )
    rows = [candidate("a", [1.0], operators=kinds), candidate("b", [1.0], operators={"Conv": 3.0, "Pool": 1.0})]
    _, lines = profile_table("PyTorch fp32", rows)

    assert kinds == {"Conv": 5.0, "Add": 0.02}
    assert lines == [
        ["Conv", "5.000", "99.6", "3.000", "75.0"],
        ["Pool", "0.000", "0.0", "1.000", "25.0"],
        ["all others", "0.020", "0.4", "0.000", "0.0"],
        ["sum", "5.020", "100.0", "4.000", "100.0"],
    ]

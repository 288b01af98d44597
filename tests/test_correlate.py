"""Redundancy beside cost: p values are counted over all orders, stages meet by model and row, files that do not go together are refused."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ghost_yolo.cli import app
from ghost_yolo.errors import UserError
from ghost_yolo.redundancy import correlate, plots, ranks
from ghost_yolo.redundancy.correlate import Stage
from ghost_yolo.redundancy.ranks import Sample, agreement, twice_centred_ranks
from ghost_yolo.redundancy.report import correlate_report

Content = dict[str, Any]
SHARES = {2: 0.5, 4: 0.3, 6: 0.1, 8: 0.0}


def ghosts(model: str, shares: dict[int, float] = SHARES, **settings: Any) -> Content:
    """Return what `ghosts` would write, as far as it is read; inner shares are half the outer ones."""

    def row(layer: int, module: str, share: float) -> Content:
        return {"index": layer, "module": module, "trained": {"share_d3": share, "median_d3": 1 - share}}

    return {
        "settings": {"model": model, "within": 0.1, "imgsz": 64} | settings,
        "rows": [row(layer, "C2f", share) for layer, share in shares.items()],
        "inner": [row(layer, f"m.0.cv{i}", share * i / 3) for layer, share in shares.items() for i in (1, 2)],
    }


def unknown(survey: Content) -> Content:
    """Return a survey of too few photographs: no layer's shares can be told."""
    for row in (*survey["rows"], *survey["inner"]):
        row["trained"] = dict.fromkeys(row["trained"])
    return survey


def ghostify(model: str, errors: dict[int, float], word: str = "ghost_yolo.C2f_Fire", **settings: Any) -> Content:
    """Return what `ghostify` would write, a level of the head with it."""
    rows = [{"layer": str(layer), "word": word, "error": error} for layer, error in errors.items()]
    rows.append({"layer": "22.cv3.0", "word": "ghost_yolo.LightDetect", "error": 0.1})
    return {"settings": {"model": model, "imgsz": 64} | settings, "rows": rows}


def tried(model: str, errors: dict[int, float], word: str = "ghost_yolo.C2f_Fire") -> Content:
    """Return what `ghostify --budget` would write."""
    options = [{"row": row, "word": word, "error": error, "harm": 2 * error} for row, error in errors.items()]
    return ghostify(model, errors, word) | {"options": options}


def written(folder: Path, *contents: Content) -> list[str]:
    """Write files and return their names."""
    files = [folder / f"{number}.json" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(json.dumps(content), encoding="utf-8")
    return list(map(str, files))


def test_ranks_share_their_places() -> None:
    """Equal values get the mean of their ranks, and all add up to nothing."""
    assert twice_centred_ranks([3.0, 1.0, 1.0, 7.0]).tolist() == [1, -2, -2, 3]
    assert twice_centred_ranks([5.0]).tolist() == [0]


@pytest.mark.parametrize("tied", [False, True])
def test_p_is_counted_over_all_orders(tied: bool) -> None:
    """For two models it is what going through every pair of orders by hand gives, models apart and alike."""
    rng = np.random.default_rng(3)
    draw = rng.integers(0, 3, (2, 2, 4)) if tied else rng.random((2, 2, 4))
    samples = [Sample((2, 4, 6, 8), *map(list, part)) for part in draw]
    found = agreement(samples)
    (x1, y1), (x2, y2) = ((twice_centred_ranks(s.x), twice_centred_ranks(s.y)) for s in samples)
    seen = abs(int(x1 @ y1 + x2 @ y2))
    orders = [list(order) for order in itertools.permutations(range(4))]
    apart = [abs(int(x1 @ y1[a] + x2 @ y2[b])) >= seen for a in orders for b in orders]
    alike = [abs(int(x1 @ y1[a] + x2 @ y2[a])) >= seen for a in orders]

    assert found.p == pytest.approx(np.mean(apart)) and found.p_alike == pytest.approx(np.mean(alike))
    assert found.exact and (found.n, found.models) == (8, 2)


def test_known_values() -> None:
    """Four stages in opposite order: rho is -1, and 2 of 24 orders are as far from nothing; a constant has no rank."""
    found = agreement([Sample((0, 1, 2, 3), [1, 2, 3, 4], [9, 7, 5, 3])])
    flat = agreement([Sample((0, 1, 2), [1, 1, 1], [1, 2, 3])])

    assert found.rho == found.within == -1 and found.p == pytest.approx(2 / 24)
    assert (flat.rho, flat.within, flat.p, flat.p_alike) == (None, None, None, None)


def test_what_eight_stages_can_show() -> None:
    """With one model of 8 stages rho must reach 0.74 for a p of 0.05, as docs/redundancy.md says."""
    doubled = twice_centred_ranks(range(8))
    chances = ranks.distribution(np.outer(doubled, doubled), np.random.default_rng(0))
    rho = (np.arange(len(chances)) - len(chances) // 2) / int(doubled @ doubled)
    passing = [r for r in rho[(rho > 0) & (chances > 0)] if chances[np.abs(rho) >= r - 1e-9].sum() <= 0.05]

    assert min(passing) == pytest.approx(0.74, abs=0.005)


def test_what_differs_between_models_is_left_out() -> None:
    """Two models whose levels differ and whose stages go the other way: together rho is positive, within it is -1."""
    low, high = Sample((0, 1, 2), [1, 2, 3], [3, 2, 1]), Sample((0, 1, 2), [11, 12, 13], [13, 12, 11])
    found = agreement([low, high])

    assert found.rho is not None and found.rho > 0 and found.within == -1


def test_alike_needs_the_same_stages() -> None:
    """Models are put into one order only where all their stages are the same; without such there is no p of it."""
    one, two, three = (
        Sample(stages, [1, 2, 3, 4], [1, 3, 2, 4]) for stages in ((2, 4, 6, 8), (2, 4, 6, 9), (2, 4, 6, 8))
    )

    assert agreement([one]).p_alike is agreement([one, two]).p_alike is None
    assert agreement([one, three]).p_alike is not None and agreement([one, two, three]).p_alike is not None


def test_scipy_agrees() -> None:
    """Rho is scipy's, ties included, and so is the exact p of one model."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, 7).tolist(), rng.random(7).tolist()
    found = agreement([Sample(tuple(range(7)), x, y)])
    wanted = stats.permutation_test(
        (x,), lambda z: stats.spearmanr(z, y).statistic, permutation_type="pairings", n_resamples=np.inf
    )

    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.p == pytest.approx(np.mean(np.abs(wanted.null_distribution) >= abs(wanted.statistic) - 1e-9))


def test_many_stages_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many orders some are drawn, it is said, and p is near the one that is counted."""
    sample = Sample(tuple(range(6)), [1, 2, 3, 4, 5, 6], [1, 3, 2, 5, 4, 6])
    counted = agreement([sample])
    monkeypatch.setattr(ranks, "EXACT", 5)
    monkeypatch.setattr(ranks, "DRAWS", 5000)
    drawn = agreement([sample])

    assert counted.exact and not drawn.exact and drawn == agreement([sample])
    assert drawn.p == pytest.approx(counted.p, abs=0.01)


def test_correlate_writes_its_folder(tmp_path: Path) -> None:
    """Two models meet by their names: the table, the CSV files and JSON agree, a folder stands for its ghosts.json."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/ghosts.json").write_text(json.dumps(ghosts("a.pt")), encoding="utf-8")
    rising = {2: 0.1, 4: 0.2, 6: 0.3, 8: 0.4}
    contents = ghosts("b.pt"), tried("a.pt", rising), ghostify("a.pt", rising), tried("b.pt", rising)
    words = ["correlate", str(tmp_path / "a"), *written(tmp_path, *contents), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--format", "json"])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "out/correlation.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((tmp_path / "out/stages.csv").read_text(encoding="utf-8").splitlines()))
    found = {(row["redundancy"], row["cost"]): row for row in told["correlations"]}

    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("correlation.json", "correlation.png", "correlations.csv", "stages.csv")
    }
    assert [(row["model"], row["layer"]) for row in rows] == [(m, str(k)) for m in ("a.pt", "b.pt") for k in SHARES]
    assert [told["rows"][0][key] for key in ("module", "word")] == ["C2f", "ghost_yolo.C2f_Fire"]
    assert [told["rows"][0][key] for key in ("share", "median", "inner")] == pytest.approx([0.5, 0.5, 0.25])
    assert [told["rows"][0][key] for key in ("alone", "in_order", "harm")] == [0.1, 0.1, 0.2]
    assert rows[-1]["in_order"] == "" and found["share", "in_order"]["n"] == 4
    assert found["share", "alone"]["within"] == pytest.approx(-1) == -found["median", "alone"]["within"]
    assert found["inner", "harm"]["p_alike"] == pytest.approx(2 / 24)


def test_how_many_were_looked_at_is_said(tmp_path: Path) -> None:
    """Three measures and one cost are three correlations, so p must be a third of 0.05 to count."""
    words = ["correlate", *written(tmp_path, ghosts("a.pt"), ghostify("a.pt", ERRORS)), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)

    assert "3 rank correlations were looked at: by Bonferroni only a p below 0.05 / 3 = 0.017 counts" in done.stdout


def test_other_numbers_of_photographs_are_said(tmp_path: Path) -> None:
    """Data sets differ in size: runs in order on other numbers of photographs are pooled, and it is said."""
    runs = [ghostify(model, ERRORS) | {"photographs": count} for model, count in (("a.pt", 205), ("b.pt", 160))]
    words = ["correlate", *written(tmp_path, ghosts("a.pt"), ghosts("b.pt"), *runs), "-o", str(tmp_path / "out")]

    assert "different numbers of photographs: a.pt on 205, b.pt on 160" in CliRunner().invoke(app, words).stdout


def test_models_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    """Two models called best.pt are two, and one that is named in two ways is one."""
    errors = {2: 0.1, 4: 0.2, 6: 0.3, 8: 0.4}
    files = written(
        tmp_path,
        ghosts("best.pt", weights="aaaaaaaaaaaa"),
        ghosts("best.pt", weights="bbbbbbbbbbbb"),
        ghostify("/there/best.pt", errors, weights="aaaaaaaaaaaa"),
        ghostify("runs/best.pt", errors, weights="bbbbbbbbbbbb"),
    )
    stages = correlate.join(correlate.read([Path(file) for file in files]), None)
    assert [stage.model for stage in stages] == ["best-aaaaaa.pt"] * 4 + ["best-bbbbbb.pt"] * 4
    alone = correlate.join(correlate.read([Path(files[0]), Path(files[2])]), None)
    assert {stage.model for stage in alone} == {"best.pt"}


def test_models_have_short_names() -> None:
    """Table and legend name a model by as much of its path as tells it from the others, whatever the length."""
    paths = [f"/a/rather/long/path/to/runs/{name}/weights/best.pt" for name in ("stock", "narrow")]
    stages = [Stage(path, k, "C2f", "x", k / 9, k / 9, None, k / 9, k / 9, None) for path in paths for k in (2, 4, 6)]
    report = correlate_report(stages, 0.1, 0)
    figure = plots.cost_figure(stages, report.more["correlations"])
    figure.draw_without_rendering()
    width, boxes = figure.bbox.width, [axis.title.get_window_extent() for axis in figure.axes]

    assert [line[0] for line in report.tables[0][1]][::3] == ["stock/weights/best 2", "narrow/weights/best 2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["stock/weights/best", "narrow/weights/best"]
    assert all(box.x0 >= 0 and box.x1 <= width for box in [*boxes, figure.legends[0].get_window_extent()])
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


ERRORS = {2: 0.1, 4: 0.2, 6: 0.3, 8: 0.4}
REFUSED: dict[str, tuple[list[Content], str]] = {
    "no swap": ([ghosts("a.pt")], "No result of ghostify is given"),
    "no survey": ([ghostify("a.pt", ERRORS)], "No result of ghosts is given"),
    "another model's swap": ([ghosts("a.pt"), ghostify("b.pt", ERRORS)], r"is of a\.pt, and no result of ghostify is"),
    "a swap too many": ([ghosts("a.pt"), *(ghostify(m, ERRORS) for m in ("a.pt", "b.pt"))], "no result of ghosts is"),
    "two surveys": ([ghosts("a.pt"), ghosts("a.pt"), ghostify("a.pt", ERRORS)], "surveyed in another file too"),
    "two swaps": ([ghosts("a.pt"), *[ghostify("a.pt", ERRORS)] * 2], "row 2 of a.pt was given already"),
    "two sizes": ([ghosts("a.pt"), ghostify("a.pt", ERRORS, imgsz=96)], "surveyed at 64 and swapped at 96"),
    "two bounds": (
        [ghosts("a.pt"), ghosts("b.pt", within=0.2), *(ghostify(m, ERRORS) for m in ("a.pt", "b.pt"))],
        "--within differs",
    ),
    "two lengths": (
        [*map(ghosts, ("a.pt", "b.pt")), *(ghostify(m, ERRORS, steps=k) for m, k in (("a.pt", 100), ("b.pt", 40)))],
        r"error in order: .*2\.json was fitted with --steps 100 and .*3\.json with 40",
    ),
    "two words": ([ghosts("a.pt"), *(tried("a.pt", ERRORS, w) for w in ("x", "y"))], "swapped x, y; name one"),
    "other rows": ([ghosts("a.pt"), ghostify("a.pt", {3: 0.1})], "none of the layers"),
    "too few": ([ghosts("a.pt", {2: 0.1, 4: 0.2}), ghostify("a.pt", ERRORS)], "2 stages are too few"),
    "unknown shares": (
        [unknown(ghosts("a.pt")), ghostify("a.pt", ERRORS)],
        "Of 4 stages no redundancy and cost are known for the same three: .* more photographs",
    ),
    "pairs": (
        [{"settings": {"model": "a.pt"}, "rows": [{"layer": 0}]}],
        r"0\.json is not what ghosts or ghostify writes",
    ),
    "no size": ([ghosts("a.pt"), {"settings": {"model": "a.pt"}, "rows": []}], r"1\.json is not what .* 'imgsz'"),
    "a bad seed": ([ghosts("a.pt"), ghostify("a.pt", ERRORS)], "--seed -1: give 0 or more"),
    "something else": ([{"settings": {}, "rows": []}], r"0\.json is not what ghosts or ghostify writes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    """What does not go together is named, and nothing is written."""
    contents, message = REFUSED[case]
    words = ["correlate", *written(tmp_path, *contents), "-o", str(tmp_path / "out")]
    words += ["--seed", "-1"] if case == "a bad seed" else []
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not (tmp_path / "out").exists()

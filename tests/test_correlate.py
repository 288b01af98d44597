"""Correlation of redundancy and cost: p values of several models, stages joined by model and layer, mismatched files refused."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import permutation_test, spearmanr
from typer.testing import CliRunner

from ghost_yolo.cli import app
from ghost_yolo.errors import SourceError, UserError
from ghost_yolo.redundancy import plots, ranks
from ghost_yolo.redundancy.correlate import CorrelationSettings, Stage, correlate_stages, join_stages
from ghost_yolo.redundancy.measurements import read_measurements
from ghost_yolo.redundancy.ranks import Sample, rank_correlation
from ghost_yolo.redundancy.report import correlation_report

Content = dict[str, Any]
SHARES = {2: 0.5, 4: 0.3, 6: 0.1, 8: 0.0}


def ghosts(model: str, shares: dict[int, float] = SHARES, **settings: Any) -> Content:
    """Return the parts of a `ghosts` result that are read; inner shares are half the outer ones."""

    def row(layer: int, module: str, share: float) -> Content:
        return {"index": layer, "module": module, "trained": {"share_d3": share, "median_d3": 1 - share}}

    return {
        "settings": {"model": model, "within": 0.1, "imgsz": 64} | settings,
        "rows": [row(layer, "C2f", share) for layer, share in shares.items()],
        "inner": [row(layer, f"m.0.cv{i}", share * i / 3) for layer, share in shares.items() for i in (1, 2)],
    }


def unknown(survey: Content) -> Content:
    """Return a survey of too few images: the shares of all layers are unknown."""
    for row in (*survey["rows"], *survey["inner"]):
        row["trained"] = dict.fromkeys(row["trained"])
    return survey


def sequential(model: str, errors: dict[int, float], block: str = "ghost_yolo.C2f_Fire", **settings: Any) -> Content:
    """Return the parts of a `ghostify` result that are read, with a level of the head."""
    rows = [{"layer": str(layer), "block": block, "error": error} for layer, error in errors.items()]
    rows.append({"layer": "22.cv3.0", "block": "ghost_yolo.LightDetect", "error": 0.1})
    return {"settings": {"model": model, "imgsz": 64} | settings, "rows": rows}


def isolated(model: str, errors: dict[int, float], block: str = "ghost_yolo.C2f_Fire") -> Content:
    """Return the parts of a `ghostify --budget` result that are read."""
    options = [{"row": row, "block": block, "error": error, "sensitivity": 2 * error} for row, error in errors.items()]
    return sequential(model, errors, block) | {"options": options}


def write_files(folder: Path, *contents: Content) -> list[str]:
    """Write files and return their paths."""
    files = [folder / f"{number}.json" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(json.dumps(content), encoding="utf-8")
    return list(map(str, files))


def test_differences_between_models_do_not_count() -> None:
    """For two models of different levels and opposite trends, rho is positive and rho within is -1."""
    low, high = Sample((0, 1, 2), [1, 2, 3], [3, 2, 1]), Sample((0, 1, 2), [11, 12, 13], [13, 12, 11])
    found = rank_correlation([low, high])

    assert found.rho is not None and found.rho > 0 and found.rho_within == -1


def test_joint_permutations_need_the_same_stages() -> None:
    """Models share a permutation only if all their stages are the same; without such models there is no joint p."""
    one, two, three = (
        Sample(stages, [1, 2, 3, 4], [1, 3, 2, 4]) for stages in ((2, 4, 6, 8), (2, 4, 6, 9), (2, 4, 6, 8))
    )

    assert rank_correlation([one]).p_joint is rank_correlation([one, two]).p_joint is None
    assert (
        rank_correlation([one, three]).p_joint is not None and rank_correlation([one, two, three]).p_joint is not None
    )


def test_p_is_that_of_spearmans_rho() -> None:
    """For one model, ties included, it is scipy's permutation p value of rho itself."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, 7).tolist(), rng.random(7).tolist()
    found = rank_correlation([Sample(tuple(range(7)), x, y)])
    expected = permutation_test(
        (x,), lambda z: spearmanr(z, y).statistic, permutation_type="pairings", n_resamples=np.inf
    )

    assert found.rho == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(np.mean(np.abs(expected.null_distribution) >= abs(expected.statistic) - 1e-9))


def test_many_stages_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many permutations some are sampled, and p is close to the exact one and reproducible."""
    sample = Sample(tuple(range(6)), [1, 2, 3, 4, 5, 6], [1, 3, 2, 5, 4, 6])
    exact = rank_correlation([sample])
    monkeypatch.setattr(ranks, "MAX_EXACT_STAGES", 5)
    monkeypatch.setattr(ranks, "NUM_RESAMPLES", 5000)
    sampled = rank_correlation([sample])

    assert exact.exact and not sampled.exact and sampled == rank_correlation([sample])
    assert sampled.p == pytest.approx(exact.p, abs=0.01)


def test_correlate_writes_its_folder(tmp_path: Path) -> None:
    """Models are joined by name, CSV and JSON files agree, and a folder stands for its ghosts.json."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/ghosts.json").write_text(json.dumps(ghosts("a.pt")), encoding="utf-8")
    rising = {2: 0.1, 4: 0.2, 6: 0.3, 8: 0.4}
    contents = ghosts("b.pt"), isolated("a.pt", rising), sequential("a.pt", rising), isolated("b.pt", rising)
    arguments = ["correlate", str(tmp_path / "a"), *write_files(tmp_path, *contents), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out/correlation.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((tmp_path / "out/stages.csv").read_text(encoding="utf-8").splitlines()))
    found = {(row["redundancy"], row["cost"]): row for row in report["correlations"]}

    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("correlation.json", "correlation.png", "correlations.csv", "stages.csv")
    }
    assert [(row["model"], row["layer"]) for row in rows] == [(m, str(k)) for m in ("a.pt", "b.pt") for k in SHARES]
    assert [report["rows"][0][key] for key in ("module", "block")] == ["C2f", "ghost_yolo.C2f_Fire"]
    assert [report["rows"][0][key] for key in ("share", "median", "inner")] == pytest.approx([0.5, 0.5, 0.25])
    assert [report["rows"][0][key] for key in ("error_isolated", "error_sequential", "sensitivity")] == [0.1, 0.1, 0.2]
    assert rows[-1]["error_sequential"] == "" and found["share", "error_sequential"]["n"] == 4
    assert (
        found["share", "error_isolated"]["rho_within"]
        == pytest.approx(-1)
        == -found["median", "error_isolated"]["rho_within"]
    )
    assert found["inner", "sensitivity"]["p_joint"] == pytest.approx(2 / 24)


def test_the_number_of_correlations_is_printed(tmp_path: Path) -> None:
    """Three measures of redundancy and one cost are three correlations, so Bonferroni's bound is a third of 0.05."""
    arguments = [
        "correlate",
        *write_files(tmp_path, ghosts("a.pt"), sequential("a.pt", ERRORS)),
        "-o",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, arguments)

    assert "0.05 / 3 = 0.017" in done.stdout


def test_different_numbers_of_calibration_images_are_printed(tmp_path: Path) -> None:
    """Sequential runs with different numbers of calibration images are pooled, with a note."""
    runs = [
        sequential(model, ERRORS) | {"calibration_images": count} for model, count in (("a.pt", 205), ("b.pt", 160))
    ]
    arguments = [
        "correlate",
        *write_files(tmp_path, ghosts("a.pt"), ghosts("b.pt"), *runs),
        "-o",
        str(tmp_path / "out"),
    ]

    assert "a.pt with 205, b.pt with 160" in CliRunner().invoke(app, arguments).stdout


def test_models_are_identified_by_their_weights(tmp_path: Path) -> None:
    """Two models called best.pt are two, and one model with two paths is one."""
    errors = {2: 0.1, 4: 0.2, 6: 0.3, 8: 0.4}
    files = write_files(
        tmp_path,
        ghosts("best.pt", weights="aaaaaaaaaaaa"),
        ghosts("best.pt", weights="bbbbbbbbbbbb"),
        sequential("/there/best.pt", errors, weights="aaaaaaaaaaaa"),
        sequential("runs/best.pt", errors, weights="bbbbbbbbbbbb"),
    )
    stages = join_stages(read_measurements([Path(file) for file in files]))
    assert [stage.model for stage in stages] == ["best-aaaaaa.pt"] * 4 + ["best-bbbbbb.pt"] * 4
    single = join_stages(read_measurements([Path(files[0]), Path(files[2])]))
    assert {stage.model for stage in single} == {"best.pt"}


def test_models_have_short_names() -> None:
    """Table and legend have as much of a model's path as distinguishes it, and nothing is cut or overlaps."""
    paths = [f"/a/rather/long/path/to/runs/{name}/weights/best.pt" for name in ("stock", "narrow")]
    stages = [Stage(path, k, "C2f", "x", k / 9, k / 9, None, k / 9, k / 9, None) for path in paths for k in (2, 4, 6)]
    settings = CorrelationSettings("x", 0.1)
    correlations = correlate_stages(stages, settings)
    report = correlation_report(stages, correlations, settings)
    figure = plots.correlation_figure(stages, correlations)
    figure.draw_without_rendering()
    width, boxes = figure.bbox.width, [axis.title.get_window_extent() for axis in figure.axes]

    assert [line[0] for line in report.tables[0][1]][::3] == ["stock/weights/best 2", "narrow/weights/best 2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["stock/weights/best", "narrow/weights/best"]
    assert all(box.x0 >= 0 and box.x1 <= width for box in [*boxes, figure.legends[0].get_window_extent()])
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


ERRORS = {2: 0.1, 4: 0.2, 6: 0.3, 8: 0.4}
REFUSED: dict[str, tuple[list[Content], str]] = {
    "no ghostify result": ([ghosts("a.pt")], "ghostify"),
    "no ghosts result": ([sequential("a.pt", ERRORS)], "ghosts"),
    "ghostify of another model": ([ghosts("a.pt"), sequential("b.pt", ERRORS)], r"0\.json.*a\.pt"),
    "ghostify without ghosts": (
        [ghosts("a.pt"), *(sequential(m, ERRORS) for m in ("a.pt", "b.pt"))],
        r"2\.json.*b\.pt",
    ),
    "two surveys": ([ghosts("a.pt"), ghosts("a.pt"), sequential("a.pt", ERRORS)], r"1\.json.*0\.json"),
    "two runs": ([ghosts("a.pt"), *[sequential("a.pt", ERRORS)] * 2], r"2\.json: layer 2 of a\.pt"),
    "two sizes": ([ghosts("a.pt"), sequential("a.pt", ERRORS, imgsz=96)], r"64 in .*0\.json and 96 in .*1\.json"),
    "two bounds": (
        [ghosts("a.pt"), ghosts("b.pt", within=0.2), *(sequential(m, ERRORS) for m in ("a.pt", "b.pt"))],
        r"--within .*0\.1, 0\.2",
    ),
    "two numbers of steps": (
        [
            *map(ghosts, ("a.pt", "b.pt")),
            *(sequential(m, ERRORS, reconstruct_steps=k) for m, k in (("a.pt", 100), ("b.pt", 40))),
        ],
        r"--reconstruct-steps is 100 in .*2\.json and 40 in .*3\.json",
    ),
    "two blocks": ([ghosts("a.pt"), *(isolated("a.pt", ERRORS, b) for b in ("x", "y"))], "x, y"),
    "other layers": ([ghosts("a.pt"), sequential("a.pt", {3: 0.1})], "layers"),
    "too few": ([ghosts("a.pt", {2: 0.1, 4: 0.2}), sequential("a.pt", ERRORS)], "2 stage"),
    "unknown shares": ([unknown(ghosts("a.pt")), sequential("a.pt", ERRORS)], "4 stages .* --imgsz"),
}
WITHOUT_NUMBERS = {"index": 2, "module": "C2f", "trained": {"share_d3": "many", "median_d3": 0.1}}
UNREADABLE: dict[str, tuple[list[Content], str]] = {
    "result of pairs": ([{"settings": {"model": "a.pt"}, "rows": [{"layer": 0}]}], r"0\.json"),
    "no image size": ([ghosts("a.pt"), {"settings": {"model": "a.pt"}, "rows": []}], r"1\.json.*'imgsz'"),
    "no model": ([{"settings": {}, "rows": []}], r"0\.json.*'model'"),
    "a share that is no number": ([ghosts("a.pt") | {"rows": [WITHOUT_NUMBERS]}], r"0\.json.*many"),
    "a share above 1": ([ghosts("a.pt", {2: 1.5})], r"0\.json.*share_d3 is 1\.5"),
    "a negative error": ([sequential("a.pt", {2: -0.5})], r"0\.json.*rows\[0\]: error is -0\.5"),
    "a sensitivity that is not finite": ([isolated("a.pt", {2: float("inf")})], r"0\.json.*error is inf"),
    "a list": ([[]], r"0\.json"),
}


@pytest.mark.parametrize("case", [*REFUSED, *UNREADABLE])
def test_refused(case: str, tmp_path: Path) -> None:
    """Files that do not belong together are named in the error, and nothing is written."""
    contents, value = (REFUSED | UNREADABLE)[case]
    arguments = ["correlate", *write_files(tmp_path, *contents), "-o", str(tmp_path / "out")]
    with pytest.raises(SourceError if case in UNREADABLE else UserError, match=value):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option, value", [("--seed", "-1"), ("--block", "C2f_Other")])
def test_invalid_options_are_refused(option: str, value: str, tmp_path: Path) -> None:
    """The error names the option and its value."""
    files = write_files(tmp_path, ghosts("a.pt"), sequential("a.pt", ERRORS))
    with pytest.raises(UserError, match=f"{option} {value}"):
        CliRunner().invoke(
            app, ["correlate", *files, option, value, "-o", str(tmp_path / "out")], catch_exceptions=False
        )

"""Selection within a budget: the Pareto front is exact, the budget is kept, and a resumed run selects the same."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from factories import GHOST, interrupt
from typer.testing import CliRunner

from ghost_yolo import host
from ghost_yolo.cli import app
from ghost_yolo.ghostify import Settings, ghostify, search, training


@pytest.fixture
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trial reconstructions short."""
    monkeypatch.setattr(search, "TRIAL_STEPS", 1)
    monkeypatch.setattr(search, "TRIAL_SAMPLES", 8)


def test_pareto_front_is_exact() -> None:
    """At every cost limit, the front holds the least sensitive of all combinations."""
    rng = np.random.default_rng(0)
    options = [search.BlockOption(row, block, *rng.random(3)) for row in range(4) for block in "ab"]
    front = search.find_pareto_front(options, 10.0)
    combinations = itertools.product(*([None, *(o for o in options if o.row == row)] for row in range(4)))
    points = [
        (10 - sum(o.saving for o in combination if o), sum(o.sensitivity for o in combination if o))
        for combination in combinations
    ]
    cheapest = min(cost for cost, _ in points)

    assert front[0].blocks == {} and front[-1].cost == pytest.approx(cheapest)
    for limit in np.linspace(cheapest + 1e-6, 10, 30):
        best = min(sensitivity for cost, sensitivity in points if cost <= limit)
        assert search.select_within(front, limit).sensitivity == pytest.approx(best)


def test_insignificant_savings_are_not_selected() -> None:
    """An option is selected only if its whole interval is above 0."""
    options = [
        search.BlockOption(2, "significant", 2.0, 5.0, 0.1, (1.5, 2.5)),
        search.BlockOption(2, "noise", 3.0, 0.1, 0.1, (-0.1, 6.0)),
        search.BlockOption(4, "slower", -1.0, 0.1, 0.1, (-2.0, -0.5)),
        search.BlockOption(6, "counted", 1.0, 1.0, 0.1),
        search.BlockOption(8, "larger", -1.0, 0.0, 0.1),
    ]
    front = search.find_pareto_front(options, 10.0)

    blocks = [{}, {6: "counted"}, {2: "significant"}, {2: "significant", 6: "counted"}]
    assert [selection.blocks for selection in front] == blocks and front[-1].cost == 7.0


@pytest.mark.usefixtures("short_trials")
def test_budget_is_kept(best: Path, image_folder: Path, tmp_path: Path) -> None:
    """The model costs at most its budget, and the trade-off is written as JSON and PNG."""
    options = ["--images", str(image_folder), "--block", f"{GHOST},NarrowELAN", "--budget", "0.92", "--where", "all"]
    options += ["-o", str(tmp_path / "light.pt"), "--reconstruct-steps", "2", "--distill-steps", "1"]
    done = CliRunner().invoke(app, ["ghostify", str(best), *options])
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "light.json").read_text())

    assert content["whole"]["gflops_after"] <= 0.92 * content["whole"]["gflops_before"]
    assert {row["layer"].split(".")[0]: row["block"] for row in content["rows"]} == content["selected"]["blocks"]
    assert content["pareto_front"][0]["blocks"] == {} and content["selected"] in content["pareto_front"]
    assert len(content["options"]) == 7 and all(option["sensitivity"] >= 0 for option in content["options"])
    assert all(0 < option["error"] < 10 for option in content["options"])
    assert "selected" in done.output and "wrote" in done.output
    assert cv2.imread(str(tmp_path / "light.png")) is not None


@pytest.mark.usefixtures("short_trials")
def test_resumed_run_with_a_budget_equals_an_uninterrupted_one(
    best: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are the same whether or not the trial reconstructions ran in this process."""
    settings = Settings(reconstruct_steps=2, distill_steps=1)
    call = {"blocks": [GHOST], "where": "all", "budget": 0.95, "settings": settings}
    ghostify(best, [image_folder], tmp_path / "whole.pt", **call)
    with monkeypatch.context() as patched:
        patched.setattr(training, "distill", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ghostify(best, [image_folder], tmp_path / "light.pt", **call)
    monkeypatch.setattr(search, "measure_options", interrupt)  # must not be called again
    ghostify(best, [image_folder], tmp_path / "light.pt", **call)

    a, b = (host.load(tmp_path / f"{name}.pt").state_dict() for name in ("whole", "light"))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)

"""Which blocks within a budget: the front is exact, the budget kept, the choice resumed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from factories import GHOST as WORD
from factories import interrupt
from typer.testing import CliRunner

from ghost_yolo import host
from ghost_yolo.cli import app
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import Settings, ghostify, pipeline, search


def test_front_is_exact() -> None:
    """Against all sets there are: every set of the front is the least harmful at its cost, and none is missing."""
    rng = np.random.default_rng(0)
    options = [search.Option(row, word, *rng.random(3)) for row in range(4) for word in "ab"]
    front = search.front_of(options, 10.0)
    sets = itertools.product(*([None, *(o for o in options if o.row == row)] for row in range(4)))
    every = [(10 - sum(o.saving for o in s if o), sum(o.harm for o in s if o)) for s in sets]
    for limit in np.linspace(6, 10, 30):
        within = [harm for cost, harm in every if cost <= limit]
        if within:
            assert search.best_of(front, limit / 10, 10.0).harm == pytest.approx(min(within))
    assert front[0].words == {} and front[-1].cost == pytest.approx(min(cost for cost, _ in every))
    with pytest.raises(UserError, match=r"--budget 0\.1: the cheapest set"):
        search.best_of(front, 0.1, 10.0)


def test_budget_is_kept(best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget the model costs no more than asked, the curve is written and drawn, and a resumed run chooses the same."""
    monkeypatch.setattr(search, "STEPS", 2)
    monkeypatch.setattr(search, "VIEWS", 8)
    words = [
        "ghostify",
        str(best),
        "--images",
        str(photos),
        "--block",
        f"{WORD},NarrowELAN",
        "--budget",
        "0.92",
        "--where",
        "all",
    ]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "light.pt"), "--steps", "2", "--polish", "1"])
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "light.json").read_text())

    assert content["whole"]["gflops_after"] <= 0.92 * content["whole"]["gflops_before"]
    assert {row["layer"].split(".")[0]: row["word"] for row in content["rows"]} == content["chosen"]["words"]
    assert len(content["options"]) == 7 and all(option["harm"] >= 0 for option in content["options"])
    assert all(0 < option["error"] < 10 for option in content["options"])
    assert "chosen" in done.output and "wrote" in done.output
    assert cv2.imread(str(tmp_path / "light.png")) is not None


def test_resumed_within_a_budget_equals_uninterrupted(
    best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the choice all is drawn anew: it must not matter whether the trial fits ran in this process."""
    monkeypatch.setattr(search, "STEPS", 1)
    monkeypatch.setattr(search, "VIEWS", 8)
    words = {"blocks": [WORD], "where": "all", "budget": 0.95, "settings": Settings(steps=2, polish=1)}
    ghostify(best, [photos], tmp_path / "whole.pt", **words)
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "polish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ghostify(best, [photos], tmp_path / "light.pt", **words)
    monkeypatch.setattr(pipeline, "survey", interrupt)  # kept, so not called again
    ghostify(best, [photos], tmp_path / "light.pt", **words)

    a, b = (host.load(tmp_path / f"{name}.pt").state_dict() for name in ("whole", "light"))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)

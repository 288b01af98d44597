"""Milliseconds as the cost of a budget: what is saved, what is noise, what is timed again, and the choice held against a clock."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from factories import TINY as LITTLE
from factories import Run, bench_row

from ghost_yolo import host
from ghost_yolo.bench import BenchPlan, BenchResult, runtimes
from ghost_yolo.bench.exporting import reestimate_batchnorm
from ghost_yolo.bench.results import add_statistics
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import Settings, ghostify, pipeline, search
from ghost_yolo.ghostify import savings as savings_module
from ghost_yolo.ghostify.state import RunState
from ghost_yolo.ghostify.student import student_of
from ghost_yolo.model.swap import plan_swap
from ghost_yolo.tables import render_report
from ghost_yolo.utils import system

WORDS = ["C2f_GhostBottleneck", "NarrowELAN"]
CLOCK = Settings(steps=1, polish=0, cost="onnx")


class Clock:
    """A bench that takes each model's share of the trained one's time from a table, on a machine that slows down.

    Attributes:
        shares: By name of the model; the trained one's is 1.
        seen: Names of the models of each call.
        stop: The call that is interrupted.
        failed: Names of the models that cannot be run.
    """

    def __init__(self, shares: dict[str, float]) -> None:
        """Take the shares."""
        self.shares, self.seen, self.stop, self.failed = {savings_module.TRAINED: 1.0} | shares, [], 0, {"none"}

    def __call__(self, asked: BenchPlan) -> BenchResult:
        """Return times with a few per cent of noise, each call slower than the one before."""
        names = [Path(model).stem for model in asked.models]
        self.seen.append(names)
        assert (
            asked.runtimes == ("onnx",)
            and asked.precisions == ("fp32",)
            and asked.threads in (0, 3)
            and asked.rounds in (20, 40)
            and all(map(host.load, asked.models))
        )
        noise = 1 + 0.02 * np.random.default_rng(len(self.seen)).standard_normal((len(names), asked.rounds))
        rows = [
            bench_row(model, "onnx", gflops=1.0, error="broken" if name in self.failed else None)
            for model, name in zip(asked.models, names, strict=True)
        ]
        for row, name, wobble in zip(rows, names, noise, strict=True):
            row.times = (10 * len(self.seen) * self.shares[name] * wobble).tolist()
        add_statistics(rows, asked.models[0])
        workload = {name: getattr(asked, name) for name in ("imgsz", "batch", "rounds", "passes")}
        conditions = system.conditions(asked.device, 2) | workload
        return BenchResult(rows, conditions, system.versions(), interrupted=len(self.seen) == self.stop)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    """Put a fake in the place of `bench`, and make trial fits short."""
    monkeypatch.setattr(search, "STEPS", 1)
    monkeypatch.setattr(search, "VIEWS", 8)

    def put(shares: dict[str, float]) -> Clock:
        made = Clock(shares)
        monkeypatch.setattr(savings_module, "bench", made)
        return made

    return put


def test_timed_in_groups_with_the_trained_model(little: Any, tmp_path: Path, clock: Callable[..., Clock]) -> None:
    """A few models at a time; what is saved is a share of one time, however slow a group was; nothing is timed twice."""
    plans = [plan_swap(little.yaml, "all", word) for word in WORDS]
    models = [student_of(little, words) for words in plans]
    shares = {f"{row}-{word}": 0.5 + row / 10 for row in (1, 3, 4) for word in WORDS} | {"5-LightDetect": 0.9}
    fake, settings = clock(shares), {"cost": "onnx", "imgsz": 64, "threads": 3, "rounds": 20}
    fake.stop = 2
    with pytest.raises(KeyboardInterrupt):
        savings_module.savings_of(little, plans, models, RunState(tmp_path / "light.pt", settings))
    savings = savings_module.savings_of(little, plans, models, RunState(tmp_path / "light.pt", settings))

    assert [len(names) for names in fake.seen] == [5, 4, 4] and fake.seen[1] == fake.seen[2]
    assert all(names[0] == savings_module.TRAINED for names in fake.seen)
    assert sorted(fake.seen[0][1:] + fake.seen[2][1:]) == sorted(shares)
    assert savings.unit == "ms in ONNX Runtime" and savings.total == pytest.approx(10, rel=0.05)  # 30 later, for fewer
    for (row, word), saved in savings.each.items():
        low, high = saved.interval or (0, 0)
        assert low <= saved.amount <= high
        assert saved.amount == pytest.approx(10 * (1 - shares[f"{row}-{word.split('.')[-1]}"]), abs=0.3)


def test_what_may_be_noise_is_not_chosen() -> None:
    """A saving is one only if its whole interval is: neither a doubtful nor a negative one is ever in a set."""
    options = [
        search.Option(2, "sure", 2.0, 5.0, 0.1, (1.5, 2.5)),
        search.Option(2, "doubtful", 3.0, 0.1, 0.1, (-0.1, 6.0)),
        search.Option(4, "slower", -1.0, 0.1, 0.1, (-2.0, -0.5)),
        search.Option(6, "counted", 1.0, 1.0, 0.1),
        search.Option(8, "dearer", -1.0, 0.0, 0.1),
    ]
    front = search.front_of(options, 10.0)

    assert [choice.words for choice in front] == [{}, {6: "counted"}, {2: "sure"}, {2: "sure", 6: "counted"}]
    with pytest.raises(UserError, match=r"cheapest set has 0.70 of the 10.00 ms"):
        search.best_of(front, 0.6, 10.0, "ms")


@pytest.mark.parametrize("whole", [0.7, 0.9])
def test_the_choice_is_held_against_the_clock(
    whole: float, best: Path, photos: Path, tmp_path: Path, clock: Callable[..., Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predicted and measured share are both told, also where they differ; a resumed run times nothing again."""
    names = {"1-C2f_GhostBottleneck": 1.2, "1-NarrowELAN": 0.9, "3-C2f_GhostBottleneck": 0.999, "3-NarrowELAN": 0.9}
    fake = clock(names | {"chosen model": whole})
    call: dict[str, Any] = {"blocks": WORDS, "budget": 0.85, "settings": CLOCK}
    fit_all = pipeline.fit_all

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "fit_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ghostify(best, [photos], tmp_path / "light.pt", **call)
    monkeypatch.setattr(pipeline, "fit_all", fit_all)
    report = ghostify(best, [photos], tmp_path / "light.pt", **call)
    content, text = json.loads((tmp_path / "light.json").read_text()), render_report(report, {}, "text")

    assert [len(seen) for seen in fake.seen] == [5, 2]
    assert content["chosen"]["words"] == {"1": "ghost_yolo.NarrowELAN", "3": "ghost_yolo.NarrowELAN"}
    assert content["predicted"] == pytest.approx(0.8, abs=0.03)
    timed, options = content["timed_whole"], {(o["row"], o["word"].split(".")[-1]): o for o in content["options"]}
    assert timed["low"] <= timed["ratio"] <= timed["high"] and timed["ratio"] == pytest.approx(whole, abs=0.03)
    assert timed["conditions"]["threads"] == 2 and timed["conditions"]["imgsz"] == 64
    assert content["cost"]["unit"] == "ms in ONNX Runtime" and options[1, WORDS[0]]["saving"] < 0
    assert all(row["gflops_before"] > row["gflops_after"] for row in content["rows"])
    assert "ms in ONNX Runtime saved" in text and "no sure saving" in text and f"has {timed['ratio']:.3f} (95 %" in text
    assert ("above the budget" in text) is (whole > 0.85)
    assert cv2.imread(str(tmp_path / "light.png")) is not None


def test_refused_before_any_work(best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such cost, a cost without a budget, a runtime that is not installed: each is said, and nothing is written."""
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    wrong = [
        ("latency", 0.8, "give one of gflops, pytorch, onnx, openvino, ncnn"),
        ("onnx", None, "--budget 0.7"),
        ("openvino", 0.8, r"openvino is not installed; install with pip install 'ghost-yolo\[openvino\]'"),
    ]
    for cost, share, message in wrong:
        with pytest.raises(UserError, match=message):
            ghostify(best, [photos], tmp_path / "light.pt", WORDS[:1], budget=share, settings=Settings(cost=cost))
    assert sorted(tmp_path.rglob("*")) == before


def test_out_of_reach_is_said_before_trial_fits(
    best: Path, photos: Path, tmp_path: Path, clock: Callable[..., Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget that no set keeps ends the run once all is timed, with how many savings may be noise, and leaves nothing."""
    monkeypatch.setattr(pipeline, "survey", None)
    clock({"1-NarrowELAN": 0.8, "3-NarrowELAN": 1.1})
    with pytest.raises(UserError, match=r"--budget 0\.5: the cheapest set has .* 1 of 2 savings may be noise"):
        ghostify(best, [photos], tmp_path / "light.pt", ["NarrowELAN"], budget=0.5, settings=CLOCK)
    assert not list(tmp_path.glob("light*"))


def test_a_word_that_cannot_be_run_is_named(
    best: Path, photos: Path, tmp_path: Path, clock: Callable[..., Clock]
) -> None:
    """What the runtime says of it, and what to do."""
    clock({"1-NarrowELAN": 0.9, "3-NarrowELAN": 0.9}).failed = {"3-NarrowELAN"}
    with pytest.raises(UserError, match=r"--cost onnx: 3-NarrowELAN: broken\. Leave that word out"):
        ghostify(best, [photos], tmp_path / "light.pt", ["NarrowELAN"], budget=0.85, settings=CLOCK)


@pytest.mark.slow
def test_by_a_real_clock(photos: Path, tmp_path: Path, run: Run) -> None:
    """The whole command with ONNX Runtime's own times, of a model that is one wide block nearly all of it."""
    config = copy.deepcopy(LITTLE)
    config["backbone"][1], config["backbone"][3] = [-1, 3, "C2f", [256, True]], [-1, 1, "Conv", [32, 1, 1]]
    torch.manual_seed(0)
    model = host.build(config)
    reestimate_batchnorm(model)
    host.save(model, tmp_path / "best.pt", {"imgsz": 64})
    words = ["--block", "NarrowELAN", "--budget", "0.99", "--cost", "onnx", "--steps", "1", "--polish", "0"]
    light = tmp_path / "light.pt"
    done = run("python", "-m", "ghost_yolo", "ghostify", tmp_path / "best.pt", "--images", photos, *words, "-o", light)
    content = json.loads(light.with_suffix(".json").read_text())
    timed = content["timed_whole"]

    assert content["chosen"]["words"] and 0 < content["predicted"] <= 0.99
    assert timed["ms"] > 0 and timed["trained_ms"] > 0 and timed["low"] <= timed["ratio"] <= timed["high"]
    assert all(len(option["interval"]) == 2 for option in content["options"])
    assert "ms in ONNX Runtime saved" in done.stdout and "ONNX Runtime fp32" in done.stdout

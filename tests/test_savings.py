"""Latency as the cost of a budget: savings, significance, resumption, and the measured selection."""

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
from factories import TINY, Run, bench_row, interrupt

from ghost_yolo import host
from ghost_yolo.bench import BenchPlan, BenchResult, runtimes
from ghost_yolo.bench.exporting import estimate_batchnorm_from_noise
from ghost_yolo.bench.results import add_statistics
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import Settings, ghostify, pipeline, savings, search
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.config import RunConfig
from ghost_yolo.ghostify.state import GhostifyRun, RunState
from ghost_yolo.ghostify.student import build_candidates
from ghost_yolo.tables import render_report
from ghost_yolo.utils import system

BLOCKS = ["C2f_GhostBottleneck", "NarrowELAN"]
LATENCY = Settings(reconstruct_steps=1, distill_steps=0, cost="onnx")


class FakeBench:
    """A bench that takes each model's share of the teacher's latency from a table, on a machine that slows down.

    Attributes:
        shares: Share by model name; the teacher's is 1.
        calls: Model names of each call.
        interrupt_at: Number of the call that is interrupted.
        broken: Names of models that cannot be run.
    """

    def __init__(self, shares: dict[str, float]) -> None:
        """Set the shares."""
        self.shares, self.calls, self.interrupt_at, self.broken = {"best": 1.0} | shares, [], 0, {"none"}

    def __call__(self, plan: BenchPlan) -> BenchResult:
        """Return times with a noise of two percent; each call is slower than the one before."""
        names = [Path(model).stem for model in plan.models]
        self.calls.append(names)
        assert plan.runtimes == ("onnx",) and plan.precisions == ("fp32",)
        assert plan.threads in (0, 3) and plan.rounds in (20, 40) and all(map(host.load, map(Path, plan.models)))
        noise = 1 + 0.02 * np.random.default_rng(len(self.calls)).standard_normal((len(names), plan.rounds))
        rows = []
        for model, name, factors in zip(plan.models, names, noise, strict=True):
            times = (10 * len(self.calls) * self.shares[name] * factors).tolist()
            error = "it crashed" if name in self.broken else None
            rows.append(bench_row(model, "onnx", gflops=1.0, error=error, times=times))
        add_statistics(rows, plan.models[0])
        workload = {"imgsz": plan.imgsz, "batch": plan.batch, "rounds": plan.rounds, "passes": plan.passes}
        conditions = system.conditions(plan.device, 2) | workload
        return BenchResult(rows, conditions, system.versions(), interrupted=len(self.calls) == self.interrupt_at)


@pytest.fixture
def fake_bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], FakeBench]:
    """Replace `bench` by a fake one, and make trial reconstructions short."""
    monkeypatch.setattr(search, "TRIAL_STEPS", 1)
    monkeypatch.setattr(search, "TRIAL_SAMPLES", 8)

    def replace(shares: dict[str, float]) -> FakeBench:
        fake = FakeBench(shares)
        monkeypatch.setattr(savings, "bench", fake)
        return fake

    return replace


def test_options_are_timed_in_groups_with_the_teacher(
    tiny_model: Any,
    best: Path,
    calibration_images: CalibrationImages,
    tmp_path: Path,
    fake_bench: Callable[..., FakeBench],
) -> None:
    """A saving is a share of one latency, however slow its group was; after an interruption no group is timed twice."""
    settings = Settings(imgsz=64, cost="onnx", threads=3, rounds=20)
    config = RunConfig(settings, "all", tuple(BLOCKS), 0.9, "", (), str(best), "", "")
    candidates = build_candidates(tiny_model, config)
    shares = {f"{row}-{block}": 0.5 + row / 10 for row in (1, 3, 4) for block in BLOCKS} | {"5-LightDetect": 0.9}
    fake = fake_bench(shares)
    fake.interrupt_at = 2
    interrupted = GhostifyRun(config, tiny_model, calibration_images, RunState(tmp_path / "light.pt", config))
    with pytest.raises(KeyboardInterrupt):
        savings.measure_savings(interrupted, candidates)
    resumed = GhostifyRun(config, tiny_model, calibration_images, RunState(tmp_path / "light.pt", config))
    measured = savings.measure_savings(resumed, candidates)

    assert [len(names) for names in fake.calls] == [5, 4, 4] and fake.calls[1] == fake.calls[2]
    assert all(names[0] == "best" for names in fake.calls)
    assert sorted(fake.calls[0][1:] + fake.calls[2][1:]) == sorted(shares)
    assert measured.unit == "ms in ONNX Runtime"
    assert measured.total == pytest.approx(10, rel=0.05)  # 30 in the last call, which timed fewer options
    for (row, block), saving in measured.options.items():
        low, high = saving.interval or (0, 0)
        assert low <= saving.amount <= high
        assert saving.amount == pytest.approx(10 * (1 - shares[f"{row}-{block.split('.')[-1]}"]), abs=0.3)


@pytest.mark.parametrize("share", [0.7, 0.9])
def test_selection_is_measured_as_a_whole(
    share: float,
    best: Path,
    image_folder: Path,
    tmp_path: Path,
    fake_bench: Callable[..., FakeBench],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Predicted and measured share are both reported, also where they differ; a resumed run times nothing again."""
    names = {"1-C2f_GhostBottleneck": 1.2, "1-NarrowELAN": 0.9, "3-C2f_GhostBottleneck": 0.999, "3-NarrowELAN": 0.9}
    fake = fake_bench(names | {"selected": share})
    call: dict[str, Any] = {"blocks": BLOCKS, "budget": 0.85, "settings": LATENCY}
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "train_student", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ghostify(best, [image_folder], tmp_path / "light.pt", **call)
    report = ghostify(best, [image_folder], tmp_path / "light.pt", **call)
    content, text = json.loads((tmp_path / "light.json").read_text()), render_report(report, {}, "text")

    assert [len(models) for models in fake.calls] == [5, 2]
    assert content["selected"]["blocks"] == {"1": "ghost_yolo.NarrowELAN", "3": "ghost_yolo.NarrowELAN"}
    assert content["predicted"] == pytest.approx(0.8, abs=0.03)
    measured, options = content["measured"], {(o["row"], o["block"].split(".")[-1]): o for o in content["options"]}
    row, conditions = measured["row"], measured["conditions"]
    assert row["model"] == "selected" and measured["teacher"]["ratio"] == 1
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"] and row["ratio"] == pytest.approx(share, abs=0.03)
    assert conditions["threads"] == 2 and conditions["imgsz"] == 64
    assert content["cost"]["unit"] == "ms in ONNX Runtime" and options[1, BLOCKS[0]]["saving"] < 0
    assert all(row["gflops_before"] > row["gflops_after"] for row in content["rows"])
    assert "ms in ONNX Runtime" in text and f"{row['ratio']:.3f}" in text
    assert ("above the budget" in text) is (share > 0.85)
    assert cv2.imread(str(tmp_path / "light.png")) is not None


@pytest.mark.parametrize(
    "cost,budget,message",
    [("latency", 0.8, "--cost latency"), ("onnx", None, "--cost onnx.*--budget"), ("openvino", 0.8, "openvino")],
)
def test_invalid_costs_are_errors_before_any_work(
    cost: str,
    budget: float | None,
    message: str,
    best: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unknown cost, a latency without a budget, a runtime that is not installed: nothing is written."""
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        ghostify(best, [image_folder], tmp_path / "light.pt", BLOCKS[:1], budget=budget, settings=Settings(cost=cost))
    assert not list(tmp_path.iterdir())


def test_unreachable_budget_is_an_error_before_trials(
    best: Path,
    image_folder: Path,
    tmp_path: Path,
    fake_bench: Callable[..., FakeBench],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run ends once all is timed, with the number of savings within noise, and leaves nothing."""
    monkeypatch.setattr(search, "measure_options", None)
    fake_bench({"1-NarrowELAN": 0.8, "3-NarrowELAN": 1.1})
    with pytest.raises(UserError, match=r"--budget 0\.5.*1 of 2"):
        ghostify(best, [image_folder], tmp_path / "light.pt", ["NarrowELAN"], budget=0.5, settings=LATENCY)
    assert not list(tmp_path.iterdir())


def test_block_that_cannot_be_run_is_named(
    best: Path, image_folder: Path, tmp_path: Path, fake_bench: Callable[..., FakeBench]
) -> None:
    """The error names row and block, and repeats the error of the runtime."""
    fake_bench({"1-NarrowELAN": 0.9, "3-NarrowELAN": 0.9}).broken = {"3-NarrowELAN"}
    with pytest.raises(UserError, match=r"--cost onnx.*3-NarrowELAN.*it crashed"):
        ghostify(best, [image_folder], tmp_path / "light.pt", ["NarrowELAN"], budget=0.85, settings=LATENCY)


@pytest.mark.slow
@pytest.mark.weekly
def test_real_latency(image_folder: Path, tmp_path: Path, run: Run) -> None:
    """The whole command with latencies in ONNX Runtime, of a model that is mostly one wide block."""
    config = copy.deepcopy(TINY)
    config["backbone"][1], config["backbone"][3] = [-1, 3, "C2f", [256, True]], [-1, 1, "Conv", [32, 1, 1]]
    torch.manual_seed(0)
    model = host.build(config)
    estimate_batchnorm_from_noise(model)
    host.save(model, tmp_path / "best.pt", {"imgsz": 64})
    options = ["--block", "NarrowELAN", "--budget", "0.99", "--cost", "onnx", "--images", image_folder]
    options += ["--reconstruct-steps", "1", "--distill-steps", "0", "-o", tmp_path / "light.pt"]
    done = run("python", "-m", "ghost_yolo", "ghostify", tmp_path / "best.pt", *options)
    content = json.loads((tmp_path / "light.json").read_text())
    row = content["measured"]["row"]

    assert content["selected"]["blocks"] and 0 < content["predicted"] <= 0.99
    assert row["median_ms"] > 0 and row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert all(len(option["interval"]) == 2 for option in content["options"])
    assert "ms in ONNX Runtime" in done.stdout and "ONNX Runtime fp32" in done.stdout

"""The search for a model that reaches a target, and whether what is delivered keeps the promise."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from factories import GHOST, QUALIFIED_GHOST, bench_row, refused

from ghost_yolo import host
from ghost_yolo.errors import UserError
from ghost_yolo.export.float32_parts import Variant
from ghost_yolo.ghostify import Settings, config, ghostify, option_times, options, target, writing
from ghost_yolo.ghostify.config import Delivery
from ghost_yolo.ghostify.delivery import TWIN, Delivered
from ghost_yolo.ghostify.option_times import Times
from ghost_yolo.ghostify.options import ModelOption
from ghost_yolo.ghostify.plot import plot_delivered
from ghost_yolo.ghostify.target import TimeTarget, advise, choose_distilled, finalists, parse_target
from ghost_yolo.ghostify.verdict import _exceptions, _promise, _slow_activation

QUICK = Settings(reconstruct_steps=1, distill_steps=1, holdout=0.5)
OPENVINO = Delivery(runtime="openvino", precision="int8")
pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.mark.parametrize(("text", "share"), [("", None), ("10x", 0.1), ("0.2", 0.2), ("2.5x", 0.4)])
def test_targets(text: str, share: float | None) -> None:
    """A speed-up or a share of the time."""
    assert parse_target(text) == share


@pytest.mark.parametrize("text", ["x", "1", "1x", "0", "0x", "-2x", "fast"])
def test_impossible_targets(text: str) -> None:
    """Refused with what is right."""
    with refused(UserError, f"--target {text}", "10x"):
        parse_target(text)


def option(act: str, width: tuple[float, ...], share: float, agreement: float | None = None) -> ModelOption:
    """Return an option of a target."""
    return ModelOption(act, width, time_ratio=share, milliseconds=10 * share, agreement=agreement)


def test_the_best_few_are_distilled() -> None:
    """Those near the best; the one that agrees most afterwards is chosen."""
    options = [
        option("relu", (), 0.2, 0.8),
        option("", (0.5,), 0.3, 0.83),
        option("hardswish", (), 0.2, 0.7),
        option("", (), 0.9),
    ]
    found = TimeTarget(0.3, options, options[1], 10.0, {})
    assert [o.title for o in finalists(found)] == ["--width 0.5", "--act relu"]
    assert choose_distilled(found, {"--width 0.5": 0.85, "--act relu": 0.9}).chosen.title == "--act relu"
    alone = TimeTarget(0.3, [options[3]], options[3], 10.0, {})
    assert finalists(alone) == [options[3]] and choose_distilled(alone, {"as trained": None}).chosen == options[3]


def test_what_an_int8_file_and_an_activation_cost_is_said() -> None:
    """What stays in float32, and an activation that is slower than ReLU."""
    exported = Delivered("exported", "out/fast.onnx", "ONNX Runtime int8", milliseconds=6.0, excluded=("model.22",))
    twin = Delivered(TWIN, "", "ONNX Runtime int8", milliseconds=5.0)
    assert "fast.onnx: model.22 in float32" in _exceptions([exported])[0]
    assert "--act hardswish takes 1.20 times" in _slow_activation("hardswish", [exported, twin])[0]
    assert not _slow_activation("hardswish", [replace(exported, milliseconds=5.1), twin])
    assert not _slow_activation("relu", [exported])


def test_a_target_that_cannot_be_had(
    best: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the fastest model; of the output only the times are there, which serve another target."""
    times = Times([option("relu", (0.25,), 0.3), option("", (), 0.9)], 10.0, {}, {})
    monkeypatch.setattr(target, "time_options", lambda run, _: run.state.add("times", 1) or times)
    kept, out = tmp_path / "fast.pt.part", tmp_path / "fast.pt"
    for share in (0.1, 0.2):
        with refused(UserError, f"--target {share}", "--act relu --width 0.25", "0.3 (3.33x)", kept):
            ghostify(best, [image_folder], out, delivery=Delivery("pytorch", target=share))
        assert [*tmp_path.iterdir()] == [kept]
    with refused(
        UserError, kept, "belongs to a run with act=, not relu; target=for pytorch fp32, baseline onnx fp32, not None."
    ):
        ghostify(best, [image_folder], out, act="relu", delivery=Delivery("pytorch"))
    assert (
        advise(0.3, "fp32")
        == "give --target 0.32 (3.12x) or more of the time, or --precision int8 with --runtime openvino or onnx"
    )
    assert advise(
        0.3, "int8"
    ) == "give --target 0.32 (3.12x) or more of the time" and "faster than the baseline" in advise(0.96, "int8")


def test_a_target_is_searched_and_kept(
    sure: Path, sixteen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Candidates are timed and screened, the chosen one is delivered, and the plot and both measurements are there."""
    monkeypatch.setenv("COLUMNS", "200")  # of the progress bars
    shares = {"trained": 1.0, "as trained": 0.9, "relu": 0.7, "head": 0.65, "ghosts": 0.5}
    rows = [bench_row(name, ratio=ratio, median_ms=10 * ratio) for name, ratio in shares.items()]
    monkeypatch.setattr(options, "SHAPES", {"": ((),), "relu": ((),)})
    monkeypatch.setattr(options, "FEWER", ((),))
    monkeypatch.setattr(options, "BLOCKS", (GHOST,))
    monkeypatch.setattr(option_times, "time_beside", lambda *_: (rows, {}))
    settings = Settings(reconstruct_steps=1, distill_steps=1, holdout=0.5, rounds=5, imgsz=64)
    out = tmp_path / "fast.pt"
    delivery = Delivery("pytorch", target=0.6, baseline=("pytorch", "fp32"))
    report = ghostify(sure, [sixteen], out, settings=settings, delivery=delivery)
    content = json.loads(out.with_suffix(".json").read_text())

    found = content["target"]["options"]
    assert [(o["act"], o["where"]) for o in found] == [("", ""), ("relu", ""), ("relu", "head"), ("relu", "backbone")]
    assert [o["agreement"] is None for o in found] == [True, True, True, False]  # only the last one is fast enough
    assert content["delivered"][-1]["time_ratio"][0] > 0 and len(report.tables) == 3
    assert cv2.imread(str(out.with_suffix(".png"))) is not None
    assert [row[2] for row in host.load(out).yaml["backbone"]].count(QUALIFIED_GHOST) == 2
    bars = capsys.readouterr().err
    for stage in ("Maps up to row 1", "Reconstructing row 1", "Distilling"):
        assert f"{stage} (--act relu --block {GHOST} --where backbone)" in bars


def judged(share: float, agreement: float = 0.9) -> Delivered:
    """Return a delivered file."""
    return Delivered(
        "exported", "fast.onnx", "ONNX Runtime fp32", (agreement, 0.85, 0.95), time_ratio=(share, share, share)
    )


def test_the_promise_is_checked() -> None:
    """A time that is not the one of the trial is said, with what to do."""
    chosen = option("relu", (0.5,), 0.2, 0.8)
    found = TimeTarget(0.25, [chosen], chosen, 10.0, {})
    assert "restless" not in _promise(found, judged(0.205)) and "restless" in _promise(found, judged(0.25))
    assert "missed" in _promise(found, judged(0.251)) and "missed" not in _promise(found, judged(0.205))
    assert "--precision int8" in _promise(found, judged(0.251))
    assert "--precision int8" not in _promise(found, replace(judged(0.251), backend="OpenVINO int8"))
    assert "model.22" in _promise(found, replace(judged(0.24), excluded=("model.22",)))
    assert plot_delivered([judged(0.205)], found).startswith(b"\x89PNG")


def test_finalists_are_compared_as_delivered(
    sure: Path, sixteen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two finalists the one is taken whose INT8 file agrees more; what stays in float32 there is not searched again."""
    scores, made = {"relu": 0.4, "": 0.9}, list[tuple[str, ...]]()

    def deliver_int8(checkpoint: Path, folder: Path, *_: Any) -> Any:
        act = host.load(checkpoint).yaml.get("activation", "")
        return shutil.copy(checkpoint, folder / "file.pt"), Variant(("model.0",), scores["relu" if act else ""])

    def deliver(checkpoint: Path, folder: Path, images: Any, delivery: Any, imgsz: int, exclude: Any = ()) -> Path:
        made.append(tuple(exclude))
        return checkpoint

    fast = [option("relu", (), 0.2), option("", (0.5,), 0.3)]
    monkeypatch.setattr(target, "time_options", lambda *_: Times(fast, 10.0, {}, {}))
    monkeypatch.setattr(target, "agreement", lambda *_: 0.8)
    monkeypatch.setattr(config, "require_file", lambda *_: None)
    monkeypatch.setattr(writing, "deliver_int8", deliver_int8)
    monkeypatch.setattr(writing, "deliver", deliver)
    monkeypatch.setattr(writing, "time_files", lambda *_: ([bench_row("t"), bench_row("a", ratio=0.3)], {}))
    delivery = replace(OPENVINO, target=0.5)
    ghostify(sure, [sixteen], tmp_path / "fast.pt", settings=replace(QUICK, imgsz=64), delivery=delivery)
    content = json.loads((tmp_path / "fast.json").read_text())

    assert content["target"]["chosen"]["width"] == [0.5] and content["target"]["chosen"]["distilled"] == 0.9
    assert content["delivered"][-1]["excluded"] == ["model.0"] and made == [("model.0",)]

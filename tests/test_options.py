"""The whole models of a target: which are tried, which are the same, how they are timed, and which are fitted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import GHOST, bench_row, interrupt, refused, stock

from ghost_yolo import host
from ghost_yolo.errors import SwapError, UserError
from ghost_yolo.ghostify import Settings, option_times, options, target
from ghost_yolo.ghostify.config import Delivery, RunConfig
from ghost_yolo.ghostify.option_times import Times, time_options
from ghost_yolo.ghostify.options import ModelOption, Shape, build_option, distinct_shapes, list_shapes, widest
from ghost_yolo.ghostify.state import RunState
from ghost_yolo.ghostify.target import finalists, search_target

DELIVERY = Delivery("pytorch", target=0.5, baseline=("pytorch", "fp32"))


def config(where: str = "backbone", blocks: tuple[str, ...] = (), act: str = "", width: Any = ()) -> RunConfig:
    """Return the configuration of a run with a target."""
    settings = Settings(rounds=5, imgsz=64)
    return RunConfig(settings, where, blocks, None, act, width, "best.pt", "weights", "images", DELIVERY)


def titles(shapes: Sequence[Shape]) -> list[str]:
    """Return their titles."""
    return [shape.title for shape in shapes]


def test_the_user_bounds_the_shapes() -> None:
    """Nothing that was given is varied, and all together are not many."""
    every = list_shapes(config())
    assert {shape.act for shape in every} == {"", "hardswish", "relu"} and len(every) < 25
    assert {(shape.block, shape.where) for shape in every} == {
        ("", ""),
        ("", "head"),
        (GHOST, "backbone"),
        ("NarrowELAN", "backbone"),
    }
    assert {shape.where for shape in list_shapes(config("neck"))} == {"", "head", "neck"}
    assert {(shape.block, shape.where) for shape in list_shapes(config("all", (GHOST,)))} == {(GHOST, "all")}
    assert {shape.where for shape in list_shapes(config("head"))} == {"head"}
    assert {shape.act for shape in list_shapes(config(act="silu"))} == {"silu"}
    given = list_shapes(config("all", (GHOST,), "relu", (0.5,)))
    assert titles(given) == [f"--act relu --width 0.5 --block {GHOST} --where all"]


def test_what_cannot_be_built_is_left_out_with_the_reason(
    best: Path, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A width that leaves nothing of a row, and a head that is light already; nothing at all is an error."""
    monkeypatch.setattr(options, "SHAPES", {"relu": ((), (0.1,))})
    monkeypatch.setattr(options, "BLOCKS", ())
    monkeypatch.setattr(options, "FEWER", ((),))
    newer = host.build(stock("11/yolo11"))
    assert titles(distinct_shapes(teacher, config())[0]) == ["--act relu", "--act relu --where head"]
    shapes, left_out = distinct_shapes(newer, config())
    assert titles(shapes) == ["--act relu"]
    assert "leaves 1.6 of them" in left_out["--act relu --width 0.1"]
    assert "depthwise class branch already" in left_out["--act relu --where head"]
    with refused(UserError, "Row 0"):
        distinct_shapes(teacher, config(act="relu", width=(0.01,)))


def test_equal_models_are_timed_once(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths that are rounded to the same channels give one model; the other one is named."""
    monkeypatch.setattr(options, "SHAPES", {"relu": ((0.5,), (0.5, 0.501), (0.75,))})
    monkeypatch.setattr(options, "BLOCKS", ())
    monkeypatch.setattr(options, "FEWER", ())
    shapes, left_out = distinct_shapes(teacher, config())

    assert titles(shapes) == ["--act relu --width 0.5", "--act relu --width 0.75"]
    assert left_out == {"--act relu --width 0.5,0.501": "the same as --act relu --width 0.5"}


def test_one_of_each_family_is_fitted() -> None:
    """The widest that is fast enough; other blocks only where they allow more channels."""

    def option(act: str, width: tuple[float, ...], block: str = "", where: str = "") -> ModelOption:
        return ModelOption(act, width, block, where, time_ratio=0.2, milliseconds=2.0)

    enough = [
        option("relu", (0.5,)),
        option("relu", (0.5, 0.625)),
        option("", (0.5,)),
        option("", ()),
        option("relu", (0.625,), GHOST, "backbone"),
        option("relu", (0.5,), GHOST, "backbone"),
        option("relu", (0.5,), "", "head"),
    ]
    assert titles(widest(enough)) == [
        "--act relu --width 0.5,0.625",
        "as trained",
        f"--act relu --width 0.625 --block {GHOST} --where backbone",
    ]
    assert titles(widest([enough[-1]])) == ["--act relu --width 0.5 --where head"]


def test_blocks_and_width_are_built_together(teacher: Any) -> None:
    """An option is what its title says; where nothing changes it is the trained model."""
    student = build_option(teacher, Shape("relu", (0.5,), GHOST, "all"), 0)
    assert student.reshaped and student.model.model[4].type.endswith(GHOST) and student.widths[4].channels == 32
    assert student.model.model[-1].type.endswith("LightDetect")
    assert not build_option(teacher, Shape(), 0).targets


@pytest.fixture
def timed(best: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run of five options in groups of two, and how many files were timed in each call."""
    calls: list[int] = []

    def time_beside(_: Path, files: Sequence[Path], __: Settings) -> Any:
        calls.append(len(files))
        if len(calls) == 2:
            interrupt()
        rows = [bench_row(file.stem, ratio=0.5, median_ms=5.0) for file in files]
        rows[-1].error = "no such operator" if len(calls) == 1 else None
        return [bench_row("baseline", ratio=1.0, median_ms=10.0 * len(calls)), *rows], {"call": len(calls)}

    monkeypatch.setattr(options, "SHAPES", {"": ((),), "hardswish": ((),), "relu": ((),)})
    monkeypatch.setattr(options, "FEWER", ((),))
    monkeypatch.setattr(options, "BLOCKS", (GHOST,))
    monkeypatch.setattr(option_times, "GROUP_SIZE", 2)
    monkeypatch.setattr(option_times, "time_beside", time_beside)
    files = sorted(image_folder.iterdir())
    state = RunState(tmp_path / "fast.pt", config())
    return SimpleNamespace(config=config(), teacher=host.load(best), image_files=files, state=state), calls


def test_timing_resumes_behind_the_last_group(timed: Any, best: Path, tmp_path: Path) -> None:
    """A killed run times what is missing; a model that fails is named, the others stay; the baseline's time is the median."""
    run, calls = timed
    with pytest.raises(KeyboardInterrupt):
        time_options(run, best)
    run.state = RunState(tmp_path / "fast.pt", config())
    times = time_options(run, best)

    assert calls == [2, 2, 2, 1]
    assert titles(times.options) == [
        "as trained",
        "--act relu",
        "--act relu --where head",
        f"--act relu --block {GHOST} --where backbone",
    ]
    assert times.left_out == {"--act hardswish": "no such operator"}
    assert times.baseline_ms == 30 and times.conditions == {"call": 1}
    assert time_options(run, best) == times and len(calls) == 4


def test_a_model_that_cannot_be_exported_is_named(timed: Any, best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are an error that says why."""

    def fail(*_: Any) -> None:
        raise UserError("finds nothing")

    monkeypatch.setattr(option_times, "write_untrained", fail)
    with refused(UserError, "--target: no model could be timed; finds nothing"):
        time_options(timed[0], best)


def test_only_finalists_stay_in_the_resume_file(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the options that are fitted, the rows of those that will not be distilled are forgotten, their agreement is not."""
    agreements = {"relu": 0.6, "": 0.7, "silu": 0.9, "relu6": 0.86, "hardswish": 0.88, "leakyrelu": 0.87}
    fast = [ModelOption(act, (0.5,), time_ratio=0.2, milliseconds=2.0) for act in agreements]
    monkeypatch.setattr(target, "time_options", lambda *_: Times(fast, 10.0, {}, {}))
    monkeypatch.setattr(target, "fit_student", lambda run, _, label: run.state.add(f"{label}fitted 0", 1))
    monkeypatch.setattr(target, "agreement", lambda run, *_: next(values))
    values, state = iter(agreements.values()), RunState(tmp_path / "fast.pt", config())
    run: Any = SimpleNamespace(config=config(), teacher=host.load(best), state=state, held_out=[best])
    found = search_target(run, best, 0.5)

    left = [name for name in state.results if "fitted" in name]
    assert left == [f"--act {act} --width 0.5: fitted 0" for act in ("silu", "hardswish", "leakyrelu")]
    assert "--act relu --width 0.5: fitted 0" not in RunState(tmp_path / "fast.pt", config()).results
    assert [option.act for option in finalists(found)] == ["silu", "hardswish", "leakyrelu"]
    assert [option.agreement for option in found.options] == [*agreements.values()]


def test_without_held_out_images_one_option_is_fitted(
    best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing tells them apart, and so it is the one with most channels."""
    fast = [
        ModelOption("", (0.5,), time_ratio=0.2),
        ModelOption("relu", time_ratio=0.2),
        ModelOption("hardswish", (0.5,), time_ratio=0.2),
    ]
    monkeypatch.setattr(target, "time_options", lambda *_: Times(fast, 10.0, {}, {}))
    fitted = list[str]()
    monkeypatch.setattr(target, "fit_student", lambda run, _, label: fitted.append(label))
    state = RunState(tmp_path / "fast.pt", config())
    run: Any = SimpleNamespace(config=config(), teacher=host.load(best), state=state, held_out=[], truth=None)
    found = search_target(run, best, 0.5)

    assert fitted == ["--act relu: "] and [option.title for option in finalists(found)] == ["--act relu"]


def test_what_cannot_be_fitted_is_left_out(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row without a handler ends one option with its name, and the search only where it ends all."""

    def fit_student(_: Any, student: Any, label: str) -> None:
        if "--width" in label:
            raise SwapError("Row 3, Mixer: no handler")

    fast = [ModelOption("relu", (0.5,), time_ratio=0.2), ModelOption("hardswish", time_ratio=0.3)]
    monkeypatch.setattr(target, "time_options", lambda *_: Times(fast, 10.0, {}, {"--act silu": "no such operator"}))
    monkeypatch.setattr(target, "fit_student", fit_student)
    monkeypatch.setattr(target, "agreement", lambda *_: 0.8)
    state = RunState(tmp_path / "fast.pt", config())
    run: Any = SimpleNamespace(config=config(), teacher=host.load(best), state=state, held_out=[best])
    found = search_target(run, best, 0.5)

    assert found.chosen.title == "--act hardswish"
    assert found.left_out == {"--act silu": "no such operator", "--act relu --width 0.5": "Row 3, Mixer: no handler"}
    del fast[1]
    with refused(UserError, "--target", "Row 3, Mixer"):
        search_target(run, best, 0.5)


def test_room_for_all_finalists(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resume file of several students needs as much more."""
    model, state = host.load(best), RunState(tmp_path / "fast.pt", config())
    one = 10 * 4 * sum(value.numel() for value in model.state_dict().values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * one))
    state.require_space(model, 2)
    with refused(UserError, "--out", "another disk"):
        state.require_space(model, 3)

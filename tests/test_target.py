"""What is delivered and judged: images held out, the exported file, its time, and the search for a target."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from factories import GHOST, QUALIFIED_GHOST, Run, bench_row, refused

from ghost_yolo import host
from ghost_yolo.data.images import hold_out
from ghost_yolo.errors import UserError
from ghost_yolo.export.files import file_name
from ghost_yolo.export.float32_parts import Variant
from ghost_yolo.ghostify import Settings, config, ghostify, option_times, options, target, training, writing
from ghost_yolo.ghostify.config import Delivery, parse_baseline
from ghost_yolo.ghostify.delivery import TWIN, Delivered
from ghost_yolo.ghostify.option_times import Times
from ghost_yolo.ghostify.options import ModelOption
from ghost_yolo.ghostify.plot import plot_delivered
from ghost_yolo.ghostify.target import TimeTarget, advise, choose_distilled, finalists, parse_target
from ghost_yolo.ghostify.verdict import _exceptions, _promise, _slow_activation, format_interval, format_speed_up

QUICK = Settings(reconstruct_steps=1, distill_steps=1, holdout=0.5)
OPENVINO = Delivery(runtime="openvino", precision="int8")


@pytest.fixture
def sixteen(image_folder: Path, tmp_path: Path) -> Path:
    """Enough pictures to hold some out."""
    folder = tmp_path / "sixteen"
    folder.mkdir()
    for path in image_folder.iterdir():
        picture = cv2.imread(str(path))
        cv2.imwrite(str(folder / path.name), picture)
        cv2.imwrite(str(folder / f"flipped-{path.name}"), picture[:, ::-1])
    return folder


@pytest.mark.parametrize(
    ("count", "share", "held"), [(100, 0.2, 20), (39, 0.2, 8), (37, 0.2, 0), (16, 0.5, 8), (100, 0, 0)]
)
def test_images_are_held_out(count: int, share: float, held: int) -> None:
    """Evenly spaced, and none where they would be few; every image is in one part."""
    paths = [Path(f"{i}.png") for i in range(count)]
    fitted, out = hold_out(paths, share)

    assert len(out) == held and sorted(fitted + out) == sorted(paths)


@pytest.mark.parametrize(("text", "share"), [("", None), ("10x", 0.1), ("0.2", 0.2), ("2.5x", 0.4)])
def test_targets(text: str, share: float | None) -> None:
    """A speed-up or a share of the time."""
    assert parse_target(text) == share


@pytest.mark.parametrize("text", ["x", "1", "1x", "0", "0x", "-2x", "fast"])
def test_impossible_targets(text: str) -> None:
    """Refused with what is right."""
    with refused(UserError, f"--target {text}", "10x"):
        parse_target(text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"delivery": Delivery(target=0.5)}, "--runtime"),
        ({"delivery": Delivery(precision="int8")}, "--runtime"),
        ({"delivery": Delivery(runtime="tensorrt")}, "openvino"),
        ({"delivery": Delivery(runtime="ncnn", precision="int8")}, "--precision int8"),
        ({"delivery": Delivery(runtime="pytorch", baseline=parse_baseline("onnx:int4"))}, "int4"),
        ({"delivery": Delivery("pytorch", target=0.5), "blocks": ["C2f_Gost"]}, "C2f_Gost"),
        ({"delivery": Delivery("pytorch", target=0.5), "blocks": ["NarrowELAN"], "where": "head"}, "--block"),
        ({"delivery": Delivery("pytorch", target=0.5), "budget": 0.5}, "--budget"),
        ({"settings": Settings(holdout=1.0)}, "--holdout"),
    ],
)
def test_impossible_deliveries(
    arguments: dict[str, Any], said: str, best: Path, image_folder: Path, tmp_path: Path
) -> None:
    """Refused before any work."""
    with refused(UserError, said):
        ghostify(best, [image_folder], tmp_path / "fast.pt", **arguments)
    assert not list(tmp_path.iterdir())


def test_an_existing_exported_file_is_not_overwritten(best: Path, image_folder: Path, tmp_path: Path) -> None:
    """Neither by its folder."""
    pytest.importorskip("nncf")
    (tmp_path / file_name("fast", "openvino", "int8")).mkdir()
    with refused(UserError, "fast_int8_openvino_model", "already exists"):
        ghostify(best, [image_folder], tmp_path / "fast.pt", act="relu", delivery=OPENVINO)


def test_agreement_is_in_the_report(sure: Path, sixteen: Path, tmp_path: Path) -> None:
    """With enough images the report has the trained model's and the student's agreement; without, it says how many it needs."""
    report = ghostify(sure, [sixteen], tmp_path / "fast.pt", act="relu", settings=QUICK)
    content = json.loads((tmp_path / "fast.json").read_text())
    trained, student = content["delivered"]

    assert content["held_out_images"] == 8 and content["calibration_images"] == 8
    assert trained["name"] == "trained" and 0 < trained["agreement"][0] <= 1
    assert student["name"] == "ghostified" and 0 <= student["agreement"][0] <= 1
    assert report.tables[1][0][0] == "file" and student["file"] == str(tmp_path / "fast.pt")
    report = ghostify(sure, [sixteen], tmp_path / "other.pt", act="relu", settings=Settings(distill_steps=0))
    assert any("16 images" in note for note in report.notes)


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
    with refused(UserError, kept, "belongs to a run with act=, not relu; target=given, not None."):
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


def test_figures_have_intervals() -> None:
    """Where there are some."""
    assert format_speed_up((0.25, 0.2, 0.5)) == "4.00x (2.00 to 5.00)" and format_speed_up((0.5, None, None)) == "2.00x"
    assert format_interval((0.5, 0.4, 0.6)) == "0.500 (0.400 to 0.600)" and not format_interval((None, None, None))


@pytest.mark.slow
def test_the_int8_file_is_delivered(sure: Path, sixteen: Path, tmp_path: Path, run: Run) -> None:
    """By the command: checkpoint, INT8 file that the host opens, report with its time and agreement."""
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    out = tmp_path / "fast.pt"
    words = [
        "--images",
        sixteen,
        "--act",
        "relu",
        "--runtime",
        "openvino",
        "--precision",
        "int8",
        "--distill-steps",
        "20",
    ]
    baseline = ["--baseline", "pytorch", "--holdout", "0.5", "--rounds", "5", "-o", out]
    run("python", "-m", "ghost_yolo", "ghostify", sure, *words, *baseline)
    exported = json.loads(out.with_suffix(".json").read_text())["delivered"][-1]

    assert (
        exported["backend"] == "OpenVINO int8" and exported["milliseconds"] > 0 and exported["agreement"][0] is not None
    )
    assert (tmp_path / "fast_int8_openvino_model/metadata.yaml").is_file()
    assert sorted(path.name for path in tmp_path.glob("fast*")) == [
        "fast.json",
        "fast.png",
        "fast.pt",
        "fast_int8_openvino_model",
    ]


def test_bench_rows_of_one_group() -> None:
    """Mixed rows have their ratios to the first row, whatever their runtime."""
    from ghost_yolo.bench.results import add_statistics

    rows = [bench_row("a.onnx", "onnx", times=[4.0] * 5), bench_row("b", "openvino", times=[1.0] * 5)]
    add_statistics(rows, "a.onnx", mixed=True)
    assert rows[1].ratio == 0.25
    add_statistics(rows, "a.onnx")
    assert rows[0].ratio == 1


def test_a_last_pass_that_makes_it_worse_is_not_kept(
    sure: Path, sixteen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The closed form is written then, and the report says both losses; otherwise the distilled weights."""
    weights = list[float]()

    def spoil(_: Any, student: Any, *others: Any, **named: Any) -> None:
        weights.append(others[-1])
        student.model.model[0].conv.weight.zero_()

    start, spoiled = tmp_path / "start.pt", tmp_path / "spoiled.pt"
    ghostify(sure, [sixteen], start, act="relu", settings=replace(QUICK, distill_steps=0))
    monkeypatch.setattr(training, "distill", spoil)
    report = ghostify(sure, [sixteen], spoiled, act="relu", settings=QUICK)
    a, b = (host.load(file).state_dict() for file in (start, spoiled))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any("was therefore not kept" in note for note in report.notes)
    monkeypatch.setattr(training, "held_out_loss", lambda *_: next(losses))
    losses = iter((0.2, 0.1))
    ghostify(sure, [sixteen], tmp_path / "kept.pt", act="relu", settings=replace(QUICK, maps_weight=3))
    assert not host.load(tmp_path / "kept.pt").model[0].conv.weight.any()
    ghostify(sure, [sixteen], tmp_path / "blocks.pt", ["C2f_GhostBottleneck"], settings=QUICK)
    assert weights == [10, 3, 1]


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

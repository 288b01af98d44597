"""What is delivered and judged: images held out, the exported file, its time and its agreement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from factories import Run, bench_row, interrupt, refused

from ghost_yolo import host
from ghost_yolo.data.images import hold_out
from ghost_yolo.errors import UserError
from ghost_yolo.export.files import file_name
from ghost_yolo.ghostify import Settings, fitting, ghostify, training, verdict, writing
from ghost_yolo.ghostify.config import Delivery, parse_baseline
from ghost_yolo.ghostify.verdict import format_interval, format_speed_up

QUICK = Settings(reconstruct_steps=1, distill_steps=1, holdout=0.5)
OPENVINO = Delivery(runtime="openvino", precision="int8")
pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.mark.parametrize(
    ("count", "share", "held"), [(100, 0.2, 20), (39, 0.2, 8), (37, 0.2, 0), (16, 0.5, 8), (100, 0, 0)]
)
def test_images_are_held_out(count: int, share: float, held: int) -> None:
    """Evenly spaced, and none where they would be few; every image is in one part."""
    paths = [Path(f"{i}.png") for i in range(count)]
    fitted, out = hold_out(paths, share)

    assert len(out) == held and sorted(fitted + out) == sorted(paths)


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


def test_what_the_trained_model_does_not_find_is_known_before_the_work(
    sure: Path, best: Path, sixteen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out images in which it finds nothing end the run at once, with what to do."""
    monkeypatch.setattr(training, "fit_student", None)
    with refused(UserError, "finds nothing", "8 held-out images", "--holdout 0"):
        ghostify(best, [sixteen], tmp_path / "fast.pt", act="relu", settings=QUICK)
    assert not list(tmp_path.glob("fast*"))
    with pytest.raises(TypeError):  # that is, it begins
        ghostify(best, [sixteen], tmp_path / "fast.pt", act="relu", settings=replace(QUICK, holdout=0))


def test_a_resumed_run_may_be_delivered_otherwise(
    sure: Path, sixteen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fitted again where only the file, or the labels by which it is judged, are others than before."""
    monkeypatch.setattr(writing, "judge", interrupt)  # at the end
    settings = replace(QUICK, distill_steps=0)
    with pytest.raises(KeyboardInterrupt):
        ghostify(sure, [sixteen], tmp_path / "fast.pt", act="relu", settings=settings)
    monkeypatch.setattr(fitting, "_fit_row", None)
    with refused(UserError, "distill_steps=0, not 1"):
        ghostify(sure, [sixteen], tmp_path / "fast.pt", act="relu", settings=QUICK)
    with pytest.raises(KeyboardInterrupt):
        ghostify(sure, [sixteen], tmp_path / "fast.pt", act="relu", settings=settings, delivery=Delivery("pytorch"))
    (tmp_path / "fast.onnx").write_text("the user's")
    with refused(UserError, "fast.onnx", "already exists"):
        ghostify(sure, [sixteen], tmp_path / "fast.pt", act="relu", settings=settings, delivery=Delivery("onnx"))
    assert (tmp_path / "fast.onnx").read_text() == "the user's"


def test_scoring_leaves_the_threads_alone(sure: Path, sixteen: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The host sets its own number whenever it opens a model; the last pass has the number that was given."""
    seen = list[int]()
    monkeypatch.setattr(training, "distill", lambda *_, **named: seen.append(torch.get_num_threads()))
    ghostify(sure, [sixteen], tmp_path / "fast.pt", act="relu", settings=replace(QUICK, threads=9))
    assert seen == [9]


def test_rare_classes_are_named() -> None:
    """Those of which the trained model finds few objects, the rarest first and not too many; nothing where there is none."""
    found = {name: number for number, name in enumerate("abcdefgh")} | {"z": 10}
    run: Any = SimpleNamespace(truth=SimpleNamespace(boxes_by_class=found))
    (note,) = verdict._rare_classes(run)
    assert "a (0), b (1), c (2), d (3), e (4) and 3 more" in note
    run.truth.boxes_by_class = {"z": 10}
    assert verdict._rare_classes(run) == []
    run.truth = None
    assert verdict._rare_classes(run) == []


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

"""Agreement: what a trained model finds counts as truth, for every task, and bad input is refused."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from factories import NEWEST, SIDE, TASK_MODELS, Run, calibrated, refused, save_sure, stock, write_shapes
from ultralytics import YOLO

from ghost_yolo import host
from ghost_yolo.accuracy import AgreementSet, evaluate, ratio, require_data
from ghost_yolo.accuracy.agreement import _tidy
from ghost_yolo.accuracy.counts import ClassifiedImages, resample, summarize
from ghost_yolo.accuracy.validate import device_of
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.errors import ModelNameError, UserError


def test_agreement_falls_with_the_difference(tiny_model: Any, sure: Path, squares: list[Path], tmp_path: Path) -> None:
    """The teacher agrees with itself, a perturbed copy less; both are scored on the same labels and compared in pairs."""
    other = save_sure(tiny_model, tmp_path / "other.pt", seed=1)
    with AgreementSet(sure, squares, SIDE) as truth:
        own, less = truth.score(sure, 50), truth.score(other, 50)
        folder = truth.folder
    share, low, high = ratio(less, own, 50)

    assert not folder.exists()
    assert own.images == less.images == truth.images == len(squares)
    assert own.teacher_boxes == less.teacher_boxes == truth.boxes > len(squares)
    assert 0 < less.map50_95 < own.map50_95 <= 1
    assert own.low <= own.map50_95 <= own.high and less.low < less.high
    assert share == less.map50_95 / own.map50_95 and low < share < high
    assert own.map50_95 > 0.7


def test_model_that_finds_nothing_scores_zero(tiny_model: Any, sure: Path, squares: list[Path], tmp_path: Path) -> None:
    """A model without one box is scored as any other; as a teacher it is refused, as a reference too."""
    nothing = save_sure(tiny_model, tmp_path / "nothing.pt", -100.0)
    with AgreementSet(sure, squares, SIDE) as truth:
        score = truth.score(nothing, 20)

    assert (score.map50_95, score.low, score.high) == (0, 0, 0)
    with refused(UserError, "nothing.pt", len(squares), 0.25), AgreementSet(nothing, squares, SIDE):
        pass
    with refused(UserError, "ratio"):
        ratio(score, score, 20)


def test_images_that_cannot_be_read(sure: Path, squares: list[Path], tmp_path: Path) -> None:
    """They are left out and named; images of the same name in two folders are two images; without any there is no score."""
    twin, broken = tmp_path / squares[0].name, tmp_path / "broken.jpg"
    shutil.copy(squares[1], twin)
    broken.write_bytes(b"no image")
    with AgreementSet(sure, [squares[0], broken, twin], SIDE) as truth:
        score = truth.score(sure, 0)

    assert truth.skipped == [broken] and score.images == 2
    assert np.isnan(score.low)
    with refused(UserError, "broken.jpg"), AgreementSet(sure, [broken], SIDE):
        pass
    with refused(UserError, "none of the 0"), AgreementSet(sure, [], SIDE):
        pass


def test_images_are_never_repaired_in_place(sure: Path, tmp_path: Path) -> None:
    """Ultralytics rewrites a JPEG that does not end as one: ours stays as it is."""
    image = tmp_path / "a.jpg"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    content = image.read_bytes() + b"more"
    image.write_bytes(content)
    with AgreementSet(sure, [image], SIDE) as truth:
        assert truth.score(sure, 0).images == 1

    assert image.read_bytes() == content


def test_other_models_are_refused(tiny_model: Any, sure: Path, squares: list[Path], tmp_path: Path) -> None:
    """Other classes, another task, a side that does not fit, a missing file and a confidence that is none."""
    renamed, classifier = copy.deepcopy(tiny_model), host.build(stock("v8/yolov8-cls"))
    renamed.names = dict(enumerate("abd"))
    host.save(renamed, tmp_path / "renamed.pt", {"imgsz": 64})
    host.save(classifier, tmp_path / "classifier.pt", {"imgsz": 64, "task": "classify"})
    with AgreementSet(sure, squares[:2], SIDE) as truth:
        with refused(UserError, "renamed.pt", "a, b, d", "a, b, c"):
            truth.score(tmp_path / "renamed.pt")
        with refused(UserError, "classifier.pt", "classify", "detect"):
            truth.score(tmp_path / "classifier.pt")
        with refused(ModelNameError, "missing.onnx"):
            truth.score(tmp_path / "missing.onnx")
    with refused(UserError, "imgsz=65"):
        AgreementSet(sure, squares, 65)
    for conf in (0, 1, 25):
        with refused(UserError, conf):
            AgreementSet(sure, squares, SIDE, conf)


@pytest.mark.parametrize("name", TASK_MODELS)
def test_every_task_agrees_with_itself(name: str, image_folder: Path, squares: list[Path], tmp_path: Path) -> None:
    """All images are scored, and a model agrees with itself more than with a perturbed copy."""
    model = calibrated(stock(name), image_folder)
    if "cls" in name:
        model.names = dict(enumerate("cab"))  # not sorted
    model.args = {"imgsz": 64}
    teacher = save_sure(model, tmp_path / "teacher.pt")
    other = save_sure(model, tmp_path / "other.pt", seed=1)
    with AgreementSet(teacher, squares, SIDE) as truth:
        own, less = truth.score(teacher, 0), truth.score(other, 0)
        counts = [*truth.boxes_by_class.values()]
        assert counts == sorted(counts) and sum(counts) == (0 if "cls" in name else truth.boxes)

    assert own.images == less.images == len(squares)
    assert truth.boxes >= len(squares)
    assert own.map50_95 > 0.05 and less.map50_95 <= own.map50_95


def test_exported_files_are_scored_on_the_cpu() -> None:
    """For which they are made; a checkpoint on the device that was given."""
    files = ("best.pt", "best.onnx", "best_int8_openvino_model", "best_ncnn_model")
    assert [device_of(Path(file), "0") for file in files] == ["0", "cpu", "cpu", "cpu"]


def test_labels_are_made_valid(tmp_path: Path) -> None:
    """What lies outside the image is moved to its edge, and how sure a keypoint is becomes whether it is visible."""
    file = tmp_path / "a.txt"
    file.write_text("1 0.5 0.5 0.2 0.2 -0.1 1.25 0.9 0.3 0.4 0.2\n0 0.5 0.5 0.2 0.2 0 0 0.1 1 1 1\n")

    assert _tidy(file, (2, 3)) == 2
    assert file.read_text() == "1 0.5 0.5 0.2 0.2 0 1 2 0.3 0.4 0\n0 0.5 0.5 0.2 0.2 0 0 0 1 1 2"
    file.write_text("2 -0.1 0.5 1.01 0.5")
    assert _tidy(file, None) == 1
    assert file.read_text() == "2 0 0.5 1 0.5"


@pytest.mark.parametrize(
    "task,name",
    [("segment", "11/yolo11-seg"), ("classify", "v8/yolov8-cls")]
    + [("pose", "v8/yolov8-pose"), ("obb", "v8/yolov8-obb")] * NEWEST,
)
def test_true_accuracy_is_the_hosts(task: str, name: str, image_folder: Path, tmp_path: Path) -> None:
    """On labelled data the score is the one that `yolo val` prints."""
    data = str(write_shapes(tmp_path, task))
    config = stock(name) | {"nc": 2 if task == "classify" else 1} | ({"kpt_shape": [1, 3]} if task == "pose" else {})
    model = calibrated(config, image_folder)
    model.names = {0: "dark", 1: "light"} if task == "classify" else {0: "cell"}
    file = save_sure(model, tmp_path / "model.pt")
    score = evaluate(file, data, "val", 64, resamples=20, rect=True)
    metrics = YOLO(file).val(data=data, imgsz=64, plots=False, project=str(tmp_path / "runs"), device="cpu")
    part = {"segment": "seg", "pose": "pose"}.get(task, "box")

    assert score.map50_95 == (metrics.top1 if task == "classify" else getattr(metrics, part).map)
    assert score.images == (8 if task == "classify" else 4)
    host.save(calibrated(config | {"nc": 3}, image_folder), tmp_path / "three.pt", {"imgsz": 64, "task": task})
    with refused(UserError, "three.pt", "3 classes" if task == "classify" else "a, b, c"):
        require_data(tmp_path / "three.pt", data, "val")
    with refused(UserError, "nowhere"):
        evaluate(file, "nowhere.yaml" if task != "classify" else str(tmp_path / "nowhere.zip"), "val", 64)


def test_classifiers_are_resampled_by_image() -> None:
    """The score of a resample is the share of its images that are right."""
    right = np.array([[True, True], [False, True], [True, True], [False, False]])
    counts = ClassifiedImages(("d", "c", "b", "a"), right)

    assert counts.score() == (0.5, 0.75)
    assert counts.score([0, 0, 1, 2]) == (0.75, 1.0)
    assert counts.by_name().right[:, 0].tolist() == [False, True, False, True]
    assert summarize(counts, 0).teacher_boxes == 4
    assert set(resample([counts], 50)[0]) <= {0, 0.25, 0.5, 0.75, 1}


@pytest.mark.slow
def test_every_exported_file_is_scored(sure: Path, squares: list[Path], tmp_path: Path, run: Run) -> None:
    """A file exported from the teacher agrees with it as the teacher does itself, in every runtime."""
    file = Path(shutil.copy(sure, tmp_path / "best.pt"))
    with AgreementSet(file, squares, SIDE) as truth:
        own = truth.score(file, 0).map50_95
        for runtime in ("onnx", "openvino", "ncnn"):
            run("yolo", "export", f"model={file}", f"format={runtime}", f"imgsz={SIDE}")
            exported = file.with_name(f"best{RUNTIMES[runtime].suffix}")
            assert truth.score(exported, 0).map50_95 == pytest.approx(own, abs=0.01), runtime

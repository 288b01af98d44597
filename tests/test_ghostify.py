"""A trained model made light: the walk, the fit, the whole run, its resumption, the budget, and what is refused."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import NEWEST, ROOT, Run, newest_only
from test_swap import outputs, stock
from test_yolo import SMALL, into, write_yaml
from torch.nn import functional as F
from typer.testing import CliRunner
from ultralytics import YOLO

from ghost_yolo import host, swap
from ghost_yolo.cli import app
from ghost_yolo.data import smear
from ghost_yolo.ghostify import Settings, budget, ghostify, run, structure
from ghost_yolo.ghostify import polish as polishing
from ghost_yolo.ghostify.features import bytes_each, recorder, views_within
from ghost_yolo.ghostify.fit import error_of, fit, relative_error
from ghost_yolo.ghostify.pictures import Pictures
from ghost_yolo.ghostify.polish import distance, polish
from ghost_yolo.ghostify.student import places_of, student_of, walk
from ghost_yolo.redundancy.maps import Photos, calibrate
from ghost_yolo.registry import PREFIX, UserError
from ghost_yolo.report.measure import Subject, measure
from ghost_yolo.swap import plan

WORD = "C2f_GhostBottleneck"
LITTLE: dict[str, Any] = {
    "nc": 3,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 4]],
        [-1, 1, "C2f", [16, True]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C2f", [32, True]],
    ],
    "head": [[-1, 1, "C2f", [32]], [[1, 4], 1, "Detect", ["nc"]]],
}
QUICK = Settings(steps=2, polish=2)
TASKS = ["11/yolo11-seg", "v8/yolov8-cls"] + ["26/yolo26", "v8/yolov8-pose", "v8/yolov8-obb"] * NEWEST


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight smooth pictures."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(8):
        noise = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(noise, (80, 64), interpolation=cv2.INTER_CUBIC))
    return folder


def settled(config: dict[str, Any], photos: Path) -> Any:
    """Return a model of three classes with drawn weights and the BN statistics of the pictures."""
    torch.manual_seed(0)
    model = host.build(config)
    model.names = dict(enumerate("abc"))
    paths = sorted(photos.iterdir())
    calibrate(model, Photos(paths, 64, 32), range(len(paths)))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.03
    return model.requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def teacher(photos: Path) -> Any:
    """A YOLOv8n of three classes."""
    return settled(stock("v8/yolov8"), photos)


@pytest.fixture(scope="module")
def little(photos: Path) -> Any:
    """A detector with two C2f in its backbone and one in its neck."""
    return settled(copy.deepcopy(LITTLE), photos)


@pytest.fixture(scope="module")
def best(little: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint, which says 64 pixels."""
    file = tmp_path_factory.mktemp("best") / "best.pt"
    host.save(little, file, {"imgsz": 64})
    return file


@pytest.fixture
def pictures(photos: Path) -> Pictures:
    """The pictures at 64."""
    return Pictures(sorted(photos.iterdir()), 64)


@pytest.mark.parametrize("name", ["v8/yolov8", *TASKS])
def test_walk_is_the_hosts_forward(name: str, photos: Path, pictures: Pictures) -> None:
    """At every row the walk hands over what the host's own forward hands over, and keeps what it makes."""
    model = settled(stock(name), photos)
    last, seen, made = len(model.model) - 1, {}, {}
    for layer in model.model:  # copied before the call: an older head writes into the list that it takes
        layer.register_forward_pre_hook(lambda layer, args: seen.__setitem__(layer.i, copy.copy(args[0])))
        layer.register_forward_hook(lambda layer, args, y: made.__setitem__(layer.i, y))
    x = pictures.batch([0, 1])
    with torch.inference_mode():
        model(x)
        taken, kept = dict(seen), dict(made)
        for row in {2, 12 % last, last}:
            torch.testing.assert_close(walk(model, x, row)[0], taken[row])
        ours = walk(model, x, last, range(last))[1]
    torch.testing.assert_close(ours, {i: kept[i] for i in range(last)})


def test_student_is_the_teacher_elsewhere(teacher: Any, pictures: Pictures) -> None:
    """Rows that are not swapped give the same maps; places are the swapped rows in order, then the head's levels."""
    words = plan(teacher.yaml, "all", WORD)
    student = student_of(teacher, words)
    x = pictures.batch([0])

    assert [place.name for place in places_of(student, words)] == [
        *(f"model.{row}" for row in (2, 4, 6, 8, 12, 15, 18, 21)),
        *(f"model.22.cv3.{level}" for level in range(3)),
    ]
    torch.testing.assert_close(walk(student, x, 2)[0], walk(teacher, x, 2)[0])
    assert student.names == teacher.names
    assert torch.equal(student.model[4].cv1.conv.weight, teacher.model[4].cv1.conv.weight)
    assert swap.rows_of(student.yaml)[4][2] == "ghost_yolo.C2f_GhostBottleneck"


def test_relative_error() -> None:
    """Equal maps have none, each channel's mean scores 1 whatever its scale, and constants do not divide by nothing."""
    torch.manual_seed(0)
    target = torch.randn(4, 2, 8, 8) * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1) + 3
    means = target.mean((0, 2, 3), keepdim=True).expand_as(target)

    assert relative_error(target, target) == 0
    assert relative_error(means, target).item() == pytest.approx(1, abs=0.05)
    assert relative_error(means * 1e-3, target * 1e-3).item() == pytest.approx(1, abs=0.05)
    assert torch.isfinite(relative_error(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)))


def test_fitting_makes_the_error_smaller(teacher: Any, pictures: Pictures) -> None:
    """More steps, less error, also on views that it was not fitted on; the block comes back in eval mode."""
    words = plan(teacher.yaml, "backbone", WORD)
    errors = {}
    for steps in (1, 60):
        student = run.drawn_student(teacher, words, 0)
        place = places_of(student, words)[1]
        block = student.get_submodule(place.name)
        torch.manual_seed(0)
        with recorder(teacher, student, pictures, 32) as recorded:
            features = recorded.at(place)
            fit(block, features, steps, "Fitting")
            errors[steps] = error_of(block, features)
        with recorder(teacher, student, pictures, 32) as others:
            assert error_of(block, others.at(place)) < 1.3 * errors[steps]
        assert not any(m.training for m in block.modules()) and not any(p.requires_grad for p in block.parameters())
    assert errors[60] < 0.7 * errors[1]


def test_a_ghost_block_begins_with_the_structure_of_the_trained_one(teacher: Any, pictures: Pictures) -> None:
    """Least squares find what is there, and a block that begins so is nearer than one that begins as drawn."""
    torch.manual_seed(0)
    x, filters, kernels = torch.randn(2, 6, 12, 12), torch.randn(4, 6, 1, 1), torch.randn(6, 1, 3, 3)
    assert torch.allclose(structure.pointwise(x, F.conv2d(x, filters) + 5), filters, atol=0.05)
    assert torch.allclose(structure.depthwise(x, F.conv2d(x, kernels, padding=1, groups=6) - 5, 3), kernels, atol=0.05)

    words = plan(teacher.yaml, "all", WORD)
    student = run.drawn_student(teacher, words, 0)
    with recorder(teacher, student, pictures, 24) as recorded:
        for place in places_of(student, words):
            block, features = student.get_submodule(place.name), recorded.at(place)
            before = error_of(block, features)
            begun = structure.begin(block, teacher.get_submodule(place.name), features.some())
            enough = (
                place.level is None and features.targets.shape[2] > 2
            )  # a row, no branch of the head, and not of 2 x 2 maps
            assert begun == enough
            assert (error_of(block, features) < before) == begun


@pytest.mark.parametrize("word", ["C2f_GhostBottleneckV2", "C2f_GhostBottleneckV3", "C2f_CReLU", "NarrowELAN"])
def test_other_blocks_begin_as_drawn(word: str, little: Any) -> None:
    """What has no plain Ghost module in it is left alone."""
    student = student_of(little, plan(little.yaml, "backbone", word))
    (row, *_) = [place.row for place in places_of(student, plan(little.yaml, "backbone", word))]
    before = copy.deepcopy(student.model[row].state_dict())
    assert not structure.begin(
        student.model[row], little.model[row], torch.randn(2, student.model[row].cv1.conv.in_channels, 8, 8)
    )
    assert all(torch.equal(value, before[key]) for key, value in student.model[row].state_dict().items())


@pytest.mark.parametrize("name", ["v8/yolov8", "11/yolo11-seg"])
def test_streamed_maps_are_the_walks(name: str, photos: Path, pictures: Pictures) -> None:
    """Place after place, what lies on disk is what a walk from the image gives: the student's input, the teacher's output."""
    model = settled(stock(name), photos)
    words = plan(model.yaml, "all", WORD)
    student = student_of(model, words)
    for module in student.modules():  # else so deep a network of drawn weights is beyond half precision
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.clamp_(min=0.1)
    with recorder(model, student, pictures, 10) as recorded:
        images = torch.from_numpy(recorded.teacher.taken([1, 8, 9]).numpy())
        for place in places_of(student, words):
            x, y = recorded.at(place).batch([1, 8, 9])
            with torch.inference_mode():
                given, taken = (place.taken(walk(m, images, place.row)[0]) for m in (student, model))
                expected = model.get_submodule(place.name)(taken)
            for ours, right in ((x, given), (y, expected)):
                assert (ours - right).abs().max() < 0.02 * right.abs().max()
            folder = recorded.folder
            used = sum(file.stat().st_size for file in folder.rglob("*.npy")) / 10
            assert used <= 1.01 * bytes_each(model, [*places_of(student, words)], 64) + 100
        assert not {f"{j}.npy" for j in (0, 1, 2)} & {file.name for file in folder.rglob("*.npy")}
    assert not folder.exists()


def test_recording_keeps_within_its_limit() -> None:
    """A small cache holds fewer views; one that holds no batch, or a full disk, is an error before any work."""
    assert views_within(1000, 100, 12500) == 12 and views_within(1000, 5, 12500) == 5
    with pytest.raises(UserError, match="--cache"):
        views_within(1000, 100, 7000)
    with pytest.raises(UserError, match="TMPDIR"):
        views_within(2**60, 100, 2**70)


@pytest.mark.parametrize("name", ["v8/yolov8", *TASKS])
def test_no_distance_from_itself(name: str, photos: Path, pictures: Pictures) -> None:
    """Any model is at no distance from itself, and at some from one of which a block was swapped."""
    model = settled(stock(name), photos)
    words = plan(model.yaml, "backbone", WORD)
    x = pictures.batch(range(2), varied=False)
    with torch.inference_mode():
        assert (
            abs(distance(model, model, x, words).item())
            < 1e-6
            < distance(model, student_of(model, words), x, ()).item()
        )


def test_polishing_brings_the_predictions_nearer(little: Any, pictures: Pictures) -> None:
    """A swapped model is much nearer to the trained one after the last pass than before."""
    words = plan(little.yaml, "all", WORD)
    student = student_of(little, words)
    x = pictures.batch(range(8), varied=False)
    before = distance(little, student, x, ()).item()
    torch.manual_seed(0)
    polish(little, student, places_of(student, words), pictures, 60, lambda state: None, None)
    assert distance(little, student, x, ()).item() < 0.9 * before
    assert not student.training and not any(p.requires_grad for p in student.parameters())


def test_the_whole_run(best: Path, little: Any, photos: Path, tmp_path: Path) -> None:
    """The checkpoint is the swapped model, the JSON has a row a block, its sums are the whole's, and no part file stays."""
    out = tmp_path / "light.pt"
    report = ghostify(best, [photos], out, [WORD], "all", settings=QUICK)
    content = json.loads(out.with_suffix(".json").read_text())
    rows, whole = content["rows"], content["whole"]
    model = host.load(out)
    (counted,) = measure(Subject("", model, 3, "n", "detect"), 64, states=(True,))

    assert [row["layer"] for row in rows] == ["1", "3", "4", "5.cv3.0", "5.cv3.1"]
    assert [row[2].removeprefix(PREFIX) for row in swap.rows_of(model.yaml)][3:] == [WORD, WORD, "LightDetect"]
    assert whole["parameters_after"] == counted.parameters
    assert whole["gflops_after"] == pytest.approx(counted.gflops)
    for figure in ("parameters", "gflops"):
        saved = sum(row[f"{figure}_before"] - row[f"{figure}_after"] for row in rows)
        assert saved == pytest.approx(whole[f"{figure}_before"] - whole[f"{figure}_after"], abs=1e-3)
    assert all(row["seconds"] > 0 and row["error"] > 0 for row in rows)
    assert content["settings"]["imgsz"] == 64 and content["photographs"] == 8
    assert model.names == little.names and report.rows == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["light.json", "light.pt"]


@pytest.mark.parametrize("name", TASKS)
def test_every_task(name: str, photos: Path, tmp_path: Path) -> None:
    """Other tasks and families come out as what they were."""
    model = settled(stock(name), photos)
    host.save(model, tmp_path / "best.pt", {"imgsz": 64, "task": host.task_of(model)})
    where = "backbone" if name.endswith("-cls") else "all"
    ghostify(
        tmp_path / "best.pt",
        [photos],
        tmp_path / "light.pt",
        ["C2f_GhostBottleneckV3"],
        where,
        settings=Settings(steps=1, polish=1),
    )
    light = YOLO(tmp_path / "light.pt")

    assert light.task == host.task_of(model) and light.overrides["imgsz"] == 64
    x = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        assert [y.shape for y in outputs(light.model.eval()(x))] == [y.shape for y in outputs(model(x))]


@pytest.mark.parametrize("stage,calls", [("fit", 2), ("distance", 4)])
def test_interrupted_and_resumed_equals_uninterrupted(
    stage: str, calls: int, best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C leaves what was done; the same command goes on from there and gives the same weights, bit for bit."""
    monkeypatch.setattr(polishing, "EVERY", 2)
    words = {"blocks": [WORD], "settings": Settings(steps=2, polish=5)}
    ghostify(best, [photos], tmp_path / "whole.pt", **words)
    torch.rand(1)  # what was drawn before must not matter
    home = run if stage == "fit" else polishing
    real, seen = getattr(home, stage), []

    def interrupted(*args: Any) -> Any:
        seen.append(args)
        if len(seen) == calls:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(home, stage, interrupted)
    with pytest.raises(KeyboardInterrupt):
        ghostify(best, [photos], tmp_path / "light.pt", **words)
    assert (tmp_path / "light.pt.part").exists() and not (tmp_path / "light.pt").exists()
    with pytest.raises(UserError, match=r"steps 2 and not 3.*light.pt.part"):
        ghostify(best, [photos], tmp_path / "light.pt", blocks=[WORD], settings=Settings(steps=3, polish=5))
    ghostify(best, [photos], tmp_path / "light.pt", **words)

    assert len(seen) == {"fit": 3, "distance": 7}[stage]  # 2 blocks, one of them twice; 5 steps, two of them twice
    a, b = (host.load(tmp_path / f"{name}.pt").state_dict() for name in ("whole", "light"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not (tmp_path / "light.pt.part").exists()


def interrupt(*args: Any) -> None:
    """Stand for Ctrl-C at this point."""
    raise KeyboardInterrupt


def test_threads_are_as_asked_and_given_back(
    best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading a model makes the host set its own number: what counts is the one at work."""
    seen: list[int] = []
    monkeypatch.setattr(run, "polish", lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    for number in (3, 0):
        ghostify(best, [photos], tmp_path / f"{number}.pt", [WORD], settings=Settings(1, 1, threads=number))
    assert seen == [3, run.default_threads()] and torch.get_num_threads() == before


def test_the_command_says_how_to_go_on(
    best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends the command with status 130 and names the part file; what is wrong is one line."""
    monkeypatch.setattr(run, "polish", interrupt)
    words = ["ghostify", str(best), "--images", str(photos), "--block", WORD, "--steps", "1", "-o"]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "light.pt")])
    assert done.exit_code == 130 and f"goes on from {tmp_path / 'light.pt.part'}" in done.output.replace("\n", "")
    refused = CliRunner().invoke(app, [*words, str(tmp_path / "light.onnx")])
    assert isinstance(refused.exception, UserError)


def test_front_is_exact() -> None:
    """Against all sets there are: every set of the front is the least harmful at its cost, and none is missing."""
    rng = np.random.default_rng(0)
    options = [budget.Option(row, word, *rng.random(3)) for row in range(4) for word in "ab"]
    front = budget.front_of(options, 10.0)
    sets = itertools.product(*([None, *(o for o in options if o.row == row)] for row in range(4)))
    every = [(10 - sum(o.saving for o in s if o), sum(o.harm for o in s if o)) for s in sets]
    for limit in np.linspace(6, 10, 30):
        within = [harm for cost, harm in every if cost <= limit]
        if within:
            assert budget.best_of(front, limit / 10, 10.0).harm == pytest.approx(min(within))
    assert front[0].words == {} and front[-1].cost == pytest.approx(min(cost for cost, _ in every))
    with pytest.raises(UserError, match=r"--budget 0\.1: the cheapest set"):
        budget.best_of(front, 0.1, 10.0)


def test_budget_is_kept(best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget the model costs no more than asked, the curve is written and drawn, and a resumed run chooses the same."""
    monkeypatch.setattr(budget, "STEPS", 2)
    monkeypatch.setattr(budget, "VIEWS", 8)
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
    monkeypatch.setattr(budget, "STEPS", 1)
    monkeypatch.setattr(budget, "VIEWS", 8)
    words = {"blocks": [WORD], "where": "all", "budget": 0.95, "settings": Settings(steps=2, polish=1)}
    ghostify(best, [photos], tmp_path / "whole.pt", **words)
    with monkeypatch.context() as patched:
        patched.setattr(run, "polish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ghostify(best, [photos], tmp_path / "light.pt", **words)
    monkeypatch.setattr(run, "survey", interrupt)  # kept, so not called again
    ghostify(best, [photos], tmp_path / "light.pt", **words)

    a, b = (host.load(tmp_path / f"{name}.pt").state_dict() for name in ("whole", "light"))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_corrupt_image_is_skipped_and_counted(best: Path, photos: Path, tmp_path: Path) -> None:
    """A file that is no image does not stop the others."""
    folder = tmp_path / "images"
    folder.mkdir()
    for photo in photos.iterdir():
        (folder / photo.name).write_bytes(photo.read_bytes())
    (folder / "broken.jpg").write_text("no image")
    report = ghostify(best, [folder], tmp_path / "light.pt", [WORD], settings=QUICK)
    assert report.more["photographs"] == 8 and report.more["skipped"] == [str(folder / "broken.jpg")]
    assert "1 files skipped" in report.notes[0]


def bad_images(tmp_path: Path) -> Path:
    """Return a folder in which nothing can be read."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").write_text("no image")
    return tmp_path / "bad"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no block": ({"blocks": []}, "needs --block"),
    "unknown block": ({"blocks": ["C2f_Gost"]}, "Unknown block"),
    "not like a C2f": ({"blocks": ["Fire"]}, "takes the place of a Conv"),
    "several without a budget": ({"blocks": [WORD, "NarrowELAN"]}, "candidates for --budget"),
    "budget above one": ({"budget": 1.5}, "between 0 and 1"),
    "no steps": ({"settings": Settings(steps=0)}, "at least one step"),
    "wrong size": ({"settings": Settings(imgsz=100)}, "multiple of its stride"),
    "no cache": ({"settings": Settings(steps=2, cache=1e-6)}, "--cache"),
    "not a checkpoint's name": ({"out": "light.onnx"}, "ends in .pt"),
    "no such folder": ({"out": "nowhere/light.pt"}, "there is no folder"),
    "no such model": ({"model": "missing.pt"}, "does not exist"),
    "foreign file": ({"model": "foreign.pt"}, "is not a checkpoint"),
    "no image": ({"images": "bad"}, "None of the 1 images can be read"),
    "empty folder": ({"images": "empty"}, "holds no image"),
    "output exists": ({"out": "there.pt"}, "already exists"),
    "damaged part": ({"out": "damaged.pt"}, "not what an interrupted run left"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, best: Path, photos: Path, tmp_path: Path) -> None:
    """Each says what is wrong, and writes nothing."""
    bad_images(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("foreign.pt", "there.pt", "damaged.pt.part"):
        (tmp_path / name).write_text("something else")
    given, message = REFUSED[case]
    given = {"model": best, "images": photos, "out": "light.pt", "blocks": [WORD], "settings": QUICK} | given
    before = sorted(tmp_path.rglob("*"))
    images = [tmp_path / given.pop("images")]
    model, out = tmp_path / given.pop("model"), tmp_path / given.pop("out")
    with pytest.raises(UserError, match=message):
        ghostify(model, images, out, **given)
    assert sorted(tmp_path.rglob("*")) == before


def test_changed_models_are_refused(teacher: Any, photos: Path, tmp_path: Path) -> None:
    """A fused model, one with a layer changed by hand, and one without a C2f: the row is named."""
    fused, pruned = host.untrained(teacher, 0).fuse(verbose=False), host.untrained(teacher, 0)
    pruned.model[3].conv = torch.nn.Conv2d(32, 64, 1)
    with pytest.raises(UserError, match=r"Row 0 of the checkpoint.*Conv"):
        student_of(fused, plan(fused.yaml, "backbone", WORD))
    with pytest.raises(UserError, match=r"Row 3 of the checkpoint.*Conv"):
        student_of(pruned, plan(pruned.yaml, "backbone", WORD))
    host.save(student_of(teacher, plan(teacher.yaml, "all", WORD)), tmp_path / "light.pt", {"imgsz": 64})
    with pytest.raises(UserError, match="No row of the backbone is a C2f"):
        ghostify(tmp_path / "light.pt", [photos], tmp_path / "again.pt", [WORD], settings=QUICK)


def test_too_little_memory_is_said_before_reading(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs that memory would not hold are not read."""
    with pytest.raises(UserError, match="GiB of memory"):
        Pictures(sorted(photos.iterdir()), 2**22)


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data YAML of a few generated pictures with boxes."""
    monkeypatch.setattr(smear, "SPLITS", {"train": 8, "val": 4})
    smear.prepare(tmp_path / "smear")
    return write_yaml(tmp_path, names=["Platelets", "RBC", "WBC"], path=str(tmp_path / "smear"))


@pytest.mark.slow
def test_fine_tuned_with_the_host_alone(
    best: Path, photos: Path, tmp_path: Path, run: Run, python: Run, labelled: Path
) -> None:
    """`yolo train` takes every tensor of what was written, and val and export take it too."""
    light = tmp_path / "light.pt"
    done = run(
        "python",
        "-m",
        "ghost_yolo",
        "ghostify",
        best,
        "--images",
        photos,
        "--block",
        WORD,
        "-o",
        light,
        "--steps",
        "2",
        "--polish",
        "2",
    )
    assert "whole" in done.stdout
    trained = run("yolo", "train", f"model={light}", f"data={labelled}", "epochs=1", *into(tmp_path, "t"), *SMALL)
    moved = next(line for line in trained.stdout.splitlines() if "Transferred" in line).split()[1].split("/")

    assert moved[0] == moved[1]
    options = f"data={str(labelled)!r}, imgsz=64, workers=0, plots=False, device='cpu'"
    code = (
        f"from ultralytics import YOLO; m = YOLO({str(light)!r}); m.val({options}); m.export(format='onnx', imgsz=64)"
    )
    python(code, ULTRALYTICS_SAFE_LOAD="1")
    assert light.with_suffix(".onnx").exists()


@newest_only
@pytest.mark.slow
def test_train_py_hands_the_teacher_on(best: Path, little: Any, tmp_path: Path, run: Run, labelled: Path) -> None:
    """`train.py` distils from the trained model by Ultralytics' own argument."""
    light = tmp_path / "light.pt"
    host.save(student_of(little, plan(little.yaml, "backbone", WORD)), light, {"imgsz": 64})
    words = [f"model={light}", f"distill_model={best}", f"data={labelled}", "epochs=1", *into(tmp_path, "t"), *SMALL]
    done = run("python", ROOT / "train.py", *words)
    assert "dis_loss" in done.stdout

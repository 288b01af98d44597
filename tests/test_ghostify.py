"""A trained model made light: the whole run, its resumption, and the host's own commands afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from factories import GHOST as WORD
from factories import QUICK, ROOT, Run, interrupt, newest_only, outputs, stock
from factories import SMALL_RUN as SMALL
from factories import TASK_MODELS as TASKS
from factories import calibrated as settled
from factories import run_folder as into
from factories import write_data_yaml as write_yaml
from typer.testing import CliRunner
from ultralytics import YOLO

from ghost_yolo import host
from ghost_yolo.cli import app
from ghost_yolo.data import smear
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import Settings, ghostify, pipeline
from ghost_yolo.ghostify import distill as polishing
from ghost_yolo.ghostify.student import student_of
from ghost_yolo.model import swap
from ghost_yolo.model.checkpoint import OpenedModel
from ghost_yolo.model.profile import profile_model
from ghost_yolo.model.swap import plan_swap
from ghost_yolo.registry import PREFIX


def test_the_whole_run(best: Path, little: Any, photos: Path, tmp_path: Path) -> None:
    """The checkpoint is the swapped model, the JSON has a row a block, its sums are the whole's, and no part file stays."""
    out = tmp_path / "light.pt"
    report = ghostify(best, [photos], out, [WORD], "all", settings=QUICK)
    content = json.loads(out.with_suffix(".json").read_text())
    rows, whole = content["rows"], content["whole"]
    model = host.load(out)
    (counted,) = profile_model(OpenedModel("", model, 3, "n", "detect"), 64, states=(True,))

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
        [WORD],
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
    home = pipeline if stage == "fit" else polishing
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
    part = torch.load(tmp_path / "light.pt.part", weights_only=True)
    part["done"]["seconds"] += 1000
    torch.save(part, tmp_path / "light.pt.part")
    report = ghostify(best, [photos], tmp_path / "light.pt", **words)

    assert report.more["whole"]["seconds"] > 1000  # what went before counts
    assert len(seen) == {"fit": 3, "distance": 7}[stage]  # 2 blocks, one of them twice; 5 steps, two of them twice
    a, b = (host.load(tmp_path / f"{name}.pt").state_dict() for name in ("whole", "light"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not (tmp_path / "light.pt.part").exists()


def test_threads_are_as_asked_and_given_back(
    best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading a model makes the host set its own number: what counts is the one at work."""
    seen: list[int] = []
    monkeypatch.setattr(pipeline, "polish", lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    for number in (3, 0):
        ghostify(best, [photos], tmp_path / f"{number}.pt", [WORD], settings=Settings(1, 1, threads=number))
    assert seen == [3, pipeline.default_threads()] and torch.get_num_threads() == before


def test_the_command_says_how_to_go_on(
    best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends the command with status 130 and names the part file; what is wrong is one line."""
    monkeypatch.setattr(pipeline, "polish", interrupt)
    words = ["ghostify", str(best), "--images", str(photos), "--block", WORD, "--steps", "1", "-o"]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "light.pt")])
    assert done.exit_code == 130 and f"goes on from {tmp_path / 'light.pt.part'}" in done.output.replace("\n", "")
    refused = CliRunner().invoke(app, [*words, str(tmp_path / "light.onnx")])
    assert isinstance(refused.exception, UserError)


def test_corrupt_image_is_skipped_and_counted(best: Path, photos: Path, tmp_path: Path) -> None:
    """A file that is no image, or not a whole one, does not stop the others."""
    folder = tmp_path / "images"
    folder.mkdir()
    for photo in photos.iterdir():
        (folder / photo.name).write_bytes(photo.read_bytes())
    (folder / "broken.jpg").write_text("no image")
    whole = cv2.imencode(".jpg", cv2.imread(str(folder / "0.png")))[1].tobytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])  # OpenCV by itself fills the rest with grey
    report = ghostify(best, [folder], tmp_path / "light.pt", [WORD], settings=QUICK)
    assert report.more["photographs"] == 8 and report.more["skipped"] == [
        str(folder / name) for name in ("broken.jpg", "cut.jpg")
    ]
    assert "2 files skipped" in report.notes[0]


def test_a_failure_at_the_end_costs_nothing(
    best: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the checkpoint cannot be written, the same command finishes later, although the report is there already."""
    save = host.save
    monkeypatch.setattr(host, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        ghostify(best, [photos], tmp_path / "light.pt", [WORD], settings=QUICK)
    monkeypatch.setattr(host, "save", save)
    assert (tmp_path / "light.json").exists()
    monkeypatch.setattr(pipeline, "fit_places", None)
    ghostify(best, [photos], tmp_path / "light.pt", [WORD], settings=QUICK)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["light.json", "light.pt"]


def full_disk(*args: Any) -> None:
    """Stand for a disk that is full."""
    raise OSError(28, "No space left on device")


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
    host.save(student_of(little, plan_swap(little.yaml, "backbone", WORD)), light, {"imgsz": 64})
    words = [f"model={light}", f"distill_model={best}", f"data={labelled}", "epochs=1", *into(tmp_path, "t"), *SMALL]
    done = run("python", ROOT / "train.py", *words)
    assert "dis_loss" in done.stdout

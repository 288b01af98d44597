"""The whole ghostify run: outputs, tasks, resumption, and the host's own commands afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from factories import (
    GHOST,
    QUICK,
    ROOT,
    SMALL_RUN,
    TASK_MODELS,
    Run,
    calibrated,
    interrupt,
    newest_only,
    outputs,
    run_folder,
    stock,
)
from typer.testing import CliRunner
from ultralytics import YOLO

from ghost_yolo import host
from ghost_yolo.cli import app
from ghost_yolo.data.images import preprocess, read_image
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import Settings, distill, ghostify, pipeline, training, writing
from ghost_yolo.ghostify.state import load_checked, save_checked
from ghost_yolo.ghostify.student import build_student
from ghost_yolo.model import swap
from ghost_yolo.model.checkpoint import OpenedModel
from ghost_yolo.model.profile import profile_model
from ghost_yolo.model.swap import plan_swap
from ghost_yolo.registry import PREFIX


def test_outputs_of_a_whole_run(best: Path, tiny_model: Any, image_folder: Path, tmp_path: Path) -> None:
    """The checkpoint is the swapped model, the JSON has a row per target that adds up, and no resume file is left."""
    out = tmp_path / "light.pt"
    report = ghostify(best, [image_folder], out, [GHOST], "all", settings=QUICK)
    content = json.loads(out.with_suffix(".json").read_text())
    rows, whole = content["rows"], content["whole"]
    model = host.load(out)
    (profile,) = profile_model(OpenedModel("", model, 3, "n", "detect"), 64, states=(True,))

    assert [row["layer"] for row in rows] == ["1", "3", "4", "5.cv3.0", "5.cv3.1"]
    assert [row[2].removeprefix(PREFIX) for row in swap.yaml_rows(model.yaml)][3:] == [GHOST, GHOST, "LightDetect"]
    assert whole["parameters_after"] == profile.parameters
    assert whole["gflops_after"] == pytest.approx(profile.gflops)
    for figure in ("parameters", "gflops"):
        saved = sum(row[f"{figure}_before"] - row[f"{figure}_after"] for row in rows)
        assert saved == pytest.approx(whole[f"{figure}_before"] - whole[f"{figure}_after"], abs=1e-3)
    assert all(row["seconds"] > 0 and row["error"] > 0 for row in rows)
    assert content["settings"]["imgsz"] == 64 and content["calibration_images"] == 8
    assert model.names == tiny_model.names and report.rows == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["light.json", "light.pt"]


@pytest.mark.parametrize("name", TASK_MODELS)
def test_other_tasks_and_families(name: str, image_folder: Path, tmp_path: Path) -> None:
    """Task, image size and output shapes are kept."""
    model = calibrated(stock(name), image_folder)
    host.save(model, tmp_path / "best.pt", {"imgsz": 64, "task": host.task_of(model)})
    where = "backbone" if name.endswith("-cls") else "all"
    settings = Settings(reconstruct_steps=1, distill_steps=1)
    ghostify(tmp_path / "best.pt", [image_folder], tmp_path / "light.pt", [GHOST], where, settings=settings)
    light = YOLO(tmp_path / "light.pt")

    assert light.task == host.task_of(model) and light.overrides["imgsz"] == 64
    x = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        assert [y.shape for y in outputs(light.model.eval()(x))] == [y.shape for y in outputs(model(x))]


@pytest.mark.parametrize(
    "module,name,stop,calls", [(training, "reconstruct", 2, 3), (distill, "distillation_loss", 4, 7)]
)
def test_resumed_run_equals_an_uninterrupted_one(
    module: Any,
    name: str,
    stop: int,
    calls: int,
    best: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After Ctrl-C the same call resumes and gives the same weights, bit for bit.

    Of 2 blocks one is reconstructed twice; of 5 distillation steps two are repeated.
    """
    monkeypatch.setattr(distill, "CHECKPOINT_EVERY", 2)
    settings = Settings(reconstruct_steps=2, distill_steps=5)
    ghostify(best, [image_folder], tmp_path / "whole.pt", [GHOST], settings=settings)
    torch.rand(1)  # the global generator must not matter
    original, seen = getattr(module, name), []

    def interrupted(*args: Any, **options: Any) -> Any:
        seen.append(args)
        if len(seen) == stop:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(module, name, interrupted)
    out, resume_file = tmp_path / "light.pt", tmp_path / "light.pt.part"
    with pytest.raises(KeyboardInterrupt):
        ghostify(best, [image_folder], out, [GHOST], settings=settings)
    assert resume_file.exists() and not out.exists()
    with pytest.raises(UserError, match=r"light\.pt\.part.*reconstruct_steps=2"):
        ghostify(best, [image_folder], out, [GHOST], settings=Settings(reconstruct_steps=3, distill_steps=5))
    content = load_checked(resume_file)
    content["results"]["seconds"] += 1000
    save_checked(content, resume_file)
    report = ghostify(best, [image_folder], out, [GHOST], settings=settings)

    assert report.more["whole"]["seconds"] > 1000  # includes the interrupted run
    assert len(seen) == calls
    a, b = (host.load(tmp_path / f"{name}.pt").state_dict() for name in ("whole", "light"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not resume_file.exists()


def test_threads_are_set_and_restored(
    best: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number during the run is the given one, although loading a model makes the host set its own."""
    seen: list[int] = []
    monkeypatch.setattr(training, "distill", lambda *_, **named: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    for threads in (3, 0):
        settings = Settings(reconstruct_steps=1, distill_steps=1, threads=threads)
        ghostify(best, [image_folder], tmp_path / f"{threads}.pt", [GHOST], settings=settings)
    assert seen == [3, pipeline.default_threads()] and torch.get_num_threads() == before


def test_command_names_the_resume_file(
    best: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends the command with status 130 and the path of the resume file; invalid options are a UserError."""
    monkeypatch.setattr(training, "distill", interrupt)
    options = ["ghostify", str(best), "--images", str(image_folder), "--block", GHOST, "--reconstruct-steps", "1", "-o"]
    done = CliRunner().invoke(app, [*options, str(tmp_path / "light.pt")])
    assert done.exit_code == 130 and str(tmp_path / "light.pt.part") in done.output.replace("\n", "")
    failed = CliRunner().invoke(app, [*options, str(tmp_path / "light.onnx")])
    assert isinstance(failed.exception, UserError)


def test_images_are_not_taken_in_the_order_of_their_names(
    best: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some stages take the first ones, which would be all of one class where names begin with the class."""
    runs: list[Any] = []
    monkeypatch.setattr(pipeline, "convert", lambda run, *_: runs.append(run))
    for seed in (0, 0, 1):
        settings = Settings(reconstruct_steps=1, distill_steps=1, seed=seed)
        ghostify(best, [image_folder], tmp_path / "light.pt", [GHOST], settings=settings)
    first, same, other = (run.image_files for run in runs)
    assert first == same
    assert sorted(first) == sorted(image_folder.iterdir())
    assert len({tuple(first), tuple(other), tuple(sorted(first))}) == 3
    size = runs[0].images.images.shape[2:]
    assert torch.equal(runs[0].images.images[0], preprocess(read_image(first[0]), size))


def test_unreadable_images_are_skipped(best: Path, image_folder: Path, tmp_path: Path) -> None:
    """A file that is no image, or a truncated one, is skipped and listed."""
    folder = tmp_path / "images"
    folder.mkdir()
    for photo in image_folder.iterdir():
        (folder / photo.name).write_bytes(photo.read_bytes())
    (folder / "broken.jpg").write_text("no image")
    whole = cv2.imencode(".jpg", cv2.imread(str(folder / "0.png")))[1].tobytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])  # OpenCV itself fills the rest with grey
    report = ghostify(best, [folder], tmp_path / "light.pt", [GHOST], settings=QUICK)

    assert report.more["calibration_images"] == 8
    assert report.more["skipped"] == [str(folder / name) for name in ("broken.jpg", "truncated.jpg")]
    assert "2 unreadable" in report.notes[0]


def test_failure_at_the_end_is_resumed(
    best: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the checkpoint cannot be written, the same call finishes later without reconstructing again."""
    with monkeypatch.context() as patched:
        patched.setattr(writing, "publish", raise_no_space)
        with pytest.raises(OSError, match="No space"):
            ghostify(best, [image_folder], tmp_path / "light.pt", [GHOST], settings=QUICK)
    assert (tmp_path / "light.json").exists()
    monkeypatch.setattr(training, "reconstruct_targets", None)
    ghostify(best, [image_folder], tmp_path / "light.pt", [GHOST], settings=QUICK)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["light.json", "light.pt"]


def raise_no_space(*args: Any) -> None:
    """Raise the error of a full disk."""
    raise OSError(28, "No space left on device")


@pytest.mark.slow
def test_output_is_fine_tuned_by_the_host_alone(
    best: Path, image_folder: Path, tmp_path: Path, run: Run, python: Run, labelled: Path
) -> None:
    """`yolo train` transfers every tensor of the output; val and export also load it, safely."""
    light = tmp_path / "light.pt"
    options = [
        "--images",
        image_folder,
        "--block",
        GHOST,
        "-o",
        light,
        "--reconstruct-steps",
        "2",
        "--distill-steps",
        "2",
    ]
    done = run("python", "-m", "ghost_yolo", "ghostify", best, *options)
    assert "whole" in done.stdout
    arguments = [f"model={light}", f"data={labelled}", "epochs=1"]
    trained = run("yolo", "train", *arguments, *run_folder(tmp_path, "t"), *SMALL_RUN)
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
def test_train_py_passes_the_distillation_teacher(
    best: Path, tiny_model: Any, tmp_path: Path, run: Run, labelled: Path
) -> None:
    """`train.py` distills from the trained model by Ultralytics' own argument."""
    light = tmp_path / "light.pt"
    host.save(build_student(tiny_model, plan_swap(tiny_model.yaml, "backbone", GHOST)), light, {"imgsz": 64})
    arguments = [f"model={light}", f"distill_model={best}", f"data={labelled}", "epochs=1"]
    done = run("python", ROOT / "train.py", *arguments, *run_folder(tmp_path, "t"), *SMALL_RUN)
    assert "dis_loss" in done.stdout

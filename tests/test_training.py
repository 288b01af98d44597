"""Trainings of the experiments are resumed, or started anew."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from experiments import training
from ghost_yolo.errors import UserError


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """Commands of trainings that write a checkpoint and are then interrupted, except every second one."""
    ran: list[tuple[str, ...]] = []

    def yolo(*arguments: str) -> None:
        ran.append(arguments)
        folder = tmp_path / "train/weights"
        folder.mkdir(parents=True, exist_ok=True)
        interrupted = len(ran) % 2 == 1
        torch.save({"epoch": 0 if interrupted else -1}, folder / "last.pt")
        (folder / "best.pt").write_bytes(b"weights")
        if interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "yolo", yolo)
    monkeypatch.setattr(training, "mixed_yolo", partial(yolo, "mixed"))
    return ran


def interrupt(out: Path, settings: list[str], *, mixed_precision: bool = False) -> None:
    """Train until the interruption."""
    with pytest.raises(KeyboardInterrupt):
        training.train(out, settings, mixed_precision=mixed_precision)
    assert not out.exists()


def test_interrupted_training_is_resumed(commands: list[tuple[str, ...]], tmp_path: Path) -> None:
    """The same training goes on from its last checkpoint; one that has ended is trained from the start when it is run again."""
    out, settings = tmp_path / "best.pt", ["model=yolov8n.yaml", "epochs=2"]
    interrupt(out, settings)
    training.train(out, settings)
    kept = out.read_bytes()
    out.unlink()  # as Snakemake does before it runs a job again
    interrupt(out, settings)

    assert kept == b"weights" and (tmp_path / "train-before/weights/best.pt").read_bytes() == kept
    assert [command[1] for command in commands] == ["model=yolov8n.yaml", "resume", "model=yolov8n.yaml"]


@pytest.mark.parametrize("change", ["epochs", "base", "killed"])
def test_only_the_same_training_is_resumed(commands: list[tuple[str, ...]], tmp_path: Path, change: str) -> None:
    """Other settings or a changed input file start anew; where only the copy was missing, nothing is trained again."""
    base = tmp_path / "base.pt"
    base.write_bytes(b"first")
    settings = [f"model={base}", "epochs=2"]
    interrupt(tmp_path / "best.pt", settings)
    if change == "epochs":
        settings[1] = "epochs=3"
    elif change == "base":
        base.write_bytes(b"second")
    else:
        torch.save({"epoch": -1}, tmp_path / "train/weights/last.pt")
    training.train(tmp_path / "best.pt", settings)

    assert [command[1] for command in commands[1:]] == ([] if change == "killed" else [settings[0]])


@pytest.mark.parametrize("before", [False, True])
def test_a_training_is_resumed_in_its_own_precision(
    commands: list[tuple[str, ...]], tmp_path: Path, *, before: bool
) -> None:
    """One in mixed precision is resumed in it; one in float32 is not."""
    settings = ["model=yolov8n.yaml", "epochs=2"]
    interrupt(tmp_path / "best.pt", settings, mixed_precision=before)
    training.train(tmp_path / "best.pt", settings, mixed_precision=True)

    assert commands[1][:3] == ("mixed", "train", "resume" if before else "model=yolov8n.yaml")


def test_a_training_is_resumed_in_another_checkout(commands: list[tuple[str, ...]], tmp_path: Path) -> None:
    """What counts is what the files hold, not where they lie, nor on how many workers it runs."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.yaml").write_text("names: {0: cell}")
    settings = [
        ["model=yolov8n.yaml", f"data={tmp_path}/{folder}/data.yaml", f"workers={folder}"] for folder in ("one", "two")
    ]
    interrupt(tmp_path / "best.pt", settings[0])
    training.train(tmp_path / "best.pt", settings[1])

    assert commands[1][1] == "resume"


def test_a_training_that_did_not_end_there_is_no_result(commands: list[tuple[str, ...]], tmp_path: Path) -> None:
    """A resumed training writes where it began: after its folder has moved, what lies here is not taken for its end."""
    folder = tmp_path / "moved"
    interrupt(tmp_path / "best.pt", ["model=yolov8n.yaml"])
    folder.mkdir()
    for name in ("train", "train.json"):
        (tmp_path / name).rename(folder / name)

    with pytest.raises(UserError, match="is not that of a training that ended"):
        training.train(folder / "best.pt", ["model=yolov8n.yaml"])
    assert len(commands) == 2 and not (folder / "best.pt").exists()


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    """A last checkpoint that was cut off is an error with its path."""
    (tmp_path / "last.pt").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"last\.pt cannot be read"):
        training.has_ended(tmp_path / "last.pt")

"""The accuracy harness as a command: interrupted in the midst of a training, and taken up again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from factories import ROOT, own_settings

from ghost_yolo.data import smear


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A data set of six, three and three generated pictures."""
    for split, count in {"train": 6, "val": 3, "test": 3}.items():
        for kind in ("images", "labels"):
            (tmp_path / f"tiny/{kind}/{split}").mkdir(parents=True)
        for number in range(count):
            image, labels = smear.draw(np.random.RandomState(number))
            cv2.imwrite(str(tmp_path / f"tiny/images/{split}/{number}.png"), image)
            (tmp_path / f"tiny/labels/{split}/{number}.txt").write_text("\n".join(labels))
    names = {0: "Platelets", 1: "RBC", 2: "WBC"}
    folders = {split: f"images/{split}" for split in ("train", "val", "test")}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"path": str(tmp_path / "tiny"), **folders, "names": names}))
    return tmp_path / "tiny.yaml"


@pytest.mark.slow
def test_interrupted_and_taken_up_again(tiny: Path, tmp_path: Path) -> None:
    """Ctrl-C in the midst of a training stops all; the same command goes on where it was, up to table and records of the test split."""
    words = [sys.executable, str(ROOT / "experiments/bccd.py"), "--data", str(tiny), "--runs", str(tmp_path / "runs")]
    words += ["--imgsz", "64", "--epochs", "12", "--steps", "1", "--polish", "1", "--jobs", "2", "--resamples", "5"]
    words += ["--only", "stock,ghost,ghostify-16", "-o", str(tmp_path / "accuracy.md")]
    env = os.environ | {"YOLO_CONFIG_DIR": str(own_settings(tmp_path)), "PYTHONWARNINGS": ""}
    stock = tmp_path / "runs/stock-imgsz64-epochs12-seed0"

    first = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while not ((stock / "results.csv").is_file() and len((stock / "results.csv").read_text().splitlines()) > 2):
        assert first.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=300)[1]
    stopped = len((stock / "results.csv").read_text().splitlines())
    second = subprocess.run([*words, "--test"], env=env, capture_output=True, text=True, check=False)
    log, epochs = (stock / "log.txt").read_text(), (stock / "results.csv").read_text().splitlines()

    assert first.returncode == 130 and "the same command goes on" in said and stopped < 13
    assert second.returncode == 0, second.stderr
    assert "goes on: stock-" in second.stdout and "Resuming training" in log
    assert (
        sorted({line.split(",")[0].strip() for line in epochs}) == sorted([*map(str, range(1, 13)), "epoch"])
        and epochs.count(epochs[1]) == 1
    )
    assert (tmp_path / "accuracy.md").read_text().count("\n| `") == 3
    assert len(list((tmp_path / "accuracy").glob("*-test.json"))) == 3

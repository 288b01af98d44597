"""The Snakemake workflow of the experiments: its plan, and a tiny run that is interrupted and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from factories import ROOT, own_settings

from ghost_yolo.data import smear

SNAKEMAKE = shutil.which("snakemake", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(SNAKEMAKE is None, reason="Snakemake is not installed: pip install -e '.[experiments]'")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A configuration for a data set of six, three and three generated images."""
    for split, count in {"train": 6, "val": 3, "test": 3}.items():
        for kind in ("images", "labels"):
            (tmp_path / f"tiny/{kind}/{split}").mkdir(parents=True)
        for number in range(count):
            image, labels = smear.draw(np.random.RandomState(number))
            cv2.imwrite(str(tmp_path / f"tiny/images/{split}/{number}.png"), image)
            (tmp_path / f"tiny/labels/{split}/{number}.txt").write_text("\n".join(labels))
    folders = {split: f"images/{split}" for split in ("train", "val", "test")}
    data = {"path": str(tmp_path / "tiny"), **folders, "names": {0: "Platelets", 1: "RBC", 2: "WBC"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(data))
    dataset = {
        "data": str(tmp_path / "tiny.yaml"),
        "imgsz": 32,
        "epochs": 8,
        "tune_epochs": 1,
        "models": ["ghostify-16"],
    }
    config = {"runs": "runs", "threads": 1, "resamples": 5, "datasets": {"bccd": None, "tiny": dataset}}
    config["ghostify"] = {"ghostify-16": {"images": 2, "reconstruct_steps": 1, "distill_steps": 1}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "mine.yaml"


def start(config: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake as a terminal does, in a process group of its own."""
    arguments = [
        str(SNAKEMAKE),
        "-s",
        str(ROOT / "experiments/Snakefile"),
        "--configfile",
        str(config),
        "--cores",
        "1",
        *arguments,
    ]
    env = os.environ | {"YOLO_CONFIG_DIR": str(own_settings(config.parent)), "PYTHONWARNINGS": ""}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(arguments, cwd=config.parent, env=env, start_new_session=True, **pipes)


def run(config: Path, *arguments: str, ok: bool = True) -> str:
    """Run Snakemake to its end and return what it printed."""
    process = start(config, *arguments)
    printed = process.communicate(timeout=600)[0]
    assert (process.returncode == 0) is ok, printed[-4000:]
    return printed


def jobs(printed: str) -> dict[str, int]:
    """Return how many jobs of each rule a dry run plans."""
    lines = printed.rpartition("Job stats:")[2].splitlines()[3:]
    table = [line.split() for line in lines[: next(i for i, line in enumerate(lines) if line.startswith("total"))]]
    return {rule: int(count) for rule, count in table}


def test_dry_run_prints_the_plan(tiny: Path) -> None:
    """The default reads val only; test is read by its own target; an invalid setting stops before any job."""
    val, test = (jobs(run(tiny, "-n", *target)) for target in ([], ["test"]))

    assert val == {
        "prepare": 1,
        "calibration_images": 1,
        "train": 1,
        "ghostify": 1,
        "evaluate": 2,
        "table": 1,
        "page": 1,
        "val": 1,
    }
    assert "evaluate_on_test" not in val and test["evaluate_on_test"] == 2
    assert "many" in run(tiny, "-n", "--config", "datasets={tiny: {epochs: many}}", ok=False)


def test_the_runs_of_the_proof(tmp_path: Path) -> None:
    """The kept configuration plans the same models on both data sets, of every stage, and trains each once."""
    (tmp_path / "proof.yaml").write_bytes((ROOT / "experiments/proof.yaml").read_bytes())
    planned = jobs(run(tmp_path / "proof.yaml", "-n"))

    assert (
        planned["train"] == 2 * 9
        and planned["tune"] == 2
        and planned["ghostify"] == 2 * 10
        and planned["prune"] == 2 * 2
    )
    assert planned["evaluate"] == planned["deploy"] == 2 * 22 * 2
    assert (
        planned["table"] == planned["prepare"] == planned["bench"] == planned["agreement"] == 2 and planned["pool"] == 1
    )


def epochs_of(training: Path) -> list[str]:
    """Return the epochs that a training has written."""
    file = training / "train/results.csv"
    return [line.split(",")[0].strip() for line in file.read_text().splitlines()[1:]] if file.is_file() else []


@pytest.mark.slow
@pytest.mark.weekly
def test_interrupted_and_resumed(tiny: Path) -> None:
    """Ctrl-C in a training stops the workflow; the same command resumes it, up to the page; test is read once, and staleness is seen."""
    folder = tiny.parent / "runs/tiny"
    stock = folder / "stock-n-seed0"
    first, until = start(tiny), time.monotonic() + 400
    while len(epochs_of(stock)) < 2:
        assert first.poll() is None and time.monotonic() < until, first.communicate()[0][-4000:]
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGINT)
    first.communicate(timeout=300)
    stopped, resumable = epochs_of(stock), (stock / "train/weights/last.pt").is_file()
    run(tiny, "test")

    assert first.returncode != 0 and 2 <= len(stopped) < 8 and resumable
    assert sorted(set(epochs_of(stock))) == [str(epoch) for epoch in range(1, 9)]
    assert epochs_of(stock).count("1") == 1
    assert "Resuming training" in (stock / "log.txt").read_text() and (stock / "best.pt").is_file()
    assert (folder / "test.md").read_text().count("\n| `") == 2
    assert len(list((folder / "test").glob("*-test.json"))) == 2
    assert [row["key"] for row in json.loads((folder / "test/table.json").read_text())["rows"]]
    assert "Nothing to be done" in run(tiny, "-n", "test")
    deployed_files(tiny, folder)
    (stock / "best.pt").touch()
    assert {"ghostify", "evaluate"} <= set(jobs(run(tiny, "-n")))


def deployed_files(config: Path, folder: Path) -> None:
    """With `deploy` the same runs are exported, evaluated, timed side by side and scored without labels; nothing is trained."""
    settings = yaml.safe_load(config.read_text())
    settings["datasets"]["tiny"]["deploy"] = ["onnx-fp32", "onnx-int8"]
    config.write_text(yaml.safe_dump(settings | {"bench": "--rounds 6 --passes 1"}))
    planned = jobs(run(config, "-n"))
    run(config)
    rows = {(row["key"], row["deployment"]): row for row in json.loads((folder / "val/table.json").read_text())["rows"]}
    times = json.loads((folder / "bench.json").read_text())["rows"]

    assert planned["deploy"] == planned["evaluate"] == 4 and not {"train", "ghostify"} & set(planned)
    assert len(rows) == len(times) == 4 and all(row["ms"] > 0 and row["seconds"] > 0 for row in rows.values())
    assert times[0]["model"].startswith("stock-n-seed0/onnx-fp32/") and all(row["ratio"] for row in times)
    assert all((folder / row["file"]).exists() for row in rows.values())
    assert rows["stock", "onnx-fp32"]["ratio"] is None and not rows["stock", "onnx-fp32"]["labels"]
    assert not rows["ghostify-16", "onnx-int8"]["labels"]
    assert (folder / "val.png").read_bytes()[:4] == b"\x89PNG" and "int8" in (folder / "val.md").read_text()
    assert json.loads((folder.parent / "agreement.json").read_text())["sets"][0]["data"] == "tiny.yaml"

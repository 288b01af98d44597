"""Checkpoints of an earlier version: commit 499ef1b wrote them with tests/data/make_checkpoints.py, under Ultralytics 8.4."""

from __future__ import annotations

import json
import lzma
import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from factories import ROOT, Run, newest_only, run_folder

from ghost_yolo import BLOCKS

DATA = ROOT / "tests/data"
RECORDS: dict[str, dict[str, Any]] = json.loads((DATA / "checkpoints.json").read_text(encoding="utf-8"))
SCRIPT = runpy.run_path(str(DATA / "make_checkpoints.py"))
pytestmark = newest_only  # an older host lacks the classes of the newest


def unpack(name: str, folder: Path) -> Path:
    """Write a checkpoint as it was."""
    file = folder / f"{name}.pt"
    file.write_bytes(lzma.decompress((DATA / f"{name}.pt.xz").read_bytes()))
    return file


@pytest.mark.parametrize("name", RECORDS)
def test_classes_and_outputs(name: str, tmp_path: Path) -> None:
    """Each file loads as the same classes and computes what it computed."""
    found = SCRIPT["record_of"](unpack(name, tmp_path))

    assert found["classes"] == RECORDS[name]["classes"]
    torch.testing.assert_close(
        torch.tensor(found["output"]), torch.tensor(RECORDS[name]["output"]), rtol=1e-3, atol=1e-5
    )


def test_the_files_hold_every_block() -> None:
    """The class of every block is in a file."""
    kept = {name for record in RECORDS.values() for name in record["classes"]}

    assert {f"{block.cls.__module__}.{block.cls.__name__}" for block in BLOCKS} <= kept


def test_safe_loading_in_a_fresh_process(tmp_path: Path, python: Run) -> None:
    """A process that imports only Ultralytics loads every file under ULTRALYTICS_SAFE_LOAD=1, with the same predictions."""
    files = {name: str(unpack(name, tmp_path)) for name in RECORDS}
    code = f"""
import json
import runpy
from ultralytics import YOLO
record_of = runpy.run_path({str(DATA / "make_checkpoints.py")!r})["record_of"]
print(json.dumps({{name: record_of(file) for name, file in {files!r}.items()}}))
"""
    found = json.loads(python(code, ULTRALYTICS_SAFE_LOAD="1").stdout.splitlines()[-1])

    for name, record in RECORDS.items():
        assert found[name]["classes"] == record["classes"]
        assert found[name]["output"] == pytest.approx(record["output"], rel=1e-3, abs=1e-5)


def test_the_stock_command_predicts(tmp_path: Path, run: Run) -> None:
    """`yolo predict` runs an earlier checkpoint."""
    cv2.imwrite(str(tmp_path / "image.png"), np.full((64, 64, 3), 90, np.uint8))
    unpack("blocks", tmp_path)
    run("yolo", "predict", "model=blocks.pt", "source=image.png", "imgsz=64", *run_folder(tmp_path, "p"))

    assert list(tmp_path.rglob("p/image.*"))

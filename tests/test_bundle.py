"""The bundle: one folder that runs without torch."""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from factories import SIDE, refused

from ghost_yolo.bundle import BundlePlan, bundle
from ghost_yolo.bundle.build import divide, open_truths, warnings_before
from ghost_yolo.bundle.card import render_card
from ghost_yolo.errors import OutputExistsError, UserError
from ghost_yolo.report.sources import read_bench


@pytest.fixture
def photographs(squares, tmp_path) -> Path:
    """A folder of twenty, of which one cannot be read."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(20):
        image = cv2.imread(str(squares[number % 8]))
        cv2.imwrite(str(folder / f"{number:02}.png"), np.roll(image, number, 1))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def plan(sure, photographs, tmp_path) -> BundlePlan:
    """A small bundle for ONNX Runtime."""
    return BundlePlan(sure, (photographs,), tmp_path / "bundle", size=(SIDE, SIDE), holdout=0.4, threads=1, rounds=2)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"runtimes": ("onnx", "tensorrt")}, ["--to", "tensorrt", "openvino", "web"]),
        ({"precisions": ("int4",)}, ["--precision", "int4"]),
        ({"runtimes": ("ncnn",), "precisions": ("int8",)}, ["ncnn", "INT8"]),
        ({"rounds": 0}, ["--rounds"]),
        ({"threads": 100000}, ["--threads"]),
        ({"size": (64, 65)}, ["65", "stride"]),
    ],
)
def test_refuses_what_it_cannot_do(plan, changes, names):
    """Before any work, and without a trace."""
    with refused(UserError, *names):
        bundle(replace(plan, **changes))
    assert not plan.out.exists()


def test_says_how_many_photographs_the_agreement_needs(plan):
    """Twenty are enough in themselves, but not a fifth of them."""
    (warning,) = warnings_before(replace(plan, holdout=0.2), [Path()] * 20, [], [])
    assert "--holdout 0.2 of 20 photographs" in warning and "8 must be held out" in warning


def test_int8_that_is_not_made_is_not_told_of(plan):
    """NCNN has none here: nothing chooses for it, and nobody warns of its calibration."""
    plan = replace(plan, runtimes=("ncnn",), precisions=("fp32", "int8"))
    held_out = [Path(str(number)) for number in range(20)]
    (warning,) = warnings_before(plan, [Path()] * 50, held_out, [])
    assert "NCNN int8" in warning and divide(plan, held_out) == ([], held_out)


def test_photographs_in_which_nothing_is_found(plan, best, photographs):
    """Are a warning, and no agreement; known before the exports."""
    held_out, warnings = sorted(photographs.iterdir())[:2], []
    with ExitStack() as stack:
        found = open_truths(replace(plan, checkpoint=best), (SIDE, SIDE), (held_out, held_out), stack, warnings)
    assert found == [None, None] and len(warnings) == 1 and "finds nothing" in warnings[0]


def test_names_of_a_foreign_checkpoint_are_text(tmp_path):
    """In the card they are neither HTML nor headings."""
    names = {"0": "a\n# b <script>"}
    model = {
        "task": "detect",
        "imgsz": [64, 64],
        "names": names,
        "license": "<b>",
        "checkpoint": {"name": "x", "sha256": "y"},
    }
    model |= {"preprocess": {}, "conf": 0.25, "iou": 0.7, "max_det": 300, "nms": "in run.py"}
    (tmp_path / "model.yaml").write_text(json.dumps(model))
    (tmp_path / "times.json").write_text(json.dumps({"rows": [], "conditions": {}, "versions": {}}))
    counts = {"fitted": 1, "choosing": 0, "scored": 0, "shared": False}
    file = {
        "name": "model.onnx",
        "runtime": "onnx",
        "precision": "fp32",
        "file_mb": 1,
        "agreement": None,
        "in_float32": [],
    }
    file["times"] = {"median_ms": 1, "end_to_end_ms": 2}
    card = render_card(tmp_path, [file], {}, warnings=[], counts=counts)
    assert "- Classes: a # b &lt;script&gt;." in card and "say: &lt;b&gt;" in card


def test_refuses_a_folder_that_exists(plan):
    """It is not touched."""
    plan.out.mkdir()
    (plan.out / "mine.txt").write_text("mine")
    with refused(OutputExistsError, plan.out):
        bundle(plan)
    assert [path.name for path in plan.out.iterdir()] == ["mine.txt"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporters
def test_runs_without_torch(sure, photographs, tmp_path, run):
    """Every file of the folder is there, works, is proved, and is what the checksums say."""
    pytest.importorskip("onnxruntime")
    out = tmp_path / "bundle"
    options = [
        "--to",
        "onnx,ncnn",
        "--precision",
        "fp32,int8",
        "--imgsz",
        str(SIDE),
        "--holdout",
        "0.4",
        "--rounds",
        "8",
    ]
    done = run("ghost-yolo", "bundle", sure, "--images", photographs, *options, "-o", out)
    assert "model_int8.onnx" in done.stdout
    for warning in ("NCNN int8", "ncnn2table", "1 of 21", "12 photographs", "8 photographs that chose"):
        assert warning in done.stderr
    for line in (out / "checksums.txt").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    listed = {line.split("  ")[1] for line in (out / "checksums.txt").read_text().splitlines()}
    assert listed >= {
        "run.py",
        "bench.py",
        "model.yaml",
        "model.onnx",
        "README.md",
        "LICENSE",
        "proof.json",
    }
    assert len((out / "calibration.txt").read_text().splitlines()) == 12
    photo = photographs / "00.png"
    code = f"import sys, run; sys.modules['torch'] = None; sys.exit(run.main([{str(photo)!r}, '--json']))"
    boxes = json.loads(run("python", "-c", code, cwd=out, fresh=True).stdout)
    predicted = run(
        "yolo", "predict", f"model={out / 'model.onnx'}", f"source={photo}", "save_txt=True", "exist_ok=True"
    )
    assert boxes
    assert "not found" not in predicted.stderr
    rows = read_bench(out / "times.json").rows
    assert [(row.model, row.runtime, row.precision, row.rounds) for row in rows][:2] == [
        ("model.onnx", "onnx", "fp32", 8),
        ("model_int8.onnx", "onnx", "int8", 8),
    ]
    hints = [row.get("hint", "") for row in json.loads((out / "times.json").read_text())["rows"]]
    assert hints == [None, None, None]  # of OpenVINO alone
    assert not list(out.rglob("*_ncnn.py"))  # pnnx's test, which imports torch
    proof = json.loads((out / "proof.json").read_text())
    assert proof["outputs"].keys() == {"model.onnx", "model_int8.onnx", "model_ncnn_model"}
    assert all(line.startswith("ok") for name in ("model.onnx", "model_ncnn_model") for line in proof["outputs"][name])
    assert proof["files"][0]["agreement"]["map50_95"] > 0.5  # of random weights


def test_sensors_are_read_where_there_are_any(tmp_path, monkeypatch):
    """Temperature, clock rate and throttling, from the files of Linux; a board without them has none."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "ghost_yolo/bundle"))
    import bench

    assert bench.sensors(tmp_path) == {}
    for name, text in (
        ("class/thermal/thermal_zone0/temp", "61500"),
        ("class/thermal/thermal_zone1/temp", "asleep"),
        ("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000"),
        ("devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "600000"),
        ("devices/platform/soc/soc:firmware/get_throttled", "50000"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text + "\n")
    assert bench.sensors(tmp_path) == {"celsius": 61.5, "mhz": 1050.0, "throttled": 0x50000}
    hot = [{"mhz": 1500.0}] * 4 + [{"mhz": 600.0}] * 4
    assert "1500 to 600 MHz" in bench.slowed(hot, [])[0]
    assert bench.slowed(hot[:4] * 2, []) == []
    monkeypatch.delitem(sys.modules, "run")
    monkeypatch.delitem(sys.modules, "bench")


@pytest.mark.parametrize(
    ("rounds", "reading", "said"),
    [(2, {}, "not known"), (2, {"celsius": 40.0}, "not known"), (2, {"mhz": 1500.0}, "no sign"), (8, {}, "no sign")],
)
def test_what_cannot_be_seen_is_not_denied(tmp_path, monkeypatch, rounds, reading, said):
    """That a machine kept its speed is said where there was something to see it by."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "ghost_yolo/bundle"))
    import bench

    known = SimpleNamespace(size=(32, 32))
    model = SimpleNamespace(name="a", turn=lambda *_: None, row=lambda _: {}, rounds={"network": [1.0] * rounds})
    model.detector = SimpleNamespace(known=known)
    monkeypatch.setattr(bench, "load_all", lambda *_: ([model], []))
    monkeypatch.setattr(bench, "sensors", lambda: reading)
    result, _ = bench.measure(tmp_path, 1, rounds, 1, np.zeros((8, 8, 3), np.uint8))
    assert result["conditions"]["slowed_down"].startswith(said)
    monkeypatch.delitem(sys.modules, "run")
    monkeypatch.delitem(sys.modules, "bench")

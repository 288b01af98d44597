"""The page of bundles: its JavaScript against the runner, in Node, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_run_parity import SHAPES, photo, random_boxes
from test_run_parts import KNOWN

from ghost_yolo.bundle import run as runner
from ghost_yolo.bundle.web import PAGE

HARNESS = """
import { readFileSync, writeFileSync } from "node:fs";
import { find } from "./detector.js";
const read = (name, kind) => new kind(new Uint8Array(readFileSync(name)).buffer);
const { known, photos, outputs } = JSON.parse(readFileSync("case.json"));
const tensors = outputs.map((dims, i) => ({ dims, data: read(`output${i}.bin`, Float32Array) }));
const results = [];
for (const [i, [height, width]] of photos.entries()) {
  const image = { height, width, data: read(`photo${i}.bin`, Uint8Array) };
  const network = async (planes) => (writeFileSync(`planes${i}.bin`, new Uint8Array(planes.buffer)), tensors);
  results.push((await find(image, network, known)).found);
}
console.log(JSON.stringify(results.map((found) => found.map(({ mask, ...one }) => ({ ...one, masked: Boolean(mask) })))));
"""


@pytest.fixture
def page(tmp_path):
    """Find, by the page's code, in photographs with given outputs of the network; returns inputs and what is found."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js")
    for file in PAGE.glob("*.js"):
        shutil.copy(file, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "harness.js").write_text(HARNESS)

    def find(known: runner.Description, photos: list[Any], outputs: list[Any]) -> tuple[list[Any], list[Any]]:
        described = {"task": known.task, "names": dict(enumerate(known.names)), "imgsz": known.size}
        described |= {"kpt_shape": known.keypoints, "conf": known.conf, "iou": known.iou, "max_det": known.max_det}
        case = {
            "known": described,
            "photos": [one.shape[:2] for one in photos],
            "outputs": [one.shape for one in outputs],
        }
        (tmp_path / "case.json").write_text(json.dumps(case))
        for number, one in enumerate(photos):
            rgba = np.dstack([one[..., ::-1], np.full(one.shape[:2], 255, np.uint8)])
            (tmp_path / f"photo{number}.bin").write_bytes(rgba.tobytes())
        for number, one in enumerate(outputs):
            (tmp_path / f"output{number}.bin").write_bytes(one.astype(np.float32).tobytes())
        done = subprocess.run([node, "harness.js"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        files = [tmp_path / f"planes{number}.bin" for number in range(len(photos))]
        return [np.frombuffer(file.read_bytes(), np.float32) for file in files], json.loads(done.stdout)

    return find


def expected_of(
    known: runner.Description, photos: list[Any], outputs: list[Any], monkeypatch
) -> tuple[list[Any], list[Any]]:
    """Return the same by the runner."""
    inputs: list[Any] = []

    def network(image: Any) -> list[Any]:
        inputs.append(image.copy().ravel())
        return outputs

    monkeypatch.setattr(runner, "read_description", lambda folder: known)
    monkeypatch.setattr(runner, "open_network", lambda *_: network)
    detector = runner.Detector(Path("nowhere"), "model.onnx")
    return inputs, [detector(one) for one in photos]


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
@pytest.mark.parametrize("task", ["detect", "classify"])
def test_the_networks_image_is_the_runners(page, monkeypatch, task, size):
    """Letterbox and centre crop give the same pixels for photographs of all shapes, to the last bit."""
    known = replace(KNOWN, task=task, size=size)
    output = np.zeros((1, 3) if task == "classify" else (1, 7, 4), np.float32)
    photos = [photo(shape) for shape in (*SHAPES.values(), (1, 200), (128, 128), (32, 48))]
    found, _ = page(known, photos, [output])
    expected, _ = expected_of(known, photos, [output], monkeypatch)
    for mine, theirs, one in zip(found, expected, photos, strict=True):
        assert np.array_equal(mine, theirs), one.shape


def outputs_of(task: str) -> tuple[runner.Description, list[Any]]:
    """Return random outputs of a task, with boxes that overlap."""
    kind, _, end2end = task.partition("-")
    known = replace(KNOWN, task=kind, size=(640, 640), conf=0.6)
    if kind == "classify":
        return known, [np.random.default_rng(0).uniform(0, 1, (1, 3)).astype(np.float32)]
    extra = {"segment": 8, "obb": 1, "pose": 6}.get(kind, 0)
    if kind == "pose":
        known = replace(known, keypoints=(2, 3))
    table = random_boxes(700, 3, extra)
    if end2end:
        rows = runner.candidates(table, 3, 0.5)
        return known, [rows[:300][None]]
    masks = [np.random.default_rng(1).normal(0, 1, (1, 8, 40, 40)).astype(np.float32)] if kind == "segment" else []
    return known, [table[None], *masks]


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify", "detect-end2end", "pose-end2end"])
def test_what_is_found_is_what_the_runner_finds(page, monkeypatch, task):
    """Decoding, thresholds and NMS keep the same objects in the same order, within a thousandth of a pixel."""
    known, outputs = outputs_of(task)
    photos = [photo((301, 407)), photo((640, 640))]
    _, found = page(known, photos, outputs)
    _, expected = expected_of(known, photos, outputs, monkeypatch)
    for mine, theirs in zip(found, expected, strict=True):
        assert len(theirs) > 2
        assert [one["name"] for one in mine] == [one["name"] for one in theirs]
        assert [one["masked"] for one in mine] == ["polygons" in one for one in theirs]
        for name in {"score", "box", "keypoints", "corners"} & set(theirs[0]):
            assert np.allclose([one[name] for one in mine], [one[name] for one in theirs], atol=2e-3, rtol=0), name


def test_few_boxes_survive(page, monkeypatch):
    """The comparison above is of many boxes that NMS drops."""
    known, outputs = outputs_of("detect")
    _, (found,) = page(known, [photo((64, 64))], outputs)
    assert 10 < len(found) < len(runner.candidates(outputs[0][0], 3, known.conf)) * 0.9

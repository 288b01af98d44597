"""The runner of bundles finds what Ultralytics' own prediction with the same file finds."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from factories import TINY, calibrated, newest_only
from ultralytics import YOLO
from ultralytics.data.augment import LetterBox, classify_transforms
from ultralytics.utils.metrics import batch_probiou
from ultralytics.utils.nms import non_max_suppression

from ghost_yolo import host
from ghost_yolo.bundle import run as runner
from ghost_yolo.bundle.description import describe, write_description
from ghost_yolo.export.files import export_fp32

SHAPES = {"portrait": (90, 61), "landscape": (61, 90), "tiny": (7, 5), "large": (301, 407), "square": (64, 64)}
HEADS = {
    "detect": ["Detect", ["nc"]],
    "segment": ["Segment", ["nc", 8, 16]],
    "pose": ["Pose", ["nc", [2, 3]]],
    "obb": ["OBB", ["nc", 1]],
}


def photo(shape: tuple[int, int], seed: int = 0) -> Any:
    """Return a smooth picture with some detail."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 255, (9, 8, 3), dtype=np.uint8), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.integers(-20, 20, coarse.shape), 0, 255).astype(np.uint8)


def write_photos(folder: Path) -> list[Path]:
    """Write one photograph of each kind: shapes, grey, and turned by its EXIF data."""
    for name, shape in SHAPES.items():
        cv2.imwrite(str(folder / f"{name}.png"), photo(shape))
    cv2.imwrite(str(folder / "grey.png"), photo((70, 50))[..., 0])
    coded = cv2.imencode(".jpg", photo((80, 50)))[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (folder / "turned.jpg").write_bytes(coded[:2] + segment + coded[2:])
    assert cv2.imread(str(folder / "turned.jpg")).shape[:2] == (50, 80)
    return sorted(folder.iterdir())


def host_input(image: Any, size: tuple[int, int]) -> Any:
    """Return what Ultralytics' predictor makes of a picture."""
    boxed = torch.from_numpy(LetterBox(size, auto=False)(image=image))[None].permute(0, 3, 1, 2).flip(1)
    return boxed.float().div_(255).numpy()


def random_boxes(count: int, classes: int, extra: int = 0) -> Any:
    """Return a raw output of that many boxes, which overlap in clusters."""
    rng = np.random.default_rng(count)
    centres = rng.uniform(0, 600, (2, 1 + count // 8)).repeat(8, 1)[:, :count] + rng.normal(0, 6, (2, count))
    parts = [
        centres,
        rng.uniform(20, 60, (2, count)),
        rng.uniform(0, 1, (classes, count)),
        rng.uniform(-1, 1, (extra, count)),
    ]
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_letterbox_is_the_hosts(size):
    """Photographs of all shapes become the same pixels."""
    letterbox = runner.Letterbox(size)
    for shape in (*SHAPES.values(), SHAPES["tiny"], (1, 200)):
        image = photo(shape)
        blob, geometry = letterbox(image)
        assert np.array_equal(blob, host_input(image, size)), shape
        assert geometry.photo == shape


def test_letterbox_of_one_channel():
    """So do grey ones for a model of one channel."""
    image = photo((50, 70))[..., :1]
    letterbox = runner.Letterbox((64, 64), 1)
    blob, _ = letterbox(image[..., 0])
    assert np.array_equal(blob, host_input(image, (64, 64)))
    assert letterbox(np.full((9, 9, 3), 255, np.uint8))[0].min() == 1


@pytest.mark.parametrize("size", [(64, 64), (32, 64)])
def test_centre_crop_is_the_hosts(size):
    """Classifiers get the pixels of torchvision and Pillow."""
    from PIL import Image

    transform = classify_transforms(size)
    for shape in (*SHAPES.values(), (640, 480)):
        image = photo(shape)
        expected = transform(Image.fromarray(np.ascontiguousarray(image[..., ::-1])))
        levels = 255 * np.abs(runner.centre_crop(image, size)[0] - expected.numpy())
        assert levels.max() < (0.01 if size[0] == size[1] else 1.01), shape  # Pillow 13 may resize columns first


@pytest.mark.parametrize("count", [0, 1, 300, 2000])
def test_nms_is_the_hosts(count):
    """The same boxes stay, in the same order."""
    table = random_boxes(count, 3)
    rows = runner.candidates(table, 3, 0.6)
    found = rows[runner.suppress(rows, 0.7)][:300]
    expected = non_max_suppression(torch.from_numpy(table.copy())[None], 0.6, 0.7)[0].numpy()
    assert np.array_equal(found, expected)
    assert len(rows) < 8 or len(found) < len(rows)


@pytest.mark.parametrize("count", [0, 1, 700])
def test_nms_of_rotated_boxes_is_the_hosts(count):
    """So they do where boxes are rotated."""
    table = random_boxes(count, 3, 1)
    rows = runner.candidates(table, 3, 0.6, rotated=True)
    found = rows[runner.suppress_rotated(rows, 0.5)][:300]
    expected = non_max_suppression(torch.from_numpy(table.copy())[None], 0.6, 0.5, nc=3, rotated=True)[0].numpy()
    assert np.array_equal(found, expected)
    assert len(rows) < 8 or len(found) < len(rows)
    boxes = np.delete(rows, [4, 5], 1)
    iou = runner.probabilistic_iou(boxes, boxes)
    assert np.allclose(
        iou, batch_probiou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy(), atol=1e-3
    )  # a root near 0


def lively(config: dict[str, Any], images: Path) -> Any:
    """Return a model with random weights that finds many boxes which overlap."""
    model = calibrated(config, images)
    head = model.model[-1]
    for one in ("", "one2one_"):
        for box in getattr(head, f"{one}cv2", None) or ():
            torch.nn.init.normal_(box[-1].bias, 0, 2)
        for classes in getattr(head, f"{one}cv3", None) or ():
            classes[-1].weight.data.mul_(4)
            classes[-1].bias.data.fill_(-1.0)
    return model


def model_of(task: str, images: Path) -> Any:
    """Return a small model of a task; `detect-end2end` has a head of that kind."""
    if task == "classify":
        return calibrated({"nc": 3, "backbone": TINY["backbone"], "head": [[-1, 1, "Classify", ["nc"]]]}, images)
    kind, _, end2end = task.partition("-")
    config = copy.deepcopy(TINY) | ({"end2end": True, "reg_max": 1} if end2end else {})
    config["head"][-1][2:] = copy.deepcopy(HEADS[kind])
    return lively(config | {"kpt_shape": [2, 3]}, images)


def write_bundle(folder: Path, model: Any, size: tuple[int, int], runtime: str = "onnx", **arguments: Any) -> Path:
    """Write the least that the runner needs, and return the model's file."""
    checkpoint = folder / "best.pt"
    host.save(model, checkpoint, {"imgsz": 64, "task": host.task_of(model)})
    (folder / "work").mkdir()
    made = export_fp32(checkpoint, folder / "work", runtime, size, **arguments)
    file = Path(shutil.move(made, folder / made.name))
    write_description(folder / "model.yaml", describe(file, [file.name]))
    shutil.copy(runner.__file__, folder / "run.py")
    return file


def expected_of(file: Path, path: Path, task: str) -> list[dict[str, Any]]:
    """Return what Ultralytics' own prediction with a file finds, in the runner's form."""
    result = YOLO(str(file), task=task).predict(str(path), verbose=False, device="cpu")[0]
    if task == "classify":
        return [{"name": result.names[i], "score": float(result.probs.data[i])} for i in result.probs.top5]
    part = result.obb if task == "obb" else result.boxes
    found = [
        {"name": result.names[int(label)], "score": float(score), "box": box.tolist()}
        for label, score, box in zip(part.cls, part.conf, part.xyxy, strict=True)
    ]
    for index, one in enumerate(found):
        if task == "obb":
            one["corners"] = result.obb.xyxyxyxy[index].tolist()
        if task == "pose":
            one["keypoints"] = result.keypoints.data[index].tolist()
        if task == "segment":
            one["polygons"] = result.masks.xy[index].tolist()
    return found


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compare boxes within 0.05 pixels and scores within 1e-4; two of almost the same score may change places."""
    assert len(found) == len(expected)
    for one in expected:
        near = [other for other in found if abs(other["score"] - one["score"]) < 1e-4 and other["name"] == one["name"]]
        assert any(_distance(one, other) < 0.05 for other in near), (one, near)


def _distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return by how many pixels two objects differ; of masks the points that one polygon has and no other one near."""
    parts = [
        np.abs(np.array(one[name]) - np.array(other[name])).max()
        for name in ("box", "keypoints", "corners")
        if name in one
    ]
    if "polygons" in one:
        mine, theirs = np.array(one["polygons"]).reshape(-1, 2), np.concatenate(other["polygons"])
        apart = np.abs(mine[:, None] - theirs[None]).max(-1)
        parts.append(max(apart.min(0).max(), apart.min(1).max()))
    return max(parts, default=0.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
@newest_only
@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify", "detect-end2end", "obb-end2end"])
@pytest.mark.parametrize(
    "size", [pytest.param((64, 64), id="square"), pytest.param((64, 96), marks=pytest.mark.weekly, id="wide")]
)
def test_finds_what_the_host_finds(tmp_path, image_folder, task, size):
    """For every task and kind of photograph."""
    options = {"nms": False} if "end2end" in task else {}
    file = write_bundle(tmp_path, model_of(task, image_folder), size, **options)
    photos = tmp_path / "photos"
    photos.mkdir()
    detector = runner.Detector(tmp_path)
    for path in write_photos(photos):
        expected = expected_of(file, path, detector.known.task)
        (picture,) = runner.read_pictures(str(path), 3)
        assert (0 < len(expected) < 300) or "end2end" in task
        if task == "classify" and size[0] != size[1]:  # where Pillow 13 may resize columns first
            assert detector(picture.image)[0]["score"] == pytest.approx(expected[0]["score"], abs=2e-3)
        else:
            assert_same(detector(picture.image), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
@newest_only
@pytest.mark.parametrize("runtime", ["openvino", "ncnn"])
def test_finds_what_the_host_finds_in_other_runtimes(tmp_path, image_folder, runtime):
    """Of OpenVINO in the precision that it chooses itself, which is what the host leaves it."""
    pytest.importorskip(runtime)
    file = write_bundle(tmp_path, model_of("detect", image_folder), (64, 96), runtime)
    photos = tmp_path / "photos"
    photos.mkdir()
    detector = runner.Detector(tmp_path, hint="default")
    for path in write_photos(photos):
        (picture,) = runner.read_pictures(str(path), 3)
        expected = expected_of(file, path, "detect")
        assert expected
        assert_same(detector(picture.image), expected)

"""The runner of bundles, which has no torch, against Ultralytics' own prediction."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from factories import TINY, calibrated, newest_only, refused
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
KNOWN = runner.Description("detect", ["a", "b", "c"], (64, 64), 3, (), 0.25, 0.7, 300, [])


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


def test_outputs_end_to_end_are_only_cut():
    """What the network itself has sorted out is only cut by the threshold."""
    table = np.array([[1, 2, 3, 4, 0.9, 2], [5, 6, 7, 8, 0.2, 0]], np.float32)
    rows, masks = runner.decode([table[None]], KNOWN)
    assert np.array_equal(rows, table[:1])
    assert masks is None


@pytest.mark.parametrize("shapes", [[(1, 9, 84)], [(1, 84)], [(1, 7, 84), (1, 32, 16, 16)], [(1, 7, 84), (1, 7, 84)]])
def test_unknown_outputs_are_named(shapes):
    """Outputs of another model are refused with their shapes."""
    with refused(runner.RunError, *shapes):
        runner.decode([np.zeros(shape, np.float32) for shape in shapes], KNOWN)


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


def write_bundle(folder: Path, model: Any, size: tuple[int, int], **arguments: Any) -> Path:
    """Write the least that the runner needs, and return the model's file."""
    checkpoint = folder / "best.pt"
    host.save(model, checkpoint, {"imgsz": 64, "task": host.task_of(model)})
    (folder / "work").mkdir()
    made = export_fp32(checkpoint, folder / "work", "onnx", size, **arguments)
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
@pytest.mark.parametrize("size", [(64, 64), (64, 96)], ids=["square", "wide"])
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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runner and a network of one convolution, whose output is that of a detector of one class."""
    onnx = pytest.importorskip("onnx")
    helper, folder = onnx.helper, tmp_path_factory.mktemp("bundle")
    image = helper.make_tensor_value_info("images", 1, [1, 3, 32, 32])
    output = helper.make_tensor_value_info("output0", 1, [1, 5, 1])
    mean = helper.make_node("GlobalAveragePool", ["images"], ["mean"])
    weights = np.array([[0] * 3, [0] * 3, [0] * 3, [0] * 3, [1 / 3] * 3], np.float32).reshape(5, 3, 1, 1)
    tensors = [
        onnx.numpy_helper.from_array(weights, "weights"),
        onnx.numpy_helper.from_array(np.array([16, 16, 8, 8, 0], np.float32), "bias"),
        onnx.numpy_helper.from_array(np.array([1, 5, 1]), "shape"),
    ]
    convolution = helper.make_node("Conv", ["mean", "weights", "bias"], ["boxes"])
    reshape = helper.make_node("Reshape", ["boxes", "shape"], ["output0"])
    graph = helper.make_graph([mean, convolution, reshape], "one", [image], [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    described = {"task": "detect", "names": {"0": "cell"}, "imgsz": [32, 32], "channels": 3, "conf": 0.25, "iou": 0.7}
    write_description(folder / "model.yaml", described | {"max_det": 300, "files": ["model.onnx"]})
    shutil.copy(runner.__file__, folder / "run.py")
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "checksums.txt").write_text(f"{digest}  model.onnx\n")
    return folder


@pytest.fixture
def command(bundle, run):
    """Run the runner's command."""
    return lambda *arguments, **options: run("python", bundle / "run.py", *arguments, **options)


def test_prints_json_of_a_photograph(command, tmp_path):
    """A list of boxes, on standard output alone."""
    cv2.imwrite(str(tmp_path / "bright.png"), np.full((64, 32, 3), 255, np.uint8))
    (found,) = json.loads(command("bright.png", "--json").stdout)
    assert found["name"] == "cell"
    assert found["score"] == pytest.approx((255 + 114) / 2 / 255, abs=1e-4)
    assert found["box"] == [8, 24, 24, 40]


def test_skips_what_cannot_be_read(command, tmp_path):
    """It is counted and named; where nothing can be read, the status says so."""
    cv2.imwrite(str(tmp_path / "bright.png"), np.full((32, 32, 3), 255, np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    done = command("bright.png", "broken.jpg", "--json")
    assert len(json.loads(done.stdout)) == 1
    assert "1 of 2" in done.stderr
    assert "broken.jpg" in done.stderr
    assert json.loads(command("broken.jpg", "--json", ok=False).stdout) == []


def test_draws_photographs_and_films(command, tmp_path):
    """Every frame until the film ends."""
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (64, 64))
    for _ in range(3):
        film.write(np.full((64, 64, 3), 200, np.uint8))
    film.release()
    cv2.imwrite(str(tmp_path / "bright.png"), np.full((64, 64, 3), 255, np.uint8))
    found = json.loads(command("film.avi", "bright.png", "--save", "out", "--json").stdout)
    assert [one.get("frame") for one in found] == [1, 2, 3, None]
    drawn = cv2.imread(str(tmp_path / "out/bright.jpg"))
    assert drawn.shape == (64, 64, 3)
    assert drawn[16:48, 16:48].min() < 100
    assert cv2.VideoCapture(str(tmp_path / "out/film.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.png"], "missing.png"),
        (["empty"], "empty"),
        (["7"], "camera 7"),
        (["empty/../bright.png", "--save", "empty"], "empty"),
        (["bright.png", "--model", "other.onnx"], "other.onnx"),
        (["bright.png", "--model", "model.tflite"], ".onnx"),
    ],
)
def test_what_is_wrong_is_one_line(command, tmp_path, arguments, said):
    """And names what is wrong."""
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "bright.png"), np.full((32, 32, 3), 255, np.uint8))
    lines = command(*arguments, ok=False).stderr.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_refuses_a_changed_model(bundle, tmp_path):
    """By its checksum."""
    copied = shutil.copytree(bundle, tmp_path / "copied")
    with (copied / "model.onnx").open("ab") as file:
        file.write(b" ")
    with refused(runner.RunError, "model.onnx", "checksums.txt"):
        runner.Detector(copied)


def test_names_the_runtime_that_is_missing(bundle, tmp_path, monkeypatch):
    """Whether a model was named or not."""
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    for model in ("", "model.onnx"):
        with refused(runner.RunError, "onnxruntime"):
            runner.Detector(bundle, model)


def test_needs_neither_torch_nor_ultralytics(bundle, run):
    """Nor anything of this package."""
    code = "import sys, run; run.Detector(run.Path('.')); print([n for n in sys.modules if n.split('.')[0] in {}])"
    assert (
        run("python", "-c", code.format(("torch", "ultralytics", "ghost_yolo", "PIL")), cwd=bundle, fresh=True).stdout
        == "[]\n"
    )

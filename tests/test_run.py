"""The command and the Python class of the runner of bundles: what it prints, draws, skips and refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from factories import refused

from ghost_yolo.bundle import run as runner
from ghost_yolo.bundle.description import write_description


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
    listed = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.onnx", "model.yaml")}
    (folder / "checksums.txt").write_text("".join(f"{digest}  {name}\n" for name, digest in listed.items()))
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


def bmp_of(width: int, height: int) -> bytes:
    """Return a bitmap's header that announces a size, with nothing behind it."""
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def test_skips_what_cannot_be_read(command, tmp_path):
    """It is counted and named; where nothing can be read, the status says so."""
    cv2.imwrite(str(tmp_path / "bright.png"), np.full((32, 32, 3), 255, np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "huge.bmp").write_bytes(bmp_of(60000, 60000))
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x08free")
    done = command("broken.jpg", "huge.bmp", "cut.mp4", "bright.png", "--json")
    assert len(json.loads(done.stdout)) == 1
    said = "run.py: 3 of 4 cannot be read and were skipped: broken.jpg, huge.bmp, cut.mp4"
    assert done.stderr.splitlines() == [said]  # and no line of FFmpeg's
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
        (["bright.png", "--model", "model.tflite"], "does not list model.tflite"),
    ],
)
def test_what_is_wrong_is_one_line(command, tmp_path, arguments, said):
    """And names what is wrong."""
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "bright.png"), np.full((32, 32, 3), 255, np.uint8))
    lines = command(*arguments, ok=False).stderr.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def camera_of(pictures: int, end: type[BaseException] | None = None) -> Any:
    """Return a stand-in for OpenCV's camera that gives some pictures, and then an exception or nothing."""
    left = iter(range(pictures))

    def read() -> tuple[bool, Any]:
        if next(left, None) is not None:
            return True, np.full((64, 64, 3), 255, np.uint8)
        if end:
            raise end
        return False, None

    return SimpleNamespace(isOpened=lambda: True, read=read, get=lambda _: 0.0, release=lambda: None)


@pytest.mark.parametrize(
    ("given", "end", "said"),
    [
        (2, KeyboardInterrupt, ""),  # the usual end
        (2, None, "camera 0 gave no more pictures after 2"),
        (0, None, "camera 0 cannot be opened"),
    ],
)
def test_takes_a_camera(bundle, tmp_path, monkeypatch, capsys, given, end, said):
    """Until Ctrl-C; one that is lost is an error, after what it gave, and the JSON and the film are whole."""
    monkeypatch.setattr(runner, "__file__", str(bundle / "run.py"))
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: camera_of(given, end))
    assert runner.main(["0", "--json", "--save", str(tmp_path / "out")]) == bool(said)
    printed = capsys.readouterr()
    assert [one["frame"] for one in json.loads(printed.out)] == list(range(1, given + 1))
    assert said in printed.err and len(printed.err.splitlines()) == bool(said)
    monkeypatch.undo()
    film = tmp_path / "out/camera 0.mp4"
    assert film.exists() == (tmp_path / "out").exists() == (given > 0)
    assert not given or cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FRAME_COUNT) == given


def append_byte(file: Path) -> None:
    """Change a file."""
    file.write_bytes(file.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: append_byte(folder / "model.onnx"), "model.onnx is not the file that checksums.txt lists"),
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda folder: (folder / "checksums.txt").write_text("0123"), "does not list model.yaml"),
        (lambda folder: (folder / "model.yaml").unlink(), "model.yaml is missing"),
        (lambda folder: append_byte(folder / "model.yaml"), "model.yaml is not the file that checksums.txt lists"),
        (lambda folder: describe_otherwise(folder, "task: detect"), "model.yaml is not a model.yaml"),
        (
            lambda folder: rename_classes(folder, ["a", "b"]),
            "outputs of shape (1, 5, 1) are not known for detect with 2",
        ),
    ],
    ids=[
        "changed",
        "missing",
        "cut-list",
        "no-description",
        "changed-description",
        "other-description",
        "unknown-outputs",
    ],
)
def test_refuses_a_folder_that_is_not_whole(bundle, run, tmp_path, damage, message):
    """In one line, whatever is wrong with it, and nothing is printed as found."""
    copied = shutil.copytree(bundle, tmp_path / "copied")
    cv2.imwrite(str(tmp_path / "bright.png"), np.full((32, 32, 3), 255, np.uint8))
    damage(copied)
    done = run("python", copied / "run.py", "bright.png", ok=False)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr


def describe_otherwise(folder: Path, text: str) -> None:
    """Write another description, and no checksums."""
    (folder / "checksums.txt").unlink()
    (folder / "model.yaml").write_text(text)


def rename_classes(folder: Path, names: list[str]) -> None:
    """Write other classes into the description."""
    known = json.loads((folder / "model.yaml").read_text())
    describe_otherwise(folder, json.dumps(known | {"names": dict(enumerate(names))}))


def test_names_the_runtime_that_is_missing(bundle, tmp_path, monkeypatch):
    """Whether a model was named or not."""
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    for model in ("", "model.onnx"):
        with refused(runner.RunError, "onnxruntime"):
            runner.Detector(bundle, model)


def test_nothing_is_reported_to_others(command, tmp_path, monkeypatch):
    """ONNX Runtime keeps no number of a session or device, which is the first that it does where it reports."""
    for name in ("ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS"):  # with any of them it reports nothing itself
        monkeypatch.delenv(name, raising=False)
    file, home = tmp_path / "photo.png", tmp_path / "home"
    cv2.imwrite(str(file), np.zeros((8, 8, 3), np.uint8))
    home.mkdir()
    command(file, TMPDIR=str(home), HOME=str(home), XDG_CACHE_HOME=str(home))
    assert not list(home.iterdir())


def test_needs_neither_torch_nor_ultralytics(bundle, run):
    """Nor anything of this package."""
    code = "import sys, run; run.Detector(run.Path('.')); print([n for n in sys.modules if n.split('.')[0] in {}])"
    assert (
        run("python", "-c", code.format(("torch", "ultralytics", "ghost_yolo", "PIL")), cwd=bundle, fresh=True).stdout
        == "[]\n"
    )

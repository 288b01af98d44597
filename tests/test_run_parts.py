"""Parts of the runner of a bundle, each by itself: outputs, names, numbers, films."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from factories import refused

from ghost_yolo.bundle import run as runner

KNOWN = runner.Description("detect", ["a", "b", "c"], (64, 64), 3, (), 0.25, 0.7, 300, [])


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


def test_labels_can_be_read():
    """Whole, inside the picture, and the surest on top."""
    image, place = np.zeros((100, 100, 3), np.uint8), {"box": [90, 50, 99, 60]}
    sure, unsure = (
        {"name": "cell", "class": 0, "score": 0.9} | place,
        {"name": "cell", "class": 1, "score": 0.3} | place,
    )
    drawn = runner.draw(image, [sure, unsure])
    ground = (drawn == runner.COLOURS[0]).all(2)[36:50]
    assert ground.any(0).sum() > 40 and not (drawn[36:50] == runner.COLOURS[1]).all(2).any()
    assert not image.any()


def test_knows_models_by_their_names():
    """Any other is refused with the known ends."""
    with refused(runner.RunError, "model.tflite", ".onnx", "_ncnn_model"):
        runner.open_network(Path("model.tflite"))


def test_what_is_wrong_with_a_model_is_named(tmp_path):
    """An empty folder by the kind of the error, a broken file by the reason, and not by a place in the runtime's source."""
    pytest.importorskip("openvino")
    folder = tmp_path / "model_openvino_model"
    folder.mkdir()
    with refused(runner.RunError, folder, "openvino", "StopIteration"):
        runner.open_network(folder)
    (folder / "model.xml").write_text("no model")
    with refused(runner.RunError, folder, "openvino: Unable to read the model"):
        runner.open_network(folder)


def test_the_reason_is_found_behind_the_places():
    """What OpenVINO checks is a place too; an error of another runtime is taken as it is."""
    places = "Exception from src/a.cpp:1:\nCheck 'is_valid(a)' failed at src/b.cpp:2:\n"
    assert (
        runner.reason_of(ValueError(f"{places}Incorrect weights in bin file!\n\n")) == "Incorrect weights in bin file!"
    )
    assert runner.reason_of(ValueError("Load model failed: no file\nmore")) == "Load model failed: no file"
    assert runner.reason_of(ValueError("Exception from src/a.cpp:1:")) == "Exception from src/a.cpp:1:"


def test_a_film_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    """OpenCV itself would write nothing, and say nothing."""
    monkeypatch.setattr(cv2, "VideoWriter", lambda *_: SimpleNamespace(isOpened=lambda: False))
    image = np.zeros((8, 8, 3), np.uint8)
    with refused(runner.RunError, "--save", "film.mp4"):
        runner.Saver(tmp_path / "out").add(runner.Picture("film.avi", image, 1, 5.0), image)


def test_frames_of_another_size_are_in_the_film(tmp_path):
    """OpenCV would leave them out without a word."""
    saver = runner.Saver(tmp_path / "out")
    for frame, side in enumerate((64, 64, 96), 1):
        image = np.zeros((side, side, 3), np.uint8)
        saver.add(runner.Picture("film.avi", image, frame, 5.0), image)
    saver.close()
    assert cv2.VideoCapture(str(tmp_path / "out/film.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize(
    "wrong", [["--threads", "-1"], ["--threads", "100000"], ["--conf", "25"], ["--iou", "-0.1"], ["--hint", "f64"]]
)
def test_refuses_numbers_out_of_range(wrong, capsys):
    """Before anything is loaded."""
    with pytest.raises(SystemExit):
        runner.main(["photo.png", *wrong])
    assert f"{wrong[0]}" in capsys.readouterr().err


def test_takes_opencv_4_and_5(monkeypatch):
    """They have the level of the log in different places."""
    levels: list[int] = []
    monkeypatch.delattr(cv2.utils, "logging", raising=False)
    monkeypatch.setattr(cv2, "setLogLevel", levels.append, raising=False)
    runner.silence_opencv()
    assert levels == [0]
    monkeypatch.delattr(cv2, "setLogLevel")
    monkeypatch.setattr(cv2.utils, "logging", SimpleNamespace(setLogLevel=levels.append), raising=False)
    runner.silence_opencv()
    assert levels == [0, 0]

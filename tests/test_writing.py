"""What a conversion writes beside the checkpoint: the picture of what was timed and scored, and the twin with ReLU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from factories import stock
from torch import nn

from ghost_yolo import host
from ghost_yolo.ghostify import Delivery, Settings, writing
from ghost_yolo.ghostify.delivery import NO_RATIO, Delivered
from ghost_yolo.ghostify.plot import drawn, plot_delivered
from ghost_yolo.ghostify.student import build_reshaped
from ghost_yolo.ghostify.writing import relu_twin

EXPORTED = Delivered("exported", "fast.onnx", "ONNX Runtime fp32", (0.9, 0.85, 0.95), time_ratio=(0.2, 0.19, 0.21))


def test_files_are_drawn_without_a_target() -> None:
    """Those that were both timed and scored."""
    trained = replace(EXPORTED, name="trained", time_ratio=(1.0, None, None))
    untimed = replace(EXPORTED, time_ratio=NO_RATIO)
    assert drawn([trained, untimed, EXPORTED]) == [trained, EXPORTED]
    assert plot_delivered([trained, EXPORTED]).startswith(b"\x89PNG")


@pytest.mark.parametrize(("act", "twins"), [("", 1), ("hardswish", 1), ("relu", 0)])
def test_another_activation_than_relu_is_timed_beside_it(
    act: str, twins: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the trained one of a model that is only narrower."""
    teacher = host.build(stock("v8/yolov8"))
    config = SimpleNamespace(delivery=Delivery("onnx"), width=(0.5,), settings=Settings())
    student = build_reshaped(teacher, {}, act, (0.5,), 0)
    monkeypatch.setattr(writing, "write_untrained", lambda _, twin, file: (twin, file))
    made = relu_twin(SimpleNamespace(config=config, teacher=teacher), student, tmp_path / "relu.pt")
    assert [type(twin.model[0].act) for twin, _ in made] == [nn.ReLU] * twins

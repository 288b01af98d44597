"""A checkpoint is validated once, where it is opened, for every command."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import refused
from torch import nn
from typer.testing import CliRunner
from ultralytics import YOLO

from ghost_yolo.bench.exporting import prepare
from ghost_yolo.cli import app
from ghost_yolo.compare import HOST_YAMLS
from ghost_yolo.errors import ModelError, UserError
from ghost_yolo.model.catalog import path_of
from ghost_yolo.model.checkpoint import build_from_yaml, open_checkpoint

NAN = float("nan")


def spoil(name: str, value: float = NAN) -> Callable[[Any], None]:
    """Return what sets the first value of a tensor."""

    def change(model: Any) -> None:
        model.state_dict()[name].view(-1)[0] = value

    return change


@pytest.mark.parametrize(
    "change,says",
    [
        (lambda model: delattr(model, "yaml"), "YAML"),
        (lambda model: model.yaml.pop("head"), "head"),
        (lambda model: model.yaml["head"].pop(0), "rows"),
        (lambda model: delattr(model, "names"), "names"),
        (lambda model: setattr(model, "names", None), "None"),
        (lambda model: setattr(model, "names", {}), "{}"),
        (lambda model: setattr(model, "names", {0: 1}), "{0: 1}"),
        (lambda model: setattr(model, "names", {0: "a", 1: "b"}), "2"),
        (lambda model: setattr(model, "names", {5: "a"}), "[5]"),
        (lambda model: setattr(model, "names", {"0": "a"}), "['0']"),
        (lambda model: setattr(model, "stride", torch.tensor([])), "stride"),
        (lambda model: setattr(model, "stride", torch.tensor([0.0])), "stride"),
        (lambda model: model.yaml.update(channels="rgb"), "rgb"),
        (lambda model: delattr(model.model[-1], "nc") or setattr(model.model[-1], "nc", None), "None"),
        (lambda model: delattr(model.model[-1], "reg_max"), "reg_max"),
        (lambda model: setattr(model.model[2].cv1.bn, "bias", nn.Parameter(torch.zeros(99))), "99"),
        (spoil("model.15.cv1.conv.weight"), "model.15.cv1.conv.weight"),
        (spoil("model.4.cv1.bn.running_var", float("inf")), "model.4.cv1.bn.running_var"),
        (spoil("model.4.cv1.bn.running_var", -1.0), "computes"),
        (lambda model: model.model[0].conv.weight.data.fill_(3e38), "computes"),
        (lambda model: model.register_buffer("wide", torch.zeros(1).expand(10**9)), "1003"),  # saved as one value
    ],
)
def test_odd_checkpoints(change: Callable[[Any], object], says: str, tmp_path: Path) -> None:
    """What is missing, impossible or not finite is named together with the file."""
    model = build_from_yaml("yolov8n.yaml", 1).model
    change(model)
    torch.save({"model": model, "train_args": {}}, tmp_path / "odd.pt")

    with pytest.raises(ModelError, match=r"odd\.pt") as error:
        open_checkpoint(tmp_path / "odd.pt")
    assert says in str(error.value) and len(str(error.value)) < 1000


@pytest.fixture(scope="module")
def spoiled(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with NaN in one row."""
    model = copy.deepcopy(tiny_model)
    spoil("model.3.cv1.conv.weight")(model)
    file = tmp_path_factory.mktemp("spoiled") / "spoiled.pt"
    torch.save({"model": model, "train_args": {"imgsz": 64}}, file)
    return file


@pytest.mark.parametrize(
    "words",
    [
        ["compare"],
        ["ghosts", "--image", "IMAGES"],
        ["pairs"],
        ["verify"],
        ["ghostify", "--images", "IMAGES", "-o", "light.pt", "--block", "C2f_Fire"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_refuses_nan(
    words: list[str], spoiled: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command takes weights that are not finite, and none writes anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ghost_yolo.export.verify.require_runtime", lambda: None)
    command = [words[0], str(spoiled), *(str(image_folder) if word == "IMAGES" else word for word in words[1:])]
    with refused(ModelError, spoiled, "model.3.cv1.conv.weight", "not finite"):
        CliRunner().invoke(app, command, catch_exceptions=False)

    assert list(tmp_path.iterdir()) == [] and [file.name for file in spoiled.parent.iterdir()] == [spoiled.name]


def test_bench_refuses_nan(spoiled: Path, tmp_path: Path) -> None:
    """The worker, whose errors become rows, says so too."""
    with refused(ModelError, spoiled, "not finite"):
        prepare(str(spoiled), tmp_path / "folder", 80, 64)


@pytest.mark.parametrize("imgsz", [None, "wide", NAN, [], 0, True, [640, "x"]])
def test_odd_image_sizes(imgsz: object) -> None:
    """A checkpoint that was trained at no size asks for one."""
    opened = build_from_yaml(str(path_of("yolov8n-ghost")), 1)
    opened.model.args = Namespace(imgsz=imgsz)

    with pytest.raises(ModelError, match="--imgsz"):
        _ = opened.trained_imgsz


def test_no_checkpoint(tmp_path: Path) -> None:
    """Another suffix, no file, text and a module of somebody else's are refused by name."""
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save(nn.Linear(1, 1), tmp_path / "linear.pt")
    for name in ("model.onnx", "none.pt", "text.pt", "linear.pt"):
        with pytest.raises(UserError, match=name):
            open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["yolo26n-sem.yaml", "yolo26n-depth.yaml"])
def test_other_tasks_are_refused(name: str, tmp_path: Path) -> None:
    """A checkpoint of a task of Ultralytics that is none of ours, as its YAML is."""
    if not any(HOST_YAMLS.parent.rglob(name.replace("26n", "26"))):
        pytest.skip("this Ultralytics has no such model")
    YOLO(name, verbose=False).save(tmp_path / "best.pt")
    for given in (tmp_path / "best.pt", name):
        result = CliRunner().invoke(app, ["compare", str(given)])
        assert isinstance(result.exception, ModelError) and "none of" in str(result.exception)

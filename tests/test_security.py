"""What docs/security.md says: nothing that stands in a model YAML is executed by the commands."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from factories import GHOST, TINY, refused

from ghost_yolo import host
from ghost_yolo.compare import compare
from ghost_yolo.errors import ModelError, UserError
from ghost_yolo.model import yaml_edit

MARK = "open('executed', 'w')"


def hostile(folder: Path, name: str, value: object) -> Path:
    """Write the small model with another top-level value, or with another module in its first row."""
    config = copy.deepcopy(TINY)
    if name == "row":
        config["backbone"][0][2:] = value
    else:
        config[name] = value
    file = folder / "hostile-yolov8n.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "name,value",
    [
        ("activation", MARK),
        ("activation", "nn.functional.torch.os.system('touch executed')"),
        ("activation", f"nn.ReLU({MARK})"),
        ("activation", f"nn.ReLU(**{{'inplace': {MARK}}})"),
        ("activation", f"nn.ReLU().train({MARK})"),
        ("activation", "exit()"),
        ("row", ["torch_safe_load", ["executed.pt"]]),
        ("row", ["load_checkpoint", ["executed.pt"]]),
        ("row", ["check_requirements", ["executed"]]),
        ("row", ["yaml_model_load", ["executed.yaml"]]),
    ],
)
def test_nothing_in_a_model_yaml_is_executed(
    name: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text that Ultralytics would evaluate or call is refused before it is asked to build."""
    monkeypatch.chdir(tmp_path)
    file = hostile(tmp_path, name, value)
    with pytest.raises(UserError):
        compare([str(file)], "n", 3, 64)
    with pytest.raises(UserError):
        yaml_edit.swap(str(file), "all", GHOST)

    assert not list(tmp_path.glob("executed*"))


def test_functions_are_no_modules() -> None:
    """A row that names a function of Ultralytics is refused by its name, before the parser calls it."""
    config = copy.deepcopy(TINY) | {"scale": "n"}
    config["backbone"][0][2] = "guess_model_task"
    with refused(ModelError, "row 0", "guess_model_task"):
        host.build(config)

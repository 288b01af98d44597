"""What is rebuilt from a checkpoint's own YAML computes what the checkpoint computes, or is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import GHOST, NEWEST, QUICK, TASK_MODELS, TINY, newest_only, outputs, randomise, stock
from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo import host
from ghost_yolo.data.images import find_images
from ghost_yolo.errors import ModelError, UserError
from ghost_yolo.ghostify import ghostify
from ghost_yolo.ghostify.student import build_student
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.model.rebuild import find_different_row, rebuild, rebuild_untrained
from ghost_yolo.model.swap import plan_swap
from ghost_yolo.redundancy import survey


def with_activation(model: Any, act: Callable[[], nn.Module], rows: range | None = None) -> Any:
    """Return a copy whose convolutions have another activation, set in code."""
    changed = copy.deepcopy(model)
    for layer in changed.model if rows is None else changed.model[rows.start : rows.stop]:
        for module in layer.modules():
            if isinstance(module, Conv) and isinstance(module.act, nn.SiLU):
                module.act = act()
    return changed


@pytest.mark.parametrize("name", ["v8/yolov8", *TASK_MODELS])
def test_rebuilt_models_compute_the_same(name: str) -> None:
    """Every task's model is rebuilt from its own YAML with its weights, and passes the comparison."""
    torch.manual_seed(0)
    model, x = randomise(host.build(stock(name))).eval(), torch.rand(1, 3, 64, 64)

    same = rebuild(model)

    for ours, theirs in zip(outputs(same(x)), outputs(model(x)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("act", [nn.Hardswish, nn.ReLU, lambda: nn.LeakyReLU(0.1, inplace=True)])
def test_an_activation_set_in_code_is_kept(act: Callable[[], nn.Module], tiny_model: Any) -> None:
    """Where one activation explains all rows, the student and the untrained network have it, and so does their YAML."""
    teacher = with_activation(tiny_model, act)
    student = build_student(teacher, plan_swap(teacher.yaml, "backbone", GHOST))
    kind = type(act())

    assert student.yaml["activation"].startswith(f"torch.nn.{kind.__name__}(")
    assert type(student.model[0].act) is type(student.model[4].cv1.act) is kind
    assert find_different_row(teacher, student, (1, 3)) is None
    assert find_different_row(teacher, host.build(copy.deepcopy(student.yaml)), (1, 3)) == 0  # the weights
    assert type(rebuild_untrained(teacher, 0).model[0].act) is kind
    assert type(host.build(copy.deepcopy(TINY)).model[0].act) is nn.SiLU  # nothing is left behind


def test_two_activations_are_refused_by_their_row(tiny_model: Any, image_folder: Path, tmp_path: Path) -> None:
    """An activation in some rows only cannot be said in a YAML: both commands name the row, and nothing is written."""
    teacher = with_activation(tiny_model, nn.Hardswish, range(2, 3))
    host.save(teacher, tmp_path / "best.pt", {"imgsz": 64})
    with pytest.raises(UserError, match=r"best\.pt: Row 2 .*Conv.*activation"):
        ghostify(tmp_path / "best.pt", [image_folder], tmp_path / "light.pt", [GHOST], settings=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]
    with pytest.raises(ModelError, match=r"Row 2 .*Conv.*activation"):
        survey.survey(
            open_checkpoint(tmp_path / "best.pt"), find_images([image_folder]), survey.SurveySettings(imgsz=64)
        )


def test_a_replaced_row_may_differ(tiny_model: Any) -> None:
    """What is set in a row that is replaced anyway does not matter."""
    teacher = with_activation(tiny_model, nn.Hardswish, range(3, 4))

    assert type(build_student(teacher, {1: GHOST, 3: GHOST}).model[0].act) is nn.SiLU


@pytest.mark.parametrize("change", ["eps", "kernel"])
def test_other_changes_in_code_are_found(change: str, tiny_model: Any) -> None:
    """A BN's epsilon and a convolution's dilation are no tensors, and are compared, too."""
    teacher = copy.deepcopy(tiny_model)
    if change == "eps":
        teacher.model[2].bn.eps = 0.1
    else:
        teacher.model[2].conv.dilation = teacher.model[2].conv.padding = (2, 2)

    with pytest.raises(ModelError, match="Row 2 "):
        rebuild(teacher)


def test_ghosts_explains_a_pruned_checkpoint(tiny_model: Any, image_folder: Path, tmp_path: Path) -> None:
    """A checkpoint of other widths than its YAML's is refused by its row, as by ghostify."""
    wide = copy.deepcopy(TINY)
    wide["backbone"][2][3][0] = 24
    pruned = host.build(wide)
    pruned.names, pruned.yaml = tiny_model.names, copy.deepcopy(TINY)
    host.save(pruned, tmp_path / "pruned.pt", {"imgsz": 64})
    opened = open_checkpoint(tmp_path / "pruned.pt")

    with pytest.raises(ModelError, match=r"Row 2 .*pruned"):
        survey.survey(opened, find_images([image_folder]), survey.SurveySettings(imgsz=64))


@newest_only
def test_the_class_branch_of_fine_tuning_is_kept() -> None:
    """In fine-tuning the host keeps the width of the class branch that it began with: that is no change by hand."""
    teacher, before = host.build(stock("v8/yolov8")), host.build(stock("v8/yolov8") | {"nc": 80})
    teacher.load(before, verbose=False)
    student = build_student(teacher.eval(), plan_swap(teacher.yaml, "backbone", GHOST))

    assert (
        student.model[22].cv3[0][-1].in_channels == 80 > host.build(stock("v8/yolov8")).model[22].cv3[0][-1].in_channels
    )
    assert (student.model[22].cv3[0][-1].out_channels, NEWEST) == (3, True)

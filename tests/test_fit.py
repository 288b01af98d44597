"""A block fitted to the one it replaces: the walk, what is recorded, the start, the fit, the last pass."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import GHOST as WORD
from factories import TASK_MODELS as TASKS
from factories import calibrated as settled
from factories import stock
from torch.nn import functional as F

from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import closed_form, pipeline
from ghost_yolo.ghostify.activations import bytes_each, recorder, views_within
from ghost_yolo.ghostify.calibration import Pictures
from ghost_yolo.ghostify.distill import distance, polish
from ghost_yolo.ghostify.reconstruct import error_of, fit, relative_error
from ghost_yolo.ghostify.student import student_of, targets_of
from ghost_yolo.model import swap
from ghost_yolo.model.forward import forward_until
from ghost_yolo.model.swap import plan_swap


@pytest.mark.parametrize("name", ["v8/yolov8", *TASKS])
def test_walk_is_the_hosts_forward(name: str, photos: Path, pictures: Pictures) -> None:
    """At every row the walk hands over what the host's own forward hands over, and keeps what it makes."""
    model = settled(stock(name), photos)
    last, seen, made = len(model.model) - 1, {}, {}
    for layer in model.model:  # copied before the call: an older head writes into the list that it takes
        layer.register_forward_pre_hook(lambda layer, args: seen.__setitem__(layer.i, copy.copy(args[0])))
        layer.register_forward_hook(lambda layer, args, y: made.__setitem__(layer.i, y))
    x = pictures.batch([0, 1])
    with torch.inference_mode():
        model(x)
        taken, kept = dict(seen), dict(made)
        for row in {2, 12 % last, last}:
            torch.testing.assert_close(forward_until(model, x, row)[0], taken[row])
        ours = forward_until(model, x, last, range(last))[1]
    torch.testing.assert_close(ours, {i: kept[i] for i in range(last)})


def test_student_is_the_teacher_elsewhere(teacher: Any, pictures: Pictures) -> None:
    """Rows that are not swapped give the same maps; places are the swapped rows in order, then the head's levels."""
    words = plan_swap(teacher.yaml, "all", WORD)
    student = student_of(teacher, words)
    x = pictures.batch([0])

    assert [place.name for place in targets_of(student, words)] == [
        *(f"model.{row}" for row in (2, 4, 6, 8, 12, 15, 18, 21)),
        *(f"model.22.cv3.{level}" for level in range(3)),
    ]
    torch.testing.assert_close(forward_until(student, x, 2)[0], forward_until(teacher, x, 2)[0])
    assert student.names == teacher.names
    assert torch.equal(student.model[4].cv1.conv.weight, teacher.model[4].cv1.conv.weight)
    assert swap.rows_of(student.yaml)[4][2] == "ghost_yolo.C2f_GhostBottleneck"


def test_relative_error() -> None:
    """Equal maps have none, each channel's mean scores 1 whatever its scale, and constants do not divide by nothing."""
    torch.manual_seed(0)
    target = torch.randn(4, 2, 8, 8) * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1) + 3
    means = target.mean((0, 2, 3), keepdim=True).expand_as(target)

    assert relative_error(target, target) == 0
    assert relative_error(means, target).item() == pytest.approx(1, abs=0.05)
    assert relative_error(means * 1e-3, target * 1e-3).item() == pytest.approx(1, abs=0.05)
    assert torch.isfinite(relative_error(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)))


def test_fitting_makes_the_error_smaller(teacher: Any, pictures: Pictures) -> None:
    """More steps, less error, also on views that it was not fitted on; the block comes back in eval mode."""
    words = plan_swap(teacher.yaml, "backbone", WORD)
    errors = {}
    for steps in (1, 60):
        student = pipeline.drawn_student(teacher, words, 0)
        place = targets_of(student, words)[1]
        block = student.get_submodule(place.name)
        torch.manual_seed(0)
        with recorder(teacher, student, pictures, 32) as recorded:
            features = recorded.at(place)
            fit(block, features, steps, "Fitting")
            errors[steps] = error_of(block, features)
        with recorder(teacher, student, pictures, 32) as others:
            assert error_of(block, others.at(place)) < 1.3 * errors[steps]
        assert not any(m.training for m in block.modules()) and not any(p.requires_grad for p in block.parameters())
    assert errors[60] < 0.7 * errors[1]


def test_a_ghost_block_begins_with_the_structure_of_the_trained_one(teacher: Any, pictures: Pictures) -> None:
    """Least squares find what is there, and a block that begins so is nearer than one that begins as drawn."""
    torch.manual_seed(0)
    x, filters, kernels = torch.randn(2, 6, 12, 12), torch.randn(4, 6, 1, 1), torch.randn(6, 1, 3, 3)
    assert torch.allclose(closed_form.pointwise(x, F.conv2d(x, filters) + 5), filters, atol=0.05)
    assert torch.allclose(
        closed_form.depthwise(x, F.conv2d(x, kernels, padding=1, groups=6) - 5, 3), kernels, atol=0.05
    )

    words = plan_swap(teacher.yaml, "all", WORD)
    student = pipeline.drawn_student(teacher, words, 0)
    with recorder(teacher, student, pictures, 24) as recorded:
        for place in targets_of(student, words):
            block, features = student.get_submodule(place.name), recorded.at(place)
            before = error_of(block, features)
            begun = closed_form.begin(block, teacher.get_submodule(place.name), features.some())
            enough = (
                place.level is None and features.targets.shape[2] > 2
            )  # a row, no branch of the head, and not of 2 x 2 maps
            assert begun == enough
            assert (error_of(block, features) < before) == begun


@pytest.mark.parametrize("word", ["C2f_GhostBottleneckV2", "C2f_GhostBottleneckV3", "C2f_CReLU", "NarrowELAN"])
def test_other_blocks_begin_as_drawn(word: str, little: Any) -> None:
    """What has no plain Ghost module in it is left alone."""
    student = student_of(little, plan_swap(little.yaml, "backbone", word))
    (row, *_) = [place.row for place in targets_of(student, plan_swap(little.yaml, "backbone", word))]
    before = copy.deepcopy(student.model[row].state_dict())
    assert not closed_form.begin(
        student.model[row], little.model[row], torch.randn(2, student.model[row].cv1.conv.in_channels, 8, 8)
    )
    assert all(torch.equal(value, before[key]) for key, value in student.model[row].state_dict().items())


@pytest.mark.parametrize("name", ["v8/yolov8", "11/yolo11-seg"])
def test_streamed_maps_are_the_walks(name: str, photos: Path, pictures: Pictures) -> None:
    """Place after place, what lies on disk is what a walk from the image gives: the student's input, the teacher's output."""
    model = settled(stock(name), photos)
    words = plan_swap(model.yaml, "all", WORD)
    student = student_of(model, words)
    for module in student.modules():  # else so deep a network of drawn weights is beyond half precision
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.clamp_(min=0.1)
    with recorder(model, student, pictures, 10) as recorded:
        images = torch.from_numpy(recorded.teacher.taken([1, 8, 9]).numpy())
        for place in targets_of(student, words):
            x, y = recorded.at(place).batch([1, 8, 9])
            with torch.inference_mode():
                given, taken = (place.taken(forward_until(m, images, place.row)[0]) for m in (student, model))
                expected = model.get_submodule(place.name)(taken)
            for ours, right in ((x, given), (y, expected)):
                assert (ours - right).abs().max() < 0.02 * right.abs().max()
            folder = recorded.folder
            used = sum(file.stat().st_size for file in folder.rglob("*.npy")) / 10
            assert used <= 1.01 * bytes_each(model, [*targets_of(student, words)], 64) + 100
        assert not {f"{j}.npy" for j in (0, 1, 2)} & {file.name for file in folder.rglob("*.npy")}
    assert not folder.exists()


def test_a_heads_levels_lie_there_together(photos: Path, pictures: Pictures) -> None:
    """With many classes the targets of a head are much, and counted."""
    model = settled(stock("v8/yolov8") | {"nc": 80}, photos)
    words = plan_swap(model.yaml, "head")
    student = student_of(model, words)
    places, used = targets_of(student, words), 0
    with recorder(model, student, pictures, 8) as recorded:
        for place in places:
            recorded.at(place)
            used = max(used, sum(file.stat().st_size for file in recorded.folder.rglob("*.npy")))
    assert 0.5 * bytes_each(model, places, 64) < used / 8 <= 1.01 * bytes_each(model, places, 64) + 200


def test_recording_keeps_within_its_limit() -> None:
    """A small cache holds fewer views; one that holds no batch, or a full disk, is an error before any work."""
    assert views_within(1000, 100, 12500) == 12 and views_within(1000, 5, 12500) == 5
    with pytest.raises(UserError, match="--cache"):
        views_within(1000, 100, 7000)
    with pytest.raises(UserError, match="TMPDIR"):
        views_within(2**60, 100, 2**70)


@pytest.mark.parametrize("name", ["v8/yolov8", *TASKS])
def test_no_distance_from_itself(name: str, photos: Path, pictures: Pictures) -> None:
    """Any model is at no distance from itself, and at some from one of which a block was swapped."""
    model = settled(stock(name), photos)
    words = plan_swap(model.yaml, "backbone", WORD)
    x = pictures.batch(range(2), varied=False)
    with torch.inference_mode():
        assert (
            abs(distance(model, model, x, words).item())
            < 1e-6
            < distance(model, student_of(model, words), x, ()).item()
        )


def test_polishing_brings_the_predictions_nearer(little: Any, pictures: Pictures) -> None:
    """A swapped model is much nearer to the trained one after the last pass than before."""
    words = plan_swap(little.yaml, "all", WORD)
    student = student_of(little, words)
    x = pictures.batch(range(8), varied=False)
    before = distance(little, student, x, ()).item()
    torch.manual_seed(0)
    polish(little, student, targets_of(student, words), pictures, 60, lambda state: None, None)
    assert distance(little, student, x, ()).item() < 0.9 * before
    assert not student.training and not any(p.requires_grad for p in student.parameters())

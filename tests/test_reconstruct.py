"""Building blocks of ghostify: student, activation cache, closed-form initialisation, reconstruction, distillation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import GHOST, TASK_MODELS, calibrated, stock

from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import closed_form
from ghost_yolo.ghostify.activations import bytes_per_sample, cache_activations, limit_samples
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.config import RunConfig, Settings
from ghost_yolo.ghostify.distill import checkpoint, distill, distillation_loss, mean_prediction_loss, restore
from ghost_yolo.ghostify.reconstruct import one_cycle, reconstruct, reconstruction_error, relative_error, require_finite
from ghost_yolo.ghostify.state import RunState
from ghost_yolo.ghostify.student import build_candidate, build_student
from ghost_yolo.model import swap
from ghost_yolo.model.forward import forward_until
from ghost_yolo.model.swap import plan_swap
from ghost_yolo.utils.system import GIB


@pytest.mark.parametrize("name", ["v8/yolov8", *TASK_MODELS])
def test_forward_until_equals_the_hosts_forward(
    name: str, image_folder: Path, calibration_images: CalibrationImages
) -> None:
    """At every row, inputs and outputs equal those of the host's own forward."""
    model = calibrated(stock(name), image_folder)
    last, inputs, outputs = len(model.model) - 1, {}, {}
    for layer in model.model:  # copied before the call: an older head writes into its list of inputs
        layer.register_forward_pre_hook(lambda layer, args: inputs.__setitem__(layer.i, copy.copy(args[0])))
        layer.register_forward_hook(lambda layer, args, y: outputs.__setitem__(layer.i, y))
    x = calibration_images.batch([0, 1])
    with torch.inference_mode():
        model(x)
        expected_inputs, expected = dict(inputs), dict(outputs)
        for row in {2, 12 % last, last}:
            torch.testing.assert_close(forward_until(model, x, row)[0], expected_inputs[row])
        actual = forward_until(model, x, last, range(last))[1]
    torch.testing.assert_close(actual, {i: expected[i] for i in range(last)})


def test_student_equals_the_teacher_in_other_rows(teacher: Any, calibration_images: CalibrationImages) -> None:
    """Rows that are not replaced give the same maps; targets are the replaced rows in order, then the levels of the head."""
    candidate = build_candidate(teacher, plan_swap(teacher.yaml, "all", GHOST), 0)
    student, x = candidate.model, calibration_images.batch([0])

    assert [target.name for target in candidate.targets] == [
        *(f"model.{row}" for row in (2, 4, 6, 8, 12, 15, 18, 21)),
        *(f"model.22.cv3.{level}" for level in range(3)),
    ]
    torch.testing.assert_close(forward_until(student, x, 2)[0], forward_until(teacher, x, 2)[0])
    assert student.names == teacher.names
    assert torch.equal(student.model[4].cv1.conv.weight, teacher.model[4].cv1.conv.weight)
    assert swap.yaml_rows(student.yaml)[4][2] == "ghost_yolo.C2f_GhostBottleneck"


def test_relative_error() -> None:
    """Equal maps score 0, the mean of each channel scores 1 at any scale, and constant maps give a finite error."""
    torch.manual_seed(0)
    target = torch.randn(4, 2, 8, 8) * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1) + 3
    means = target.mean((0, 2, 3), keepdim=True).expand_as(target)

    assert relative_error(target, target) == 0
    assert relative_error(means, target).item() == pytest.approx(1, abs=0.05)
    assert relative_error(means * 1e-3, target * 1e-3).item() == pytest.approx(1, abs=0.05)
    assert torch.isfinite(relative_error(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)))


def test_reconstruction_reduces_the_error(teacher: Any, calibration_images: CalibrationImages) -> None:
    """More steps give a smaller error, also on unseen samples; the block returns to eval mode."""
    plan, errors = plan_swap(teacher.yaml, "backbone", GHOST), {}
    for steps in (1, 60):
        student = build_candidate(teacher, plan, 0)
        target = student.targets[1]
        block = student.model.get_submodule(target.name)
        torch.manual_seed(0)
        with cache_activations(teacher, student.model, calibration_images, 32) as cache:
            data = cache.data_for(target)
            reconstruct(block, data, steps, "Reconstructing")
            errors[steps] = reconstruction_error(block, data)
        with cache_activations(teacher, student.model, calibration_images, 32) as unseen:
            assert reconstruction_error(block, unseen.data_for(target)) < 1.3 * errors[steps]
        assert not any(m.training for m in block.modules()) and not any(p.requires_grad for p in block.parameters())
    assert errors[60] < 0.7 * errors[1]


def test_a_result_stays_as_it_was(tmp_path: Path) -> None:
    """Training on does not change what was kept, which is written again with the next result; nor does a resumed training."""
    model: Any = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    config = RunConfig(Settings(), "all", (), None, "relu", (), "best.pt", "", "")
    state = RunState(tmp_path / "light.pt", config)

    def step() -> None:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()

    step()
    state.add("row", {"state": model.state_dict()})
    state.add("distillation", checkpoint(model, optimizer, 1))
    before = copy.deepcopy(state.results)
    step()
    state.add("losses", [1.0, 0.5])
    kept = RunState(tmp_path / "light.pt", config).results
    restore(model, optimizer, kept["distillation"])
    step()
    for results in (state.results, kept):
        assert torch.equal(results["row"]["state"]["weight"], before["row"]["state"]["weight"])
        for name in ("step", "exp_avg"):
            found, wanted = (each["distillation"]["optimizer"]["state"][0][name] for each in (results, before))
            assert torch.equal(found, wanted)


def test_errors_count_where_objects_are() -> None:
    """Where all positions count alike the error is the plain one, and an error at a position without weight is none."""
    torch.manual_seed(0)
    target, importance = torch.randn(2, 3, 4, 4), torch.ones(2, 1, 4, 4)
    y = target.clone()
    y[:, :, 0] += 1
    torch.testing.assert_close(relative_error(y, target, importance), relative_error(y, target))
    importance[:, :, 0] = 0
    assert relative_error(y, target, importance) == 0


def test_closed_form_initialisation_reduces_the_error(teacher: Any, calibration_images: CalibrationImages) -> None:
    """Ghost blocks start nearer to the trained block; class branches and maps of 2 x 2 keep their random weights."""
    student = build_candidate(teacher, plan_swap(teacher.yaml, "all", GHOST), 0)
    with cache_activations(teacher, student.model, calibration_images, 24) as cache:
        for target in student.targets:
            block, data = student.model.get_submodule(target.name), cache.data_for(target)
            before = reconstruction_error(block, data)
            done = closed_form.init_from_teacher(block, teacher.get_submodule(target.name), data.init_inputs())
            assert done == (target.level is None and data.outputs.shape[2] > 2)
            assert (reconstruction_error(block, data) < before) == done


@pytest.mark.parametrize("block", ["C2f_GhostBottleneckV2", "C2f_GhostBottleneckV3", "C2f_CReLU", "NarrowELAN"])
def test_blocks_without_a_closed_form_keep_random_weights(block: str, tiny_model: Any) -> None:
    """A block without plain Ghost modules is not changed."""
    student = build_candidate(tiny_model, plan_swap(tiny_model.yaml, "backbone", block), 0)
    row = student.targets[0].row
    module = student.model.model[row]
    before = copy.deepcopy(module.state_dict())
    x = torch.randn(2, module.cv1.conv.in_channels, 8, 8)

    assert not closed_form.init_from_teacher(module, tiny_model.model[row], x)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", ["v8/yolov8", "11/yolo11-seg"])
def test_cached_activations_equal_a_forward_pass(
    name: str, image_folder: Path, calibration_images: CalibrationImages
) -> None:
    """Cached data are the student's inputs and the teacher's outputs, within the predicted disk space."""
    model = calibrated(stock(name), image_folder)
    candidate = build_candidate(model, plan_swap(model.yaml, "all", GHOST), 0)
    student, targets = candidate.model, candidate.targets
    for module in student.modules():  # so deep a network of random weights would exceed half precision
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.clamp_(min=0.1)
    with cache_activations(model, student, calibration_images, 10) as cache:
        images = torch.from_numpy(cache.teacher.inputs([1, 8, 9]).numpy())
        for target in targets:
            x, y = cache.data_for(target).batch([1, 8, 9])
            with torch.inference_mode():
                inputs, teacher_inputs = (
                    target.select_input(forward_until(m, images, target.row)[0]) for m in (student, model)
                )
                outputs = model.get_submodule(target.name)(teacher_inputs)
            for actual, expected in ((x, inputs), (y, outputs)):
                assert (actual - expected).abs().max() < 0.02 * expected.abs().max()
            folder = cache.folder
            used = sum(file.stat().st_size for file in folder.rglob("*.npy")) / 10
            assert used <= 1.01 * bytes_per_sample(model, targets, 64) + 100
        assert not {f"{j}.npy" for j in (0, 1, 2)} & {file.name for file in folder.rglob("*.npy")}
    assert not folder.exists()


def test_all_levels_of_a_head_are_counted(image_folder: Path, calibration_images: CalibrationImages) -> None:
    """With many classes the outputs of a head are large, and the predicted disk space includes all levels."""
    model = calibrated(stock("v8/yolov8") | {"nc": 80}, image_folder)
    candidate, used = build_candidate(model, plan_swap(model.yaml, "head"), 0), 0
    with cache_activations(model, candidate.model, calibration_images, 8) as cache:
        for target in candidate.targets:
            cache.data_for(target)
            used = max(used, sum(file.stat().st_size for file in cache.folder.rglob("*.npy")))
    predicted = bytes_per_sample(model, candidate.targets, 64)
    assert 0.5 * predicted < used / 8 <= 1.01 * predicted + 200


def test_samples_are_limited_by_the_cache() -> None:
    """A small cache holds fewer samples; less than a batch, or a full disk, is an error."""
    assert limit_samples(100, 1000, 12500 / GIB) == 12 and limit_samples(5, 1000, 12500 / GIB) == 5
    with pytest.raises(UserError, match="--cache"):
        limit_samples(100, 1000, 7000 / GIB)
    with pytest.raises(UserError, match="TMPDIR"):
        limit_samples(100, 2**60, 2**70 / GIB)


@pytest.mark.parametrize("name", ["v8/yolov8", *TASK_MODELS])
def test_distillation_loss_of_a_model_with_itself_is_zero(
    name: str, image_folder: Path, calibration_images: CalibrationImages
) -> None:
    """The loss is 0 for equal models of any task, and positive after a block is replaced."""
    model = calibrated(stock(name), image_folder)
    plan = plan_swap(model.yaml, "backbone", GHOST)
    student, x = build_student(model, plan), calibration_images.batch(range(2), augment=False)
    with torch.inference_mode():
        assert abs(distillation_loss(model, model, x, plan).item()) < 1e-6
        assert distillation_loss(model, student, x, ()).item() > 1e-6


def test_maps_count_by_their_weight(tiny_model: Any, calibration_images: CalibrationImages) -> None:
    """Beside the loss of the predictions, which does not change."""
    student = build_candidate(tiny_model, plan_swap(tiny_model.yaml, "all", GHOST), 0).model
    x = calibration_images.batch(range(2), augment=False)
    none, once, thrice = (distillation_loss(tiny_model, student, x, (), None, weight).item() for weight in (0, 1, 3))
    predictions = mean_prediction_loss(tiny_model, student, x)

    assert none == pytest.approx(predictions) and once > none
    assert thrice - none == pytest.approx(3 * (once - none), rel=1e-4)


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_distillation_reduces_its_loss(
    tiny_model: Any, calibration_images: CalibrationImages, *, mixed_precision: bool
) -> None:
    """A student is nearer to the teacher after distillation, in bfloat16 too, and in eval mode."""
    student = build_candidate(tiny_model, plan_swap(tiny_model.yaml, "all", GHOST), 0)
    x = calibration_images.batch(range(8), augment=False)
    before = distillation_loss(tiny_model, student.model, x, ()).item()
    torch.manual_seed(0)
    distill(tiny_model, student, calibration_images, 60, lambda state: None, mixed_precision=mixed_precision)

    assert distillation_loss(tiny_model, student.model, x, ()).item() < 0.9 * before
    assert not student.model.training and not any(p.requires_grad for p in student.model.parameters())


def test_mixed_precision_is_that_of_the_models(tiny_model: Any, calibration_images: CalibrationImages) -> None:
    """Both models are computed in bfloat16, and the loss in float32: it is nearly the same."""
    student = build_candidate(tiny_model, plan_swap(tiny_model.yaml, "all", GHOST), 0).model
    x = calibration_images.batch(range(4), augment=False)
    seen, teacher = list[torch.dtype](), copy.deepcopy(tiny_model)
    for model in (teacher, student):
        model.model[0].register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    full, mixed = (distillation_loss(teacher, student, x, (), mixed_precision=on) for on in (False, True))

    assert seen == [torch.float32, torch.float32, torch.bfloat16, torch.bfloat16]
    assert mixed.dtype == torch.float32 and 0 < abs(float(mixed - full)) < 0.02 * float(full)


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10, 11, 20, 100])
def test_schedule_of_any_length(steps: int) -> None:
    """A one-cycle schedule runs for any number of steps, resumed at any of them, and its rates are positive."""
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], 1.0)
    scheduler = one_cycle(optimizer, 1.0, steps)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    resumed = one_cycle(optimizer, 1.0, steps, steps // 2)

    assert min(rates) > 0 and max(rates) <= 1
    assert resumed.get_last_lr()[0] == pytest.approx(([*rates, scheduler.get_last_lr()[0]])[steps // 2])


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    """NaN and infinity are refused, with the stage that met them."""
    require_finite(torch.tensor(1.0), "Distilling")
    for value in (float("nan"), float("inf")):
        with pytest.raises(UserError, match="Distilling"):
            require_finite(torch.tensor(value), "Distilling")

"""Ideas that an ablation leaves out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from factories import refused
from torch import nn

from experiments import ideas
from experiments.ablation import PACKAGE, select
from experiments.ideas import (
    BLOCK_IDEAS,
    IDEAS,
    PASS_IDEAS,
    SHAPE_IDEAS,
    STEP_IDEAS,
    correlation_error,
    crop,
    distill_batch_statistics,
    distill_falling,
    distill_quantized,
    mosaic,
    most_varied,
)
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify import distill
from ghost_yolo.ghostify.calibration import CalibrationImages

ALL = IDEAS | BLOCK_IDEAS | SHAPE_IDEAS | STEP_IDEAS | PASS_IDEAS


@pytest.mark.parametrize("idea", ALL)
def test_what_an_idea_replaces_is_there(idea: str) -> None:
    """An ablation of something that no longer exists would measure nothing."""
    for name, replacement in ALL[idea].items():
        with patch(f"{PACKAGE}.{name}", replacement):
            pass


def test_ideas_are_selected_by_part_of_their_name() -> None:
    """Several at once; an unknown one is refused with those that there are."""
    assert select(PASS_IDEAS, "maps: none,average") == [
        "last pass, maps: none",
        "last pass, last weights: moving average",
    ]
    with refused(UserError, "--only foo", "last pass, maps: none"):
        select(PASS_IDEAS, "foo")


@pytest.mark.parametrize(("change", "side"), [(crop, 192), (mosaic, 256)])
def test_images_are_changed_only_in_training(change: Any, side: int, image_folder: Path) -> None:
    """Crops and mosaics have their size in the last pass; images that are evaluated stay whole."""
    images = CalibrationImages(sorted(image_folder.iterdir()), 256)
    torch.manual_seed(0)
    assert change(images, range(4)).shape[2:] == (side, side)
    assert torch.equal(change(images, range(4), augment=False), images.batch(range(4), augment=False))


def test_the_correlation_ignores_scale_and_shift() -> None:
    """Maps that are linear in the target have no error; others do."""
    maps = torch.rand(2, 3, 4, 4)
    assert correlation_error(2 * maps + 1, maps) < 1e-4
    assert correlation_error(torch.rand(2, 3, 4, 4), maps, torch.rand(2, 1, 4, 4)) > 0.5


def test_the_channels_of_most_variance() -> None:
    """In their order."""
    maps = torch.rand(2, 4, 8, 8) * torch.tensor([1.0, 5, 2, 9]).view(1, 4, 1, 1)
    assert most_varied(maps, 2).tolist() == [1, 3]


def test_the_weight_of_the_maps_falls_until_they_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By half of the way in the middle of the pass."""
    weights = list[float]()
    monkeypatch.setattr(ideas, "plain_loss", lambda _, weight, **__: weights.append(weight))

    def distilled(_: Any, student: Any, images: Any, steps: int, *rest: Any) -> None:
        for _ in range(steps):
            distill.distillation_loss("maps", *rest, weigh=True)

    monkeypatch.setattr(ideas, "plain_distill", distilled)
    distill_falling(None, None, None, 4, 11.0)
    assert weights == pytest.approx([11, 1 + 10 * 0.853553, 6, 1 + 10 * 0.146447], rel=1e-5)


def test_a_pass_that_rounds_or_uses_batch_statistics_leaves_an_ordinary_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the pass the weights have few values (of 576) and BatchNorm is in training; afterwards the weights are those that were trained."""
    model = nn.Sequential(nn.Conv2d(64, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)).eval()
    student, seen = SimpleNamespace(model=SimpleNamespace(model=model, modules=model.modules)), dict[str, Any]()
    learned = {name: parameter + 0.25 for name, parameter in model.named_parameters()}

    def distilled(*_: Any) -> None:
        seen.update(training=model[1].training, values=len(model[0].weight[0].unique()), output=model(image))
        model[1].eval()
        for parameter in model.parameters():  # what is learned
            parameter.data.add_(0.25)

    monkeypatch.setattr(ideas, "plain_distill", distilled)
    image, exact = torch.rand(2, 64, 16, 16), len(model[0].weight[0].unique())
    whole = model(image)
    distill_quantized(None, student)
    assert not seen["training"] and seen["values"] <= 256 < exact
    assert torch.allclose(seen["output"], whole, atol=0.05) and not torch.equal(seen["output"], whole)
    after = dict(model.named_parameters())
    assert learned.keys() == after.keys() and all(torch.equal(after[name], tensor) for name, tensor in learned.items())
    distill_batch_statistics(None, student)
    assert seen["training"]

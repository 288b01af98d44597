"""Ideas that an ablation leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from factories import refused

from experiments.ablation import PACKAGE, select
from experiments.ideas import (
    BLOCK_IDEAS,
    IDEAS,
    PASS_IDEAS,
    SHAPE_IDEAS,
    STEP_IDEAS,
    correlation_error,
    crop,
    mosaic,
)
from ghost_yolo.errors import UserError
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

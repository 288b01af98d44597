"""Accuracy and its uncertainty: the host's own figures, intervals that behave, a test split that is read once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from factories import keep_scores as keep
from factories import random_counts as counted
from ultralytics.utils.metrics import ap_per_class

from ghost_yolo.errors import UserError


def test_the_point_estimate_is_the_hosts(scores: Any, tmp_path: Path) -> None:
    """What the validator hands over gives the mAP that the host prints, to the last bit, with images without a detection or a box."""
    random = torch.Generator().manual_seed(0)
    validator = scores.ImageValidator(args={"task": "detect", "plots": False, "project": str(tmp_path)})
    validator.data, validator.device, validator.iouv = {}, torch.device("cpu"), torch.linspace(0.5, 0.95, 10)
    validator.init_metrics(SimpleNamespace(names={0: "a", 1: "b", 2: "c"}))
    for number in range(3):
        centre = torch.rand((5, 2), generator=random) * 0.6 + 0.2
        boxes = torch.cat([centre, torch.full((5, 2), 0.2)], 1)
        classes, of = torch.arange(5).remainder(3).float(), torch.tensor([0, 0, 0, 1, 1])  # none in image 2
        batch = {"batch_idx": of, "cls": classes[:, None], "bboxes": boxes, "ori_shape": [(64, 64)] * 3}
        batch |= {"img": torch.zeros(3, 3, 64, 64), "ratio_pad": [((1, 1), (0, 0))] * 3}
        corners = torch.cat([boxes[:, :2] - 0.1, boxes[:, :2] + 0.1], 1) * 64 + torch.randn((5, 4), generator=random)
        made = [
            corners[of == 0],
            corners[:0],
            corners[of == 0],
        ]  # nothing found in image 1, and something in the empty one
        names = [classes[of == 0], classes[:0], classes[of == 0]]
        preds = [
            {"bboxes": box, "cls": cls, "conf": torch.rand(len(box), generator=random)}
            for box, cls in zip(made, names, strict=True)
        ]
        validator.update_metrics(preds, batch | {"im_file": [f"/x/{number}-{i}.jpg" for i in range(3)]})
    printed = validator.get_stats()

    assert 0.05 < printed["metrics/mAP50-95(B)"] < 0.95
    assert validator.metrics.images.score() == (printed["metrics/mAP50-95(B)"], printed["metrics/mAP50(B)"])
    assert validator.metrics.images.names[:4] == ("0-0.jpg", "0-1.jpg", "0-2.jpg", "1-0.jpg")


def test_a_resample_is_the_host_on_those_images(scores: Any) -> None:
    """Images that are drawn, some repeatedly, score as the host's computation says of a set in which they stand so often."""
    images = counted(scores, 6)
    draw = [4, 0, 4, 4, 2, 5]
    arrays = [
        np.concatenate([getattr(images, kind)[i] for i in draw]) for kind in ("tp", "conf", "pred_cls", "target_cls")
    ]
    ap = ap_per_class(*arrays)[5]

    assert images.score(draw) == (ap.mean(), ap[:, 0].mean())
    assert images.score(range(6)) == images.score() != images.score(draw)
    assert np.isnan(scores.Images(("a",), [np.zeros((0, 10), bool)], *[[np.zeros(0)]] * 3).score()).all()


def test_resamples_pair_by_name(scores: Any) -> None:
    """Two models that saw the same images in another order are compared on the same draws."""
    images = counted(scores, 30)
    order = np.random.default_rng(5).permutation(30)
    mixed = scores.Images(*(type(part)(part[i] for i in order) for part in vars(images).values()))

    assert mixed.names != images.names
    assert mixed.resampled(20) == pytest.approx(images.resampled(20), abs=2e-3)  # ties in another order
    assert np.corrcoef(mixed.resampled(20)[:, 0], images.resampled(20)[:, 0])[0, 1] > 0.999


def test_the_interval_shrinks_with_the_images(scores: Any) -> None:
    """Nine times the images give about a third of the width, and the point lies within."""
    widths = {}
    for count in (25, 225):
        images = counted(scores, count)
        low, high = scores.interval(images.resampled(100)[:, 0])
        widths[count] = high - low
        assert low < images.score()[0] < high

    assert 2 < widths[25] / widths[225] < 4.5


def test_scores_are_kept_whole(scores: Any, runs: Any, asked: Any) -> None:
    """What is read back scores and resamples as what was written, image by image."""
    images, run = counted(scores, 9), runs.plan(asked, [0])[0]
    keep(scores, run, "val", images)
    again = scores.read_images(scores.file_of(run, "val"))

    assert again.score() == images.score() and again.score([3, 3, 1]) == images.score([3, 3, 1])
    assert (scores.read(run, "val").draws == again.resampled(50)).all()
    assert scores.read(run, "val").facts["boxes"] == 54


def test_the_test_split_is_read_once(scores: Any, runs: Any, asked: Any) -> None:
    """Scores that are there are not computed again, and other weights are not evaluated on the test split a second time."""
    run = runs.plan(asked, [0])[0]
    run.file.parent.mkdir(parents=True)
    run.file.write_bytes(b"weights")
    weights = scores.fingerprint([run.file])
    keep(scores, run, "test", counted(scores, 4), weights=weights, data="datasets/bccd.yaml", imgsz=320)
    before = scores.file_of(run, "test").read_bytes()
    data = "/elsewhere/datasets/bccd.yaml"
    scores.evaluate(run, data, "test", 320, "cpu", 50)
    assert scores.file_of(run, "test").read_bytes() == before
    scores.evaluate(run, data, "test", 320, "cpu", 5)  # of what was counted, not of the images
    again = scores.read(run, "test")
    assert len(again.draws) == 5 and again.facts["weights"] == weights

    for name, size, content in ((data, 640, b"weights"), ("mine.yaml", 320, b"weights"), (data, 320, b"other weights")):
        run.file.write_bytes(content)
        with pytest.raises(
            UserError, match=r"best\.pt, on .* is not what was evaluated on the test split, which is read once"
        ):
            scores.evaluate(run, name, "test", size, "cpu", 5)

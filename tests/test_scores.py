"""Accuracy and its uncertainty: Ultralytics' own figures, paired bootstrap intervals, rows and records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.utils.metrics import ap_per_class

from experiments import table
from experiments.artifacts import Artifact
from experiments.making import Making
from experiments.plan import Run
from experiments.scores import Scores, require_same_weights
from ghost_yolo.accuracy.counts import ImageCounts, interval, resample
from ghost_yolo.accuracy.validate import ImageValidator
from ghost_yolo.bench.results import BenchRow
from ghost_yolo.errors import UserError
from ghost_yolo.report.sources import read_accuracy

FACTS = {
    "parameters": 1000,
    "gflops": 2.0,
    "nc": 3,
    "trained_with": "8.4.0",
    "machine": "CPU",
    "versions": {"torch": "2"},
}


def image_counts(count: int, seed: int = 0, right: float = 0.7) -> ImageCounts:
    """Return made-up counts of images: 8 detections and 6 boxes each, three classes, equal confidences among them."""
    random = np.random.default_rng(seed)
    tp = [(random.random((8, 1)) < right) & (np.linspace(0, 1, 10) < random.random((8, 1))) for _ in range(count)]
    conf = [random.integers(1, 50, 8) / 50 for _ in range(count)]
    classes = [random.integers(0, 3, 8).astype(np.float32) for _ in range(count)]
    boxes = [np.random.default_rng(i).integers(0, 3, 6).astype(np.float32) for i in range(count)]
    return ImageCounts(tuple(f"{i:04}.jpg" for i in range(count)), tp, conf, classes, boxes)


def made_scores(images: ImageCounts, **facts: Any) -> Scores:
    """Return made-up scores."""
    score = dict(zip(("map50_95", "map50"), images.score(), strict=True))
    return Scores(FACTS | score | {"split": "test", "images": len(images.names), "boxes": 6} | facts, images)


def made_artifact(key: str, scale: str = "n", seed: int = 0, deployment: str = "") -> Artifact:
    """Return a training from scratch, or a file that was exported from it."""
    model = f"{key}{scale}.yaml"
    run = Run("train", key, scale, seed, f"{key}-{scale}-seed{seed}", model, "from scratch", 100, model)
    return Artifact(run, deployment)


def test_point_estimate_is_the_hosts(tmp_path: Path) -> None:
    """The validator's counts give the mAP that Ultralytics prints, to the last bit, with images without a detection or a box."""
    random = torch.Generator().manual_seed(0)
    validator = ImageValidator(args={"task": "detect", "plots": False, "project": str(tmp_path)})
    validator.data, validator.device, validator.iouv = {}, torch.device("cpu"), torch.linspace(0.5, 0.95, 10)
    validator.init_metrics(SimpleNamespace(names={0: "a", 1: "b", 2: "c"}))
    for number in range(3):
        centre = torch.rand((5, 2), generator=random) * 0.6 + 0.2
        boxes = torch.cat([centre, torch.full((5, 2), 0.2)], 1)
        classes, of = torch.arange(5).remainder(3).float(), torch.tensor([0, 0, 0, 1, 1])  # none in image 2
        batch = {"batch_idx": of, "cls": classes[:, None], "bboxes": boxes, "ori_shape": [(64, 64)] * 3}
        batch |= {"img": torch.zeros(3, 3, 64, 64), "ratio_pad": [((1, 1), (0, 0))] * 3}
        corners = torch.cat([boxes[:, :2] - 0.1, boxes[:, :2] + 0.1], 1) * 64 + torch.randn((5, 4), generator=random)
        found = [corners[of == 0], corners[:0], corners[of == 0]]  # nothing in image 1, something in the empty one
        named = [classes[of == 0], classes[:0], classes[of == 0]]
        preds = [
            {"bboxes": box, "cls": cls, "conf": torch.rand(len(box), generator=random)}
            for box, cls in zip(found, named, strict=True)
        ]
        validator.update_metrics(preds, batch | {"im_file": [f"/x/{number}-{i}.jpg" for i in range(3)]})
    printed = validator.get_stats()

    assert 0.05 < printed["metrics/mAP50-95(B)"] < 0.95
    assert validator.metrics.images.score() == (printed["metrics/mAP50-95(B)"], printed["metrics/mAP50(B)"])
    assert validator.metrics.images.names[:4] == ("0-0.jpg", "0-1.jpg", "0-2.jpg", "1-0.jpg")


def test_resample_is_scored_by_the_host() -> None:
    """Images that are drawn, some repeatedly, score as Ultralytics' computation scores a set that holds them so often."""
    images = image_counts(6)
    draw = [4, 0, 4, 4, 2, 5]
    arrays = [
        np.concatenate([getattr(images, kind)[i] for i in draw]) for kind in ("tp", "conf", "pred_cls", "target_cls")
    ]
    ap = ap_per_class(*arrays)[5]

    assert images.score(draw) == (ap.mean(), ap[:, 0].mean())
    assert images.score(range(6)) == images.score() != images.score(draw)
    assert np.isnan(ImageCounts(("a",), [np.zeros((0, 10), bool)], *[[np.zeros(0)]] * 3).score()).all()


def test_models_are_resampled_in_pairs() -> None:
    """Models that saw the same images, in whatever order, are scored on the same draws: those of NumPy's generator 0."""
    images = image_counts(30)
    order = np.random.default_rng(5).permutation(30)
    mixed = ImageCounts(*(type(part)(part[i] for i in order) for part in vars(images).values()))
    draws = resample([images, mixed, image_counts(30, right=0.4)], 20)
    chosen = np.random.default_rng(0).integers(30, size=(20, 30))

    assert mixed.names != images.names and draws.shape == (3, 20)
    assert draws[0] == pytest.approx([images.score(draw.tolist())[0] for draw in chosen], abs=1e-12)
    assert draws[1] == pytest.approx(draws[0], abs=2e-3)  # ties in another order
    assert (draws[2] < draws[0]).all()
    assert resample([images], 20) == pytest.approx(draws[:1])
    with pytest.raises(UserError, match="different images"):
        resample([images, image_counts(29)], 20)


def test_interval_shrinks_with_the_images() -> None:
    """Nine times the images give about a third of the width, and the point lies within."""
    widths = {}
    for count in (25, 225):
        images = image_counts(count)
        low, high = interval(resample([images], 100))
        widths[count] = high - low
        assert low < images.score()[0] < high

    assert 2 < widths[25] / widths[225] < 4.5


def test_scores_are_kept_whole(tmp_path: Path) -> None:
    """Scores that are read back are those that were written, image by image."""
    kept = made_scores(image_counts(9))
    kept.write(tmp_path / "scores.npz")
    again = Scores.read(tmp_path / "scores.npz")

    assert again.facts == kept.facts and again.images.names == kept.images.names
    assert again.images.score([3, 3, 1]) == kept.images.score([3, 3, 1])


def test_test_split_is_read_once(tmp_path: Path) -> None:
    """The same weights may be evaluated on test again, others may not."""
    weights, out = tmp_path / "best.pt", tmp_path / "scores-test.npz"
    for _ in range(2):
        weights.write_bytes(b"weights")
        require_same_weights(out, weights)
    weights.write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"best\.pt has changed"):
        require_same_weights(out, weights)


def test_exported_folder_is_known_by_its_weights(tmp_path: Path) -> None:
    """The metadata of an exported folder hold the time of day and do not matter; its weights do."""
    folder, out = tmp_path / "model_openvino_model", tmp_path / "scores-test.npz"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"weights")
    for day in ("monday", "tuesday"):
        (folder / "metadata.yaml").write_text(day)
        require_same_weights(out, folder)
    (folder / "model.bin").write_bytes(b"other weights")
    with pytest.raises(UserError, match="has changed"):
        require_same_weights(out, folder)


def test_onnx_file_is_known_by_what_it_computes(tmp_path: Path) -> None:
    """The date in an ONNX file's metadata does not matter; another weight does."""
    onnx = pytest.importorskip("onnx")
    file, out, helper = tmp_path / "model.onnx", tmp_path / "scores-test.npz", onnx.helper
    for day, weight in (("monday", 1.0), ("tuesday", 1.0), ("tuesday", 2.0)):
        tensors = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
        weights = [helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [weight])]
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", tensors[:1], tensors[1:], weights)
        model = helper.make_model(graph)
        helper.set_model_props(model, {"date": day})
        onnx.save(model, file)
        if weight == 1:
            require_same_weights(out, file)
    with pytest.raises(UserError, match="has changed"):
        require_same_weights(out, file)


def made_bench(*models: tuple[str, float, float]) -> list[BenchRow]:
    """Return made-up times: name, milliseconds, GFLOPs."""
    workload: dict[str, Any] = {"imgsz": 320, "batch": 1, "device": "cpu", "threads": 2, "nc": 3, "scale": "n"}
    workload |= {"runtime": "pytorch", "precision": "fp32"}
    return [
        BenchRow(model=name, median_ms=ms, ratio=ms / models[0][1], gflops=gflops, **workload)
        for name, ms, gflops in models
    ]


def test_a_bench_without_its_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first model was not timed, no other has a ratio, and that is an error instead of an empty plot."""
    (failed, *rest) = made_bench(("stocks.yaml", 20.0, 9.0), ("stockn.yaml", 10.0, 2.0))
    rows = [replace(failed, ratio=None, error="out of memory"), *rest]
    monkeypatch.setattr(table, "read_bench", lambda _: SimpleNamespace(rows=rows))
    with pytest.raises(UserError, match=r"stocks\.yaml, to which .* was not timed: out of memory"):
        table.times_of(tmp_path / "bench.json", [])


def test_rows() -> None:
    """Seeds are averaged; a twin of stock equals it exactly, a worse model does not; times go to models of the same cost."""
    right = {"narrow": 0.4}
    artifacts = [made_artifact(key, seed=seed) for key in ("stock", "ghost", "narrow") for seed in (0, 1)]
    artifacts += [made_artifact("stock", "s", seed) for seed in (0, 1)]
    scores = [
        made_scores(image_counts(12, run.seed, right.get(run.key, 0.7)), gflops=9.0 if run.scale == "s" else 2.0)
        for run in (artifact.run for artifact in artifacts)
    ]
    models = table.group_seeds(artifacts, scores, scores, 20)
    rows = {
        row.label: row
        for row in table.rows_of(models, made_bench(("stockn.yaml", 10.0, 2.0), ("stocks.yaml", 20.0, 9.0)))[0]
    }
    stock, narrow = rows["stockn.yaml"], rows["narrown.yaml"]
    points = [image_counts(12, seed).score()[0] for seed in (0, 1)]

    assert list(rows)[-1] == "narrown.yaml" and stock.seeds == [0, 1]
    assert stock.score[0] == pytest.approx(np.mean(points)) and stock.spread == pytest.approx(np.std(points, ddof=1))
    assert rows["ghostn.yaml"].ratio == (1, 1, 1) and rows["ghostn.yaml"].difference == (0, 0, 0)
    assert narrow.ratio[1] < narrow.ratio[0] < narrow.ratio[2] < 1 and narrow.difference[2] < 0
    assert stock.ratio is None and rows["stocks.yaml"].ratio is None and narrow.ms is None
    assert rows["stocks.yaml"].time_ratio == 2.0
    pairs = table.compare_pairs(models, {"ghost": "narrow", "narrow": "absent"})
    assert [(pair.label, pair.baseline) for pair in pairs] == [("ghostn.yaml", "narrown.yaml")] and pairs[0].ratio[
        1
    ] > 1
    assert all(
        row.ratio is None for row in table.rows_of(models[2:])[0]
    )  # a stock model of another scale is no baseline
    with pytest.raises(UserError, match=r"stockn\.yaml was timed with 5\.000 GFLOPs, and stock-n-seed0 has 2\.000"):
        table.rows_of(models, made_bench(("stockn.yaml", 10.0, 5.0)))


def test_rows_of_exported_files() -> None:
    """A row for each model and deployment; ratios are to stock's float32 file of the scale, times are those of the file itself."""
    right = {"onnx-fp32": 0.7, "openvino-int8": 0.6}
    artifacts = [made_artifact(key, deployment=name) for key in ("stock", "narrow") for name in reversed(right)]
    scores = [made_scores(image_counts(12, right=right[artifact.deployment])) for artifact in artifacts]
    bench = made_bench(*((artifact.timed_as, 10.0 + number, 0) for number, artifact in enumerate(artifacts)))
    made = {
        artifacts[0].name: Making(60, 7.5, labels=True, excluded=("model.0",)),
        artifacts[1].name: Making(60, None, labels=True),
    }
    models = table.group_seeds(artifacts, scores, scores, 20)
    rows = {(row.key, row.deployment): row for row in table.rows_of(models, bench, made)[0]}
    pairs = table.compare_pairs(models, {"narrow": "stock"})

    assert len(rows) == 4 and rows["stock", "onnx-fp32"].ratio is None
    assert rows["narrow", "onnx-fp32"].ratio == (1, 1, 1)
    assert rows["stock", "openvino-int8"].ratio == rows["narrow", "openvino-int8"].ratio
    assert rows["stock", "openvino-int8"].ratio[2] < 1
    assert [rows["stock", name].ms for name in reversed(right)] == [10.0, 11.0]
    assert (rows["stock", "openvino-int8"].seconds, rows["stock", "openvino-int8"].excluded) == (7.5, ["model.0"])
    assert rows["stock", "onnx-fp32"].seconds is None and rows["narrow", "onnx-fp32"].labels is None
    assert [pair.baseline for pair in pairs] == ["stockn.yaml openvino-int8", "stockn.yaml onnx-fp32"]


def test_table_and_records(tmp_path: Path) -> None:
    """The table of a data set is written with a record of each run, which `ghost-yolo report` reads."""
    config = {"runs": str(tmp_path), "resamples": 10, "ghostify": {}, "tune": {}, "compare": {}}
    config |= {"train": {"stock": "yolov8{scale}.yaml"}, "datasets": {"cells": {"data": "cells.yaml", "seeds": [0, 1]}}}
    for seed in (0, 1):
        for split in ("val", "test"):
            (tmp_path / f"cells/stock-n-seed{seed}").mkdir(parents=True, exist_ok=True)
            made_scores(image_counts(8, seed)).write(tmp_path / f"cells/stock-n-seed{seed}/scores-{split}.npz")
    table.write(config, "cells", "test", tmp_path / "cells/test/table.json", None)
    kept = json.loads((tmp_path / "cells/test/table.json").read_text())
    records = [read_accuracy(file)[0] for file in sorted((tmp_path / "cells/test").glob("stock-n-*.json"))]

    assert [row["seeds"] for row in kept["rows"]] == [[0, 1]] and kept["timing"] is None
    assert [(record.model, record.seed, record.data) for record in records] == [
        ("yolov8n.yaml", 0, "cells.yaml"),
        ("yolov8n.yaml", 1, "cells.yaml"),
    ]
    assert all(record.map50_95_low < record.map50_95 < record.map50_95_high for record in records)

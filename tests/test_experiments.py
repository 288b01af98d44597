"""The accuracy harness: the host's own figures, intervals that behave, runs that are done once."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from ultralytics.utils.metrics import ap_per_class

from ghost_yolo.registry import UserError
from ghost_yolo.report.sources import Group, Timed, read_accuracy


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts import each other by their names."""
    monkeypatch.syspath_prepend(ROOT / "experiments")


@pytest.fixture
def runs() -> Any:
    """What is run."""
    return importlib.import_module("runs")


@pytest.fixture
def scores() -> Any:
    """Accuracy and its uncertainty."""
    return importlib.import_module("scores")


@pytest.fixture
def asked(runs: Any, tmp_path: Path) -> Any:
    """The default experiment."""
    return runs.Asked("/there/datasets/bccd.yaml", [Path(f"/photos/{i:02}.jpg") for i in range(20)], tmp_path)


def counted(scores: Any, count: int, seed: int = 0, right: float = 0.7) -> Any:
    """Return made-up counts of so many images: 8 detections and 6 boxes each, three classes, equal confidences among them."""
    random = np.random.default_rng(seed)
    tp = [(random.random((8, 1)) < right) & (np.linspace(0, 1, 10) < random.random((8, 1))) for _ in range(count)]
    conf = [random.integers(1, 50, 8) / 50 for _ in range(count)]
    classes = [random.integers(0, 3, 8).astype(np.float32) for _ in range(count)]
    boxes = [np.random.default_rng(i).integers(0, 3, 6).astype(np.float32) for i in range(count)]
    return scores.Images(tuple(f"{i:04}.jpg" for i in range(count)), tp, conf, classes, boxes)


def keep(scores: Any, run: Any, split: str, images: Any, **facts: Any) -> None:
    """Keep made-up scores as those of a run."""
    run.folder.mkdir(parents=True, exist_ok=True)
    score = dict(zip(("map50_95", "map50"), images.score(), strict=True))
    cost = {"parameters": 1000, "gflops": 2.0, "nc": 3, "trained_with": "8.4.0", "weights": "abc"}
    scores.keep(scores.file_of(run, split), images, score | cost | facts, images.resampled(50))


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


def test_the_commands(runs: Any, asked: Any) -> None:
    """Runs are the stock commands with everything that matters spelt out; each has a folder of its own, whatever is asked for."""
    made = {run.key: run for run in runs.plan(asked, [0])}
    changes = ({}, {"scale": "s"}, {"imgsz": 640}, {"epochs": 50}, {"steps": 7}, {"polish": 7}, {"tune": 7})
    others = [run for change in changes for run in runs.plan(runs.replace(asked, **change), [0, 1])]

    assert " ".join(made["stock"].words) == (
        "yolo train model=yolov8n.yaml data=/there/datasets/bccd.yaml imgsz=320 epochs=100 batch=16 seed=0 cache=ram workers=0 "
        f"plots=False device=cpu project={asked.folder} name=stock-seed0 exist_ok=True"
    )
    assert len({(run.name, run.words) for run in others}) == len({run.name for run in others}) > len(made) * 8
    assert made["ghostify-16"].words.count("--images") == 16 and "/photos" in made["ghostify-all"].words
    assert f"distill_model={made['stock'].file}" in made["ghostify-all-distil"].words
    assert [run.key for run in runs.plan(asked, [0], ["ghostify-all-tune"])] == [
        "stock",
        "ghostify-all",
        "ghostify-all-tune",
    ]
    assert [run.model for run in runs.plan(asked, [0], ["stock"], "s")] == ["yolov8n.yaml", "yolov8s.yaml"]
    with pytest.raises(UserError, match=r"--only gost: unknown\. There are stock, ghost"):
        runs.plan(asked, [0], ["gost"])


def test_a_training_of_another_kind_is_not_taken(runs: Any, asked: Any) -> None:
    """A folder that is there is taken for what it holds: another size or model is refused, another checkout's YAML is not."""
    made = {run.key: run for run in runs.plan(asked, [0])}
    facts = {"imgsz": 320, "epochs": 100, "seed": 0, "batch": 16, "data": "/elsewhere/datasets/bccd.yaml"}

    def holds(key: str, model: str, **change: object) -> None:
        made[key].folder.mkdir(exist_ok=True)
        (made[key].folder / "args.yaml").write_text(yaml.safe_dump(facts | {"model": model} | change))
        made[key].check()

    holds("ghost", "/elsewhere/cfg/yolov8n-ghost.yaml")
    holds("ghost", str(made["ghost"].last))  # as the host writes when it goes on
    holds("host-ghost", "yolov8n-ghost.yaml")
    with pytest.raises(UserError, match=r"holds a training with imgsz=640, and this one is: yolo train model=cfg/"):
        holds("ghost", "cfg/yolov8n-ghost.yaml", imgsz=640)
    with pytest.raises(UserError, match=r"holds a training with data=mine/bccd\.yaml"):
        holds("ghost", "cfg/yolov8n-ghost.yaml", data="mine/bccd.yaml")
    with pytest.raises(UserError, match=r"holds a training with model=yolov8n-ghost\.yaml"):
        holds("ghost", "yolov8n-ghost.yaml")


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


def bench_of(*models: tuple[str, float, float]) -> Group:
    """Return made-up times: name, milliseconds, GFLOPs."""
    rows = [Timed(name, "n", None, ms, ms / models[0][1], None, None, gflops, None) for name, ms, gflops in models]
    return Group("PyTorch fp32", rows, [], "320 x 320", {})


def test_rows(scores: Any, runs: Any, asked: Any) -> None:
    """Seeds are taken together; a twin of stock is exactly its equal, a worse model is not; times go to models of the same cost."""
    made = runs.plan(asked, [0, 1], ["stock", "ghost", "narrow", "ghostify-16"], "s")
    for run in made:
        right = {"narrow": 0.4}.get(run.key, 0.7)
        for split in ("val", "test"):
            keep(
                scores,
                run,
                split,
                counted(scores, 12, run.seed, right),
                gflops=9.0 if run.model == "yolov8s.yaml" else 2.0,
            )
    table = importlib.import_module("table")
    timed = bench_of(("yolov8n.yaml", 10.0, 2.0), ("cfg/yolov8n-ghost.yaml", 9.0, 2.01), ("yolov8s.yaml", 20.0, 9.0))
    rows = {(row.key, row.model): row for row in table.rows_of(made, timed)}
    stock, narrow = rows["stock", "yolov8n.yaml"], rows["narrow", "cfg/yolov8n-narrow.yaml"]
    points = [counted(scores, 12, seed).score()[0] for seed in (0, 1)]

    assert list(rows)[-1] == ("narrow", "cfg/yolov8n-narrow.yaml") and stock.seeds == [0, 1]
    assert stock.score[0] == pytest.approx(np.mean(points)) and stock.spread == pytest.approx(np.std(points, ddof=1))
    assert rows["ghost", "cfg/yolov8n-ghost.yaml"].ratio == (1, 1, 1)
    assert rows["ghost", "cfg/yolov8n-ghost.yaml"].difference == (0, 0, 0)
    assert narrow.ratio[1] < narrow.ratio[0] < narrow.ratio[2] < 1 and narrow.difference[2] < 0
    assert stock.ratio is None and rows["stock", "yolov8s.yaml"].ratio is None and narrow.ms is None
    assert rows["ghostify-16", "yolov8n.yaml"].ms == 9.0 and rows["stock", "yolov8s.yaml"].time_ratio == 2.0
    with pytest.raises(
        UserError, match=r"yolov8n\.yaml was timed with 5\.000 GFLOPs, and stock-seed0 has 2\.000.*--nc 3"
    ):
        table.rows_of(made, bench_of(("yolov8n.yaml", 10.0, 5.0)))


def test_the_page(scores: Any, runs: Any, asked: Any, tmp_path: Path) -> None:
    """Page, plot and records appear; what people wrote around the table stays; `ghost-yolo report` reads the records."""
    made = runs.plan(asked, [0], ["stock", "ghost"], "s")
    page, out = importlib.import_module("page"), tmp_path / "accuracy.md"
    for run in made:
        keep(scores, run, "val", counted(scores, 8))
    row = {
        "runtime": "onnx",
        "precision": "fp32",
        "scale": "n",
        "imgsz": 320,
        "batch": 1,
        "threads": 2,
        "device": "cpu",
        "error": None,
    }
    row |= {"median_ms": 5.0, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0, "gflops": 2.0, "realised_gain": 1.0}
    times = {"rows": [row | {"model": "yolov8n.yaml"}, row | {"model": "yolov8s.yaml", "median_ms": 7.0}]}
    (tmp_path / "bench.json").write_text(json.dumps(times | {"conditions": {}, "versions": {}}))
    page.write(out, made, "datasets/bccd.yaml", 320, "so and so", None)
    plain = out.read_text()
    out.write_text(f"before\n{plain}after\n")
    page.write(out, made, "datasets/bccd.yaml", 320, "so and so", tmp_path / "bench.json")
    text = out.read_text()
    records = [read_accuracy(file)[0] for file in (tmp_path / "accuracy").glob("*-val.json")]

    assert "Nothing was timed" in plain and "Nothing was timed" not in text
    assert text.startswith("before\n# Accuracy") and text.endswith("\nafter\n") and text.count("| model |") == 1
    assert "The line joins yolov8n.yaml and yolov8s.yaml." in text
    assert (
        "not in the plot: `cfg/yolov8n-ghost.yaml`" in text and out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    )
    assert {record.model for record in records} == {"yolov8n.yaml", "yolov8s.yaml", "cfg/yolov8n-ghost.yaml"}
    assert all(record.map50_95_low < record.map50_95 < record.map50_95_high for record in records)


@pytest.mark.skipif(not (ROOT / "results/accuracy.md").is_file(), reason="no results are kept")
def test_the_kept_table_is_the_kept_figures() -> None:
    """The table in results/accuracy.md is what the raw rows beside it say, and those of one seed are the records'."""
    page, table = importlib.import_module("page"), importlib.import_module("table")
    kept = json.loads((ROOT / "results/accuracy/table.json").read_text(encoding="utf-8"))
    rows = [table.Row(**row) for row in kept["rows"]]
    files = (ROOT / "results/accuracy").glob(f"*-{kept['split']}.json")
    said = {(r.map50_95, r.map50, r.map50_95_low, r.map50_95_high) for file in files for r in read_accuracy(file)}

    assert page.markdown(rows, kept["split"]) in (ROOT / "results/accuracy.md").read_text(encoding="utf-8")
    assert all((row.score[0], row.map50, *row.score[1:]) in said for row in rows if len(row.seeds) == 1)

"""The accuracy harness: the commands it runs, what it takes and refuses, its rows and its page."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from factories import ROOT
from factories import keep_scores as keep
from factories import random_counts as counted

from ghost_yolo.errors import UserError
from ghost_yolo.report.sources import Group, Timed, read_accuracy


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
    assert len(runs.plan(asked, [0, 0])) == len(made)
    with pytest.raises(UserError, match="--line n: give another scale"):
        runs.plan(asked, [0], [], "n")
    with pytest.raises(UserError, match=r"--only gost: unknown\. There are stock, ghost"):
        runs.plan(asked, [0], ["gost"])


def test_a_training_of_another_kind_is_not_taken(runs: Any, asked: Any) -> None:
    """A folder that is there is taken for what it holds: another size or model is refused, another checkout's YAML is not."""
    made = {run.key: run for run in runs.plan(asked, [0])}
    facts = {"imgsz": 320, "epochs": 100, "seed": 0, "batch": 16, "data": "/elsewhere/datasets/bccd.yaml"}

    def holds(key: str, model: str, **change: object) -> None:
        made[key].folder.mkdir(exist_ok=True)
        (made[key].folder / "args.yaml").write_text(yaml.safe_dump(facts | {"model": model} | change))
        importlib.import_module("checks").check(made[key])

    holds("ghost", "/elsewhere/cfg/yolov8n-ghost.yaml")
    holds("ghost", str(made["ghost"].last))  # as the host writes when it goes on
    holds("host-ghost", "yolov8n-ghost.yaml")
    with pytest.raises(UserError, match=r"holds a training with imgsz=640, and this one is: yolo train model=cfg/"):
        holds("ghost", "cfg/yolov8n-ghost.yaml", imgsz=640)
    with pytest.raises(UserError, match=r"holds a training with data=mine/bccd\.yaml"):
        holds("ghost", "cfg/yolov8n-ghost.yaml", data="mine/bccd.yaml")
    with pytest.raises(UserError, match=r"holds a training with model=yolov8n-ghost\.yaml"):
        holds("ghost", "yolov8n-ghost.yaml")


def test_what_came_of_another_teacher_is_not_taken(runs: Any, asked: Any) -> None:
    """A ghostified model counts for the trained model and the settings that its report tells of."""
    run = runs.plan(asked, [0], ["ghostify-backbone"])[-1]
    check, told = importlib.import_module("checks").check, run.file.with_suffix(".json")
    settings = {"where": "backbone", "blocks": ["C2f_GhostBottleneck"], "budget": None, "steps": 100, "polish": 250}
    settings |= {"seed": 0, "imgsz": 320}
    for file in (run.needs.file, run.file):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"weights")
    scores = importlib.import_module("scores")

    def tells(**change: object) -> None:
        weights = scores.fingerprint([run.needs.file])
        told.write_text(json.dumps({"settings": settings | {"weights": weights} | change}))
        check(run)

    tells()
    with pytest.raises(UserError, match=r"was ghostified with polish=500, and this one is: ghost-yolo ghostify"):
        tells(polish=500)
    with pytest.raises(UserError, match=r"was ghostified with weights=abc"):
        tells(weights="abc")


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
    duels = table.duels_of(made)
    assert [(duel.one, duel.other) for duel in duels] == []
    small, large = made[0], next(run for run in made if run.model == "yolov8s.yaml")
    assert (small.scale, large.scale) == ("n", "s")
    alone = table.rows_of([run for run in made if run.key == "narrow" or run.scale == "s"])
    assert [row.ratio for row in alone] == [None, None]  # a stock model of another scale is no reference
    keep(scores, small, "val", counted(scores, 12, 1), weights="others")
    assert table.split_of(made) == "val"  # what was tested has been trained anew since
    with pytest.raises(
        UserError, match=r"yolov8n\.yaml was timed with 5\.000 GFLOPs, and stock-seed0 has 2\.000.*--nc 3"
    ):
        table.rows_of(made, bench_of(("yolov8n.yaml", 10.0, 5.0)))


def test_the_page(scores: Any, runs: Any, asked: Any, tmp_path: Path) -> None:
    """Page, plot and records appear; what people wrote around the table stays; `ghost-yolo report` reads the records."""
    made = runs.plan(asked, [0], ["stock", "ghost", "host-ghost"], "s")
    page, out = importlib.import_module("page"), tmp_path / "accuracy.md"
    for run in made:
        keep(scores, run, "val", counted(scores, 8, right=0.1 if run.key == "host-ghost" else 0.9))
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
    assert "- `cfg/yolov8n-ghost.yaml` / `yolov8n-ghost.yaml`: " in text and ": better.\n" in text
    assert "The line joins yolov8n.yaml and yolov8s.yaml." in text
    assert (
        "not in the plot: `cfg/yolov8n-ghost.yaml`" in text and out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    )
    assert {record.model for record in records} == {run.model for run in made}
    assert all(record.map50_95_low < record.map50_95 < record.map50_95_high for record in records)


@pytest.mark.skipif(not (ROOT / "results/accuracy.md").is_file(), reason="no results are kept")
def test_the_kept_table_is_the_kept_figures(runs: Any) -> None:
    """The table in results/accuracy.md is what the raw rows beside it say, and those of one seed are the records'."""
    page, table = importlib.import_module("page"), importlib.import_module("table")
    kept = json.loads((ROOT / "results/accuracy/table.json").read_text(encoding="utf-8"))
    rows = [table.Row(**row) for row in kept["rows"]]
    files = (ROOT / "results/accuracy").glob(f"*-{kept['split']}.json")
    said = {(r.map50_95, r.map50, r.map50_95_low, r.map50_95_high) for file in files for r in read_accuracy(file)}

    assert page.markdown(rows, kept["split"]) in (ROOT / "results/accuracy.md").read_text(encoding="utf-8")
    assert all((row.score[0], row.map50, *row.score[1:]) in said for row in rows if len(row.seeds) == 1)


@pytest.mark.skipif(not (ROOT / "results/accuracy.md").is_file(), reason="no results are kept")
def test_readme_tells_what_was_measured() -> None:
    """What README says that ghostify keeps is in the kept table, of the test split."""
    kept = json.loads((ROOT / "results/accuracy/table.json").read_text(encoding="utf-8"))
    ratios = {row["key"]: row["ratio"] for row in kept["rows"]}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert kept["split"] == "test"
    for key in ("ghostify-backbone", "ghostify-backbone-long", "ghostify-16", "ghostify-all"):
        assert f"{100 * ratios[key][0]:.1f} %" in readme

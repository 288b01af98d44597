"""The experiments: their plan, and the page of kept figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import ROOT, refused
from ultralytics.utils import DEFAULT_CFG_DICT

from experiments import page, training
from experiments.artifacts import Artifact
from experiments.plan import read_plan
from experiments.records import PairedComparison, Row, Table, Timing
from experiments.settings import converted
from experiments.table import time_of
from ghost_yolo.errors import UserError
from ghost_yolo.report.sources import read_accuracy, read_bench


@pytest.fixture
def config() -> dict[str, Any]:
    """The configuration of the repository."""
    return yaml.safe_load((ROOT / "experiments/config.yaml").read_text(encoding="utf-8"))


def test_plan(config: dict[str, Any]) -> None:
    """Every model is a run of its own per data set, scale and seed; a selection brings what it starts from."""
    several = {"scales": ["n", "s"], "seeds": [0, 1], "data": "a.yaml"}
    chosen = {"models": ["ghostify-all-distill"], "line": ["s"], "data": "b.yaml", "tune_epochs": "3"}
    plan = read_plan(config | {"datasets": {"all": several, "some": chosen, "none": None}})
    runs = plan.runs["some"]
    last = runs["ghostify-all-n-reconstruct100-distill1000-seed0-distill3"]

    assert len(plan.runs["all"]) == 4 * (len(config["train"]) + len(config["ghostify"]) + len(config["tune"]))
    assert list(plan.runs) == ["all", "some"]
    assert [run.key for run in runs.values()] == ["stock", "ghostify-all", "ghostify-all-distill", "stock"]
    assert (last.base, last.teacher) == ("ghostify-all-n-reconstruct100-distill1000-seed0", "stock-n-seed0")
    assert (last.epochs, last.timed_as) == (103, f"{last.base}/light.pt")
    assert runs["stock-s-seed0"].model == "yolov8s.yaml"
    assert "--budget 0.7" in plan.ghostify["ghostify-budget"].options
    assert "--block" not in plan.ghostify["ghostify-budget"].options


def test_a_model_at_one_scale(config: dict[str, Any]) -> None:
    """A name with a scale is a run at that scale only; activation and width of a conversion are options of the command."""
    ghostify = {"light": {"block": None, "act": "relu", "width": "0.5,0.625"}}
    chosen = {"data": "a.yaml", "scales": ["n", "s"], "models": ["stock", "narrow:s", "light:n"]}
    plan = read_plan(config | {"datasets": {"a": chosen}, "ghostify": ghostify, "tune": None})

    assert [(run.key, run.scale) for run in plan.runs["a"].values()] == [
        ("stock", "n"),
        ("light", "n"),
        ("stock", "s"),
        ("narrow", "s"),
    ]
    assert plan.ghostify["light"].options.startswith("--act relu --width 0.5,0.625 --reconstruct-steps")
    assert "relu, width 0.5,0.625" in plan.ghostify["light"].description
    weighted = replace(plan.ghostify["light"], maps_weight=3.0, mixed_precision=True)
    assert "--maps-weight 3.0 --mixed-precision" in weighted.options
    assert "steps in bfloat16 with maps of weight 3" in weighted.description
    assert "maps" not in plan.ghostify["light"].options + plan.ghostify["light"].description


def test_rivals(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A distilled model brings its teacher of another scale, a pruned one its base; a release that does not distill is refused."""
    train = config["train"] | {"distilled": {"model": "yolov8{scale}.yaml", "teacher": "stock:s"}}
    chosen = {"data": "a.yaml", "scales": ["n"], "line": ["s"], "models": ["distilled", "less"]}
    config |= {"train": train, "prune": {"less": {"gflops": "0.4", "steps": 2}}}
    runs = read_plan(config | {"datasets": {"a": chosen}}).runs["a"]
    distilled, less = (next(run for run in runs.values() if run.key == key) for key in ("distilled", "less"))

    assert [run.name for run in runs.values() if run.key == "stock"] == ["stock-n-seed0", "stock-s-seed0"]
    assert (distilled.kind, distilled.teacher, distilled.label) == ("train", "stock-s-seed0", "distilled-n")
    assert (less.base, less.epochs, less.weights) == ("stock-n-seed0", 120, f"{less.name}/best.pt")
    assert "40 % of its GFLOPs in 2 steps of 10 epochs with labels" in less.how
    with pytest.raises(UserError, match="stock-s-seed0"):
        read_plan(config | {"datasets": {"a": chosen | {"line": []}}})
    monkeypatch.delitem(DEFAULT_CFG_DICT, "distill_model", raising=False)
    with pytest.raises(UserError, match="does not distill"):
        training.train(tmp_path / "best.pt", ["model=yolov8n.yaml", "distill_model=best.pt"])


def test_models_that_were_trained_further(config: dict[str, Any]) -> None:
    """A conversion or a pruning may start from a fine-tuned model, which it brings, and says so; not from a fine-tuned conversion."""
    chosen = {"data": "a.yaml", "tune_epochs": 7, "models": ["late", "less"]}
    config |= {"ghostify": config["ghostify"] | {"late": {"teacher": "stock-tune"}}}
    config |= {"prune": {"less": {"gflops": 0.4, "teacher": "stock-tune"}}, "datasets": {"a": chosen}}
    runs = read_plan(config).runs["a"]
    late, less = (next(run for run in runs.values() if run.key == key) for key in ("late", "less"))

    assert {run.name for run in runs.values()} - {late.name, less.name} == {"stock-n-seed0", "stock-n-seed0-tune7"}
    assert late.base == less.base == "stock-n-seed0-tune7" and late.epochs == less.epochs - 10 == 107
    assert late.how.startswith("yolov8n.yaml, then 7 epochs with labels, ghostify: ")
    assert less.how.startswith("yolov8n.yaml, then 7 epochs with labels, pruned ")
    with pytest.raises(UserError, match="ghostify-all-tune"):
        read_plan(config | {"prune": {"less": {"gflops": 0.4, "teacher": "ghostify-all-tune"}}})


@pytest.mark.parametrize(
    ("section", "entry", "offender"),
    [
        ("train", {"stock": "yolov8{scale}.yaml", "a": {"model": "a.yaml", "teacher": "stok:s"}}, "stok"),
        ("prune", {"a": {"gflops": "most"}}, "most"),
        ("prune", {"a": {"gflops": 0.5, "teacher": "ghostify-all"}}, "ghostify-all"),
        ("datasets", {"a": {"data": "a.yaml", "epoch": 3}}, "epoch"),
        ("datasets", {"a": {"imgsz": 320}}, "data"),
        ("datasets", {"a": {"data": "a.yaml", "scales": ["q"]}}, "q"),
        ("datasets", {"a": {"data": "a.yaml", "models": ["gost"]}}, "gost"),
        ("datasets", {"a": {"data": "a.yaml", "models": ["stock:m"]}}, "scale"),
        ("datasets", {"a": {"data": "a.yaml", "epochs": "many"}}, "many"),
        ("datasets", {"a": {"data": "a.yaml", "deploy": ["onxx-fp32"]}}, "onnx-fp32"),
        ("tune", {"a": {"base": "stok"}}, "stok"),
        ("tune", {"ghostify-all": {"base": "stock"}}, "in two sections"),
        ("tune", {name: {"base": "stock"} for name in "ab"}, "a and b would share the folder stock-n-seed0-tune"),
        ("ghostify", {"a": {"where": "all", "architecture": "gost"}}, "gost"),
        ("compare", {"ghostify-all": "narow"}, "narow"),
        ("mixed_precison", True, "mixed_precision"),
    ],
)
def test_invalid_configuration(config: dict[str, Any], section: str, entry: Any, offender: str) -> None:
    """An unknown, missing or malformed setting is named."""
    with pytest.raises(UserError, match=offender):
        read_plan(config | {section: entry})


@pytest.mark.parametrize("text,value", [("false", False), ("True", True), (True, True)])
def test_a_switch_may_be_text(text: Any, *, value: bool) -> None:
    """Snakemake gives `--config mixed_precision=false` as text; anything else than true and false is an error."""
    assert converted(text, "bool") is value
    with refused(UserError, "'yes'", "true nor false"):
        converted("yes", "bool")


def made_row(label: str, key: str, score: float, time: float | None) -> Row:
    """Return a row."""
    ms = None if time is None else 10 * time
    triple, interval = (score, score - 0.02, score + 0.02), None if time is None else (time - 0.1, time + 0.1)
    return Row(
        key, label, "from scratch", [0], 1000, 2.0, ms, time, interval, score, triple, None, score + 0.3, None, triple
    )


def test_page(tmp_path: Path) -> None:
    """Page and plot are drawn from what was kept; prose around the table stays, and records are copied to the page's folder."""
    rows = [made_row("yolov8n.yaml", "stock", 0.5, 1.0), made_row("cfg/yolov8n-ghost.yaml", "ghost", 0.4, 0.8)]
    rows += [made_row("yolov8s.yaml", "stock", 0.6, 2.0), made_row("ghostify-all-n", "ghostify-all", 0.5, None)]
    pairs = [PairedComparison("a", "b", (1.1, 1.05, 1.2)), PairedComparison("a", "b", (1.1, 0.9, 1.2))]
    kept, out = tmp_path / "test/table.json", tmp_path / "results.md"
    (tmp_path / "results").mkdir()
    gone, own = (tmp_path / "results" / name for name in ("gone-n-seed0-test.json", "mine.json"))
    for file in (gone, own):
        file.write_text("{}")
    kept.parent.mkdir()
    Table("test", "so and so", None, rows, pairs).write(kept)
    page.write(kept, out)
    plain = out.read_text()
    out.write_text(f"before\n{plain}after\n")
    Table("test", "so and so", Timing("ONNX Runtime fp32", "320 x 320", "yolov8n.yaml"), rows, pairs).write(kept)
    page.write(kept, out)
    text = out.read_text()

    assert plain.count("| model |") == text.count("| model |") == 1 and "accuracy against" not in plain
    assert text.startswith("before\n# ") and text.endswith("\nafter\n")
    assert [line.endswith(": better.") for line in text.splitlines() if line.startswith("- `a`")] == [True, False]
    assert "yolov8n.yaml and yolov8s.yaml" in text and "`ghostify-all-n`" in text.rpartition("`ms`")[2]
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert Table.read(tmp_path / "results/table.json").rows == Table.read(kept).rows
    assert own.exists() and not gone.exists(), "records of models that are gone stay"


@pytest.mark.parametrize("name", ["accuracy", "deployed-bccd", "deployed-bccd-xeon", "deployed-neu-det"])
def test_kept_table_is_what_was_measured(name: str) -> None:
    """The table on the page is that of the kept rows, and rows of one seed are those of the records."""
    kept = Table.read(ROOT / f"results/{name}/table.json")
    files = (ROOT / f"results/{name}").glob(f"*-{kept.split}.json")
    records = [(r.map50_95, r.map50, r.map50_95_low, r.map50_95_high) for file in files for r in read_accuracy(file)]

    assert page.markdown(kept) in (ROOT / f"results/{name}.md").read_text(encoding="utf-8")
    assert len(records) == len(kept.rows)
    assert all((row.score[0], row.map50, *row.score[1:]) in records for row in kept.rows if len(row.seeds) == 1)


@pytest.mark.parametrize("name", ["deployed-bccd", "deployed-bccd-xeon", "deployed-neu-det"])
def test_kept_times_of_deployed_files_are_those_of_the_bench(name: str) -> None:
    """Every exported file of the kept table has the time of its row in the kept bench, the first of which is the baseline."""
    bench = {row.model: (row.median_ms, row.ratio) for row in read_bench(ROOT / f"results/{name}/bench.json").rows}
    table = Table.read(ROOT / f"results/{name}/table.json")

    assert {row.file: (row.ms, row.time_ratio) for row in table.rows} == bench
    assert (
        table.timing is not None
        and next(row.title for row in table.rows if row.time_ratio == 1) == table.timing.baseline
    )


def test_kept_times_are_those_of_the_bench(config: dict[str, Any]) -> None:
    """Times of the kept table are those of the kept bench."""
    bench = read_bench(ROOT / "results/accuracy-times.json").rows
    runs = {run.key: run for run in read_plan(config).runs["bccd"].values()}
    rows = {row.key: row for row in Table.read(ROOT / "results/accuracy/table.json").rows}

    assert set(rows) == set(runs)
    for key, row in rows.items():
        time = time_of(Artifact(runs[key]), row.gflops, 3, bench)
        assert time is not None and (time.median_ms, time.ratio) == (row.ms, row.time_ratio)

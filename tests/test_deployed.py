"""The experiments on exported files: their plan, table and plot, what they took, and agreement beside accuracy."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import ROOT, SIDE

from experiments import agreement, deploy, deployed, making, page, predicting, scores
from experiments.artifacts import DEPLOYMENTS, to_time
from experiments.plan import read_plan
from experiments.records import Row, Table, Timing
from ghost_yolo.accuracy import AgreementSet
from ghost_yolo.bench import BenchPlan
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.cli import app
from ghost_yolo.errors import UserError
from ghost_yolo.export.files import PRECISIONS, require_file
from ghost_yolo.report import deployed as report
from ghost_yolo.report import figures


@pytest.fixture
def config() -> dict[str, Any]:
    """The configuration of the repository."""
    return yaml.safe_load((ROOT / "experiments/config.yaml").read_text(encoding="utf-8"))


def test_plan_of_exported_files(config: dict[str, Any]) -> None:
    """Every run is exported to every deployment; the largest stock model's float32 file is timed first, of one seed."""
    chosen = {"data": "a.yaml", "scales": ["n", "s"], "seeds": [0, 1], "models": ["stock", "narrow"]}
    plan = read_plan(config | {"datasets": {"a": chosen | {"deploy": ["openvino-int8", "onnx-fp32"]}, "b": chosen}})
    files, checkpoints = (plan.artifacts(name) for name in ("a", "b"))
    timed = to_time(files.values())

    assert len(files) == 2 * len(checkpoints) == 16 and len(timed) == 8
    assert files["narrow-n-seed1/openvino-int8"].file.endswith("/exported/model_openvino_model")
    assert timed[0].file == "stock-s-seed0/onnx-fp32/exported/model.onnx"
    assert next(artifact.timed_as for artifact in to_time(checkpoints.values())) == "yolov8n.yaml"
    assert checkpoints["stock-n-seed0"].file == "stock-n-seed0/best.pt"


def test_deployments_are_what_can_be_exported() -> None:
    """What `export_file` takes with the runtimes that are installed, ONNX Runtime at least, can be asked for."""
    taken = []
    for runtime, row in RUNTIMES.items():
        for precision in PRECISIONS if row.format else ():
            with suppress(UserError):
                require_file(runtime, precision)
                taken.append(f"{runtime}-{precision}")

    assert "onnx-fp32" in taken and set(taken) <= set(DEPLOYMENTS)
    with pytest.raises(UserError, match="ncnn"):
        require_file("ncnn", "int8")


def made_file(label: str, key: str, scale: str, deployment: str, score: float, time: float) -> Row:
    """Return a row."""
    triple = (score, score - 0.02, score + 0.02)
    measured: dict[str, Any] = {"ms": 10 * time, "time_ratio": time, "time_interval": [time - 0.1, time + 0.1]}
    figures: dict[str, Any] = {"val": score, "score": [*triple], "spread": None, "map50": score + 0.3}
    where = {"scale": scale, "deployment": deployment, "file": f"{label}.onnx", "labels": True}
    where |= {"training": 300.0, "seconds": 12.4}
    rest: dict[str, Any] = {"seeds": [0], "parameters": 1000, "gflops": 2.0, "difference": None, "ratio": None}
    return Row(key, label, "from scratch", **measured, **figures, **rest, **where)


def made_files() -> list[Row]:
    """Return rows of files: stock at two scales in two precisions, one that is dominated and one that is not."""
    figures = {
        ("yolov8n.yaml", "stock", "n", "onnx-fp32"): (0.50, 0.5),
        ("yolov8n.yaml", "stock", "n", "openvino-int8"): (0.49, 0.2),
        ("yolov8s.yaml", "stock", "s", "onnx-fp32"): (0.60, 1.0),
        ("yolov8s.yaml", "stock", "s", "openvino-int8"): (0.55, 0.4),
        ("narrow-s", "narrow", "s", "openvino-int8"): (0.58, 0.3),
    }
    return [made_file(label, key, scale, name, *figure) for (label, key, scale, name), figure in figures.items()]


def test_page_of_exported_files(tmp_path: Path) -> None:
    """The line is the Pareto front of stock; a file that another one dominates is grey."""
    rows, out = made_files(), tmp_path / "results.md"
    kept = tmp_path / "test/table.json"
    kept.parent.mkdir()
    timing = Timing("each file in its own runtime", "320 x 320", "yolov8s.yaml onnx-fp32")
    table = Table("test", "so and so", timing, rows, [], "onnx-fp32")
    table.write(kept)
    files = deployed.timed(table)
    page.write(kept, out)
    text = out.read_text()

    line = ["yolov8n.yaml openvino-int8", "yolov8s.yaml openvino-int8", "yolov8s.yaml onnx-fp32"]
    assert [file.title for file in report.line_of(files)] == line
    assert [file.title for file in files if report.is_dominated(file, files)] == [
        "yolov8n.yaml onnx-fp32",
        "yolov8s.yaml openvino-int8",
    ]
    assert "| `narrow-s` | OpenVINO | int8 | 0.580 (0.560 to 0.600) | 0.580 |" in text and "| 300 | 12 | yes |" in text
    assert f"The line joins {', '.join(line)}, the Pareto front" in text
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert Table.read(tmp_path / "results/table.json") == Table.read(kept)
    assert report.read_deployed(kept) == report.DeployedFiles("test", timing.baseline, "so and so", files)
    assert page.deployed.draw(table, timing) == figures.png(report.draw(report.read_deployed(kept)))


def test_seconds_of_a_training_that_was_resumed(tmp_path: Path) -> None:
    """The median epoch counts for each: neither a restart of Ultralytics' clock nor a slow hour does; without the file nothing is known."""
    file = tmp_path / "results.csv"
    file.write_text("epoch, time\n1,10.0\n2,20.5\n3,4.0\n4,14.0\n5,114\n")

    assert making.training_seconds(file) == 5 * 10
    assert making.training_seconds(tmp_path / "absent.csv") is None
    file.write_text("epoch\n1\n")
    assert making.training_seconds(file) is None


def test_what_a_model_took(config: dict[str, Any], tmp_path: Path) -> None:
    """The training that it comes from, and what was done since: INT8 alone takes an export and no labels; one unknown part blanks a sum."""
    chosen = {"data": "a.yaml", "models": ["ghostify-all-tune"], "deploy": ["openvino-int8"]}
    plan = read_plan(config | {"datasets": {"a": chosen}})
    by_key = {artifact.run.key: artifact for artifact in plan.artifacts("a").values()}
    stock, light, tuned = (by_key[key] for key in ("stock", "ghostify-all", "ghostify-all-tune"))
    for artifact in (stock, light, tuned):
        (tmp_path / artifact.folder).mkdir(parents=True)
        (tmp_path / artifact.folder / making.DEPLOYED).write_text('{"seconds": 3, "excluded": ["model.0"]}')
    (tmp_path / light.run.name / "light.json").write_text('{"whole": {"seconds": 100}}')
    before = making.making_of(tuned, plan.runs["a"], tmp_path)
    for artifact, seconds in ((stock, 500), (tuned, 40)):
        (tmp_path / artifact.run.name / "train").mkdir()
        (tmp_path / artifact.run.name / "train/results.csv").write_text(f"epoch,time\n1,{seconds}\n")
    took = [making.making_of(artifact, plan.runs["a"], tmp_path) for artifact in (stock, light, tuned)]

    assert (before.training, before.seconds, before.labels) == (None, None, True)
    assert [(it.training, it.seconds, it.labels) for it in took] == [
        (500, 3, False),
        (500, 103, False),
        (500, 143, True),
    ]
    assert making.mean_making([before, took[2]]) == {
        "training": None,
        "seconds": None,
        "labels": True,
        "excluded": ["model.0"],
    }


def test_agreement_over_data_sets(tmp_path: Path) -> None:
    """The rank correlation is over the models of all sets, the trained model itself left out; the most misleading one is named."""

    def row(name: str, agreement: float, accuracy: float) -> dict[str, Any]:
        facts = {"model": name, "converted": name != "liar"}
        return facts | {"agreement_ratio": [agreement] * 3, "accuracy_ratio": [accuracy] * 3}

    sets = {
        "a": [row("one", 0.9, 0.9), row("two", 0.8, 0.8), row("last", 0.1, 0.1)],
        "b": [row("three", 0.7, 0.7), row("liar", 0.95, 0.6)],
    }
    sets["b"].append(row("trained", 1.0, 1.0) | {"converted": False, "reference": True})
    files = []
    for name, rows in sets.items():
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(agreement.finish(f"{name}.yaml", rows)))
    predicting.pool(files[:1], files[0])  # what is pooled already
    predicting.pool(files, tmp_path / "agreement.json")
    found = json.loads((tmp_path / "agreement.json").read_text())
    with pytest.raises(UserError, match=r"a\.yaml: there more than once"):
        predicting.pool([files[0], *files], tmp_path / "again.json")

    assert found["models"] == 5 and found["spearman"] == pytest.approx(0.4)
    assert found["within"] == pytest.approx(0.6)  # of a the same order, of b the opposite one
    assert found["conversions"] == {"spearman": 1, "within": 1, "models": 4}
    assert [one["spearman"] for one in found["sets"]] == [1, None]
    assert found["misleading"][0] == {"model": "liar", "data": "b.yaml", "rank_by_agreement": 1, "rank_by_accuracy": 4}
    assert (tmp_path / "agreement.png").read_bytes()[:4] == b"\x89PNG"


def test_bench_times_all_files_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's option reaches the plan; without it every runtime is timed by itself."""
    plans = list[BenchPlan]()

    def keep(plan: BenchPlan) -> None:
        plans.append(plan)
        raise UserError("enough")

    monkeypatch.setattr("ghost_yolo.bench.runner.bench", keep)
    for options in (["--mixed"], []):
        with pytest.raises(UserError, match="enough"):
            app(["bench", "a.onnx", "b_openvino_model", *options], standalone_mode=False)

    assert [plan.mixed for plan in plans] == [True, False]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the exporters
def test_files_are_exported_evaluated_and_compared(
    config: dict[str, Any], sure: Path, squares: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported files are whole folders that say how they were made; the float32 one is as accurate as its checkpoint in both ways."""
    pytest.importorskip("nncf")
    monkeypatch.setattr(deploy, "hold_out", lambda paths, share: (paths[:4], paths[4:]))
    weights = tmp_path / "a/stock-n-seed0/best.pt"
    weights.parent.mkdir(parents=True)
    shutil.copy(sure, weights)
    with AgreementSet(sure, squares, SIDE) as truth:
        data = str(truth.data)
        dataset = {"data": data, "imgsz": SIDE, "models": ["stock"], "deploy": ["onnx-fp32", "openvino-int8"]}
        config |= {"runs": str(tmp_path), "datasets": {"a": dataset}}
        for name, artifact in read_plan(config).artifacts("a").items():
            folder, file = tmp_path / "a" / artifact.folder, tmp_path / "a" / artifact.file
            deploy.deploy(weights, artifact.deployment, SIDE, squares[0].parent, sure, folder)
            found = scores.evaluate(weights, data, "val", SIDE, "cpu", file)
            found.write(tmp_path / "a" / name / "scores-val.npz")
            kept = json.loads((folder / making.DEPLOYED).read_text())

            assert kept["seconds"] > 0 and set(kept["excluded"]) <= {"model.0", "model.6"}
            assert sorted(path.name for path in folder.iterdir()) == sorted([making.DEPLOYED, file.name])
            assert found.facts["parameters"] > 0 and found.facts["images"] == len(squares)
        rows = {row["model"]: row for row in predicting.measure(config, "a", data, squares[0].parent)["rows"]}
    ratios = {name: (row["agreement_ratio"][0], row["accuracy_ratio"][0]) for name, row in rows.items()}

    assert ratios["yolov8n.yaml onnx-fp32"] == pytest.approx((1, 1), abs=0.02)
    assert all(0 < figure < 1.1 for figure in ratios["yolov8n.yaml openvino-int8"])
    with pytest.raises(UserError):
        deploy.deploy(weights, "onnx-fp32", SIDE, squares[0].parent, sure, folder)
    folder = tmp_path / "again"
    deploy.deploy(weights, "onnx-fp32", SIDE, squares[0].parent, sure, folder)
    files = [folder / "model.onnx", tmp_path / "a/stock-n-seed0/onnx-fp32/exported/model.onnx"]
    assert len({scores.fingerprint_of(file) for file in files}) == 1
    assert len({file.read_bytes() for file in files}) == 2, "the files no longer hold the time of day"

"""The comparison: the published table to the digit, models at the same scale, and every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from factories import ROOT, Run, refused
from ultralytics import YOLO

from ghost_yolo import compare as comparison
from ghost_yolo.compare import HOST_YAMLS
from ghost_yolo.errors import ModelError
from ghost_yolo.model.catalog import families, with_scale
from ghost_yolo.model.checkpoint import build_from_yaml
from ghost_yolo.model.profile import CONVENTIONS
from ghost_yolo.tables import FORMATS
from ghost_yolo.utils.system import versions

FIGURES = ("layers", "parameters", "gflops", "checkpoint_kb")


@pytest.fixture(scope="module")
def published() -> comparison.Comparison:
    """The rebuilt published table."""
    return comparison.compare_published()


@pytest.fixture(scope="module")
def compared() -> comparison.Comparison:
    """The comparison at scale n."""
    return comparison.compare(scale="n")


def as_json(result: comparison.Comparison) -> Any:
    """Render as JSON and read it back."""
    return json.loads(comparison.render_comparison(result, versions(), "json"))


def test_the_published_table_to_the_digit(published: comparison.Comparison) -> None:
    """Layers, parameters and GFLOPs are the published ones exactly, kb within 2 %."""
    rows = as_json(published)["rows"]
    measured = [(r["layers"], r["parameters"], round(r["gflops"], 1)) for r in rows]

    assert measured == [(168, 11125971, 28.4), (279, 2553539, 6.8), (267, 2553539, 6.8), (195, 2581091, 6.9)]
    assert [r["published"]["checkpoint_kb"] for r in rows] == [21991, 5250, 5248, 5283]
    assert all(abs(r["checkpoint_kb"] / r["published"]["checkpoint_kb"] - 1) < 0.02 for r in rows)
    assert all(r["match"] == dict.fromkeys(FIGURES, True) for r in rows)
    assert {r["fused"] for r in rows} == {"host"}
    assert [r["scale"] for r in rows] == ["s", "n", "n", "n"]


def test_a_verdict_can_be_no(published: comparison.Comparison) -> None:
    """A figure that differs by the smallest amount is not a match."""
    entry = published.entries[0]
    for figure, value in (("layers", 169), ("parameters", 1), ("gflops", 28.5), ("checkpoint_kb", 30000)):
        wrong = comparison.Published(**{**vars(entry.published), figure: value})
        match = comparison.ComparedRow(entry.row, published=wrong).match

        assert [name for name, holds in match.items() if not holds] == [figure]


def test_the_footer_tells_the_truth(published: comparison.Comparison) -> None:
    """Three sentences: scales, attention and unfused convolutions, and the figures at the same scale."""
    footer = published.footer

    assert footer.count(". ") == 2
    for part in ("scale n", "scale s", "never on", "not fused", "9307443", "23.2 GFLOPs"):
        assert part in footer
    assert all(f"{change} %" in footer for change in (-16, -18, -77, -76))


def test_like_for_like(compared: comparison.Comparison) -> None:
    """Stock, the host's own Ghost model and ours have one scale, class count and size, in both states."""
    rows = as_json(compared)["rows"]
    ours = [f"cfg/{with_scale(name, 'n')}.yaml" for name in families()]
    names = ["yolov8n.yaml", "yolov8n-ghost.yaml", *ours]

    assert {"cfg/yolov8n-ghost.yaml", "cfg/yolov8n-ghostv3.yaml", "cfg/yolov8n-fire.yaml"} <= set(ours)
    assert [r["model"] for r in rows] == [name for name in names for _ in range(2)]
    assert [r["fused"] for r in rows] == ["none", "all"] * len(names)
    assert {(r["scale"], r["nc"], r["imgsz"]) for r in rows} == {("n", 80, 640)}
    assert rows[0]["leaf_layers"] == 129 and rows[0]["parameters"] == 3157200
    assert all(r["gflops"] > 0 and r["checkpoint_kb"] > 1000 for r in rows)


def test_changes_add_up(compared: comparison.Comparison) -> None:
    """Every percentage is the row's figure against stock's in the same state."""
    rows = as_json(compared)["rows"]
    for row in rows:
        base = next(r for r in rows if r["model"] == row["baseline"] and r["fused"] == row["fused"])
        for figure, change in row["change_percent"].items():
            assert row[figure] == pytest.approx(base[figure] * (1 + change / 100))


def test_json_has_its_keys(published: comparison.Comparison, compared: comparison.Comparison) -> None:
    """The document has conventions and versions, each row its model, size and state."""
    need = {"model", "scale", "nc", "imgsz", "fused", "layers", "leaf_layers", "parameters", "gflops", "checkpoint_kb"}
    for result in (published, compared):
        document = as_json(result)
        assert set(document) == {"conventions", "versions", "rows"}
        assert document["conventions"] == CONVENTIONS and {"ultralytics", "torch"} <= set(document["versions"])
        assert all(need <= set(row) for row in document["rows"])
    assert all(set(row["published"]) == set(row["match"]) == set(FIGURES) for row in as_json(published)["rows"])


def test_csv_and_markdown_hold_the_same_rows(compared: comparison.Comparison) -> None:
    """CSV repeats JSON's figures, Markdown has a line a row."""
    rows = list(csv.DictReader(io.StringIO(comparison.render_comparison(compared, versions(), "csv"))))
    markdown = comparison.render_comparison(compared, versions(), "markdown")

    assert [int(r["parameters"]) for r in rows] == [e.row.parameters for e in compared.entries]
    assert sum(line.startswith("| ") for line in markdown.splitlines()) == len(rows) + 2


@pytest.mark.parametrize("style", FORMATS)
def test_no_format_cuts_a_figure(style: str, published: comparison.Comparison) -> None:
    """Every format shows every parameter count in full."""
    text = comparison.render_comparison(published, versions(), style)

    assert all(str(entry.row.parameters) in text and entry.row.model in text for entry in published.entries)


def test_checkpoints_and_yamls_of_the_users(tmp_path: Path, run: Run) -> None:
    """A user's YAML and checkpoint are compared with the stock model of their own scale and classes, via the command."""
    mine = tmp_path / "yolov8n-mine.yaml"
    mine.write_text((ROOT / "cfg/yolov8-ghost.yaml").read_text().replace("ghost_yolo.", ""))
    YOLO("yolov8n.yaml", verbose=False).save(tmp_path / "my.pt")
    out = tmp_path / "out.json"
    out.write_text("old")
    done = run(
        "ghost-yolo", "compare", "--models", "yolov8n-mine.yaml", "my.pt", "--format", "json", "-o", out, "--nc", "2"
    )
    rows = json.loads(out.read_text())["rows"]

    assert done.stdout == ""
    assert [(r["model"], r["nc"]) for r in rows[::2]] == [
        ("yolov8n.yaml", 2), ("yolov8n-mine.yaml", 2), ("yolov8n.yaml", 80), ("my.pt", 80),
    ]  # fmt: skip
    assert rows[-1]["change_percent"]["parameters"] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config", "my.pt", "out.json", "yolov8n-mine.yaml"]


def test_standard_output_is_only_the_report(run: Run, tmp_path: Path) -> None:
    """On a first run, when the host prints messages, standard output is the report alone."""
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    options = ("compare", "--published", "--format", "json")
    done = run("python", "-m", "ghost_yolo", *options, YOLO_CONFIG_DIR=str(fresh))

    assert "Creating new Ultralytics Settings" in done.stderr
    assert json.loads(done.stdout)["rows"]


def test_a_checkpoint_is_compared_with_its_own_scale(tmp_path: Path, run: Run) -> None:
    """A checkpoint of a YAML without a letter is scale n; a fused one is compared with the fused stock model only."""
    yolo = YOLO(str(ROOT / "cfg/yolov8-ghost.yaml"), verbose=False)
    yolo.save(tmp_path / "letterless.pt")
    yolo.fuse()
    yolo.save(tmp_path / "fused.pt")
    rows = json.loads(run("ghost-yolo", "compare", "letterless.pt", "fused.pt", "--format", "json").stdout)["rows"]
    ours = [(r["model"], r["scale"], r["fused"], r["baseline"]) for r in rows if r["model"].endswith(".pt")]

    assert ours == [
        ("letterless.pt", "n", "none", "yolov8n.yaml"),
        ("letterless.pt", "n", "all", "yolov8n.yaml"),
        ("fused.pt", "n", "all", "yolov8n.yaml"),
    ]
    assert {figure: rows[-1]["change_percent"][figure] for figure in FIGURES[:3]} == {
        figure: rows[-2]["change_percent"][figure] for figure in FIGURES[:3]
    }


def test_a_row_is_compared_with_stock_for_the_same_data(tmp_path: Path, run: Run) -> None:
    """A YAML keeps its own classes, channels and keypoints, and so does the stock model beside it; names tell rows apart."""
    stock = {"": (HOST_YAMLS / "yolov8.yaml").read_text(), "-pose": (HOST_YAMLS / "yolov8-pose.yaml").read_text()}
    texts = {
        "yolov8n-two.yaml": stock[""].replace("nc: 80", "nc: 2"),
        "yolov8n-grey.yaml": stock[""].replace("nc: 80", "nc: 2\nchannels: 1"),
        "yolov8n-pose-short.yaml": stock["-pose"].replace("kpt_shape: [17, 3]", "kpt_shape: [4, 2]"),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    command = ("ghost-yolo", "compare", *texts, "yolov9t.yaml")
    rows = json.loads(run(*command, "--format", "json").stdout)["rows"]
    table = run(*command, "--format", "markdown", "--imgsz", "64").stdout
    given = run("ghost-yolo", "compare", "yolov8n-two.yaml", "--nc", "5", "--format", "csv", "--imgsz", "64").stdout

    assert [(r["model"], r["nc"], r["channels"], r["kpt_shape"]) for r in rows[::2]] == [
        ("yolov8n.yaml", 2, 3, None), ("yolov8n-two.yaml", 2, 3, None),
        ("yolov8n.yaml", 2, 1, None), ("yolov8n-grey.yaml", 2, 1, None),
        ("yolov8n-pose.yaml", 1, 3, [4, 2]), ("yolov8n-pose-short.yaml", 1, 3, [4, 2]), ("yolov9t.yaml", 80, 3, None),
    ]  # fmt: skip
    assert {r["change_percent"]["parameters"] for r in rows[:-2]} == {0}
    for name in ("yolov8n.yaml, nc 2, channels 3", "yolov8n.yaml, nc 2, channels 1", "kpt_shape (4, 2)"):
        assert name in table
    assert [r["nc"] for r in csv.DictReader(io.StringIO(given))] == ["5"] * 4


def test_rows_of_csv_may_lack_columns(run: Run) -> None:
    """A model without a baseline stands before one with a baseline."""
    done = run("ghost-yolo", "compare", "yolov9t.yaml", "yolov8n.yaml", "--format", "csv", "--imgsz", "64")

    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 6


@pytest.mark.parametrize("nc", ["0", "-1", "many", "[80]", "1.5", "true"])
def test_a_yaml_without_a_number_of_classes(nc: str, tmp_path: Path) -> None:
    """A YAML's own `nc` that is no number of classes is refused by the file's name, whether another is given or not."""
    file = tmp_path / "yolov8n-odd.yaml"
    file.write_text((HOST_YAMLS / "yolov8.yaml").read_text().replace("nc: 80", f"nc: {nc}"))
    for given in (None, 2):
        with refused(ModelError, "yolov8n-odd.yaml", "nc:"):
            build_from_yaml(str(file), given)


def test_no_stock_model_beside_other_scales(run: Run) -> None:
    """A model without one of YOLOv8's scales is profiled and has no baseline."""
    rows = json.loads(run("ghost-yolo", "compare", "yolov9t.yaml", "--format", "json").stdout)["rows"]

    assert [(row["model"], row["fused"], "change_percent" in row) for row in rows] == [
        ("yolov9t.yaml", "none", False), ("yolov9t.yaml", "all", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options,named",
    [
        (["--models", str(ROOT / "cfg/yolov8-ghost.yaml")], "yolov8s-ghost"),
        (["--models", "missing.yaml"], "missing.yaml"),
        (["--models", "missing.pt"], "missing.pt"),
        (["--models", "model.txt"], "model.txt"),
        (["--models", str(ROOT / "datasets/smear.yaml")], "smear.yaml"),
        (["--scale", "q"], "--scale q"),
        (["--nc", "0"], "--nc 0"),
        (["--imgsz", "100"], "--imgsz 100"),
        (["--published", "--models", "x.yaml"], "--models"),
        (["--published", "x.yaml"], "models"),
        (["--published", "--imgsz", "640"], "--imgsz"),
        (["--models", "yolov8n-p6.yaml", "--imgsz", "608"], "stride 64"),
        (["--published", "-o", "no/such/folder/x.txt"], "no/such/folder"),
        (["--published", "-o", "."], "--out ."),
    ],
)
def test_bad_input_is_one_clear_line(options: list[str], named: str, run: Run) -> None:
    """An error of the user's is one line that names the value, and the exit status is not 0."""
    error = run("ghost-yolo", "compare", *options, ok=False).stderr

    assert named in error.splitlines()[-1] and "Traceback" not in error


def test_an_existing_file_survives_a_failure(tmp_path: Path, run: Run) -> None:
    """A failure leaves an existing output file as it was."""
    (tmp_path / "out.txt").write_text("precious")
    run("ghost-yolo", "compare", "--models", "missing.yaml", "-o", "out.txt", ok=False)

    assert (tmp_path / "out.txt").read_text() == "precious"


def test_doctor_and_cfg(run: Run) -> None:
    """Doctor finds no problem here, and its exit status is 0; cfg lists the packaged YAMLs."""
    report = run("ghost-yolo", "doctor").stdout
    listing = run("ghost-yolo", "cfg").stdout

    assert all(name in report for name in ("ultralytics", "GhostConv"))
    assert all(name in listing for name in ("yolov8-ghost ", "yolov8-gghost ", "bccd", "neu-det", "smear"))


def test_doctor_finds_the_auto_load_missing(run: Run) -> None:
    """With automatic registration off, doctor names the variable and exits with 1."""
    assert "GHOST_YOLO_AUTOLOAD=0" in run("ghost-yolo", "doctor", ok=False, GHOST_YOLO_AUTOLOAD="0").stdout

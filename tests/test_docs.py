"""Figures in the documents are recomputed, options exist, links lead somewhere, and examples run. Sentences are free."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from factories import ROOT, Run
from ultralytics.nn.modules.block import C2f

from ghost_yolo import BLOCKS
from ghost_yolo import compare as comparison
from ghost_yolo.cli import app
from ghost_yolo.report.sources import read_accuracy, read_bench
from ghost_yolo.tables import to_markdown

README = ROOT / "README.md"
DOCS = ROOT / "docs"
RESULTS = ROOT / "results"
PAGES = [
    README,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "experiments/README.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted(RESULTS.glob("*.md")),
]
# Rows of the README's tables: the model that is counted, and the record that is shown
COUNTED = {
    "`yolov8s.yaml` (stock)": ("yolov8s.yaml", "yolov8s"),
    "stock with ReLU": ("yolov8s.yaml", "yolov8s-stock-relu"),
    "`cfg/yolov8s-ghost.yaml`": ("cfg/yolov8s-ghost.yaml", "yolov8s-ghost-backbone"),
    "`cfg/yolov8s-ghostv2.yaml`": ("cfg/yolov8s-ghostv2.yaml", None),
    "Ghost everywhere with ReLU": ("yolov8s-ghost-all-relu.yaml", "yolov8s-ghost-all-relu"),
    "`cfg/yolov8s-ghostfast.yaml`": ("cfg/yolov8s-ghostfast.yaml", "yolov8s-ghostfast"),
    "`cfg/yolov8s-narrow.yaml`": ("cfg/yolov8s-narrow.yaml", "yolov8s-narrow"),
    "`yolov8s-ghost.yaml` (Ultralytics)": ("yolov8s-ghost.yaml", "yolov8s-ghost"),
}


@pytest.fixture(scope="module")
def compared() -> comparison.Comparison:
    """All packaged models at scale s."""
    return comparison.compare()


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script that writes the page of blocks."""
    monkeypatch.syspath_prepend(DOCS / "scripts")
    return importlib.import_module("blocks")


@pytest.fixture
def ghostfast(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script of the kept times."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("ghostfast")


def table_in(file: Path, mark: str) -> list[list[str]]:
    """Return the cells of the table between two marks, the header first."""
    start, end = (f"--8<-- [start:{mark}]", f"--8<-- [end:{mark}]") if file == README else (mark, f"/{mark}")
    text = file.read_text(encoding="utf-8").split(f"<!-- {start} -->\n")[1].split(f"<!-- {end} -->")[0]
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()]
    return [lines[0], *lines[2:]]


def kept_times() -> dict[tuple[str, str, str], float]:
    """Return the kept ratios to stock by model, runtime and precision."""
    files = [RESULTS / f"ghostfast-{precision}.json" for precision in ("fp32", "int8")]
    rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))["rows"]]
    return {(row["model"].removesuffix(".yaml"), row["runtime"], row["precision"]): row["ratio"] for row in rows}


@pytest.mark.parametrize("name,kb", [("models", 10), ("published-table", 5)])
def test_counted_tables(name: str, kb: int, compared: comparison.Comparison, request: pytest.FixtureRequest) -> None:
    """The tables of models are what `compare` prints, deployed rows only; kb varies with versions and may differ by 2 %."""
    file, mark = DOCS / "results" / f"{name}.md", "compare" if name == "models" else "published"
    result = compared if name == "models" else comparison.compare_published()
    header, lines = comparison.cells([entry for entry in result.entries if entry.row.fused != "none"])
    if request.config.getoption("--accept"):
        table = f"<!-- {mark} -->\n{to_markdown(header, lines)}<!-- /{mark} -->"
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(rf"(?s)<!-- {mark} -->.*<!-- /{mark} -->", lambda _: table, text), encoding="utf-8")
    shown = table_in(file, mark)

    assert shown[0] == header
    for found, line in zip(shown[1:], lines, strict=True):
        assert found[:kb] == line[:kb]
        assert float(found[kb].split()[0]) == pytest.approx(float(line[kb].split()[0]), rel=0.02)


def test_readme_blocks(compared: comparison.Comparison, ghostfast: Any, tmp_path: Path) -> None:
    """Parameters and GFLOPs of the README are counted anew; its times are the kept ones."""
    light = tmp_path / "yolov8s-ghost-all-relu.yaml"
    light.write_text(yaml.safe_dump(ghostfast.CANDIDATES["ghost-all-relu"]()), encoding="utf-8")
    entries = [*compared.entries, *comparison.compare([str(light)]).entries]
    rows = {entry.row.model.rsplit(f"{tmp_path}/")[-1]: entry.row for entry in entries if entry.row.fused == "all"}
    times = kept_times()
    shown = {line[0]: line[1:5] for line in table_in(README, "blocks")[1:]}

    assert set(shown) == set(COUNTED)
    for label, (model, record) in COUNTED.items():
        measured = [times.get((str(record), *key)) for key in (("onnx", "fp32"), ("openvino", "int8"))]
        expected = [f"{ratio:.2f}" if ratio else "not measured" for ratio in measured]
        assert shown[label] == [str(rows[model].parameters), f"{rows[model].gflops:.2f}", *expected]


def test_readme_is_one_screen() -> None:
    """The README has at most 120 lines."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_every_module_name_is_documented() -> None:
    """No block is left out of the page of module names."""
    text = (DOCS / "reference" / "module-names.md").read_text(encoding="utf-8")
    names = [block.name for block in BLOCKS if not block.name.startswith("Published")]

    assert [name for name in names if f"`{name}`" not in text and f"`ghost_yolo.{name}`" not in text] == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_options_exist(file: Path) -> None:
    """Every option that a document writes after a command of ours is one of that command's."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {name: {"--help"}.union(*(p.opts for p in command.params)) for name, command in commands.items()}
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    written = re.findall(r"\bghost-yolo ([a-z]+)([^#;&|`\n)]*)", text)
    used = [(name, option) for name, rest in written for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)]

    assert [(name, option) for name, option in used if option not in known.get(name, set())] == []


@pytest.mark.parametrize("file", [README, ROOT / "CONTRIBUTING.md"], ids=lambda file: file.name)
def test_links_exist(file: Path) -> None:
    """Relative links of pages that are read outside the site lead to files; `mkdocs build --strict` checks the site's."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8"))

    assert targets
    assert [target for target in targets if not (file.parent / target).exists()] == []


def test_times_on_the_page_are_the_kept_ones() -> None:
    """Every row of the page on speed is a row of the whole table."""
    whole = table_in(RESULTS / "ghostfast.md", "trail")

    assert [row for row in table_in(DOCS / "results" / "speed.md", "speed") if row not in whole] == []


def test_the_page_on_blocks(blocks: Any, compared: comparison.Comparison, request: pytest.FixtureRequest) -> None:
    """The page of blocks and its drawings are what the script makes of the blocks now; none is missing, none left over."""
    folder = DOCS / "reference"
    made = {"blocks.md": blocks.page(compared)} | {f"blocks/{name}": svg for name, svg in blocks.drawings().items()}
    if request.config.getoption("--accept"):
        for name, text in made.items():
            (folder / name).write_text(text, encoding="utf-8")
    kept = {file.relative_to(folder).as_posix() for file in [folder / "blocks.md", *(folder / "blocks").iterdir()]}

    assert kept == set(made)
    differ = [name for name, text in made.items() if (folder / name).read_text(encoding="utf-8") != text]
    assert differ == [], "`pytest --accept` rewrites them"


@pytest.mark.parametrize("name", [b.name for b in BLOCKS if issubclass(b.cls, C2f) and b.paper.startswith("arXiv")])
def test_the_formula_of_a_family(name: str, blocks: Any) -> None:
    """The parameters that a class's docstring writes as a formula in c are those of its inner block, at several widths."""
    (block,) = (b for b in BLOCKS if b.name == name)
    text = " ".join(blocks.paragraphs(block.cls))
    found = re.search(r"(?:With ([^`]*?), an|An) inner block of width c has `([^`]*)` parameters", text)
    assert found, "the docstring has a formula: [With a = ..., an] inner block of width c has `formula` parameters"
    for c in (64, 128, 192):
        values: dict[str, Any] = {"c": c}
        for definition in (found[1] or "").split(" and ") if found[1] else []:
            exec(definition, values)
        inner = block.cls(2 * c, 2 * c, 1, True).m[0]

        assert eval(found[2], values) == sum(p.numel() for p in inner.parameters())


def test_a_drawing_tells_what_runs(blocks: Any) -> None:
    """A drawing holds the calls of the module itself: another kernel, another addition, another drawing."""
    from dataflow import panels_of

    from ghost_yolo.blocks.mobilenet import DepthwiseSeparable

    def boxes(**options: Any) -> list[str]:
        ((_, nodes),) = panels_of(DepthwiseSeparable(8, 8, **options), (1, 8, 6, 6), "")
        return [f"{node.title} {node.channels}".replace("\u00d7", "x").strip() for node in nodes]

    assert boxes() == ["in 8", "3x3 depthwise 8", "1x1 8", "out"]
    assert boxes(k=5, shortcut=True) == ["in 8", "5x5 depthwise 8", "1x1 8", "+ 8", "out"]


def test_kept_results_say_their_conditions() -> None:
    """Every kept bench and every kept accuracy record is one that `ghost-yolo report` reads, with its conditions."""
    files = {file: json.loads(file.read_text(encoding="utf-8")) for file in RESULTS.glob("*.json")}
    timed = [file for file, content in files.items() if "rows" in content]
    trained = [file for file in files if file not in timed]

    assert timed and all(read_bench(file).conditions["cpu"] for file in timed)
    assert trained and all(record.conditions for file in trained for record in read_accuracy(file))


def test_the_example_block_works() -> None:
    """The module shown in the tutorial runs as it stands: the shape is kept and the arguments are the host's."""
    text = (DOCS / "tutorials" / "add-a-block.md").read_text(encoding="utf-8")
    module: dict[str, Any] = {"__name__": "example"}
    exec(text.split("```python\n")[1].split("```")[0], module)
    block = module["C2f_SeparableBottleneck"](16, 24, 2, True)

    assert block(torch.randn(2, 16, 7, 5)).shape == (2, 24, 7, 5)
    assert f'Block("{type(block).__name__}"' in text


def test_the_table_of_times_is_kept(ghostfast: Any) -> None:
    """The table in results/ghostfast.md is what the script prints of the JSON files beside it."""
    kept = [str(RESULTS / f"ghostfast-{precision}.json") for precision in ("fp32", "int8")]
    text = (RESULTS / "ghostfast.md").read_text(encoding="utf-8")

    assert ghostfast.show(kept) == text.split("<!-- trail -->\n")[1].split("<!-- /trail -->")[0]


@pytest.mark.slow
def test_the_notebook_runs(run: Run) -> None:
    """The first tutorial goes from the installation to a prediction; one epoch, in a fresh folder with settings of its own."""
    done = run("python", DOCS / "scripts" / "notebook.py", "--epochs", "1")

    assert "mAP50-95" in done.stdout and "boxes" in done.stdout

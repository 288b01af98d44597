"""What the documents claim is recomputed, and what they show runs."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from factories import ROOT
from PIL import Image
from ultralytics.nn.modules.block import C2f

from ghost_yolo import BLOCKS
from ghost_yolo import compare as comparison
from ghost_yolo.cli import app
from ghost_yolo.model.catalog import families
from ghost_yolo.report.sources import read_accuracy, read_bench
from ghost_yolo.tables import cells, to_markdown

README = ROOT / "README.md"
# The rows for the first screen; docs/blocks.md and the command have all
FIRST_SCREEN = {"yolov8s.yaml", "yolov8s-ghost.yaml"} | {
    f"cfg/yolov8s-{name}.yaml" for name in ("ghost", "ghostv2", "gghost", "ghostnet", "ghostfast", "narrow")
}
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def compared() -> comparison.Comparison:
    """All packaged models at scale s, which the README and the page on blocks show."""
    return comparison.compare()


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script that writes docs/blocks.md."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("blocks")


def table_in_readme(name: str) -> list[list[str]]:
    """Return the cells of the table between two marks."""
    text = README.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()]


@pytest.mark.parametrize("name,kb", [("compare", 10), ("published", 5)])
def test_readme_tables(name: str, kb: int, compared: comparison.Comparison, request: pytest.FixtureRequest) -> None:
    """The README's tables are what the command prints, deployed rows only; kb varies with versions and may differ by 2 %."""
    result = compared if name == "compare" else comparison.compare_published()
    header, lines = cells([entry for entry in result.entries if entry.row.fused != "none"])
    if name == "compare":
        lines = [line for line in lines if line[0] in FIRST_SCREEN]
    if request.config.getoption("--accept"):
        text = README.read_text(encoding="utf-8")
        table = f"<!-- {name} -->\n{to_markdown(header, lines)}<!-- /{name} -->"
        README.write_text(re.sub(rf"(?s)<!-- {name} -->.*<!-- /{name} -->", lambda _: table, text), encoding="utf-8")
    shown = table_in_readme(name)

    assert shown[0] == header
    for found, line in zip(shown[2:], lines, strict=True):
        assert found[:kb] == line[:kb]
        assert float(found[kb].split()[0]) == pytest.approx(float(line[kb].split()[0]), rel=0.02)


def test_readme_names_every_word_and_yaml() -> None:
    """No block and no packaged model is left out of the README."""
    text = README.read_text(encoding="utf-8")
    words = [block.word for block in BLOCKS if not block.word.startswith("Published")]

    assert [word for word in words if f"`{word}`" not in text and f"`ghost_yolo.{word}`" not in text] == []
    assert [name for name in families() if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "file", [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))], ids=lambda file: file.name
)
def test_options_exist(file: Path) -> None:
    """An option written after a command is that command's; one on its own is of a command that its section names."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {name: {"--help"}.union(*(p.opts for p in command.params)) for name, command in commands.items()}
    wrong = []
    for section in re.split(r"(?m)^## ", file.read_text(encoding="utf-8").replace("\\\n", " ")):
        pieces = re.split(r"`+|\n", section)  # spans of code, and lines of blocks
        written = [found for piece in pieces for found in re.findall(r"\bghost-yolo ([a-z]+)([^#;]*)", piece)]
        for name, words in written:
            options = re.findall(r"(?<!\S)--?[a-z][\w-]*", words)
            wrong += [f"{name} {option}" for option in options if option not in known[name]]
        alone = [piece.split()[0] for piece in pieces if written and piece.startswith("--")]
        wrong += [option for option in alone if not any(option in known[name] for name, _ in written)]

    assert wrong == []


def test_the_page_on_blocks(blocks: Any, compared: comparison.Comparison, request: pytest.FixtureRequest) -> None:
    """docs/blocks.md and its drawings are what the script makes of the blocks now; none is missing, none left over."""
    made = {"blocks.md": blocks.page(compared)} | {f"blocks/{name}": svg for name, svg in blocks.drawings().items()}
    if request.config.getoption("--accept"):
        for name, text in made.items():
            (DOCS / name).write_text(text, encoding="utf-8")
    kept = {file.relative_to(DOCS).as_posix() for file in [DOCS / "blocks.md", *(DOCS / "blocks").iterdir()]}

    assert kept == set(made)
    differ = [name for name, text in made.items() if (DOCS / name).read_text(encoding="utf-8") != text]
    assert differ == [], "`pytest --accept` rewrites them"


@pytest.mark.parametrize("word", [b.word for b in BLOCKS if issubclass(b.cls, C2f) and b.paper.startswith("arXiv")])
def test_the_formula_of_a_family(word: str, blocks: Any) -> None:
    """The parameters that a class's docstring writes as a formula in c are those of its inner block, at several widths."""
    (block,) = (b for b in BLOCKS if b.word == word)
    text = " ".join(blocks.paragraphs(block.cls))
    found = re.search(r"(?:With ([^`]*?), an|An) inner block of width c has `([^`]*)` parameters", text)
    assert found, "the docstring says: [With a = ..., an] inner block of width c has `formula` parameters"
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
    files = {file: json.loads(file.read_text(encoding="utf-8")) for file in (ROOT / "results").glob("*.json")}
    timed = [file for file, content in files.items() if "rows" in content]
    trained = [file for file in files if file not in timed]

    assert timed and all(read_bench(file).conditions["cpu"] for file in timed)
    assert trained and all(record.conditions for file in trained for record in read_accuracy(file))


@pytest.fixture
def redundancy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script that writes the tables of docs/redundancy.md."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("redundancy")


def test_the_page_on_redundancy(redundancy: Any, request: pytest.FixtureRequest) -> None:
    """Its tables are those of the kept results, its figures exist and are small, and what it says of them holds."""
    file = DOCS / "redundancy.md"
    text = file.read_text(encoding="utf-8")
    if request.config.getoption("--accept"):
        file.write_text(redundancy.page(text), encoding="utf-8")
    figures = re.findall(r"\(redundancy/(.*?)\)", text)
    found = redundancy.cost.compare(redundancy.stages())

    assert text == redundancy.page(text), "`pytest --accept` rewrites it"
    assert {path.name for path in (DOCS / "redundancy").iterdir()} == set(figures)
    assert all((DOCS / "redundancy" / name).stat().st_size < 300_000 for name in figures)
    assert len(found) == 9 and min(row["p_alike"] for row in found) > 0.05 / 9  # "None is."
    fitted = redundancy.cost.photographs(redundancy.cost.read(redundancy.measured_files()))
    assert fitted == {"ghost-smear25.pt": 160} | dict.fromkeys(("ghost60.pt", "narrow100.pt", "stock100.pt"), 205)
    models = {stage.model: [s for s in redundancy.stages() if s.model == stage.model] for stage in redundancy.stages()}
    hardest = [max(own, key=lambda stage: stage.alone).layer for own in models.values()]
    most = [max(own, key=lambda stage: stage.share).layer for own in models.values()]
    assert hardest == [21] * 4 and most.count(21) == 3  # "the most redundant one in three ... the hardest in all"


def test_what_the_page_says_of_filters(redundancy: Any) -> None:
    """Its sentence holds of all convolutions with filters enough: chance in layers 0 and 1, up to 0.05 elsewhere, 0.15 in the head."""
    (filters,) = redundancy.kept("pairs").values()
    rows = [row for row in filters["rows"] if row["filters"] >= 8]
    gaps = {
        part: [redundancy.gap(row) for row in rows if (row["layer"] == 22) is head]
        for part, head in (("head", True), ("rest", False))
    }
    table = redundancy.opposites(filters["rows"])[1]

    assert all(abs(redundancy.gap(row)) < row["random"]["sd"] for row in rows if row["layer"] in (0, 1))
    assert max(gaps["rest"]) == pytest.approx(0.05, abs=0.01) and max(gaps["head"]) == pytest.approx(0.15, abs=0.005)
    assert min(row["cosine"]["least"] for row in rows) == pytest.approx(-0.56, abs=0.005)
    assert len(table) == 10 and all(line[0].startswith("22.") for line in table[-3:])


def test_a_smaller_figure_keeps_its_colours(redundancy: Any, tmp_path: Path) -> None:
    """A figure too large for the page gets narrower; a pale blue beside many greys stays as it is."""
    noise = np.repeat(np.random.default_rng(0).integers(0, 256, (900, 1400, 1), dtype=np.uint8), 3, 2)
    noise[:400, :400] = (200, 220, 240)
    Image.fromarray(noise).save(tmp_path / "large.png")
    redundancy.shrink(tmp_path / "large.png", tmp_path / "small.png")
    with Image.open(tmp_path / "small.png") as small:
        assert small.width in redundancy.WIDTHS and small.getpixel((50, 50)) == (200, 220, 240)


@pytest.mark.parametrize(
    "given", [(), ("a/ghosts",), ("a/ghosts", "a/pairs", "b/ghosts", "b/pairs"), ("a/ghosts", "a/pairs")]
)
def test_incomplete_runs_replace_nothing(
    given: tuple[str, ...], redundancy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs without a model, without exactly one pairs/ or without a file are refused, and what was kept stays."""
    for folder in given:
        (tmp_path / "runs" / folder).mkdir(parents=True)
    monkeypatch.setattr(redundancy, "KEPT", tmp_path / "kept")
    redundancy.replace(tmp_path / "kept", {"old.json": b"{}"})

    with pytest.raises(
        SystemExit, match="missing: .*ghosts.json" if len(given) == 2 else "exactly one must have pairs/"
    ):
        redundancy.take_over(tmp_path / "runs")
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["old.json"]


def test_the_example_block_works() -> None:
    """The room shown in CONTRIBUTING runs as it stands: the shape is kept and the arguments are the host's."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    room: dict[str, Any] = {"__name__": "example"}
    exec(text.split("```python\n")[1].split("```")[0], room)
    block = room["C2f_SeparableBottleneck"](16, 24, 2, True)

    assert block(torch.randn(2, 16, 7, 5)).shape == (2, 24, 7, 5)
    assert f'Block("{type(block).__name__}"' in text


def test_the_trail_is_the_kept_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table in results/ghostfast.md is what the script prints of the JSON files beside it."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    kept = [str(ROOT / "results" / f"ghostfast-{precision}.json") for precision in ("fp32", "int8")]
    text = (ROOT / "results" / "ghostfast.md").read_text(encoding="utf-8")

    assert (
        importlib.import_module("ghostfast").show(kept) == text.split("<!-- trail -->\n")[1].split("<!-- /trail -->")[0]
    )

"""What the documents claim is recomputed, and what they show runs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from conftest import ROOT

from ghost_yolo import BLOCKS
from ghost_yolo.models import packaged
from ghost_yolo.report import compare as comparison
from ghost_yolo.report.render import cells, to_markdown

README = ROOT / "README.md"


def table_in_readme(name: str) -> list[list[str]]:
    """Return the cells of the table between two marks."""
    text = README.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()]


@pytest.mark.parametrize("name,kb", [("compare", 10), ("published", 5)])
def test_readme_tables(name: str, kb: int, request: pytest.FixtureRequest) -> None:
    """The README's tables are what the command prints; only kb, which varies with versions, may differ by 2 %."""
    result = comparison.compare() if name == "compare" else comparison.compare_published()
    header, lines = cells(result.entries)
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
    assert [n for n, item in packaged().items() if item.path.parent.name == "cfg" and f"`{n}`" not in text] == []


def test_kept_results_say_their_conditions() -> None:
    """Every kept accuracy record has the agreed keys."""
    keys = {"model", "data", "split", "imgsz", "epochs", "seed", "map50_95", "map50", "conditions"}
    files = list((ROOT / "results").glob("*.json"))

    assert files
    assert [file.name for file in files if not keys <= set(json.loads(file.read_text()))] == []


def test_the_example_block_works() -> None:
    """The room shown in CONTRIBUTING runs as it stands: the shape is kept and the arguments are the host's."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    room: dict[str, Any] = {"__name__": "example"}
    exec(text.split("```python\n")[1].split("```")[0], room)
    block = room["C2f_SeparableBottleneck"](16, 24, 2, True)

    assert block(torch.randn(2, 16, 7, 5)).shape == (2, 24, 7, 5)
    assert f'Block("{type(block).__name__}"' in text

"""The tables and figures on redundancy come from the kept results; incomplete runs replace nothing."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import ROOT
from PIL import Image

DOCS = ROOT / "docs"


@pytest.fixture
def redundancy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script that writes the tables on redundancy."""
    monkeypatch.syspath_prepend(DOCS / "scripts")
    return importlib.import_module("redundancy")


def test_the_page_on_redundancy(redundancy: Any, request: pytest.FixtureRequest) -> None:
    """Its tables are those of the kept results, and its figures exist and are small."""
    file = DOCS / "results" / "redundancy.md"
    if request.config.getoption("--accept"):
        file.write_text(redundancy.page(file.read_text(encoding="utf-8")), encoding="utf-8")
    text = file.read_text(encoding="utf-8")
    figures = re.findall(r"\(redundancy/(.*?)\)", text)

    assert text == redundancy.page(text), "`pytest --accept` rewrites it"
    assert {path.name for path in (file.parent / "redundancy").iterdir()} == set(figures)
    assert all((file.parent / "redundancy" / name).stat().st_size < redundancy.MAX_BYTES for name in figures)


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

"""The model card: README.md of a bundle."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2

from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.tables import to_text


def render_card(work: Path, files: Sequence[dict[str, Any]], outputs: Mapping[str, Sequence[str]], **more: Any) -> str:
    """Return the card of the bundle in a folder.

    Args:
        work: The folder with model.yaml and times.json.
        files: What was measured of every file.
        outputs: How the outputs of every file differ from PyTorch's.
        more: `warnings`, and `counts` of photographs: `fitted`, `choosing`, `scored`, and whether the last two are `shared`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ghost_yolo.bundle", "."),
        autoescape=False,  # noqa: S701 (Markdown, of our own numbers and the model's names)
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = lambda text: html.escape(
        " ".join(str(text).split()), quote=False
    )  # of a foreign checkpoint
    model, times = (json.loads((work / name).read_text(encoding="utf-8")) for name in ("model.yaml", "times.json"))
    defaults = [row for row in times["rows"] if row["precision"] == "default"]
    titles = {name: row.title for name, row in RUNTIMES.items()}
    known = {"model": model, "times": times, "files": files, "outputs": outputs, "defaults": defaults, "titles": titles}
    known["web"] = (work / "web").is_dir()
    return environment.get_template("card.md").render(**known, **more, day=f"{datetime.now(timezone.utc):%Y-%m-%d}")


def render_table(files: Sequence[dict[str, Any]]) -> str:
    """Return what was measured of every file as text."""
    header = ["file", "MB", "network ms", "photograph to boxes ms", "agreement"]
    lines = [
        [
            file["name"],
            f"{file['file_mb']:.1f}",
            f"{file['times']['median_ms']:.2f}",
            f"{file['times']['end_to_end_ms']:.2f}",
            f"{file['agreement']['map50_95']:.3f}" if file["agreement"] else "",
        ]
        for file in files
    ]
    return to_text(header, lines)

"""Write tables as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

FORMATS = ("text", "markdown", "csv", "json")
WIDTH = 400  # wider than any table, so that piped output is not cut


@dataclass(frozen=True)
class Report:
    """Content of a report, independent of its format.

    Attributes:
        rows: Raw values, one dict for each row; in CSV a nested dict becomes several columns.
        tables: Header and lines of each table in text and Markdown.
        conventions: Definition of each figure.
        notes: Paragraphs below the tables.
        more: Further entries of the JSON object.
    """

    rows: list[dict[str, Any]]
    tables: list[tuple[list[str], list[list[str]]]]
    conventions: dict[str, str]
    notes: list[str]
    more: dict[str, Any] = field(default_factory=dict)


def render_report(report: Report, versions: dict[str, str], style: str) -> str:
    """Return a report in one of FORMATS, ending in a newline."""
    if style == "json":
        content = {"conventions": report.conventions, "versions": versions, **report.more, "rows": report.rows}
        return json.dumps(content, indent=2) + "\n"
    if style == "csv":
        return to_csv(report.rows)
    notes = [
        *report.notes,
        *(f"{name}: {meaning}." for name, meaning in report.conventions.items()),
        "Made with " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    draw, gap = (to_markdown, "\n\n") if style == "markdown" else (to_text, "\n")
    return "".join(draw(*table) + "\n" for table in report.tables) + gap.join(notes) + "\n"


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return one line for each row; a nested value is in a column such as `published_layers`."""
    flat = []
    for row in rows:
        nested = {k: v for k, v in row.items() if isinstance(v, dict)}
        flat.append(
            {k: v for k, v in row.items() if k not in nested}
            | {f"{outer}_{inner}": value for outer, values in nested.items() for inner, value in values.items()}
        )
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def format_percent(value: float | None) -> str:
    """Return a signed percentage; "" for the baseline itself."""
    return "" if not value else f"{value:+.1f} %"


def to_markdown(header: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table with numbers aligned right."""
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def to_text(header: list[str], lines: list[list[str]]) -> str:
    """Return the table as rich draws it, without colour and independent of the terminal's width."""
    table = Table(show_edge=False, box=box.SIMPLE_HEAD)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    out = io.StringIO()
    Console(file=out, width=WIDTH, color_system=None, markup=False, emoji=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())

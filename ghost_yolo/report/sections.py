"""What a section of the page is made of."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from ghost_yolo.report import figures


@dataclass(frozen=True)
class Plot:
    """A figure with its file name, alternative text and caption."""

    name: str
    figure: Figure
    alt: str
    caption: str

    @property
    def source(self) -> str:
        """The figure as a data URI."""
        return "data:image/svg+xml;base64," + b64encode(figures.svg(self.figure)).decode()


@dataclass(frozen=True)
class Table:
    """Header and lines; the first column names the line."""

    caption: str
    header: list[str]
    lines: list[list[str]]


@dataclass(frozen=True)
class Section:
    """A section of the page: paragraphs, a list, plots and tables, and definitions."""

    anchor: str
    title: str
    texts: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    blocks: list[Plot | Table] = field(default_factory=list)
    terms: dict[str, str] = field(default_factory=dict)

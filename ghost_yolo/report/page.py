"""The report as one HTML page: what was measured comes in, sections of words, figures and tables go out."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from ghost_yolo.bench.tables import CONVENTIONS as TIMED
from ghost_yolo.bench.tables import number
from ghost_yolo.compare import ComparedRow, Comparison, cells
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import is_stock, labels
from ghost_yolo.model.profile import CONVENTIONS as COUNTED
from ghost_yolo.report import figures, summary
from ghost_yolo.report.collect import Found
from ghost_yolo.report.sources import Bench, Group, Timed, Trained
from ghost_yolo.tables import format_percent
from ghost_yolo.utils.files import write_whole
from ghost_yolo.utils.system import versions

KINDS = ("scales", "time", "ratios", "profile", "accuracy")  # how the names of our PNGs begin


@dataclass(frozen=True)
class Picture:
    """A figure with its name as a file, its alternative text and its caption."""

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
    """A part of the page."""

    anchor: str
    title: str
    texts: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    blocks: list[Picture | Table] = field(default_factory=list)
    terms: dict[str, str] = field(default_factory=dict)


def figures_folder(out: Path) -> Path:
    """Return the folder for the PNGs of a page, or raise an error, before any work, where there cannot be one."""
    folder = out.with_name(f"{out.stem}-figures")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {out}: its figures go into {folder}, which is a file; name another page.")
    return folder


def write_page(out: Path, found: Found) -> None:
    """Write the page and, beside it, its figures as PNG; each file appears whole, and figures of an earlier page go."""
    sections = sections_of(found)
    html = page(sections, datetime.now(timezone.utc))
    pictures = [block for section in sections for block in section.blocks if isinstance(block, Picture)]
    made = {f"{picture.name}.png": figures.png(picture.figure) for picture in pictures}
    folder = figures_folder(out)
    folder.mkdir(exist_ok=True)
    for name, content in made.items():
        write_whole(folder / name, content)
    for file in folder.glob("*.png"):
        if file.name.split("-")[0] in KINDS and file.name not in made:
            file.unlink()
    write_whole(out, html)


def page(sections: list[Section], moment: datetime) -> str:
    """Return the page; every text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["picture"] = lambda block: isinstance(block, Picture)
    template = environment.get_template("template.html")
    return template.render(sections=sections, moment=f"{moment:%Y-%m-%d %H:%M} UTC", versions=versions())


def sections_of(found: Found) -> list[Section]:
    """Return the page's parts; one for which nothing was measured is left out."""
    return [
        summary_section(found),
        published_section(found.published),
        scales_section(found.scales),
        *([time_section(found.benches)] if found.benches else []),
        *([profile_section(found.benches)] if any(g.profile for b in found.benches for g in b.groups) else []),
        *([accuracy_section(found)] if found.trained else []),
        conditions_section(found),
    ]


def summary_section(found: Found) -> Section:
    """Return what the figures say, in words."""
    points = [
        summary.published(found.published),
        summary.scales(found.scales),
        *(line for bench in found.benches for group in bench.groups for line in summary.time(group)),
    ]
    texts = [] if found.benches else ["No times were measured: fewer GFLOPs are not yet less time."]
    return Section("summary", "In short", texts, points)


def published_section(result: Comparison) -> Section:
    """Return the widely copied table beside what its models measure."""
    header, lines = cells(result.entries)
    table = Table("Measured / published, and whether they agree (kb within 2 %)", header, lines)
    return Section("published", "The published table, taken apart", [result.footer], blocks=[table])


def scales_section(scales: dict[str, list[ComparedRow]]) -> Section:
    """Return each model's change against stock of the same scale."""
    names = {entry.row.model: summary.family(entry.row.model) for entries in scales.values() for entry in entries}
    shown = [name for name in dict.fromkeys(names.values()) if name != summary.STOCK]
    blocks: list[Picture | Table] = []
    for figure, title in (("gflops", "GFLOPs"), ("parameters", "parameters")):
        changes = summary.changes(scales, figure)
        order = sorted(shown, key=lambda name: sum(changes[name].values()) / len(changes[name]))
        parts = {name: {scale: 1 + change / 100 for scale, change in changes[name].items()} for name in order}
        alt = f"Dots for {len(order)} models: {title} divided by stock's at the scales {', '.join(scales)}. The table has the figures."
        caption = f"{title} as part of the stock model's of the same scale, as deployed; left of the line is lighter."
        blocks.append(Picture(f"scales-{figure}", figures.scales_figure(parts, title), alt, caption))
        lines = [[name, *(format_percent(changes[name].get(scale)) or "0.0 %" for scale in scales)] for name in order]
        blocks.append(Table(f"Change in {title} against stock of the same scale", ["model", *scales], lines))
    text = f"Each light model beside stock YOLOv8 of its own scale, {summary.sizes(scales)}, every BN merged."
    return Section("scales", "Like for like, at every scale", [text], blocks=blocks)


def time_section(benches: list[Bench]) -> Section:
    """Return GFLOPs against time, and what both are as parts of the first model's."""
    texts = ["A point below the line through the stock models is faster than a stock model of its GFLOPs would be."]
    blocks: list[Picture | Table] = []
    for bench in benches:
        for group in bench.groups:
            blocks += time_blocks(bench, group)
    return Section("time", "GFLOPs against measured time", texts, blocks=blocks)


def time_blocks(bench: Bench, group: Group) -> list[Picture | Table]:
    """Return the figures and the table of one runtime and precision."""
    names, made = labels([row.model for row in [*group.rows, *group.failed]]), list[Picture | Table]()
    tag = bench.prefix + summary.slug(group.title)
    title = f"{group.title}, {group.sizes} ({bench.source})"
    if sum(bool(row.gflops) for row in group.rows) > 1:
        alt = f"Scatter of GFLOPs against milliseconds, {len(group.rows)} models, {title}. The table has the figures."
        stock = any(is_stock(row.model) for row in group.rows)
        caption = f"{title}." + (" Squares and line: stock models." if stock else "")
        made.append(Picture(f"time-{tag}", figures.time_figure(group.rows, names), alt, caption))
    rivals = summary.rivals(group)
    if rivals:
        alt = f"Bars of GFLOPs and time as parts of {names[rivals[0].model]}'s, {title}. The table has the figures."
        caption = f"{title}. Where the time's bar is the longer one, saved GFLOPs are not all saved time."
        drawn = figures.ratios_figure(rivals[1:], names, rivals[0])
        made.append(Picture(f"ratios-{tag}", drawn, alt, caption))
    header = ["model", "ms", "time / first", "95 %", "GFLOPs", "GFLOPs / first", "realised gain"]
    lines = [time_cells(row, group.rows[0], names) for row in group.rows]
    lines += [[names[row.model], f"not measured: {row.error}", *[""] * 5] for row in group.failed]
    return [*made, Table(title, header, lines)]


def time_cells(row: Timed, first: Timed, names: dict[str, str]) -> list[str]:
    """Return a line of the table of times."""
    interval = f"{number(row.ratio_low, 3)} to {number(row.ratio_high, 3)}" if row.ratio_low else ""
    known = row.ratio is not None  # otherwise the first model has no time, and no row is it
    return [
        names[row.model],
        number(row.median_ms),
        number(row.ratio, 3),
        interval,
        number(row.gflops),
        number(row.gflops_part(first) if known else None, 3),
        number(row.realised_gain),
    ]


def profile_section(benches: list[Bench]) -> Section:
    """Return where the time goes, by operator kind."""
    blocks: list[Picture | Table] = []
    for bench in benches:
        for group in bench.groups:
            if not group.profile:
                continue
            names, kinds = labels(list(group.profile)), figures.shown_kinds(group.profile)
            tag = bench.prefix + summary.slug(group.title)
            title = f"{group.title} ({bench.source})"
            alt = f"Stacked bars of milliseconds by operator kind, {title}. The table has the figures."
            drawn = figures.profile_figure(group.profile, names)
            blocks.append(Picture(f"profile-{tag}", drawn, alt, f"{title}: where the time goes."))
            lines = [
                [names[model], *(f"{ms:.2f}" for ms in figures.times(row, kinds).values())]
                for model, row in group.profile.items()
            ]
            blocks.append(Table(f"Milliseconds, {title}", ["model", *kinds, figures.OTHERS], lines))
    text = "Profiling itself costs time: compare the parts of a bar, and take times from the section before."
    return Section("profile", "Where the time goes", [text], blocks=blocks)


def accuracy_section(found: Found) -> Section:
    """Return accuracy against GFLOPs and time, one figure for each task and axis."""
    names = labels([record.model for record in found.trained])
    blocks: list[Picture | Table] = []
    for task_number, (task, records) in enumerate(summary.by_task(found.trained).items(), 1):
        for place, (axis, across) in enumerate(summary.axes(found, records).items(), 1):
            points, ends = summary.accuracy_points(records, across, names)
            drawn = figures.scatter(points, axis, "mAP50-95", ends)
            alt = f"Scatter of mAP50-95 against {axis}, {len(points)} models, {task}. The table has the figures."
            caption = f"{task}. Whiskers: the record's interval, or least and most over seeds. Squares and line: stock."
            blocks.append(Picture(f"accuracy-{task_number}-{place}", drawn, alt, caption))
        blocks.append(Table(task, ["model", "seed", "mAP50-95", "interval", "mAP50"], [accuracy_cells(r, names) for r in records]))  # fmt: skip
    terms = {f"{names[record.model]}, {record.task}, seed {record.seed}": record.conditions for record in found.trained}
    return Section("accuracy", "Accuracy", ["The records given, as their runs wrote them."], [], blocks, terms)


def accuracy_cells(record: Trained, names: dict[str, str]) -> list[str]:
    """Return a line of the table of accuracies."""
    low, high = record.map50_95_low, record.map50_95_high
    interval = f"{number(low, 3)} to {number(high, 3)}" if low is not None and high is not None else ""
    return [names[record.model], str(record.seed), number(record.map50_95, 3), interval, number(record.map50, 3)]


def conditions_section(found: Found) -> Section:
    """Return on what the figures depend, and how each is counted."""
    terms: dict[str, Any] = {}
    for bench in found.benches:
        said = {**bench.conditions, **bench.versions}
        terms[bench.source] = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items())
    shown = TIMED if found.benches else {}
    return Section("conditions", "Conditions and conventions", terms={**terms, **COUNTED, **shown})

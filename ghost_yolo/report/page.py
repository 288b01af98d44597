"""Write the report as one HTML page: sections with text, plots and tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import jinja2

from ghost_yolo.bench.results import BenchResult, BenchRow, group_rows
from ghost_yolo.bench.tables import CONVENTIONS as BENCH_CONVENTIONS
from ghost_yolo.bench.tables import JSON_ONLY, interval, number
from ghost_yolo.compare import ComparedRow, Comparison, cells
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import is_stock, labels
from ghost_yolo.model.profile import CONVENTIONS as PROFILE_CONVENTIONS
from ghost_yolo.report import figures, summary
from ghost_yolo.report.collect import ReportData
from ghost_yolo.report.deployed import deployed_section
from ghost_yolo.report.sections import Plot, Section, Table
from ghost_yolo.report.sources import AccuracyRecord
from ghost_yolo.tables import format_percent
from ghost_yolo.utils.files import write_atomic
from ghost_yolo.utils.system import versions

PLOTS = ("scales", "time", "ratios", "profile", "accuracy", "deployed")  # how the names of our PNG files begin
TIME_HEADER = ["model", "ms", "time / first", "95 % CI", "GFLOPs", "GFLOPs / first", "realised gain"]


@dataclass(frozen=True)
class _Timing:
    """The rows of one runtime and precision, and how its plots are named."""

    rows: list[BenchRow]
    title: str
    tag: str
    names: dict[str, str]


def figures_folder(out: Path) -> Path:
    """Return the folder for the PNG files of a page.

    Raises:
        UserError: If a file of that name exists.
    """
    folder = out.with_name(f"{out.stem}-figures")
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"--out {out}: the figures are written to the folder {folder}, which is a file; name another page."
        )
    return folder


def write_page(out: Path, data: ReportData) -> None:
    """Write the page, and its plots as PNG files beside it; plots of an earlier page are removed."""
    sections = build_sections(data)
    html = render_page(sections, datetime.now(timezone.utc))
    plots = [block for section in sections for block in section.blocks if isinstance(block, Plot)]
    images = {f"{plot.name}.png": figures.png(plot.figure) for plot in plots}
    folder = figures_folder(out)
    folder.mkdir(exist_ok=True)
    for name, content in images.items():
        write_atomic(folder / name, content)
    for file in folder.glob("*.png"):
        if file.name.split("-")[0] in PLOTS and file.name not in images:
            file.unlink()
    write_atomic(out, html)


def render_page(sections: list[Section], moment: datetime) -> str:
    """Return the page as HTML; every text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["plot"] = lambda block: isinstance(block, Plot)
    template = environment.get_template("template.html")
    return template.render(sections=sections, moment=f"{moment:%Y-%m-%d %H:%M} UTC", versions=versions())


def build_sections(data: ReportData) -> list[Section]:
    """Return the sections of the page; a section without data is left out."""
    profiled = any(row.operators for result in data.benches.values() for row in result.rows)
    return [
        summary_section(data),
        published_section(data.published),
        scales_section(data.scales),
        *([time_section(data)] if data.benches else []),
        *([profile_section(data)] if profiled else []),
        *([accuracy_section(data)] if data.accuracies else []),
        *([deployed_section(data.deployed)] if data.deployed else []),
        conditions_section(data.benches),
    ]


def summary_section(data: ReportData) -> Section:
    """Return the results in a few sentences."""
    groups = [rows for result in data.benches.values() for rows in group_rows(result.rows).values()]
    points = [
        summary.summarise_published(data.published),
        summary.summarise_scales(data.scales),
        *(line for rows in groups for line in summary.summarise_times(rows)),
    ]
    missing = "This report has no times. Fewer GFLOPs do not imply a faster model: measure with `ghost-yolo bench`."
    return Section("summary", "Summary", [] if data.benches else [missing], points)


def published_section(result: Comparison) -> Section:
    """Return the published table beside the values that its models measure."""
    header, lines = cells(result.entries)
    table = Table("Measured / published, and whether they match (kb within 2 %)", header, lines)
    return Section("published", "The published table", [result.footer], blocks=[table])


def scales_section(scales: dict[str, list[ComparedRow]]) -> Section:
    """Return each model's change in GFLOPs and parameters against the stock model of the same scale."""
    blocks = [block for figure in ("GFLOPs", "parameters") for block in _scales_blocks(scales, figure)]
    text = f"Each light model compared with the stock YOLOv8 of its scale, {summary.describe_size(scales)}, BatchNorm fused."
    return Section("scales", "Models at the same scale", [text], blocks=blocks)


def _scales_blocks(scales: dict[str, list[ComparedRow]], figure: str) -> list[Plot | Table]:
    """Return plot and table of one figure."""
    changes = summary.changes(scales, figure.lower())
    names = [name for name in changes if name != summary.STOCK]
    names.sort(key=lambda name: sum(changes[name].values()) / len(changes[name]))
    ratios = {name: {scale: 1 + change / 100 for scale, change in changes[name].items()} for name in names}
    alt = f"Dot plot of {len(names)} models: {figure} / {figure} of the stock model at the scales {', '.join(scales)}. The table lists the values."
    title = figure[0].upper() + figure[1:]
    caption = f"{title} relative to the stock model of the same scale, fused. Left of the line: fewer {figure}."
    lines = [[name, *(format_percent(changes[name].get(scale)) or "0.0 %" for scale in scales)] for name in names]
    return [
        Plot(f"scales-{figure.lower()}", figures.scales_figure(ratios, figure), alt, caption),
        Table(f"Change in {figure} against the stock model of the same scale", ["model", *scales], lines),
    ]


def _timings(data: ReportData) -> Iterator[_Timing]:
    """Yield every runtime and precision of every benchmark."""
    for prefix, (source, result) in zip(summary.prefixes(data), data.benches.items(), strict=True):
        for backend, rows in group_rows(result.rows).items():
            title, tag = f"{backend}, {rows[0].workload} ({source})", prefix + summary.slug(backend)
            yield _Timing(rows, title, tag, labels([row.model for row in rows]))


def time_section(data: ReportData) -> Section:
    """Return GFLOPs and time of every model."""
    text = "A model below the line of the stock models is faster than a stock model with the same GFLOPs."
    blocks = [block for timing in _timings(data) for block in time_blocks(timing)]
    return Section("time", "GFLOPs and measured time", [text], blocks=blocks)


def time_blocks(timing: _Timing) -> list[Plot | Table]:
    """Return plots and table of one runtime and precision."""
    timed, names, title = [row for row in timing.rows if row.measured], timing.names, timing.title
    blocks: list[Plot | Table] = []
    if sum(bool(row.gflops) for row in timed) > 1:
        alt = f"Scatter plot of GFLOPs and milliseconds of {len(timed)} models, {title}. The table lists the values."
        caption = f"{title}." + (
            " Squares and line: stock models." if any(is_stock(row.model) for row in timed) else ""
        )
        blocks.append(Plot(f"time-{timing.tag}", figures.time_figure(timed, names), alt, caption))
    compared = summary.comparable_rows(timing.rows)
    if compared:
        first = compared[0]
        alt = f"Bar chart of GFLOPs and time relative to {names[first.model]}, {title}. The table lists the values."
        caption = f"{title}. A time bar longer than the GFLOPs bar: the time fell less than the GFLOPs."
        drawn = figures.ratios_figure(compared[1:], names, first)
        blocks.append(Plot(f"ratios-{timing.tag}", drawn, alt, caption))
    lines = [time_cells(row, timed[0], names) for row in timed]
    lines += [[names[row.model], f"not measured: {row.error}", *[""] * 5] for row in timing.rows if not row.measured]
    return [*blocks, Table(title, TIME_HEADER, lines)]


def time_cells(row: BenchRow, first: BenchRow, names: dict[str, str]) -> list[str]:
    """Return a line of the table of times."""
    known = row.ratio is not None  # otherwise the first model was not measured, and `first` is another one
    return [
        names[row.model],
        number(row.median_ms),
        number(row.ratio, 3),
        interval(row.ratio_low, row.ratio_high),
        number(row.gflops),
        number(row.gflops_ratio(first) if known else None, 3),
        number(row.realised_gain),
    ]


def profile_section(data: ReportData) -> Section:
    """Return the time by operator type."""
    blocks: list[Plot | Table] = []
    for timing in _timings(data):
        profile = {row.model: row.operators for row in timing.rows if row.operators}
        if not profile:
            continue
        shown = figures.largest_operators(profile)
        alt = f"Stacked bar chart of milliseconds by operator type, {timing.title}. The table lists the values."
        drawn = figures.profile_figure(profile, timing.names)
        blocks.append(Plot(f"profile-{timing.tag}", drawn, alt, f"{timing.title}: time by operator type."))
        lines = [
            [timing.names[model], *(f"{ms:.2f}" for ms in figures.operator_times(operators, shown).values())]
            for model, operators in profile.items()
        ]
        blocks.append(Table(f"Milliseconds, {timing.title}", ["model", *shown, figures.OTHERS], lines))
    text = "Profiling adds overhead: compare the shares of a bar here, and total times in the section above."
    return Section("profile", "Time by operator type", [text], blocks=blocks)


def accuracy_section(data: ReportData) -> Section:
    """Return accuracy against GFLOPs and time, one plot for each task and cost."""
    names = labels([record.model for record in data.accuracies])
    blocks: list[Plot | Table] = []
    for number_of_task, (task, records) in enumerate(summary.group_by_task(data.accuracies).items(), 1):
        for number_of_axis, (axis, costs) in enumerate(summary.accuracy_axes(data, records).items(), 1):
            points, ends = summary.accuracy_points(records, costs, names)
            drawn = figures.scatter(points, axis, "mAP50-95", ends)
            alt = f"Scatter plot of mAP50-95 and {axis} of {len(points)} models, {task}. The table lists the values."
            caption = f"{task}. Error bars: the record's interval, or minimum and maximum over seeds. Squares and line: stock models."
            blocks.append(Plot(f"accuracy-{number_of_task}-{number_of_axis}", drawn, alt, caption))
        lines = [accuracy_cells(record, names) for record in records]
        blocks.append(Table(task, ["model", "seed", "mAP50-95", "interval", "mAP50"], lines))
    terms = {
        f"{names[record.model]}, {record.task}, seed {record.seed}": record.conditions for record in data.accuracies
    }
    text = "Accuracies come from the given records; they are not measured here."
    return Section("accuracy", "Accuracy", [text], [], blocks, terms)


def accuracy_cells(record: AccuracyRecord, names: dict[str, str]) -> list[str]:
    """Return a line of the table of accuracies."""
    bounds = interval(record.map50_95_low, record.map50_95_high)
    return [names[record.model], str(record.seed), number(record.map50_95, 3), bounds, number(record.map50, 3)]


def conditions_section(benches: dict[str, BenchResult]) -> Section:
    """Return the machine and versions of every benchmark, and the definition of every figure."""
    terms = {source: _describe({**result.conditions, **result.versions}) for source, result in benches.items()}
    shown = {name: text for name, text in BENCH_CONVENTIONS.items() if name not in JSON_ONLY} if benches else {}
    return Section("conditions", "Conditions and conventions", terms={**terms, **PROFILE_CONVENTIONS, **shown})


def _describe(conditions: dict[str, object]) -> str:
    """Return conditions in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in conditions.items())

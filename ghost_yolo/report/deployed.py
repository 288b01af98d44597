"""The files that are deployed: accuracy against measured time, and which of them another file beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ghost_yolo.bench.tables import interval, number
from ghost_yolo.errors import SourceError
from ghost_yolo.model.catalog import labels
from ghost_yolo.report import figures
from ghost_yolo.report.sections import Plot, Section, Table
from ghost_yolo.utils.json_file import Fields, read_json

NO_LINE = "The Pareto front of the stock files that were timed has less than two, so there is no line."
STOCK = "stock"  # key of the models through which the line goes
TABLE_HEADER = ["file", "mAP50-95", "95 % interval", "time / first", "95 % interval", "above the line", "dominated"]


@dataclass(frozen=True)
class DeployedFile:
    """An exported file that was evaluated and timed.

    Attributes:
        label: Name of the model.
        deployment: Runtime and precision, such as `openvino-int8`.
        is_stock: Whether it is a stock model.
        score: mAP50-95.
        score_ends: Its interval.
        time: Ratio of its time to that of the baseline.
        time_ends: The interval of that, of no length where it has none.
        above: mAP50-95 less that of the line of stock at the slow end of the time's interval, with its interval; None where nobody
            has computed it.
    """

    label: str
    deployment: str
    is_stock: bool
    score: float
    score_ends: tuple[float, float]
    time: float
    time_ends: tuple[float, float]
    above: tuple[float, ...] | None = None

    @property
    def title(self) -> str:
        """Model and deployment."""
        return f"{self.label} {self.deployment}"


@dataclass(frozen=True)
class DeployedFiles:
    """The files of a data set.

    Attributes:
        split: On which they were evaluated.
        baseline: The file to whose time the others' are relative.
        conditions: What all of them share.
        files: Those that were timed.
    """

    split: str
    baseline: str
    conditions: str
    files: list[DeployedFile]


def read_deployed(file: Path) -> DeployedFiles:
    """Read the table of exported files that the experiments write.

    Raises:
        SourceError: If the file is anything else.
    """
    try:
        content = read_json(file)
        baseline = content.object("timing").text("baseline")
        rows = [_read_row(row) for row in content.rows("rows") if "time_ratio" in row]
        if not rows:
            raise content.error("no row has a time_ratio")
        return DeployedFiles(content.text("split"), baseline, content.text("conditions"), rows)
    except SourceError as error:
        raise SourceError(
            f"--deployed {file} is not a table of exported files ({error}). It has split, conditions, timing.baseline, and rows with "
            "label, key (stock for a stock model), deployment (such as openvino-int8), score and its interval as a list "
            "of three, time_ratio, and time_interval, two numbers above 0 or null; above, if there, is a list of three too."
        ) from error


def _read_row(row: Fields) -> DeployedFile:
    """Return a file; the time is within its interval, and a score may lie outside of that of a bootstrap."""
    if not all(row.text("deployment").partition("-")[::2]):
        raise row.error(
            f"deployment is {row.text('deployment')!r}, not a runtime and a precision such as openvino-int8"
        )
    score, low, high = _numbers(row, "score", 3, 1.0)
    time = row.positive("time_ratio")
    ends = _numbers(row, "time_interval", 2, low=1e-9) if "time_interval" in row else [time, time]
    above = _numbers(row, "above", 3, 1.0, -1.0) if "above" in row else []
    for name, bottom, top in (("score", low, high), ("above", *(above[1:] or (0, 0)))):
        if bottom > top:
            raise row.error(f"the interval of {name} ends at {top:g}, below its begin {bottom:g}")
    if not ends[0] <= time <= ends[1]:
        raise row.error(f"time_ratio {time:g} is not within its interval, {ends[0]:g} to {ends[1]:g}")
    return DeployedFile(
        label=row.text("label"),
        deployment=row.text("deployment"),
        is_stock=row.text("key") == STOCK,
        score=score,
        score_ends=(low, high),
        time=time,
        time_ends=(ends[0], ends[1]),
        above=tuple(above) if above else None,
    )


def _numbers(row: Fields, name: str, count: int, high: float = 1e9, low: float = 0.0) -> list[float]:
    """Return a list of so many numbers within bounds."""
    values = row.value(name)
    if not isinstance(values, list) or len(values) != count:
        raise row.error(f"{name} is not a list of {count} numbers")
    entries = Fields({f"{name}[{index}]": value for index, value in enumerate(values)}, row.place)
    return [entries.number(entry, high, low) for entry in entries.content]


def line_of(files: Sequence[DeployedFile]) -> list[DeployedFile]:
    """Return the stock files through which the line goes, their Pareto front of time and score, the fastest first."""
    stock = [file for file in files if file.is_stock]
    return sorted((file for file in stock if not is_dominated(file, stock)), key=lambda file: file.time)


def is_dominated(file: DeployedFile, files: Sequence[DeployedFile]) -> bool:
    """Return whether another file is at least as fast and as accurate, and better in one of them."""
    own = (-file.time, file.score)
    others = ((-other.time, other.score) for other in files)
    return any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in others)


def short_deployments(files: Sequence[DeployedFile]) -> dict[str, str]:
    """Return the deployments as a plot names them: by their precision alone where there is one of each."""
    known = list(dict.fromkeys(file.deployment for file in files))
    precisions = [name.partition("-")[2] for name in known]
    return dict(zip(known, precisions if len(set(precisions)) == len(known) else known, strict=True))


def caption(files: Sequence[DeployedFile]) -> str:
    """Describe the plot."""
    line = line_of(files)
    joined = f"The line joins {', '.join(file.title for file in line)}, the Pareto front of the stock files."
    meant = [f"{short} is {name}" for name, short in short_deployments(files).items() if short != name]
    names = f" In names, {', '.join(meant)}." if meant else ""
    return (
        f"{joined if len(line) > 1 else NO_LINE} The axis of time is logarithmic. Bars are 95 % intervals; squares are stock. "
        f"Grey: the point of another file is both as fast and as accurate; intervals may overlap.{names}"
    )


def draw(table: DeployedFiles) -> Figure:
    """Return the plot of scores against ratios of times."""
    files = table.files
    short, deployments = labels([file.label for file in files]), short_deployments(files)
    return figures.scatter(
        [
            (file.time, file.score, f"{short[file.label]} {deployments[file.deployment]}", file.is_stock)
            for file in files
        ],
        f"time / time of {table.baseline}",
        f"{table.split} mAP50-95, 95 % interval",
        error_bars=[file.score_ends for file in files],
        x_bars=[file.time_ends for file in files],
        line=[files.index(file) for file in line_of(files)],
        grey={index for index, file in enumerate(files) if is_dominated(file, files)},
        log_x=True,
    )


def deployed_section(tables: Sequence[DeployedFiles]) -> Section:
    """Return plot and table of each data set."""
    blocks, terms = list[Plot | Table](), dict[str, str]()
    for index, table in enumerate(tables, 1):
        files = table.files
        alt = f"Scatter plot of mAP50-95 and time of {len(files)} exported files. The table lists the values."
        data = table.conditions.partition(",")[0]
        blocks.append(Plot(f"deployed-{index}", draw(table), alt, f"{data}, {table.split}. {caption(files)}"))
        lines = [[file.title, *_cells(file), "yes" if is_dominated(file, files) else ""] for file in files]
        blocks.append(Table(f"{table.split}; time / time of {table.baseline}", TABLE_HEADER, lines))
        terms[f"{index}. {table.split}"] = table.conditions
    text = (
        "Each exported file with its own accuracy and time. Left of and above the line: better than stock at the scales shown. "
        "Above the line: mAP50-95 less that of the line at the slow end of the time's interval, where the record has it; beyond its "
        "ends the line is level."
    )
    return Section("deployed", "Deployed files", [text], [], blocks, terms)


def _cells(file: DeployedFile) -> list[str]:
    """Return the figures with their intervals."""
    above = "{:+.3f} ({:+.3f} to {:+.3f})".format(*file.above) if file.above else ""
    return [number(file.score, 3), interval(*file.score_ends), number(file.time, 3), interval(*file.time_ends), above]

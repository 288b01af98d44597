"""Times and accuracies from files. Foreign files are refused with a reason."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.errors import SourceError
from ghost_yolo.model.catalog import is_stock

FIGURES = ("median_ms", "ratio", "ratio_low", "ratio_high", "gflops", "realised_gain")


@dataclass(frozen=True)
class Timed:
    """A model's time in one runtime and precision; figures as `ghost-yolo bench` defines them, None where unknown."""

    model: str
    scale: str
    error: str | None
    median_ms: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    gflops: float | None = None
    realised_gain: float | None = None

    @property
    def stock(self) -> bool:
        """Whether this is a stock model."""
        return is_stock(self.model)

    def gflops_part(self, first: Timed) -> float | None:
        """Return the GFLOPs as part of the first model's, None where one of them is unknown."""
        return self.gflops / first.gflops if self.gflops and first.gflops else None


@dataclass(frozen=True)
class Group:
    """Models that were timed against each other; the first is what the ratios are to.

    Attributes:
        title: Runtime and precision as they are printed.
        rows: Those that were measured, the first model first.
        failed: Those that were not.
        sizes: Image side, batch, threads and device in words.
        profile: Milliseconds by operator kind of each model, where the bench had `--profile`.
    """

    title: str
    rows: list[Timed]
    failed: list[Timed]
    sizes: str
    profile: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What one run of `ghost-yolo bench` gave.

    Attributes:
        source: Where it comes from, in words.
        groups: Runtimes and precisions.
        conditions: The machine.
        versions: What took part.
        prefix: Tells the names of its figures from those of another bench.
    """

    source: str
    groups: list[Group]
    conditions: dict[str, Any]
    versions: dict[str, str]
    prefix: str = ""


@dataclass(frozen=True)
class Trained:
    """One accuracy record."""

    model: str
    data: str
    split: str
    imgsz: int
    epochs: int
    seed: int
    map50_95: float
    map50: float
    conditions: str
    map50_95_low: float | None = None
    map50_95_high: float | None = None

    @property
    def task(self) -> str:
        """What must be the same for two accuracies to be held against each other."""
        return f"{self.data}, {self.split}, {self.imgsz} x {self.imgsz}, {self.epochs} epochs"


def read_bench(file: Path) -> Bench:
    """Read what `ghost-yolo bench --format json` wrote.

    Raises:
        SourceError: If it is anything else.
    """
    try:
        return bench_of(_read(file), file.name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(
            f"--bench {file} is not what a bench writes ({_why(error)}). "
            "Make one: ghost-yolo bench MODELS --format json -o bench.json"
        ) from error


def bench_of(document: dict[str, Any], source: str) -> Bench:
    """Return a bench's JSON as groups of rows that were timed against each other, in its order."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in document["rows"]:
        groups.setdefault((str(row["runtime"]), str(row["precision"])), []).append(row)
    if not groups:
        raise ValueError("it has no rows")
    made = [_group(rows, document.get("profile", [])) for rows in groups.values()]
    return Bench(source, made, dict(document["conditions"]), dict(document["versions"]))


def _group(rows: list[dict[str, Any]], profile: list[dict[str, Any]]) -> Group:
    """Return one runtime's and precision's rows with what the profiler said of them."""
    first = rows[0]
    kind = str(first["runtime"]), str(first["precision"])
    known = RUNTIMES.get(kind[0])
    timed = [_timed(row) for row in rows]
    shares: dict[str, dict[str, float]] = {}
    for row in profile:
        if (row["runtime"], row["precision"]) == kind:
            shares.setdefault(str(row["model"]), {})[str(row["operator"])] = float(row["ms"])
    return Group(
        title=f"{known.title if known else kind[0]} {kind[1]}",
        rows=[row for row in timed if row.median_ms is not None],
        failed=[row for row in timed if row.median_ms is None],
        sizes=f"{first['imgsz']} x {first['imgsz']}, batch {first['batch']}, {first['threads']} threads, {first['device']}",
        profile=shares,
    )


def _timed(row: dict[str, Any]) -> Timed:
    """Return a row; every figure must be there, as a number or as null."""
    figures = {name: None if row[name] is None else _number(row, name) for name in FIGURES}
    error = None if row["error"] is None else str(row["error"])
    return Timed(str(row["model"]), str(row["scale"]), error, **figures)


def _number(row: dict[str, Any], name: str) -> float:
    """Return a figure that is a positive number."""
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value <= 0:
        raise ValueError(f"{name} of {row['model']} is {value!r}")
    return float(value)


def read_accuracy(file: Path) -> list[Trained]:
    """Read one accuracy record, or a list of them.

    Raises:
        SourceError: If it is anything else.
    """
    content = _read(file)
    if content == []:
        raise SourceError(f"--accuracy {file} holds no accuracy record: its list is empty.")
    try:
        records = content if isinstance(content, list) else [content]
        return [_trained(record) for record in records]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        keys = ", ".join(name for name in Trained.__dataclass_fields__ if not name.startswith("map50_95_"))
        raise SourceError(
            f"--accuracy {file} holds no accuracy record ({_why(error)}). A record, or a list of them, has {keys}; "
            "map50_95_low and map50_95_high may give an interval."
        ) from error


def _trained(record: dict[str, Any]) -> Trained:
    """Return a record; accuracies lie between 0 and 1."""
    values = {name: record[name] for name in ("model", "data", "split", "conditions")}
    sizes = {name: int(record[name]) for name in ("imgsz", "epochs", "seed")}
    figures = {name: float(record[name]) for name in ("map50_95", "map50")}
    figures |= {name: float(record[name]) for name in ("map50_95_low", "map50_95_high") if record.get(name) is not None}
    wrong = [f"{name} is {value}" for name, value in figures.items() if not 0 <= value <= 1]
    if wrong:
        raise ValueError(f"{wrong[0]}, which is not between 0 and 1")
    return Trained(**{name: str(value) for name, value in values.items()}, **sizes, **figures)  # type: ignore[arg-type]


def _read(file: Path) -> Any:
    """Return the content of a JSON file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SourceError(f"{file} is not JSON: {error}") from error


def _why(error: Exception) -> str:
    """Say what was wrong with a file's content."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)

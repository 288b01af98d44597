"""Read benchmark results and accuracy records from JSON; a file of another kind is refused with the reason."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ghost_yolo.bench.results import BenchResult
from ghost_yolo.errors import SourceError


@dataclass(frozen=True)
class AccuracyRecord:
    """Accuracy of one training run."""

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
        """Dataset, split, size and epochs: accuracies are comparable only within one task."""
        return f"{self.data}, {self.split}, {self.imgsz} x {self.imgsz}, {self.epochs} epochs"


def read_bench(file: Path) -> BenchResult:
    """Read what `ghost-yolo bench --format json` wrote.

    Raises:
        SourceError: If the file is anything else.
    """
    try:
        return BenchResult.from_dict(_read_json(file))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(
            f"--bench {file} is not a benchmark result ({_describe(error)}). "
            "Create one: ghost-yolo bench MODELS --format json -o bench.json"
        ) from error


def read_accuracy(file: Path) -> list[AccuracyRecord]:
    """Read one accuracy record, or a list of them.

    Raises:
        SourceError: If the file is anything else.
    """
    content = _read_json(file)
    records = content if isinstance(content, list) else [content]
    if not records:
        raise SourceError(f"--accuracy {file} is an empty list; give one accuracy record or more.")
    try:
        return [_record(record) for record in records]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        keys = ", ".join(each.name for each in fields(AccuracyRecord) if not each.name.startswith("map50_95_"))
        raise SourceError(
            f"--accuracy {file} is not an accuracy record or a list of them ({_describe(error)}). A record has the keys "
            f"{keys}; map50_95_low and map50_95_high are optional and give an interval."
        ) from error


def _record(values: dict[str, Any]) -> AccuracyRecord:
    """Return a record; accuracies must be between 0 and 1."""
    figures = {name: float(values[name]) for name in ("map50_95", "map50")}
    bounds = {name: float(values[name]) for name in ("map50_95_low", "map50_95_high") if values.get(name) is not None}
    for name, value in (figures | bounds).items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, not between 0 and 1")
    return AccuracyRecord(
        model=str(values["model"]),
        data=str(values["data"]),
        split=str(values["split"]),
        imgsz=int(values["imgsz"]),
        epochs=int(values["epochs"]),
        seed=int(values["seed"]),
        conditions=str(values["conditions"]),
        **figures,
        **bounds,
    )


def _read_json(file: Path) -> Any:
    """Return the content of a JSON file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SourceError(f"{file} is not JSON: {error}") from error


def _describe(error: Exception) -> str:
    """Describe what is wrong with a file's content."""
    return f"key {error} is missing" if isinstance(error, KeyError) else str(error)

"""Read benchmark results and accuracy records from JSON; a file of another kind is refused with the reason."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ghost_yolo.bench.results import BenchResult
from ghost_yolo.errors import SourceError
from ghost_yolo.utils.json_file import Fields, read_json


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
        return BenchResult.from_dict(read_json(file))
    except SourceError as error:
        raise SourceError(
            f"--bench {file} is not a benchmark result ({error}). "
            "Create one: ghost-yolo bench MODELS --format json -o bench.json"
        ) from error


def read_accuracy(file: Path) -> list[AccuracyRecord]:
    """Read one accuracy record, or a list of them.

    Raises:
        SourceError: If the file is anything else.
    """
    try:
        records = [_record(record) for record in read_json(file).items()]
    except SourceError as error:
        keys = ", ".join(each.name for each in fields(AccuracyRecord) if not each.name.startswith("map50_95_"))
        raise SourceError(
            f"--accuracy {file} is not an accuracy record or a list of them ({error}). A record has the keys "
            f"{keys}; map50_95_low and map50_95_high are optional and give an interval."
        ) from error
    if not records:
        raise SourceError(f"--accuracy {file} is an empty list; give one accuracy record or more.")
    return records


def _record(values: Fields) -> AccuracyRecord:
    """Return a record; accuracies must be between 0 and 1, and may lie outside of a bootstrap's interval."""
    ends = [name for name in ("map50_95_low", "map50_95_high") if name in values]
    if len(ends) == 1:
        raise values.error(f"{ends[0]} is one end of an interval, and the other is missing")
    known: dict[str, Any] = {name: values.number(name, high=1.0) for name in ("map50_95", "map50", *ends)}
    values.ordered("map50_95_low", "map50_95_high")
    known |= {name: values.text(name) for name in ("model", "data", "split", "conditions")}
    known |= {name: values.count(name) for name in ("epochs", "seed")} | {"imgsz": values.count("imgsz", low=1)}
    return AccuracyRecord(**known)

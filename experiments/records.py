"""What is kept of an experiment: the table, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ghost_yolo.utils.files import write_atomic

Triple = tuple[float, float, float]  # a figure and the ends of its interval


@dataclass(frozen=True)
class Row:
    """A model; each figure is the mean over its seeds.

    Attributes:
        key: Its name in the configuration.
        label: Its name in table and plot.
        how: How it came to its weights.
        seeds: Random seeds.
        parameters: Of the fused model.
        gflops: Of the fused model, one image.
        ms: Median time of a forward pass; None where it was not timed.
        time_ratio: To the first model of the bench.
        time_interval: Its 95 % interval, by bootstrap over rounds; None for the first model.
        val: mAP50-95 on val.
        score: mAP50-95 on the split of the table, with its interval.
        spread: Standard deviation of that over seeds; None for one seed.
        map50: On the same split.
        difference: Of the score to that of the stock model of the same scale; None for itself.
        ratio: The same as a ratio; of an exported file to stock in float32.
        scale: Scale letter; "" in tables of older versions.
        deployment: Runtime and precision of an exported file; "" for a checkpoint.
        file: The exported file, of the first seed.
        training: Seconds of the training from scratch that it comes from; None where unknown.
        seconds: Of what was done since, the export included; None where unknown.
        labels: Whether that took labels.
        excluded: Names of modules that stay in float32 in an INT8 file.
        above: Of an exported file: its score less that of the Pareto front of stock at the same time; None without a line.
    """

    key: str
    label: str
    how: str
    seeds: list[int]
    parameters: int
    gflops: float
    ms: float | None
    time_ratio: float | None
    time_interval: tuple[float, float] | None
    val: float
    score: Triple
    spread: float | None
    map50: float
    difference: Triple | None
    ratio: Triple | None
    scale: str = ""
    deployment: str = ""
    file: str = ""
    training: float | None = None
    seconds: float | None = None
    labels: bool | None = None
    excluded: list[str] = field(default_factory=list)
    above: Triple | None = None

    @property
    def title(self) -> str:
        """Model and deployment."""
        return f"{self.label} {self.deployment}".rstrip()


@dataclass(frozen=True)
class PairedComparison:
    """The ratio of the scores of two models, its interval from the same resamples of both."""

    label: str
    baseline: str
    ratio: Triple


@dataclass(frozen=True)
class RivalComparison:
    """A converted file and the fastest other one that is not shown to be less accurate.

    Attributes:
        label: Model and deployment of the converted file.
        rival: The other one's; "" where all others are shown to be less accurate.
        difference: Of the score to the rival's, its interval from the same resamples of both.
        time: Ratio of the time to the rival's.
        verdict: `faster` than all that are not shown to be less accurate, `slower` than one of them, or neither, by the
            intervals of the times.
    """

    label: str
    rival: str = ""
    difference: Triple = (0.0, 0.0, 0.0)
    time: float = 0.0
    verdict: str = ""


@dataclass(frozen=True)
class Timing:
    """How the models were timed: runtime and precision, sizes, and the first model of the bench."""

    title: str
    sizes: str
    baseline: str


@dataclass(frozen=True)
class Table:
    """The table of a data set.

    Attributes:
        split: On which the models were evaluated.
        conditions: What all models share.
        timing: How they were timed; None if they were not.
        rows: The models, the most accurate first.
        comparisons: Further pairs of models.
        reference: Deployment of the stock files that exported files are compared with; "" for checkpoints.
        rivals: The fastest rival of each converted file.
    """

    split: str
    conditions: str
    timing: Timing | None
    rows: list[Row]
    comparisons: list[PairedComparison]
    reference: str = ""
    rivals: list[RivalComparison] = field(default_factory=list)

    @property
    def deployed(self) -> bool:
        """Whether its rows are exported files."""
        return any(row.deployment for row in self.rows)

    @classmethod
    def read(cls, file: Path) -> Table:
        """Read a table that was kept."""
        kept = json.loads(file.read_text(encoding="utf-8"))
        timing = Timing(**kept["timing"]) if kept["timing"] else None
        rows = [Row(**row) for row in kept["rows"]]
        comparisons = [PairedComparison(**pair) for pair in kept["comparisons"]]
        rivals = [RivalComparison(**pair) for pair in kept.get("rivals", [])]
        return cls(kept["split"], kept["conditions"], timing, rows, comparisons, kept.get("reference", ""), rivals)

    def write(self, file: Path) -> None:
        """Write the table."""
        write_json(file, asdict(self))


def with_interval(figure: Triple) -> str:
    """Return a figure with its interval."""
    return "{:.3f} ({:.3f} to {:.3f})".format(*figure)


def signed(figure: Triple) -> str:
    """Return a difference with its interval."""
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*figure)


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file."""
    write_atomic(file, json.dumps(content, indent=2) + "\n")

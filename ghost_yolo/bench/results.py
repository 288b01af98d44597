"""Results of a benchmark: one row for each model, runtime and precision, from measuring to tables and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.errors import SourceError
from ghost_yolo.utils.json_file import Fields

MIN_ROUNDS = 5  # fewer rounds give no interval
RESAMPLES = 2000
TEXTS = ("model", "scale", "runtime", "precision", "device")
COUNTS = ("imgsz", "batch", "threads")  # at least 1: the runner has replaced --threads 0
PARTS = ("letterbox", "network", "nms")  # of the way of a photograph to boxes
FIGURES = (
    "median_ms", "q25", "q75", "ratio", "ratio_low", "ratio_high", "gflops", "realised_gain", "peak_memory_mb", "file_mb",
)  # fmt: skip


@dataclass
class BenchRow:
    """Latency of one model in one runtime and precision; `tables.CONVENTIONS` defines every figure.

    The runner fills `times` and `operators`, and `add_statistics` computes the figures from them.

    Attributes:
        model: YAML, checkpoint or exported file, as given.
        scale: Scale letter, "" where unknown.
        nc: Number of classes.
        imgsz: Image side in pixels.
        batch: Images in one forward pass.
        runtime: Key of RUNTIMES.
        precision: fp32, fp16, int8 or default.
        device: `cpu`, or the number of a GPU.
        threads: CPU threads.
        error: Why the row could not be measured.
        times: Milliseconds of a forward pass, one entry for each round.
        operators: Milliseconds of a forward pass by operator type, from the runtime's profiler.
        profile_error: Why the row could not be profiled.
        parts: Milliseconds of letterbox, network and NMS, one entry for each round, where they were timed.
    """

    model: str
    scale: str
    nc: int | None
    imgsz: int
    batch: int
    runtime: str
    precision: str
    device: str
    threads: int
    median_ms: float | None = None
    q25: float | None = None
    q75: float | None = None
    rounds: int = 0
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    gflops: float | None = None
    realised_gain: float | None = None
    peak_memory_mb: float | None = None
    file_mb: float | None = None
    error: str | None = None
    times: list[float] = field(default_factory=list)
    operators: dict[str, float] = field(default_factory=dict)
    profile_error: str | None = None
    parts: dict[str, list[float]] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there is a time."""
        return self.median_ms is not None

    @property
    def backend(self) -> str:
        """Runtime and precision, such as `ONNX Runtime fp32`."""
        title = RUNTIMES[self.runtime].title if self.runtime in RUNTIMES else self.runtime
        return f"{title} {self.precision}".rstrip()

    @property
    def title(self) -> str:
        """Model, runtime and precision, for messages."""
        return f"{self.model}, {self.backend}"

    @property
    def workload(self) -> str:
        """Image side, batch size, threads and device."""
        return f"{self.imgsz} x {self.imgsz}, batch {self.batch}, {self.threads} threads, {self.device}"

    def gflops_ratio(self, first: BenchRow) -> float | None:
        """Return GFLOPs / GFLOPs of the first model, None where one of them is unknown."""
        return self.gflops / first.gflops if self.gflops and first.gflops else None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | Fields) -> BenchRow:
        """Return the row that `to_dict` wrote.

        Args:
            values: All keys of a row; `times`, `operators` and `profile_error` may be missing.

        Raises:
            SourceError: If a key is missing, or a value is impossible.
        """
        row = values if isinstance(values, Fields) else Fields(values)
        known: dict[str, Any] = {name: row.text(name) for name in TEXTS}
        if known["runtime"] not in RUNTIMES:
            raise row.error(f"runtime is {known['runtime']!r:.80}, none of {', '.join(RUNTIMES)}")
        known |= {name: row.count(name, low=1) for name in COUNTS} | {"rounds": row.count("rounds")}
        known |= {name: None if row.value(name) is None else row.positive(name) for name in FIGURES}
        known["nc"] = None if row.value("nc") is None else row.count("nc", low=1)
        known["error"] = None if row.value("error") is None else row.text("error")
        known["profile_error"] = row.text("profile_error") if "profile_error" in row else None
        for names in (("q25", "median_ms", "q75"), ("ratio_low", "ratio", "ratio_high")):
            row.ordered(*names)
            if len({name in row for name in (names[0], names[2])}) > 1:
                raise row.error(f"{names[0]} and {names[2]} are the two ends of an interval, and one is missing")
        operators = row.object("operators") if "operators" in row else Fields({})
        known["operators"] = {name: operators.positive(name) for name in operators.scalars()}
        given = row.object("parts") if "parts" in row else Fields({})
        known["parts"] = {name: given.positives(name) for name in PARTS if name in given}
        return cls(**known, times=row.positives("times") if "times" in row else [])


@dataclass(frozen=True)
class BenchResult:
    """Rows of one benchmark run, complete or not, and what they depend on.

    Attributes:
        rows: Rows of one runtime and precision side by side, the first model first.
        conditions: Machine, workload, rounds and passes.
        versions: Installed versions.
        interrupted: Whether Ctrl-C ended the run early.
        unavailable: Runtimes with precisions that were requested and do not exist.
    """

    rows: list[BenchRow]
    conditions: dict[str, Any]
    versions: dict[str, str]
    interrupted: bool = False
    unavailable: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """One line for each reason why rows could not be measured."""
        reasons: dict[str, list[str]] = {}
        for row in self.rows:
            if row.error:
                everywhere = all(other.error == row.error for other in self.rows if other.model == row.model)
                reasons.setdefault(row.error, []).append(row.model if everywhere else row.title)
        return [f"{'; '.join(dict.fromkeys(names))}: {reason}" for reason, names in reasons.items()]

    @classmethod
    def from_dict(cls, document: Mapping[str, Any] | Fields) -> BenchResult:
        """Return the result that `ghost-yolo bench --format json` wrote.

        Raises:
            SourceError: If a key is missing, a value is impossible, or there are no rows.
        """
        fields = document if isinstance(document, Fields) else Fields(document)
        rows = [BenchRow.from_dict(row) for row in fields.rows("rows")]
        if not rows:
            raise SourceError("it has no rows")
        conditions, installed = (fields.object(name).scalars() for name in ("conditions", "versions"))
        return cls(rows, conditions, {name: str(version) for name, version in installed.items()})


def group_rows(rows: Sequence[BenchRow]) -> dict[str, list[BenchRow]]:
    """Return the rows that were timed against each other, by runtime and precision as printed, in the given order."""
    groups: dict[str, list[BenchRow]] = {}
    for row in rows:
        groups.setdefault(row.backend, []).append(row)
    return groups


def add_statistics(rows: Sequence[BenchRow], first_model: str, *, mixed: bool = False) -> None:
    """Set the figures that follow from `times`: median, quartiles, and the ratio to the first model with its interval.

    Args:
        rows: Rows of one benchmark run; changed in place.
        first_model: Model whose row of the same runtime and precision the ratios are to.
        mixed: Whether all rows were timed side by side; the ratios are to the first row of that model then.
    """
    for group in [rows] if mixed else group_rows(rows).values():
        first = next((row for row in group if row.model == first_model), None)
        for row in group:
            row.rounds = len(row.times)
            if row.times:
                row.q25, row.median_ms, row.q75 = np.percentile(row.times, (25, 50, 75)).tolist()
            if row.times and first is not None and first.times:
                _add_ratio(row, first)


def _add_ratio(row: BenchRow, first: BenchRow) -> None:
    """Set ratio, confidence interval and realised gain, paired round by round."""
    rounds = min(len(row.times), len(first.times))
    ratios = np.array(row.times[:rounds]) / np.array(first.times[:rounds])
    row.ratio = float(np.median(ratios))
    row.ratio_low, row.ratio_high = confidence_interval(ratios)
    gflops_ratio = row.gflops_ratio(first)
    row.realised_gain = gflops_ratio / row.ratio if gflops_ratio else None


def confidence_interval(ratios: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the 95 % confidence interval of the median by a seeded bootstrap; none from fewer than MIN_ROUNDS ratios.

    The method is the percentile bootstrap: BCa needs a jackknife, which is not consistent for a median, and gives NaN where
    all ratios are equal, as those of the first model are.
    """
    if len(ratios) < MIN_ROUNDS:
        return None, None
    from scipy.stats import bootstrap  # slow to import, and worker processes import this module's package

    seeded = np.random.default_rng(0)
    result = bootstrap((ratios,), np.median, n_resamples=RESAMPLES, method="percentile", random_state=seeded)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)

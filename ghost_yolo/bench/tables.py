"""Times to rows, and rows to text, Markdown, CSV and JSON. Pure: nothing is measured here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghost_yolo.bench.plan import Candidate
from ghost_yolo.bench.runner import Measured
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.model.profile import CONVENTIONS as COUNTED
from ghost_yolo.tables import Report, render_report

SHARE = 0.01  # operator kinds below this share of every model's time are shown together
CONVENTIONS = {
    "median_ms": "milliseconds of the network's forward pass on fixed noise, without pre- and post-processing (no NMS): "
    "the median over rounds of the median pass of a turn; one untimed pass opens every turn. "
    "YAMLs are timed with seeded untrained weights: the time is that of the architecture",
    "q25, q75": "quartiles over rounds",
    "ratio": "time / time of the first model in the same runtime and precision, paired round by round, median; below 1 is "
    "faster. Models of one runtime and precision take turns, in an order drawn anew each round",
    "ratio_low, ratio_high": "95 % confidence interval of the ratio by bootstrap over rounds",
    "gflops": "of the fused model and one image; " + COUNTED["gflops"],
    "realised_gain": "(first model's time / time) / (first model's GFLOPs / GFLOPs): 1 where all of the saved GFLOPs "
    "become saved time",
    "peak_memory_mb": "largest main memory of the model's own process, Python and runtime included, in 1024 x 1024 bytes; "
    "a GPU's own memory is not counted",
    "file_mb": "graph and weights as exported in 1024 x 1024 bytes; for PyTorch the stripped fp16 checkpoint",
    "precision": "fp32 is computed in float32 even where the CPU has bfloat16 units; fp16 says how the weights are stored, "
    "a CPU without fp16 arithmetic computes in float32; int8 is what Ultralytics quantises, the rest in float32",
}


@dataclass(frozen=True)
class Row:
    """One line of the report; CONVENTIONS says what the numbers are."""

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


def rows_of(measured: Measured) -> list[Row]:
    """Return a row for each candidate, measured or not."""
    return [_row(measured, candidate) for candidate in measured.candidates]


def _row(measured: Measured, candidate: Candidate) -> Row:
    """Return the row of one candidate."""
    plan, facts, times = measured.plan, candidate.subject.facts, np.array(candidate.times)
    figures: dict[str, Any] = {"gflops": facts.get("gflops"), "error": candidate.failed, "rounds": len(times)}
    if len(times):
        quartiles = np.percentile(times, (25, 50, 75)).tolist()
        figures |= dict(zip(("q25", "median_ms", "q75"), quartiles, strict=True))
        figures |= _against(candidate, _first(measured, candidate))
    return Row(
        model=candidate.subject.name,
        scale=facts.get("scale", ""),
        nc=facts.get("nc"),
        imgsz=plan.imgsz,
        batch=plan.batch,
        runtime=candidate.runtime,
        precision=candidate.precision,
        device=plan.device,
        threads=measured.conditions["threads"],
        peak_memory_mb=candidate.memory_mb,
        file_mb=candidate.file_mb,
        **figures,
    )


def _first(measured: Measured, candidate: Candidate) -> Candidate | None:
    """Return the first model's row in the same runtime and precision."""
    key = (measured.plan.models[0], candidate.runtime, candidate.precision)
    rows = (row for row in measured.candidates if (row.subject.name, row.runtime, row.precision) == key)
    return next(rows, None)


def _against(candidate: Candidate, first: Candidate | None) -> dict[str, float | None]:
    """Return ratio, confidence interval and realised gain; nothing where the first model has no times."""
    rounds = min(len(candidate.times), len(first.times)) if first else 0
    if first is None or not rounds:
        return {}
    ratios = np.array(candidate.times[:rounds]) / np.array(first.times[:rounds])
    low, high = confidence(ratios)
    result: dict[str, float | None] = {"ratio": float(np.median(ratios)), "ratio_low": low, "ratio_high": high}
    ours, theirs = candidate.subject.facts.get("gflops"), first.subject.facts.get("gflops")
    if ours and theirs:
        result["realised_gain"] = float(1 / np.median(ratios)) / (theirs / ours)
    return result


def confidence(ratios: NDArray[np.float64], draws: int = 2000) -> tuple[float | None, float | None]:
    """Return the 95 % confidence interval of the median by a seeded bootstrap; none from fewer than five rounds."""
    if len(ratios) < 5:
        return None, None
    random = np.random.default_rng(0)
    medians = [np.median(random.choice(ratios, len(ratios))) for _ in range(draws)]
    low, high = np.percentile(medians, (2.5, 97.5)).tolist()
    return low, high


def render(measured: Measured, style: str) -> str:
    """Return the report in text, Markdown, CSV or JSON, ending in a newline."""
    rows = rows_of(measured)
    tables = [(HEADER, [cells(row) for row in rows if row.rounds])]
    more: dict[str, Any] = {"conditions": measured.conditions}
    if measured.plan.profile:
        more["profile"] = profile_rows(measured)
        tables += profile_tables(measured)
    shown = [table for table in tables if table[1]]
    report = Report([asdict(row) for row in rows], shown, CONVENTIONS, notes(measured), more)
    return render_report(report, measured.versions, style)


HEADER = ["model", "runtime", "precision", "ms", "q25 to q75", "ratio", "95 %", "GFLOPs", "realised gain", "peak MB", "file MB"]  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return the cells of a row that was measured."""
    return [
        row.model,
        RUNTIMES[row.runtime].title,
        row.precision,
        number(row.median_ms),
        f"{number(row.q25)} to {number(row.q75)}",
        number(row.ratio, 3),
        f"{number(row.ratio_low, 3)} to {number(row.ratio_high, 3)}" if row.ratio_low else "",
        number(row.gflops),
        number(row.realised_gain),
        number(row.peak_memory_mb, 0),
        number(row.file_mb, 1),
    ]


def number(value: float | None, digits: int = 2) -> str:
    """Return a number, nothing for what there is not."""
    return "" if value is None else f"{value:.{digits}f}"


def notes(measured: Measured) -> list[str]:
    """Return what must be read beside the tables."""
    plan, said = measured.plan, measured.conditions
    unprofiled = [row for row in measured.candidates if row.unprofiled]
    return [
        *(f"Not measured: {line.rstrip('.')}." for line in measured.failed),
        *(f"Not profiled: {row.title}: {row.unprofiled}." for row in unprofiled),
        *(["Interrupted: these are the rounds until then."] if measured.interrupted else []),
        *([f"There is no {plan.left_out}."] if plan.left_out else []),
        *hints(measured),
        f"{plan.rounds} rounds of {plan.passes} passes, batch {plan.batch}, {plan.imgsz} x {plan.imgsz}, "
        + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items())
        + ".",
    ]


def hints(measured: Measured) -> list[str]:
    """Return what makes ratios missing or unfair."""
    rows = [row for row in rows_of(measured) if row.rounds]
    classes = {row.nc: row.model for row in rows if row.nc is not None}
    unlike = " and ".join(f"{model} has {nc}" for nc, model in classes.items())
    without = dict.fromkeys(f"{RUNTIMES[row.runtime].title} {row.precision}" for row in rows if row.ratio is None)
    return [
        *([f"Not the same number of classes: {unlike}. --nc sets that of YAMLs."] if len(classes) > 1 else []),
        *([f"No ratios in {', '.join(without)}: the first model was not measured there."] if without else []),
    ]


def profile_rows(measured: Measured) -> list[dict[str, Any]]:
    """Return the time of every operator kind of every row, for JSON."""
    return [
        {
            "model": row.subject.name,
            "runtime": row.runtime,
            "precision": row.precision,
            "operator": kind,
            "ms": ms,
            "percent": 100 * ms / sum(row.operators.values()),
        }
        for row in measured.candidates
        for kind, ms in row.operators.items()
    ]


def profile_tables(measured: Measured) -> list[tuple[list[str], list[list[str]]]]:
    """Return a table of operator kinds for each runtime and precision, the models side by side."""
    groups: dict[str, list[Candidate]] = {}
    for row in measured.candidates:
        if row.operators:
            groups.setdefault(row.kind, []).append(row)
    return [profile_table(title, rows) for title, rows in groups.items()]


def profile_table(title: str, rows: list[Candidate]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: a line an operator kind, the milliseconds and the share of each model."""
    sums = [sum(row.operators.values()) for row in rows]
    kinds = dict.fromkeys(kind for row in rows for kind in row.operators)
    shown = [
        kind
        for kind in kinds
        if any(row.operators.get(kind, 0) >= SHARE * total for row, total in zip(rows, sums, strict=True))
    ]
    lines = {kind: [row.operators.get(kind, 0.0) for row in rows] for kind in shown}
    lines["all others"] = [sum(ms for kind, ms in row.operators.items() if kind not in shown) for row in rows]
    lines["sum"] = sums
    header = [f"{title}: operator"] + [cell for row in rows for cell in (f"{row.subject.name} ms", "%")]
    return header, [
        [
            kind,
            *(
                cell
                for ms, total in zip(all_ms, sums, strict=True)
                for cell in (f"{ms:.3f}", f"{100 * ms / total:.1f}")
            ),
        ]
        for kind, all_ms in lines.items()
    ]

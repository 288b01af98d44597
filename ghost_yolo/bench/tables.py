"""Benchmark results as text, Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ghost_yolo.bench.results import PARTS, BenchResult, BenchRow, group_rows
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.model.profile import CONVENTIONS as COUNTED
from ghost_yolo.tables import Report, render_report

MIN_SHARE = 0.01  # operator types below this share of every model's time are summed in one line
JSON_ONLY = ("times", "operators", "profile_error", "parts")
CONVENTIONS = {
    "median_ms": "milliseconds of the network's forward pass on fixed noise, without pre- and post-processing (no NMS): "
    "the median over rounds of the median pass of each round; every round starts with one untimed pass. "
    "YAMLs are timed with seeded untrained weights: the time is that of the architecture",
    "q25, q75": "quartiles over rounds",
    "ratio": "time / time of the first model in the same runtime and precision, paired round by round, median; below 1 is "
    "faster. Models of one runtime and precision are interleaved, in a new random order each round; with --mixed all rows are, "
    "and the ratio is to the first row",
    "ratio_low, ratio_high": "95 % confidence interval of the ratio, by percentile bootstrap over rounds",
    "gflops": "of the fused model and one image; " + COUNTED["gflops"],
    "realised_gain": "speed-up / reduction in GFLOPs, both against the first model: 1 where the time fell as much as the "
    "GFLOPs, below 1 where it fell less",
    "peak_memory_mb": "peak memory (RAM) of the model's own process, Python and runtime included, in 1024 x 1024 bytes; GPU "
    "memory is not counted",
    "file_mb": "size of graph and weights as exported, in 1024 x 1024 bytes; for PyTorch of the stripped fp16 checkpoint",
    "precision": "fp32 computes in float32 even where the CPU has bfloat16 units; fp16 is the format of the stored weights, "
    "and a CPU without fp16 arithmetic computes in float32; int8 covers the layers that Ultralytics quantises, the others "
    "compute in float32; default is a float32 file in what OpenVINO chooses for this CPU where nobody asks for a precision",
    "times": "milliseconds of each round",
    "parts": "milliseconds of each round, photograph to boxes: letterbox, network, and NMS with what turns outputs into boxes in "
    "the photograph's pixels; reading and decoding the photograph is not in them",
    "operators": "milliseconds of a forward pass by operator type, from the runtime's own profiler",
}
PARTS_HEADER = ["photograph to boxes, without decoding", "runtime", "precision", "letterbox ms", "network ms", "NMS ms", "in all ms"]  # fmt: skip
HEADER = ["model", "runtime", "precision", "ms", "q25 to q75", "ratio", "95 % CI", "GFLOPs", "realised gain", "peak MB", "file MB"]  # fmt: skip


def render(result: BenchResult, style: str) -> str:
    """Return the results in one of FORMATS, ending in a newline."""
    rows = [row.to_dict() for row in result.rows]
    conventions = CONVENTIONS
    if style != "json":
        rows = [{name: value for name, value in row.items() if name not in JSON_ONLY} for row in rows]
        conventions = {name: text for name, text in CONVENTIONS.items() if name not in JSON_ONLY}
    measured = [row for row in result.rows if row.measured]
    ways = (PARTS_HEADER, [part_cells(row) for row in measured if row.parts])
    tables = [(HEADER, [cells(row) for row in measured]), ways, *operator_tables(result.rows)]
    shown = [table for table in tables if table[1]]
    report = Report(rows, shown, conventions, notes(result), {"conditions": result.conditions})
    return render_report(report, result.versions, style)


def cells(row: BenchRow) -> list[str]:
    """Return the cells of a measured row."""
    return [
        row.model,
        RUNTIMES[row.runtime].title,
        row.precision,
        number(row.median_ms),
        f"{number(row.q25)} to {number(row.q75)}",
        number(row.ratio, 3),
        interval(row.ratio_low, row.ratio_high),
        number(row.gflops),
        number(row.realised_gain),
        number(row.peak_memory_mb, 0),
        number(row.file_mb, 1),
    ]


def part_cells(row: BenchRow) -> list[str]:
    """Return the cells of a row on the way of a photograph to boxes."""
    times = [float(np.median(row.parts[name])) for name in PARTS]
    whole = float(np.median(np.sum([row.parts[name] for name in PARTS], 0)))
    return [row.model, RUNTIMES[row.runtime].title, row.precision, *map(number, [*times, whole])]


def number(value: float | None, digits: int = 2) -> str:
    """Format a number; "" where it is unknown."""
    return "" if value is None else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """Format an interval; "" where it is unknown."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def notes(result: BenchResult) -> list[str]:
    """Return the notes below the tables: failures, missing ratios, conditions."""
    unprofiled = [row for row in result.rows if row.profile_error]
    return [
        *(f"Not measured: {line.rstrip('.')}." for line in result.failed),
        *(f"Not profiled: {row.title}: {row.profile_error}." for row in unprofiled),
        *(["Interrupted: the results cover the rounds until then."] if result.interrupted else []),
        *([f"Not available on this device: {', '.join(result.unavailable)}."] if result.unavailable else []),
        *warnings(result.rows),
        "Conditions: "
        + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.conditions.items())
        + ".",
    ]


def warnings(rows: Sequence[BenchRow]) -> list[str]:
    """Return what makes ratios missing or unfair."""
    timed = [row for row in rows if row.measured]
    classes = {row.nc: row.model for row in timed if row.nc is not None}
    counts = " and ".join(f"{model} has {nc}" for nc, model in classes.items())
    without = dict.fromkeys(row.backend for row in timed if row.ratio is None)
    return [
        *(
            [f"Models differ in their number of classes: {counts}. --nc sets that of YAMLs."]
            if len(classes) > 1
            else []
        ),
        *([f"No ratios for {', '.join(without)}: the first model was not measured there."] if without else []),
    ]


def operator_tables(rows: Sequence[BenchRow]) -> list[tuple[list[str], list[list[str]]]]:
    """Return a table of operator types for each runtime and precision that was profiled, the models side by side."""
    groups = group_rows([row for row in rows if row.operators])
    return [operator_table(backend, group) for backend, group in groups.items()]


def operator_table(backend: str, rows: Sequence[BenchRow]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: one line for each operator type, milliseconds and share for each model."""
    totals = [sum(row.operators.values()) for row in rows]
    names = dict.fromkeys(name for row in rows for name in row.operators)
    shown = [name for name in names if any(row.operators.get(name, 0) >= MIN_SHARE * total for row, total in zip(rows, totals, strict=True))]  # fmt: skip
    lines = {name: [row.operators.get(name, 0.0) for row in rows] for name in shown}
    lines["all others"] = [sum(ms for name, ms in row.operators.items() if name not in shown) for row in rows]
    lines["sum"] = totals
    header = [f"{backend}: operator"] + [cell for row in rows for cell in (f"{row.model} ms", "%")]
    return header, [[name, *_shares(times, totals)] for name, times in lines.items()]


def _shares(times: Sequence[float], totals: Sequence[float]) -> list[str]:
    """Return milliseconds and percentage for each model."""
    pairs = zip(times, totals, strict=True)
    return [cell for ms, total in pairs for cell in (f"{ms:.3f}", f"{100 * ms / total:.1f}")]

"""Collect the data of a report: models are profiled here; times and accuracies are measured here or read from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ghost_yolo.bench import BenchPlan, BenchResult, bench
from ghost_yolo.bench.runtimes import installed
from ghost_yolo.compare import ComparedRow, Comparison, compare_deployed, compare_published
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import SCALES, path_of
from ghost_yolo.report.deployed import DeployedFiles, read_deployed
from ghost_yolo.report.sources import AccuracyRecord, read_accuracy, read_bench

QUICK_MODELS = (
    "yolov8s.yaml",
    "yolov8s-ghost.yaml",
    "cfg/yolov8s-ghost.yaml",
    "cfg/yolov8s-ghostfast.yaml",
    "cfg/yolov8s-narrow.yaml",
    "yolov8n.yaml",
    "yolov8m.yaml",
)
ROUNDS, PASSES = 5, 1  # the fewest that give an interval
QUICK_SOURCE = f"quick benchmark of this report, {ROUNDS} rounds of {PASSES} pass"


@dataclass(frozen=True)
class ReportData:
    """Data of a report.

    Attributes:
        published: The published table, rebuilt.
        scales: Scale letter to the stock model and all light models, fused.
        benches: Source to benchmark results.
        accuracies: Accuracy records.
        deployed: Exported files with their accuracy and time, of each data set.
    """

    published: Comparison
    scales: dict[str, list[ComparedRow]]
    benches: dict[str, BenchResult] = field(default_factory=dict)
    accuracies: list[AccuracyRecord] = field(default_factory=list)
    deployed: list[DeployedFiles] = field(default_factory=list)


def collect(
    benches: Sequence[Path],
    accuracy: Sequence[Path],
    scales: Sequence[str],
    imgsz: int,
    timing: bool = True,
    deployed: Sequence[Path] = (),
) -> ReportData:
    """Read the given files, then profile the models, and time them where no file gives times.

    Args:
        benches: JSON files of `ghost-yolo bench`; with any, nothing is timed here.
        accuracy: JSON files of accuracy records.
        scales: Scale letters at which all models are profiled.
        imgsz: Image side in pixels for profiling and timing.
        timing: Whether to time models.
        deployed: JSON files of tables of exported files.

    Raises:
        UserError: If a file is of another kind, or an argument is out of its range.
    """
    if not scales or set(scales) - set(SCALES) or len(set(scales)) < len(scales):
        raise UserError(f"--scales {','.join(scales)}: give some of {','.join(SCALES)}, each once")
    if imgsz < 32 or imgsz % 32:
        raise UserError(f"--imgsz {imgsz}: give a multiple of 32")
    files = list(dict.fromkeys(benches))
    results = {file.name if len(files) == 1 else str(file): read_bench(file) for file in files}
    mixed = [name for name, result in results.items() if "ratios" in result.conditions]
    if mixed:
        raise UserError(
            f"--bench {mixed[0]} has ratios across runtimes; give the JSON of `ghost-yolo bench` without --mixed"
        )
    tables = [read_deployed(file) for file in dict.fromkeys(deployed)]
    records = [record for file in dict.fromkeys(accuracy) for record in read_accuracy(file)]
    published = compare_published()
    profiled = {scale: compare_deployed(scale, imgsz=imgsz) for scale in sorted(scales, key=SCALES.index)}
    if timing and not results:
        results = {QUICK_SOURCE: quick_bench(imgsz)}
    return ReportData(published, profiled, results, records, tables)


def quick_bench(imgsz: int) -> BenchResult:
    """Time QUICK_MODELS, under the names given there, in every installed runtime.

    Raises:
        KeyboardInterrupt: If Ctrl-C ended the benchmark: a report needs all of it.
    """
    names = {str(path_of(Path(name).stem)) if name.startswith("cfg/") else name: name for name in QUICK_MODELS}
    plan = BenchPlan(tuple(names), installed(), imgsz=imgsz, rounds=ROUNDS, passes=PASSES, profile=True)
    result = bench(plan)
    if result.interrupted:
        raise KeyboardInterrupt
    return replace(result, rows=[replace(row, model=names[row.model]) for row in result.rows])

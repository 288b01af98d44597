"""All that a report is made of: models counted here, times and accuracies measured here or read from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ghost_yolo.bench.plan import Plan
from ghost_yolo.bench.runner import bench
from ghost_yolo.bench.runtimes import installed
from ghost_yolo.bench.tables import render
from ghost_yolo.compare import ComparedRow, Comparison, compare_published, deployed
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import SCALES, path_of
from ghost_yolo.report.sources import Bench, Trained, bench_of, read_accuracy, read_bench

QUICK = (
    "yolov8s.yaml",
    "yolov8s-ghost.yaml",
    "cfg/yolov8s-ghost.yaml",
    "cfg/yolov8s-ghostfast.yaml",
    "cfg/yolov8s-narrow.yaml",
    "yolov8n.yaml",
    "yolov8m.yaml",
)
ROUNDS, PASSES = 5, 1  # the fewest from which there is an interval


@dataclass(frozen=True)
class Found:
    """All that a report is made of.

    Attributes:
        published: The widely copied table, rebuilt.
        scales: By scale letter, every model beside stock, as deployed.
        benches: Times, if any.
        trained: Accuracy records, if any.
    """

    published: Comparison
    scales: dict[str, list[ComparedRow]]
    benches: list[Bench] = field(default_factory=list)
    trained: list[Trained] = field(default_factory=list)


def collect(
    benches: Sequence[Path], accuracy: Sequence[Path], scales: Sequence[str], imgsz: int, timing: bool = True
) -> Found:
    """Read the files given, then count and time what they do not say.

    Args:
        benches: JSON of `ghost-yolo bench`; with any, nothing is timed.
        accuracy: JSON of accuracy records.
        scales: Scale letters at which all models are counted.
        imgsz: Image side in pixels of what is counted and timed here.
        timing: Whether to time anything.

    Raises:
        UserError: If a file is not what it should be, or an argument cannot be.
    """
    if not scales or set(scales) - set(SCALES) or len(set(scales)) < len(scales):
        raise UserError(f"--scales {','.join(scales)}: give some of {','.join(SCALES)}, each once")
    if imgsz < 32 or imgsz % 32:
        raise UserError(f"--imgsz {imgsz}: give a multiple of 32")
    files = list(dict.fromkeys(benches))
    times = [read_bench(file) for file in files]
    if len(times) > 1:
        times = [replace(each, prefix=f"{n}-", source=str(files[n - 1])) for n, each in enumerate(times, 1)]
    trained = [record for file in dict.fromkeys(accuracy) for record in read_accuracy(file)]
    published = compare_published()
    counted = {scale: deployed(scale, imgsz=imgsz) for scale in sorted(scales, key=SCALES.index)}
    if timing and not times:
        times = [quick_bench(imgsz)]
    return Found(published, counted, times, trained)


def quick_bench(imgsz: int) -> Bench:
    """Time the stock models around scale s and some light ones of scale s in every runtime that is installed.

    Raises:
        KeyboardInterrupt: If Ctrl-C ended it: a report of half a bench is none.
    """
    paths = {name: str(path_of(Path(name).stem)) if name.startswith("cfg/") else name for name in QUICK}
    plan = Plan(tuple(paths.values()), installed(), imgsz=imgsz, rounds=ROUNDS, passes=PASSES, profile=True)
    measured = bench(plan)
    if measured.interrupted:
        raise KeyboardInterrupt
    document = json.loads(render(measured, "json"))
    shown = {path: name for name, path in paths.items()}
    for row in [*document["rows"], *document["profile"]]:
        row["model"] = shown[row["model"]]
    said = f"quick bench of this report, {ROUNDS} rounds of {PASSES} pass"
    return bench_of(document, said)

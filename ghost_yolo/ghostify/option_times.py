"""Times of the options of a target: exported and timed untrained, since time depends on the architecture alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ghost_yolo.bench import BenchRow
from ghost_yolo.bench.exporting import estimate_batchnorm_from_noise
from ghost_yolo.errors import UserError
from ghost_yolo.export.files import file_name
from ghost_yolo.ghostify.delivery import baseline_file, deliver, time_beside
from ghost_yolo.ghostify.options import ModelOption, Shape, build_option, distinct_shapes
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.student import save_student
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.files import temporary_folder

CALIBRATION = 32  # images for the files that are only timed
GROUP_SIZE = 8  # models timed beside the baseline: each is a process with its model in memory
TIMES = "target times"  # name in the run state


@dataclass(frozen=True)
class Times:
    """What is known of the options before any is fitted.

    Attributes:
        options: All that were timed.
        baseline_ms: Median time of the baseline.
        conditions: Machine, workload and versions.
        left_out: Why a model was not timed, by title.
    """

    options: Sequence[ModelOption]
    baseline_ms: float
    conditions: Mapping[str, Any]
    left_out: Mapping[str, str]


def time_options(run: GhostifyRun, teacher_file: Path) -> Times:
    """Export and time all options in groups, each side by side with the baseline; a resumed run goes on with the next group.

    Raises:
        UserError: If none could be timed.
    """
    shapes, left_out = distinct_shapes(run.teacher, run.config)
    known = run.state.results.get(TIMES, {"rows": {}, "baseline": [], "conditions": {}, "failed": {}})
    missing = [shape for shape in shapes if shape.title not in {**known["rows"], **known["failed"]}]
    delivery, settings = run.config.delivery, run.config.settings
    images = run.image_files[:CALIBRATION]
    groups = [missing[start : start + GROUP_SIZE] for start in range(0, len(missing), GROUP_SIZE)]
    if groups:
        with baseline_file(teacher_file, images, delivery, settings) as baseline:
            for number, group in enumerate(groups, 1):
                known = _time_group(run, group, baseline, known, f"{number} of {len(groups)}")
                run.state.add(TIMES, known)
    if not known["rows"]:
        raise UserError(f"--target: no model could be timed; {'; '.join(dict.fromkeys(known['failed'].values()))}")
    options = [
        ModelOption(**asdict(shape), **known["rows"][shape.title]) for shape in shapes if shape.title in known["rows"]
    ]
    return Times(options, median(known["baseline"]), known["conditions"], left_out | known["failed"])


def _time_group(
    run: GhostifyRun, group: Sequence[Shape], baseline: Path, known: Mapping[str, Any], text: str
) -> dict[str, Any]:
    """Return what is known together with the times of a group; a model that fails is named with the reason."""
    settings, failed = run.config.settings, dict(known["failed"])
    files: dict[str, Path] = {}
    with temporary_folder("ghost-yolo-target-") as folder:
        for number, shape in enumerate(progress(group, f"Exporting candidates, group {text}")):
            try:
                student = build_option(run.teacher, shape, settings.seed).model
                files[shape.title] = write_untrained(run, student, folder / f"candidate{number}.pt", CALIBRATION)
            except UserError as error:
                failed[shape.title] = str(error)
        if not files:
            return {**known, "failed": failed}
        (first, *timed), conditions = time_beside(baseline, [*files.values()], settings)
    rows: dict[str, BenchRow] = dict(zip(files, timed, strict=True))
    failed |= {title: row.error for title, row in rows.items() if row.error}
    times = {
        title: {"time_ratio": row.ratio, "milliseconds": row.median_ms} for title, row in rows.items() if not row.error
    }
    return {
        "rows": {**known["rows"], **times},
        "baseline": [*known["baseline"], first.median_ms],
        "conditions": known["conditions"] or conditions,
        "failed": failed,
    }


def write_untrained(run: GhostifyRun, student: HostModel, checkpoint: Path, images: int | None = None) -> Path:
    """Export an untrained model, whose time is that of the trained one, beside its checkpoint; return the file."""
    delivery, imgsz, files = run.config.delivery, run.config.settings.imgsz, run.image_files[:images]
    estimate_batchnorm_from_noise(student)
    save_student(run.teacher, student, checkpoint)
    if delivery.precision != "int8":
        return deliver(checkpoint, checkpoint.parent, files, delivery, imgsz)
    from ghost_yolo.export.int8 import Int8Exporter  # NNCF and its like, which float32 does not need

    with Int8Exporter(checkpoint, files, imgsz, delivery.runtime) as exporter:
        name = file_name(checkpoint.stem, delivery.runtime, delivery.precision)
        return exporter.write(checkpoint.with_name(name), untrained=True)

"""What is delivered: the exported file, its time beside the trained model's, and its scores with and without labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghost_yolo.accuracy import AgreementSet, Score, evaluate, ratio
from ghost_yolo.bench import BenchPlan, BenchRow, bench
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.errors import UserError
from ghost_yolo.export.files import export_file, file_name
from ghost_yolo.ghostify.config import Delivery, Settings
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.files import temporary_folder

if TYPE_CHECKING:
    from ghost_yolo.export.float32_parts import Variant

RESAMPLES = 500  # of the bootstrap
PASSES = 5
TWIN = "the same with ReLU, untrained"  # is timed where another activation was asked for
NO_RATIO = (None, None, None)
Interval = tuple[float | None, float | None, float | None]  # value and the ends of its 95 % confidence interval


@dataclass(frozen=True)
class Delivered:
    """A file that was judged.

    Attributes:
        name: What it is: `trained`, `ghostified`, `exported`, or TWIN.
        file: Its path.
        backend: Runtime and precision.
        agreement: mAP50-95 with the trained model's boxes as truth, on images that were held out.
        accuracy: True mAP50-95, where there are labels.
        accuracy_ratio: The same, relative to the trained checkpoint's.
        milliseconds: Median time of an image, where it was timed.
        time_ratio: Time relative to the baseline's.
        excluded: Names of the modules that stay in float32 in an INT8 file.
    """

    name: str
    file: str
    backend: str
    agreement: Interval = NO_RATIO
    accuracy: Interval = NO_RATIO
    accuracy_ratio: Interval = NO_RATIO
    milliseconds: float | None = None
    time_ratio: Interval = NO_RATIO
    excluded: tuple[str, ...] = ()

    def moved_to(self, folder: Path) -> Delivered:
        """Return the same of a file that was moved to another folder."""
        return replace(self, file=str(folder / Path(self.file).name)) if self.file else self


def deliver(
    checkpoint: Path,
    folder: Path,
    images: Sequence[Path],
    delivery: Delivery,
    imgsz: int,
    exclude: Sequence[str] = (),
) -> Path:
    """Export a checkpoint into a folder, and return the file; for PyTorch the checkpoint.

    Raises:
        UserError: If the export fails, or an INT8 file finds nothing.
    """
    if not RUNTIMES[delivery.runtime].format:  # PyTorch runs the checkpoint itself
        return checkpoint
    file = folder / file_name(checkpoint.stem, delivery.runtime, delivery.precision)
    return export_file(checkpoint, file, images, imgsz, delivery.runtime, delivery.precision, exclude)


def deliver_int8(
    checkpoint: Path,
    folder: Path,
    images: Sequence[Path],
    truth: AgreementSet,
    delivery: Delivery,
    settings: Settings,
    slack: float = inf,
) -> tuple[Path, Variant]:
    """Export a checkpoint as INT8, with the first convolution or the head in float32 where that is worth its time, see `write_best`.

    Returns:
        The file, and what stays in float32 with the agreement that this has.

    Raises:
        UserError: If the export fails, or the file finds nothing.
    """
    # NNCF and its like, which float32 does not need
    from ghost_yolo.export.float32_parts import write_best
    from ghost_yolo.export.int8 import Int8Exporter

    file = folder / file_name(checkpoint.stem, delivery.runtime, delivery.precision)
    with Int8Exporter(checkpoint, images, settings.imgsz, delivery.runtime) as exporter:
        return file, write_best(exporter, truth, file, settings.threads, slack)


def judge(
    files: Mapping[str, Path], truth: AgreementSet | None, delivery: Delivery, settings: Settings
) -> list[Delivered]:
    """Score files with and without labels.

    Args:
        files: By name: `trained` first, which is the checkpoint that sets the truth.
        truth: What the trained model finds in images that nothing was fitted on; without it there is no agreement.
        delivery: Data set for the true accuracy.
        settings: Image size and device.
    """
    agreement: dict[str, Score] = {}
    if truth is not None:
        for name in progress([*files], "Agreement"):
            agreement[name] = truth.score(files[name], RESAMPLES)
    accuracy: dict[str, Score] = {}
    if delivery.data:
        for name in progress([*files], "Accuracy"):
            options = (delivery.data, delivery.split, settings.imgsz, settings.device, RESAMPLES)
            accuracy[name] = evaluate(files[name], *options)
    known = bool(accuracy) and accuracy["trained"].map50_95 > 0
    return [
        Delivered(
            name,
            str(file),
            _backend(file, delivery),
            _interval(agreement.get(name)),
            _interval(accuracy.get(name)),
            ratio(accuracy[name], accuracy["trained"], RESAMPLES) if known else NO_RATIO,
        )
        for name, file in files.items()
    ]


def _backend(file: Path, delivery: Delivery) -> str:
    """Return runtime and precision of a file."""
    if file.suffix == ".pt":
        return "PyTorch fp32"
    return f"{RUNTIMES[delivery.runtime].title} {delivery.precision}"


def _interval(score: Score | None) -> Interval:
    """Return a score with its interval."""
    return NO_RATIO if score is None else (score.map50_95, score.low, score.high)


def time_files(
    teacher: Path, files: Sequence[Path], images: Sequence[Path], delivery: Delivery, settings: Settings
) -> tuple[list[BenchRow], dict[str, Any]]:
    """Time files side by side with the trained model as it would be run otherwise.

    Args:
        teacher: The trained checkpoint.
        files: Exported files or checkpoints.
        images: Calibration images for a baseline in INT8.
        delivery: Runtime and precision of the baseline.
        settings: Image size, threads and rounds.

    Returns:
        The baseline's row and those of the files, whose ratios are to it, and the conditions; of the files after the first one
        only those that could be timed.

    Raises:
        UserError: If the baseline or the first file could not be timed.
    """
    with baseline_file(teacher, images, delivery, settings) as baseline:
        rows, conditions = time_beside(baseline, files, settings)
    if rows[1].error:
        raise UserError(f"the file could not be timed: {rows[1].title}: {rows[1].error}")
    return [row for row in rows if not row.error], conditions


@contextmanager
def baseline_file(teacher: Path, images: Sequence[Path], delivery: Delivery, settings: Settings) -> Iterator[Path]:
    """Yield the trained model as it would be run otherwise, see `time_files`."""
    with temporary_folder("ghost-yolo-baseline-") as folder:
        runtime, precision = delivery.baseline
        file = folder / file_name("baseline", runtime, precision)
        yield export_file(teacher, file, images, settings.imgsz, runtime, precision)


def time_beside(baseline: Path, files: Sequence[Path], settings: Settings) -> tuple[list[BenchRow], dict[str, Any]]:
    """Return the rows of a baseline and of files that are timed side by side with it, some maybe with an error.

    Raises:
        UserError: If the baseline could not be timed.
    """
    plan = BenchPlan(
        models=(str(baseline), *map(str, files)),
        imgsz=settings.imgsz,
        threads=settings.threads,
        rounds=settings.rounds,
        passes=PASSES,
        mixed=True,
    )
    result = bench(plan)
    if result.interrupted:
        raise KeyboardInterrupt
    if result.rows[0].error:
        raise UserError(f"the baseline could not be timed: {result.rows[0].error}")
    return result.rows, result.conditions


def with_times(delivered: Delivered, row: BenchRow) -> Delivered:
    """Return a judged file with its time."""
    return replace(delivered, milliseconds=row.median_ms, time_ratio=(row.ratio, row.ratio_low, row.ratio_high))

"""What stays in float32 in an INT8 file: the first convolution or the head, where the agreement gained is worth the time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ghost_yolo.accuracy.agreement import AgreementSet
from ghost_yolo.bench.runtimes import RUNTIMES, InferenceConfig
from ghost_yolo.errors import OutputExistsError, UserError
from ghost_yolo.export.files import publish
from ghost_yolo.export.int8 import Int8Exporter
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.system import default_threads

TOLERANCE = 0.01  # loss of agreement within which differences are noise: no exception is then looked for
# Agreement that an exception must bring for each factor e of time: 10 % more time for 0.005. About what a narrower model
# gives up for the same (7 times the speed at 99 % of the accuracy, or 10 times at 98 %)
AGREEMENT_PER_LOG_TIME = 0.05
WARMUP, ROUNDS = 3, 20  # forward passes of each file


@dataclass(frozen=True)
class Variant:
    """An INT8 file with some modules left in float32.

    Attributes:
        exclude: Names of those modules; none where all is quantized but the head's decode.
        agreement: mAP50-95 with the teacher's boxes as truth.
        file: The file, which is gone with its exporter; None if it was refused.
        reason: Why it was refused, "" if it was not.
    """

    exclude: tuple[str, ...]
    agreement: float
    file: Path | None = None
    reason: str = ""


def choose_exclusions(
    exporter: Int8Exporter, truth: AgreementSet, threads: int = 0, slack: float = math.inf
) -> tuple[Variant, list[Variant]]:
    """Measure what quantizing the first convolution and the head costs and saves, and choose what stays in float32.

    Variants are tried in the order of what they cost in time: nothing excluded, the first convolution, the head, both. The
    first one within TOLERANCE of the float32 file ends the search, since quantizing takes most of the time. Of those that
    were tried the one is chosen whose agreement, less AGREEMENT_PER_LOG_TIME for each factor e of time, is highest.

    Args:
        exporter: A checkpoint that is being exported.
        truth: Held-out images, none of them a calibration image, with the teacher's boxes.
        threads: CPU threads; 0 for the number of physical cores.
        slack: How many times the time of the fastest file the chosen one may take, where there is a target.

    Returns:
        The chosen variant, and all that were tried. A file that is refused has an agreement of 0.
    """
    first, head = exporter.parts["first"], exporter.parts["head"]
    enough, variants = truth.score(exporter.fp32, resamples=0).map50_95 - TOLERANCE, list[Variant]()
    for exclude in ((), (first,), (head,), (first, head)):
        variants.append(_try(exporter, truth, exclude, len(variants)))
        if variants[-1].file and variants[-1].agreement >= enough:
            break
    return most_worth(variants, exporter, threads, slack), variants


def most_worth(
    variants: Sequence[Variant], exporter: Int8Exporter, threads: int = 0, slack: float = math.inf
) -> Variant:
    """Return the variant that is worth its time, see `choose_exclusions`; where all were refused the first."""
    sound = {variant.file: variant for variant in variants if variant.file}
    if len(sound) < 2:
        return next(iter(sound.values()), variants[0])
    times = time_variants([*sound], exporter.runtime, exporter.size, threads)
    fastest = min(times, key=lambda file: times[file])
    worth = {file: sound[file].agreement - AGREEMENT_PER_LOG_TIME * math.log(times[file]) for file in sound}
    within = [file for file in sound if times[file] <= slack * times[fastest]] or [fastest]
    return sound[max(within, key=lambda file: worth[file])]


def time_variants(files: Sequence[Path], runtime: str, size: tuple[int, int], threads: int = 0) -> dict[Path, float]:
    """Return the median milliseconds of a forward pass of each file, in turn, in this process.

    For a choice among files of one model: `ghost-yolo bench` gives each a process of its own.
    """
    config = InferenceConfig(1, size, 3, "int8", "cpu", threads or default_threads())
    models = {file: RUNTIMES[runtime].open(file, config) for file in files}
    seconds: dict[Path, list[float]] = {file: [] for file in files}
    for _ in progress(range(WARMUP + ROUNDS), "Timing INT8 files"):
        for file, model in models.items():
            start = time.perf_counter()
            model()
            seconds[file].append(time.perf_counter() - start)
    return {file: 1000 * median(taken[WARMUP:]) for file, taken in seconds.items()}


def _try(exporter: Int8Exporter, truth: AgreementSet, exclude: tuple[str, ...], number: int) -> Variant:
    """Write a variant into the exporter's folder and score it."""
    try:
        file = exporter.write(exporter.folder / f"variant{number}{RUNTIMES[exporter.runtime].suffix}", exclude)
        return Variant(exclude, truth.score(file, resamples=0).map50_95, file)
    except UserError as error:
        return Variant(exclude, 0.0, reason=str(error))


def write_best(
    exporter: Int8Exporter, truth: AgreementSet, out: Path, threads: int = 0, slack: float = math.inf
) -> Variant:
    """Write the INT8 file of the variant that `choose_exclusions` chooses, and return that.

    Raises:
        OutputExistsError: If `out` exists.
        UserError: If every variant is refused.
    """
    if out.exists():
        raise OutputExistsError(f"{out} exists; move it away, or give another name")
    chosen, _ = choose_exclusions(exporter, truth, threads, slack)
    if chosen.file is None:
        raise UserError(chosen.reason)
    publish(chosen.file, out)
    return chosen

"""A target in time: whole models are timed untrained, those that are fast enough are fitted, and the most faithful is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ghost_yolo.accuracy import AgreementSet
from ghost_yolo.bench.exporting import estimate_batchnorm_from_noise
from ghost_yolo.errors import SwapError, UserError
from ghost_yolo.ghostify.delivery import deliver, time_files
from ghost_yolo.ghostify.fitting import fit_student
from ghost_yolo.ghostify.reshape import plan_widths
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.student import Candidate, build_candidate, build_reshaped, save_student
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.files import temporary_folder

WIDTHS: tuple[tuple[float, ...], ...] = ((), (0.75,), (0.625,), (0.5, 0.625), (0.5,), (0.375,), (0.25,))
FEWER: tuple[tuple[float, ...], ...] = ((), (0.625,), (0.5,))
SHAPES = {"": FEWER, "hardswish": FEWER, "relu": WIDTHS}  # widths to try by activation, "" for the trained one
CALIBRATION = 32  # images for the files that are only timed
TIMES = "target times"  # names in the run state
AGREEMENTS = "target agreements"
FINALISTS, FINAL_MARGIN = 3, 0.05  # that are distilled at most, and how much less than the best they agree at most


@dataclass(frozen=True)
class Option:
    """A whole model that may be fast enough.

    Attributes:
        act: Its activation; "" for the trained one.
        width: Its widths, see `ghost_yolo.ghostify.reshape.require_shares`.
        time_ratio: Its time relative to the baseline's, measured untrained.
        milliseconds: Its median time.
        agreement: Agreement of its closed form with the trained model; None where it was not fitted.
        distilled: Agreement after the distillation; None where it was not distilled.
    """

    act: str
    width: tuple[float, ...]
    time_ratio: float
    milliseconds: float
    agreement: float | None = None
    distilled: float | None = None

    @property
    def title(self) -> str:
        """Activation and widths as options."""
        width = ",".join(f"{share:g}" for share in self.width)
        parts = [f"--act {self.act}"] * bool(self.act) + [f"--width {width}"] * bool(width)
        return " ".join(parts) or "as trained"


@dataclass(frozen=True)
class Target:
    """What the search found.

    Attributes:
        share: Share of the baseline's time that was asked for.
        options: All that were timed.
        chosen: The one that agrees most, of those distilled where several were.
        baseline_ms: Median time of the baseline.
        conditions: Machine, workload and versions.
    """

    share: float
    options: Sequence[Option]
    chosen: Option
    baseline_ms: float
    conditions: dict[str, Any]


def parse_target(text: str) -> float | None:
    """Return the share of the time that a text such as `10x` or `0.2` asks for; None for an empty one.

    Raises:
        UserError: If it is neither.
    """
    if not text:
        return None
    try:
        share = 1 / float(text[:-1]) if text.endswith("x") else float(text)
    except (ValueError, ZeroDivisionError):
        share = 0.0
    if not 0 < share < 1:
        raise UserError(f"--target {text}: must be a speed-up such as 10x, or a share of the time such as 0.2")
    return share


def search_target(run: GhostifyRun, teacher_file: Path, share: float) -> Target:
    """Time all options, fit the widest ones that are fast enough, and choose the one that agrees most.

    Raises:
        UserError: If none is fast enough; it says which is the fastest.
    """
    results = run.state.results
    if TIMES not in results:
        run.state.add(TIMES, _time_options(run, teacher_file))
    baseline_ms, conditions, rows = results[TIMES]
    options = [Option(row["act"], tuple(row["width"]), row["ratio"], row["ms"]) for row in rows]
    enough = [option for option in options if option.time_ratio <= share]
    if not enough:
        best = min(options, key=lambda option: option.time_ratio)
        run.state.remove()
        raise UserError(
            f"--target {share:.3g} of {baseline_ms:.2f} ms: the fastest of {len(options)} models, {best.title}, needs "
            f"{best.time_ratio:.3f}; give --target {best.time_ratio * 1.05:.2f} or more, or --precision int8"
        )
    screened = [_screen(run, option, teacher_file) for option in widest(enough)]
    known = {option.title: option for option in screened}
    chosen = max(screened, key=lambda option: option.agreement or 0.0)
    return Target(share, [known.get(o.title, o) for o in options], chosen, baseline_ms, conditions)


def finalists(target: Target) -> list[Option]:
    """Return the options that are worth a distillation, the best first; only one where no agreement is known."""
    fitted = [option for option in target.options if option.agreement is not None]
    fitted.sort(key=lambda option: -(option.agreement or 0.0))
    best = target.chosen.agreement
    if best is None:
        return [target.chosen]
    return [option for option in fitted if (option.agreement or 0.0) >= best - FINAL_MARGIN][:FINALISTS]


def choose_distilled(target: Target, agreements: Mapping[str, float | None]) -> Target:
    """Return a target with the agreement of the distilled options, by title, the best of which is chosen."""
    options = [replace(option, distilled=agreements.get(option.title)) for option in target.options]
    known = [option for option in options if option.distilled is not None]
    chosen = max(known, key=lambda option: option.distilled or 0.0) if known else target.chosen
    return replace(target, options=options, chosen=chosen)


def shapes(run: GhostifyRun) -> list[tuple[str, tuple[float, ...]]]:
    """Return activation and widths of all options that leave something of each row; what the user gave is not varied."""
    acts = [run.config.act] if run.config.act else [*SHAPES]
    return [
        (act, width)
        for act in acts
        for width in ([run.config.width] if run.config.width else SHAPES.get(act, WIDTHS))
        if _fits(run.teacher, width)
    ]


def _fits(teacher: HostModel, width: Sequence[float]) -> bool:
    """Return whether widths leave something of each row."""
    try:
        return not width or bool(plan_widths(teacher, width, {}))
    except SwapError:
        return False


def widest(options: Sequence[Option]) -> list[Option]:
    """Return the option of each activation that has most channels."""
    best: dict[str, Option] = {}
    for option in options:
        if option.act not in best or _mean_width(option) > _mean_width(best[option.act]):
            best[option.act] = option
    return [*best.values()]


def _mean_width(option: Option) -> float:
    """Return the mean share of the channels."""
    return sum(option.width) / len(option.width) if option.width else 1.0


def _time_options(run: GhostifyRun, teacher_file: Path) -> list[Any]:
    """Export and time all options untrained, side by side with the baseline: time depends on the architecture alone."""
    config, files = run.config, []
    images = run.image_files[:CALIBRATION]
    with temporary_folder("ghost-yolo-target-") as folder:
        for number, (act, width) in enumerate(progress(shapes(run), "Exporting candidates")):
            student = build_reshaped(run.teacher, {}, act, width, config.settings.seed).model
            files.append(write_untrained(run, student, folder / f"candidate{number}.pt", images))
        (baseline, *rows), conditions = time_files(teacher_file, files, images, config.delivery, config.settings)
    times = [
        {"act": act, "width": list(width), "ratio": row.ratio, "ms": row.median_ms}
        for (act, width), row in zip(shapes(run), rows, strict=True)
    ]
    return [baseline.median_ms, conditions, times]


def write_untrained(run: GhostifyRun, student: HostModel, checkpoint: Path, images: Sequence[Path]) -> Path:
    """Export an untrained model, whose time is that of the trained one, beside its checkpoint; return the file."""
    estimate_batchnorm_from_noise(student)
    save_student(run.teacher, student, checkpoint)
    return deliver(checkpoint, checkpoint.parent, images, run.config.delivery, run.config.settings.imgsz)


def _screen(run: GhostifyRun, option: Option, teacher_file: Path) -> Option:
    """Return an option with the agreement of its closed form, None where no images were held out."""
    known = run.state.results.get(AGREEMENTS, {})
    if option.title not in known:
        student = build_option(run, option)
        if student.reshaped:
            fit_student(run, student.model, result_prefix(option))
        known = {**known, option.title: agreement(run, student, teacher_file)}
        run.state.add(AGREEMENTS, known)
    return replace(option, agreement=known[option.title])


def agreement(run: GhostifyRun, student: Candidate, teacher_file: Path) -> float | None:
    """Return the agreement of a student, None where no images were held out."""
    if not run.held_out:
        return None
    settings = run.config.settings
    with (
        temporary_folder("ghost-yolo-screen-") as folder,
        AgreementSet(teacher_file, run.held_out, settings.imgsz, device=settings.device) as truth,
    ):
        save_student(run.teacher, student.model, folder / "student.pt")
        return truth.score(folder / "student.pt", resamples=0).map50_95


def result_prefix(option: Option) -> str:
    """Return the prefix of an option's results in the run state."""
    return f"{option.title}: "


def build_option(run: GhostifyRun, option: Option) -> Candidate:
    """Build the untrained student of an option; where nothing changes it is the trained model."""
    if not (option.act or option.width):
        return build_candidate(run.teacher, {}, run.config.settings.seed)
    return build_reshaped(run.teacher, {}, option.act, option.width, run.config.settings.seed)

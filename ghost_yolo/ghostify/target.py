"""A target in time: whole models are timed untrained, those that are fast enough are fitted, and the most faithful is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

from ghost_yolo.errors import SwapError, UserError
from ghost_yolo.ghostify.fitting import fit_student
from ghost_yolo.ghostify.option_times import Times, time_options
from ghost_yolo.ghostify.options import ModelOption, build_option, widest
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.student import Candidate, save_student
from ghost_yolo.utils.console import progress_of
from ghost_yolo.utils.files import temporary_folder
from ghost_yolo.utils.system import restore_threads

AGREEMENTS = "target agreements"  # name in the run state
FINALISTS, FINAL_MARGIN = 3, 0.05  # that are distilled at most, and how much less than the best they agree at most


@dataclass(frozen=True)
class TimeTarget:
    """What the search found.

    Attributes:
        share: Share of the baseline's time that was asked for.
        options: All that were timed.
        chosen: The one that agrees most, of those distilled where several were.
        baseline_ms: Median time of the baseline.
        conditions: Machine, workload and versions.
        left_out: Why a model was not timed or not fitted, by title.
    """

    share: float
    options: Sequence[ModelOption]
    chosen: ModelOption
    baseline_ms: float
    conditions: Mapping[str, Any]
    left_out: Mapping[str, str] = field(default_factory=dict)


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


def format_share(share: float) -> str:
    """Return a share of the time as text, with the speed-up that it is."""
    return f"{share:.3g} ({1 / share:.3g}x)"


def search_target(run: GhostifyRun, teacher_file: Path, share: float) -> TimeTarget:
    """Time all options, fit the widest ones that are fast enough, and choose the one that agrees most.

    Raises:
        UserError: If none is fast enough, it says which is the fastest, or if none of those can be fitted.
    """
    times = time_options(run, teacher_file)
    fitted = widest(fast_enough(run, times, share))
    if not run.held_out:  # nothing tells them apart
        fitted = [max(fitted, key=lambda option: option.mean_width)]
    screened, failed = _screen_all(run, fitted)
    known = {option.title: option for option in screened}
    chosen = max(screened, key=lambda option: option.agreement or 0.0)
    options = [known.get(option.title, option) for option in times.options]
    return TimeTarget(share, options, chosen, times.baseline_ms, times.conditions, {**times.left_out, **failed})


def fast_enough(run: GhostifyRun, times: Times, share: float) -> list[ModelOption]:
    """Return the options that take at most a share of the baseline's time.

    Raises:
        UserError: If there is none; the resume file stays for another target.
    """
    enough = [option for option in times.options if option.time_ratio <= share]
    if enough:
        return enough
    best = min(times.options, key=lambda option: option.time_ratio)
    raise UserError(
        f"--target {format_share(share)} of {times.baseline_ms:.2f} ms: the fastest of {len(times.options)} models, {best.title}, "
        f"needs {format_share(best.time_ratio)}; {advise(best.time_ratio, run.config.delivery.precision)}; "
        f"{run.state.file} keeps the times, remove it to time again"
    )


def advise(share: float, precision: str) -> str:
    """Return what to give where the fastest model needs a share of the baseline's time."""
    least = ceil(105 * share) / 100  # some more than was measured
    options = [f"--target {format_share(least)} or more of the time"] if least < 1 else []
    options += ["--precision int8 with --runtime openvino or onnx"] if precision != "int8" else []
    return f"give {', or '.join(options)}" if options else "this runtime has no model that is faster than the baseline"


def finalists(target: TimeTarget) -> list[ModelOption]:
    """Return the options that are worth a distillation, the best first; only one where no agreement is known."""
    return nearly_best([option for option in target.options if option.agreement is not None]) or [target.chosen]


def nearly_best(fitted: Sequence[ModelOption]) -> list[ModelOption]:
    """Return the options that agree nearly as much as the best one, that first: what is not among them never will be later."""
    ranked = sorted(fitted, key=lambda option: -(option.agreement or 0.0))
    best = ranked[0].agreement or 0.0 if ranked else 0.0
    return [option for option in ranked if (option.agreement or 0.0) >= best - FINAL_MARGIN][:FINALISTS]


def choose_distilled(target: TimeTarget, agreements: Mapping[str, float | None]) -> TimeTarget:
    """Return a target with the agreement of the distilled options, by title, the best of which is chosen."""
    options = [replace(option, distilled=agreements.get(option.title)) for option in target.options]
    known = [option for option in options if option.distilled is not None]
    chosen = max(known, key=lambda option: option.distilled or 0.0) if known else target.chosen
    return replace(target, options=options, chosen=chosen)


def _screen_all(run: GhostifyRun, options: Sequence[ModelOption]) -> tuple[list[ModelOption], dict[str, str]]:
    """Return the options that can be fitted with their agreements, and of the others, by title, why they cannot.

    Raises:
        UserError: If none can.
    """
    screened, failed = list[ModelOption](), dict[str, str]()
    for option in options:
        try:
            screened.append(_screen(run, option))
        except SwapError as error:
            failed[option.title] = str(error)
            continue
        for other in set(screened) - set(nearly_best(screened)):
            run.state.drop(result_prefix(other))  # it will not be distilled
    if not screened:
        raise UserError(
            f"--target: no model that is fast enough could be fitted; {'; '.join(dict.fromkeys(failed.values()))}"
        )
    return screened, failed


def _screen(run: GhostifyRun, option: ModelOption) -> ModelOption:
    """Fit an option, and return it with its agreement, None where no images were held out."""
    known = run.state.results.get(AGREEMENTS, {})
    if option.title not in known:
        student = build_option(run.teacher, option, run.config.settings.seed)
        with progress_of(option.title):
            if student.reshaped:
                fit_student(run, student.model, result_prefix(option))
            known = {**known, option.title: agreement(run, student)}
        run.state.add(AGREEMENTS, known)
    return replace(option, agreement=known[option.title])


@restore_threads()
def agreement(run: GhostifyRun, student: Candidate) -> float | None:
    """Return the agreement of a student, None where no images were held out."""
    if run.truth is None:
        return None
    with temporary_folder("ghost-yolo-screen-") as folder:
        save_student(run.teacher, student.model, folder / "student.pt")
        return run.truth.score(folder / "student.pt", resamples=0).map50_95


def result_prefix(option: ModelOption) -> str:
    """Return the prefix of an option's results in the run state."""
    return f"{option.title}: "

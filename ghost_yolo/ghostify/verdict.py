"""The part of a report that judges what is delivered: time, agreement with the trained model, and true accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.data.images import MIN_HELD_OUT
from ghost_yolo.ghostify.delivery import TWIN, Delivered, Interval
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.target import TimeTarget, format_share, result_prefix
from ghost_yolo.ghostify.training import LOSSES
from ghost_yolo.tables import Report

FEW, SHOWN = 10, 5  # objects of a class, on which it says little; and how many such classes are named
RESTLESS = 0.05  # relative difference of two measurements of one architecture
CONVENTIONS = {
    "agreement": "mAP50-95 on images that were held out of all fitting, with the trained model's boxes of a confidence of at "
    "least 0.25 as truth; the trained model itself scores a little less than 1. For a classifier the share of equal classes",
    "accuracy": "mAP50-95 on the labelled data, by Ultralytics' own validation of that very file at square images",
    "intervals": "95 %, by bootstrap over images, those of times over rounds",
    "ms, speed-up": "median of the network alone, batch 1, timed side by side with the trained model in the baseline's runtime",
}


def add_delivery(
    report: Report,
    run: GhostifyRun,
    judged: Sequence[Delivered],
    conditions: Mapping[str, Any],
    target: TimeTarget | None,
) -> Report:
    """Return a report with the files that were judged, and what a target was searched among."""
    notes, tables = [*report.notes], [*report.tables]
    losses = run.state.results.get(f"{result_prefix(target.chosen) if target else ''}{LOSSES}")
    notes += [] if losses is None else [_last_pass(*losses)]
    notes += _rare_classes(run)
    if not run.held_out:
        need = f"{2 * MIN_HELD_OUT} images and a --holdout of {MIN_HELD_OUT} of them"
        taken = " Of the models that are fast enough the one with most channels was taken." if target else ""
        notes.append(
            f"No agreement was measured: of {len(run.image_files)} images none were held out; it needs {need}.{taken}"
        )
    if judged:
        runtime, precision = run.config.delivery.baseline
        tables.append(_table(judged, f"{RUNTIMES[runtime].title} {precision}"))
        notes += _exceptions(judged) + _slow_activation(run.config.act, judged)
    if target is not None:
        tables.append(_options(target))
        notes += [_promise(target, judged[-1]), *_left_out(target)]
    if conditions:
        said = ", ".join(f"{name} {value}" for name, value in conditions.items())
        notes.append(f"Times: {said}.")
    more = {"held_out_images": len(run.held_out), "delivered": [asdict(item) for item in judged]}
    more |= {"conditions": dict(conditions)} if conditions else {}
    more |= {"target": asdict(target)} if target else {}
    known = dict(report.conventions) | (CONVENTIONS if judged else {})
    return replace(report, tables=tables, notes=notes, conventions=known, more=dict(report.more) | more)


def _last_pass(before: float, after: float) -> str:
    """Say what the distillation did to the predictions."""
    text = f"Loss of the predictions on the held-out images: {before:.4g} after the closed form, {after:.4g} after the distillation"
    return f"{text}." if after < before else f"{text}, which was therefore not kept."


def _rare_classes(run: GhostifyRun) -> list[str]:
    """Name the classes of which the trained model finds few objects in the held-out images."""
    found = run.truth.boxes_by_class if run.truth else {}
    rare = [f"{name} ({count})" for name, count in found.items() if count < FEW]
    if not rare:
        return []
    named = ", ".join(rare[:SHOWN]) + (f" and {len(rare) - SHOWN} more" if len(rare) > SHOWN else "")
    text = f"The trained model finds fewer than {FEW} objects of {named} in the held-out images"
    return [
        f"{text}. In the agreement each class that it finds at all counts alike: more images make it more reliable."
    ]


def _exceptions(judged: Sequence[Delivered]) -> list[str]:
    """Say what stays in float32 in an INT8 file."""
    return [
        f"{Path(item.file).name}: {' and '.join(item.excluded)} in float32, since quantizing cost agreement."
        for item in judged
        if item.excluded
    ]


def _slow_activation(act: str, judged: Sequence[Delivered]) -> list[str]:
    """Warn of an activation that takes more time than ReLU, which every runtime computes together with the convolution."""
    files = {item.name: item.milliseconds for item in judged}
    own, relu = files.get("exported"), files.get(TWIN)
    if own is None or relu is None or own < (1 + RESTLESS) * relu:
        return []
    name = f"--act {act}" if act else "the trained activation"
    return [f"Warning: {name} takes {own / relu:.2f} times the time of the same model with --act relu here."]


def _table(judged: Sequence[Delivered], baseline: str) -> tuple[list[str], list[list[str]]]:
    """Return the table of the files; the trained model's time is that in the baseline's runtime."""
    rows = [
        [
            item.name,
            item.backend
            if item.name != "trained" or item.milliseconds is None
            else f"{item.backend}; timed in {baseline}",
            "" if item.milliseconds is None else f"{item.milliseconds:.2f}",
            format_speed_up(item.time_ratio),
            format_interval(item.agreement),
            format_interval(item.accuracy),
            format_interval(item.accuracy_ratio),
        ]
        for item in judged
    ]
    return ["file", "runtime", "ms", "speed-up", "agreement", "accuracy", "of the trained one's"], rows


def format_interval(value: Interval) -> str:
    """Return a value with its interval as text, "" for none."""
    middle, low, high = value
    if middle is None:
        return ""
    return f"{middle:.3f}" if low is None or high is None else f"{middle:.3f} ({low:.3f} to {high:.3f})"


def format_speed_up(share: Interval) -> str:
    """Return a share of the time as a speed-up with its interval, "" for none."""
    middle, low, high = share
    if middle is None:
        return ""
    return f"{1 / middle:.2f}x" + ("" if low is None or high is None else f" ({1 / high:.2f} to {1 / low:.2f})")


def _options(target: TimeTarget) -> tuple[list[str], list[list[str]]]:
    """Return the table of the options of a target."""
    rows = []
    for option in sorted(target.options, key=lambda option: option.time_ratio):
        mark = "chosen" if option.title == target.chosen.title else ""
        scores = ["" if score is None else f"{score:.3f}" for score in (option.agreement, option.distilled)]
        rows.append([mark, option.title, f"{option.milliseconds:.2f}", f"{1 / option.time_ratio:.2f}x", *scores])
    return [
        "target",
        "model",
        "ms untrained",
        "speed-up",
        "agreement before distillation",
        "agreement after distillation",
    ], rows


def _left_out(target: TimeTarget) -> list[str]:
    """Say which models were not timed or not fitted, and why; those of one reason together."""
    titles: dict[str, list[str]] = {}
    for title, reason in target.left_out.items():
        titles.setdefault(reason, []).append(title)
    return [f"Left out: {'; '.join(names)}: {reason.rstrip('.')}." for reason, names in titles.items()]


def _promise(target: TimeTarget, delivered: Delivered) -> str:
    """Say whether the time that was promised is the one that was measured again."""
    promised, measured = target.chosen.time_ratio, delivered.time_ratio[0]
    assert measured is not None, "a target is never without a file that was timed"
    text = (
        f"Target {format_share(target.share)} of the baseline's {target.baseline_ms:.2f} ms: {target.chosen.title} was measured at "
        f"{format_share(promised)} untrained and at {format_share(measured)} as delivered."
    )
    if delivered.excluded:
        text = f"{text} What stays in float32 ({', '.join(delivered.excluded)}) was not so when it was timed untrained."
    if measured > target.share:
        other = "" if delivered.backend.endswith("int8") else ", or --precision int8"
        text = (
            f"{text} The target is missed: give one of {format_share(target.share * target.share / measured)}{other}."
        )
    if abs(measured / promised - 1) > RESTLESS and not delivered.excluded:
        return f"{text} They differ by more than {RESTLESS:.0%}: this machine is too restless; measure again with more --rounds."
    return text

"""Report of a run: a row for each target module, the whole model, and the trade-off of a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ghost_yolo.data.images import skipped_text
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.config import RunConfig
from ghost_yolo.ghostify.cost import Cost, model_cost, target_costs
from ghost_yolo.ghostify.savings import Latency
from ghost_yolo.ghostify.search import TradeOff
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.student import Candidate, TargetModule
from ghost_yolo.registry import PREFIX
from ghost_yolo.tables import Report, format_percent

MAX_FRONT_ROWS = 10  # of the Pareto front, in the table

CONVENTIONS = {
    "layer": "name in the model: a row, or one level of the head's class branch",
    "parameters, gflops": "of the module as deployed, every BN fused; 2 x MACs of one image at imgsz",
    "error": "mean squared error of the module's output maps, each channel relative to the variance of the trained module's, over "
    "64 samples right after the reconstruction; predicting the mean of each channel scores 1",
    "seconds": "wall clock, caching of activations included; the whole includes the distillation and interrupted runs",
}
FIT_CONVENTIONS = {
    "error": "share of the variance of the trained module's output maps that is not linear in the new one's, the mean over "
    "the channels that are kept, right after the closed form; the distillation comes later",
}
OPTION_CONVENTIONS = {
    "sensitivity": "loss of the predictions plus relative error of the head's inputs, when this block alone, after a trial "
    "reconstruction, replaces one of the trained model; those of a selection are added",
    "error of an option": "as error, for this block alone in the trained model after a trial reconstruction; for a head the mean "
    "over its levels",
}
LATENCY_CONVENTIONS = {
    "saved": "milliseconds of the trained model times 1 - ratio, where this block alone is replaced. The ratio is the median of "
    "latencies paired round by round, its confidence interval is by bootstrap over rounds. Options whose interval reaches 0 are "
    "not selected; savings of a selection are added",
}


@dataclass(frozen=True)
class Reconstruction:
    """Result of the reconstruction of a target module."""

    target: TargetModule
    error: float | None
    seconds: float


def build_report(
    run: GhostifyRun, candidate: Candidate, reconstructions: Sequence[Reconstruction], trade_off: TradeOff | None
) -> Report:
    """Build the report of a finished run.

    Args:
        run: The run.
        candidate: The distilled student.
        reconstructions: Results of its target modules.
        trade_off: What the budget selected from; None without a budget.
    """
    student, imgsz = candidate.model, run.config.settings.imgsz
    before, after = (
        target_costs(model, [r.target for r in reconstructions], imgsz) for model in (run.teacher, student)
    )
    rows = [
        _row(r.target.name.removeprefix("model."), r.target.block, costs, r.error, r.seconds)
        for r, costs in zip(reconstructions, zip(before, after, strict=True), strict=True)
    ]
    costs = model_cost(run.teacher, imgsz), model_cost(student, imgsz)
    whole = _row("whole", "", costs, None, run.state.seconds)
    header = ["layer", "block", "parameters before", "after", "GFLOPs before", "after", "error", "seconds"]
    tables, notes = [(header, [_cells(row) for row in [*rows, whole]])], [_summary(run.config, run.images, whole)]
    skipped = [str(path) for path in run.images.skipped]
    more = {"settings": run.config.to_dict(), "calibration_images": len(run.images), "skipped": skipped, "whole": whole}
    conventions = dict(CONVENTIONS) | (FIT_CONVENTIONS if candidate.reshaped else {})
    kept = {str(row): width.kept for row, width in candidate.widths.items() if width.kept}
    more |= {"kept_widths": kept} if candidate.widths else {}
    notes += (
        [f"Rows that keep their width: {', '.join(f'{row} ({why})' for row, why in kept.items())}."] if kept else []
    )
    if trade_off is not None:
        conventions |= OPTION_CONVENTIONS | (LATENCY_CONVENTIONS if trade_off.measured else {})
        tables += [options_table(trade_off), front_table(trade_off)]
        notes.append(describe_selection(trade_off))
        more |= trade_off_dict(trade_off)
    return Report(rows, tables, conventions, notes, more)


def _row(layer: str, block: str, costs: tuple[Cost, Cost], error: float | None, seconds: float) -> dict[str, Any]:
    """Return the figures of a row; costs are those before and after."""
    before, after = costs
    return {
        "layer": layer,
        "block": block,
        "parameters_before": before.parameters,
        "parameters_after": after.parameters,
        "gflops_before": before.gflops,
        "gflops_after": after.gflops,
        "error": error,
        "seconds": seconds,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the printed table."""
    figures = [str(row[f"parameters_{when}"]) for when in ("before", "after")]
    figures += [f"{row[f'gflops_{when}']:.4g}" for when in ("before", "after")]
    error = "" if row["error"] is None else f"{row['error']:.4g}"
    return [row["layer"], row["block"].removeprefix(PREFIX), *figures, error, f"{row['seconds']:.1f}"]


def _summary(config: RunConfig, images: CalibrationImages, whole: dict[str, Any]) -> str:
    """Return the settings and the change of the whole model in words."""
    settings, skipped = config.settings, skipped_text(len(images.skipped))
    parameters, gflops = (
        format_percent((whole[f"{figure}_after"] / whole[f"{figure}_before"] - 1) * 100) or "unchanged"
        for figure in ("parameters", "gflops")
    )
    how = " in bfloat16" if settings.mixed_precision else ""
    how += "" if settings.maps_weight is None else f" with maps of weight {settings.maps_weight:g}"
    return (
        f"{config.model}: {len(images)} calibration images{skipped} at imgsz={settings.imgsz}, {settings.reconstruct_steps} "
        f"reconstruction steps per block, {settings.distill_steps} distillation steps{how}, seed {settings.seed}. "
        f"Parameters {parameters}, GFLOPs {gflops}."
    )


def trade_off_dict(trade_off: TradeOff) -> dict[str, Any]:
    """Return the figures of a trade-off for JSON."""
    return {
        "cost": {"unit": trade_off.unit, "trained": trade_off.total, "budget": trade_off.budget},
        "options": [asdict(option) for option in trade_off.options],
        "pareto_front": [asdict(selection) for selection in trade_off.pareto_front],
        "selected": asdict(trade_off.selected),
        "predicted": trade_off.predicted,
        "measured": trade_off.measured.to_dict() if trade_off.measured else None,
    }


def describe_selection(trade_off: TradeOff) -> str:
    """Return the predicted share of the selection, and the measured one of a latency, in words."""
    text = f"Budget {trade_off.budget:g}: the selection keeps {trade_off.predicted:.3f} of the {trade_off.unit}"
    latency = trade_off.measured
    if latency is None:
        return f"{text}."
    low, high = latency.interval
    return (
        f"{text} by the sum of the measured savings, and {latency.ratio:.3f} (95 % {low:.3f} to {high:.3f}) measured as a whole: "
        f"{latency.row.median_ms:.2f} ms instead of {latency.teacher_ms:.2f}.{_advice(trade_off.budget, latency)} "
        f"{describe_conditions(latency)}"
    )


def _advice(budget: float, latency: Latency) -> str:
    """Return what to do if the measured share is above the budget."""
    if latency.ratio <= budget:
        return ""
    if latency.interval[1] < 1:
        return " This is above the budget: give a smaller one, or more --rounds."
    return " This is above the budget, and may save nothing: give more --rounds, on an idle machine."


def describe_conditions(latency: Latency) -> str:
    """Return the conditions of a latency in words."""
    said = latency.conditions
    return (
        f"{latency.row.backend}, {said['cpu']}, {said['threads']} threads, load before {said['load_before']}, batch "
        f"{said['batch']}, {said['rounds']} rounds of {said['passes']} passes, models in turn."
    )


def options_table(trade_off: TradeOff) -> tuple[list[str], list[list[str]]]:
    """Return the table of all options, ordered by row."""
    lines = []
    for option in sorted(trade_off.options, key=lambda option: option.row):
        saved = f"{option.saving:.3f}"
        saved += " ({:.3f} to {:.3f})".format(*option.interval) if option.interval else ""
        remark = "" if option.is_significant else "no significant saving"
        figures = [saved, f"{option.error:.4f}", f"{option.sensitivity:.4f}", remark]
        lines.append([str(option.row), option.block.removeprefix(PREFIX), *figures])
    return ["row", "block", f"{trade_off.unit} saved", "error", "sensitivity", ""], lines


def front_table(trade_off: TradeOff) -> tuple[list[str], list[list[str]]]:
    """Return the table of the Pareto front: about MAX_FRONT_ROWS selections, and the selected one."""
    total, front = trade_off.total, trade_off.pareto_front
    shown = {
        *range(0, len(front), max(len(front) // MAX_FRONT_ROWS, 1)),
        len(front) - 1,
        front.index(trade_off.selected),
    }
    lines = []
    for selection in (front[i] for i in sorted(shown)):
        blocks = ", ".join(f"{row} {block.removeprefix(PREFIX)}" for row, block in sorted(selection.blocks.items()))
        mark = "selected" if selection == trade_off.selected else ""
        figures = [f"{selection.cost:.3f}", f"{selection.cost / total:.3f}", f"{selection.sensitivity:.4f}"]
        lines.append([mark, *figures, blocks])
    return ["Pareto front", trade_off.unit, "share", "sensitivity", "rows and blocks"], lines

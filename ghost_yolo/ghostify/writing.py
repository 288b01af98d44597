"""What a run writes: the checkpoint, the exported file, the report that judges both, and the plot."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn.modules.conv import Conv

from ghost_yolo.errors import UserError
from ghost_yolo.export.files import publish
from ghost_yolo.ghostify.delivery import TWIN, Delivered, deliver, deliver_int8, judge, time_files, with_times
from ghost_yolo.ghostify.option_times import write_untrained
from ghost_yolo.ghostify.plot import drawn, plot_delivered, plot_trade_off
from ghost_yolo.ghostify.report import Reconstruction, build_report
from ghost_yolo.ghostify.search import TradeOff
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.student import Candidate, build_reshaped, save_student
from ghost_yolo.ghostify.target import TimeTarget, agreement, result_prefix
from ghost_yolo.ghostify.verdict import add_delivery
from ghost_yolo.model.checkpoint import check_model
from ghost_yolo.tables import Report, render_report
from ghost_yolo.utils.files import temporary_folder, write_atomic
from ghost_yolo.utils.system import restore_threads, versions

Conditions = dict[str, Any]  # of a measurement
INT8, DELIVERED, WRITTEN = "int8", "agreement as delivered", "written"  # names in the run state


def write_outputs(
    run: GhostifyRun,
    student: Candidate,
    reconstructions: Sequence[Reconstruction],
    found: tuple[TradeOff | None, TimeTarget | None],
    out: Path,
) -> Report:
    """Judge the student, and write plot, report, exported file and checkpoint, each atomically, in this order."""
    trade_off, target = found
    with temporary_folder("ghost-yolo-delivery-") as folder:
        label = result_prefix(target.chosen) if target else ""
        judged, conditions = judge_student(run, student, folder / out.name, label)
        judged = [item if item.name == "trained" else item.moved_to(out.parent) for item in judged]
        report = build_report(run, student, reconstructions, trade_off)
        report = add_delivery(report, run, judged, conditions, target)
        if trade_off is not None:
            write_atomic(out.with_suffix(".png"), plot_trade_off(trade_off))
        elif target is not None or drawn(judged):
            write_atomic(out.with_suffix(".png"), plot_delivered(judged, target))
        write_atomic(out.with_suffix(".json"), render_report(report, versions(), "json"))
        run.state.add(WRITTEN, [file.name for file in folder.iterdir()])
        for file in sorted(folder.iterdir(), key=lambda file: file.name == out.name):
            if (out.parent / file.name).is_dir():  # of a run that was killed here
                shutil.rmtree(out.parent / file.name)
            publish(file, out.parent / file.name)  # the checkpoint last, so that it implies the others
    return report


def judge_student(
    run: GhostifyRun, student: Candidate, file: Path, label: str = ""
) -> tuple[list[Delivered], Conditions]:
    """Write the student as a checkpoint, export it beside that if asked for, score both and time the exported file."""
    delivery, settings, teacher = run.config.delivery, run.config.settings, Path(run.config.model)
    check_model(file, student.model)
    save_student(run.teacher, student.model, file)
    files, excluded = {"trained": teacher, "ghostified": file}, tuple[str, ...]()
    if delivery.runtime:
        files["exported"], excluded = export_student(run, file, label)
    if not (run.held_out or delivery.data or delivery.runtime):
        return [], {}
    judged = judge(files, run.truth, delivery, settings)
    if not delivery.runtime:
        return judged, {}
    with temporary_folder("ghost-yolo-relu-") as folder:
        timed = [files["exported"], *relu_twin(run, student, folder / "relu.pt")]
        (baseline, row, *twin), conditions = time_files(teacher, timed, run.image_files, delivery, settings)
    judged = [with_times(judged[0], baseline), judged[1], replace(with_times(judged[2], row), excluded=excluded)]
    return judged + [with_times(Delivered(TWIN, "", judged[2].backend), row) for row in twin], conditions


def export_student(run: GhostifyRun, file: Path, label: str = "", slack: float = inf) -> tuple[Path, tuple[str, ...]]:
    """Export the student beside its checkpoint; return the file, and what stays in float32 in an INT8 one.

    What stays in float32 is kept in the run state, and not measured again.

    Args:
        run: The run.
        file: The student's checkpoint.
        label: Prefix of the results' names in the run state.
        slack: How many times the time of the fastest INT8 file the chosen one may take.
    """
    delivery, imgsz, name = run.config.delivery, run.config.settings.imgsz, name_for(run, label, INT8)
    known = run.state.results.get(name)
    if delivery.precision != "int8" or run.truth is None or known:
        exclude = tuple(known["exclude"]) if known else ()
        return deliver(file, file.parent, run.image_files, delivery, imgsz, exclude), exclude
    exported, chosen = deliver_int8(file, file.parent, run.image_files, run.truth, delivery, run.config.settings, slack)
    run.state.add(name, {"exclude": [*chosen.exclude], "agreement": chosen.agreement})
    return exported, chosen.exclude


@restore_threads()
def score_student(run: GhostifyRun, student: Candidate, label: str, slack: float) -> float | None:
    """Return the agreement of what would be delivered, kept in the run state; None where no images were held out.

    It is that of the INT8 file where one is asked for, 0 where that is refused, and otherwise the checkpoint's: in float32 a
    runtime finds the same.
    """
    name = name_for(run, label, DELIVERED)
    if name not in run.state.results:
        run.state.add(name, _score(run, student, label, slack))
    known: float | None = run.state.results[name]
    return known


def name_for(run: GhostifyRun, label: str, name: str) -> str:
    """Return the name in the run state of a result that depends on what is delivered: the resume file serves others, too."""
    delivery = run.config.delivery
    return f"{label}{name}, {delivery.runtime} {delivery.precision}, target {delivery.target}"


def _score(run: GhostifyRun, student: Candidate, label: str, slack: float) -> float | None:
    """Return the agreement of what would be delivered."""
    if run.config.delivery.precision != "int8" or run.truth is None:
        return agreement(run, student)
    with temporary_folder("ghost-yolo-finalist-") as folder:
        save_student(run.teacher, student.model, folder / "student.pt")
        try:
            export_student(run, folder / "student.pt", label, slack)
        except UserError:  # another one may do; if it is taken nevertheless, the error comes again
            return 0.0
    score: float = run.state.results[name_for(run, label, INT8)]["agreement"]
    return score


def relu_twin(run: GhostifyRun, student: Candidate, checkpoint: Path) -> list[Path]:
    """Return the exported file of the same shape with ReLU, untrained, if a reshaped model has another activation."""
    config, convs = run.config, (module for module in student.model.modules() if isinstance(module, Conv))
    if not student.reshaped or config.delivery.target or type(next(convs).act) is nn.ReLU:
        return []
    twin = build_reshaped(run.teacher, student.plan, "relu", config.width, config.settings.seed).model
    try:
        return [write_untrained(run, twin, checkpoint)]
    except UserError:  # the comparison is not what was asked for
        return []

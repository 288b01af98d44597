"""Ghostify: build the light model, fit it block after block, polish it, write it with its report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ghost_yolo import host
from ghost_yolo.data.images import find_images
from ghost_yolo.ghostify.activations import BATCH, bytes_each, recorder, views_within
from ghost_yolo.ghostify.calibration import Pictures
from ghost_yolo.ghostify.closed_form import begin
from ghost_yolo.ghostify.config import LEAST, Settings, named_in_errors, plans_of, require_new, require_room
from ghost_yolo.ghostify.curve import drawn
from ghost_yolo.ghostify.distill import polish
from ghost_yolo.ghostify.reconstruct import error_of, fit
from ghost_yolo.ghostify.report import Fitted, report_of
from ghost_yolo.ghostify.savings import require_cost, savings_of, time_whole
from ghost_yolo.ghostify.search import Option, Trade, best_of, front_of, require_reachable, survey
from ghost_yolo.ghostify.state import RunState
from ghost_yolo.ghostify.student import Target, student_of, targets_of
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.tables import Report, render_report
from ghost_yolo.utils.console import quiet
from ghost_yolo.utils.files import fingerprint, write_whole
from ghost_yolo.utils.system import GIB, default_threads, versions


def ghostify(
    model: Path | str,
    images: Sequence[Path | str],
    out: Path | str,
    blocks: Sequence[str] = (),
    where: str = "backbone",
    budget: float | None = None,
    settings: Settings | None = None,
) -> Report:
    """Make a trained YOLO light: swap blocks, and fit each to the one it replaces on photographs without labels.

    Args:
        model: A checkpoint of YOLOv8, YOLO11 or YOLO26, any task.
        images: Photographs, or folders of them.
        out: The checkpoint to write; a report is written beside it as JSON.
        blocks: The word for the C2f and C3k2 rows, none for the head alone; with a budget the candidates.
        where: `backbone`, `neck`, `head` or `all`; see `ghost_yolo.model.swap.slots`.
        budget: Share of the cost (of `settings`) that may stay: which rows are swapped, and by which of the words, is then chosen.
        settings: See there.

    Returns:
        A row a block, and the whole.

    Raises:
        UserError: If an argument cannot be, or something that is needed is missing; nothing has then been written.
        KeyboardInterrupt: What was fitted so far stays in `<out>.part`, from which the same call goes on.
    """
    settings, out, photos = settings or Settings(), Path(out), find_images([Path(path) for path in images])
    settings.check()
    require_cost(settings.cost, budget)
    require_new(out)
    start = time.perf_counter()
    with quiet(), torch.random.fork_rng(devices=[]), threads_kept():
        opened = open_checkpoint(Path(model), settings.device)
        teacher = opened.model
        torch.set_num_threads(settings.threads or default_threads())  # the host has just left it all cores but one
        opened.require_rgb()
        imgsz = settings.imgsz or opened.trained_imgsz
        opened.require_stride(imgsz)
        asked = asdict(settings) | {"imgsz": imgsz, "where": where, "blocks": list(blocks), "budget": budget}
        part = RunState(out, asked | {"model": fingerprint([Path(model)]), "images": fingerprint(photos)}, start)
        with named_in_errors(model):
            plans = plans_of(teacher, blocks, where, budget)
            models = [drawn_student(teacher, words, settings.seed) for words in plans]
        require_room(teacher, targets_of(models[0], plans[0]), part)
        pictures = Pictures(photos, imgsz, next(teacher.parameters()).device)
        return made_light(teacher, plans, models, pictures, part, out, str(model))


def made_light(
    teacher: Any,
    plans: Sequence[dict[int, str]],
    models: Sequence[Any],
    pictures: Pictures,
    part: RunState,
    out: Path,
    name: str,
) -> Report:
    """Choose within a budget, fit, write; what the part file holds is not done again, and it goes at the end.

    Args:
        teacher: The trained model.
        plans: Row to word, for each candidate; one where there is no budget.
        models: What `student_of` makes of each.
        pictures: Photographs without labels.
        part: What was done so far, and the settings.
        out: The checkpoint to write.
        name: The trained checkpoint's, for the report.
    """
    asked = part.settings
    trade = trade_of(teacher, plans, models, pictures, part) if asked["budget"] is not None else None
    words = trade.chosen.words if trade else plans[0]
    student = drawn_student(teacher, words, asked["seed"]) if trade else models[0]
    fitted = fit_all(teacher, student, words, pictures, part)
    named = {key: value for key, value in asked.items() if key != "images"}
    named |= {"model": name, "weights": asked["model"]}
    report = report_of(teacher, student, fitted, part.seconds, pictures, named, trade)
    deliver(teacher, student, report, out, trade)
    part.remove()
    return report


@contextmanager
def threads_kept() -> Iterator[None]:
    """Give torch back its number of threads at the end."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def drawn_student(teacher: Any, words: Mapping[int, str], seed: int) -> Any:
    """Return the light model, its new tensors drawn by the seed, whatever was drawn before."""
    torch.manual_seed(seed)
    return student_of(teacher, words)


def trade_of(
    teacher: Any, plans: Sequence[dict[int, str]], models: Sequence[Any], pictures: Pictures, part: RunState
) -> Trade:
    """Return what can be had for which cost, and the best set within the budget; measured once, then from the part file."""
    savings, asked = savings_of(teacher, plans, models, part), part.settings
    require_reachable(savings, part)
    if "options" not in part.done:
        part.add("options", [asdict(option) for option in survey(teacher, plans, models, pictures, asked, savings)])
    options, total, unit = [Option(**option) for option in part.done["options"]], savings.total, savings.unit
    front = front_of(options, total)
    chosen = best_of(front, asked["budget"], total, unit)
    whole = time_whole(teacher, chosen.words, part) if asked["cost"] != "gflops" else None
    return Trade(options, front, chosen, asked["budget"], total, unit, whole)


def fit_all(teacher: Any, student: Any, words: Mapping[int, str], pictures: Pictures, part: RunState) -> list[Fitted]:
    """Fit all places in order, then polish the whole.

    What the part file holds is not done again, and every stage seeds anew, so that the result is the same.
    """
    places, asked = targets_of(student, words), part.settings
    if any(place.name not in part.done for place in places):
        fit_places(teacher, student, places, pictures, part)
    for place in places:
        student.get_submodule(place.name).load_state_dict(part.done[place.name]["state"])
    torch.manual_seed(asked["seed"] + len(places))
    keep = partial(part.add, "polish")
    polish(teacher, student, places, pictures, asked["polish"], keep, part.done.get("polish"))
    done = [part.done[place.name] for place in places]
    return [Fitted(place, result["error"], result["seconds"]) for place, result in zip(places, done, strict=True)]


def fit_places(teacher: Any, student: Any, places: Sequence[Target], pictures: Pictures, part: RunState) -> None:
    """Fit the places that the part file does not hold, and walk over the others."""
    asked = part.settings
    wanted = min(max(len(pictures), LEAST), asked["steps"] * BATCH)
    count = views_within(bytes_each(teacher, places, asked["imgsz"]), wanted, asked["cache"] * GIB)
    torch.manual_seed(asked["seed"])
    with recorder(teacher, student, pictures, count) as recorded:
        for number, place in enumerate(places):
            module, start = student.get_submodule(place.name), time.perf_counter()
            features = recorded.at(place)
            if place.name not in part.done:
                torch.manual_seed(asked["seed"] + number)
                begin(module, teacher.get_submodule(place.name), features.some())
                fit(module, features, asked["steps"], f"Fitting {place.name}")
                error = error_of(module, features)
                seconds = time.perf_counter() - start
                part.add(place.name, {"state": module.state_dict(), "error": error, "seconds": seconds})
            module.load_state_dict(part.done[place.name]["state"])


def deliver(teacher: Any, student: Any, report: Report, out: Path, trade: Trade | None) -> None:
    """Write curve, report and checkpoint, each whole, the checkpoint last: where it is, all is."""
    if trade is not None:
        write_whole(out.with_suffix(".png"), drawn(trade))
    write_whole(out.with_suffix(".json"), render_report(report, versions(), "json"))
    host.save(student, out, dict(teacher.args) | {"task": host.task_of(student)})

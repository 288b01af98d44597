"""Ghostify: build the light model, fit it block after block, polish it, write it with its report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ghost_yolo import host
from ghost_yolo.deploy.machine import default_threads
from ghost_yolo.files import write_whole
from ghost_yolo.ghostify.budget import CANDIDATES, Option, Trade, best_of, drawn, front_of, require_reachable, survey
from ghost_yolo.ghostify.features import BATCH, bytes_each, recorder, views_within
from ghost_yolo.ghostify.fit import error_of, fit
from ghost_yolo.ghostify.part import Part, fingerprint
from ghost_yolo.ghostify.pictures import GIB, Pictures
from ghost_yolo.ghostify.polish import polish
from ghost_yolo.ghostify.report import Fitted, report_of
from ghost_yolo.ghostify.saving import require_cost, savings_of, time_whole
from ghost_yolo.ghostify.structure import begin
from ghost_yolo.ghostify.student import Place, places_of, student_of
from ghost_yolo.photos import find_photos
from ghost_yolo.redundancy.maps import open_checkpoint, trained_at
from ghost_yolo.redundancy.survey import require_channels
from ghost_yolo.registry import UserError
from ghost_yolo.report.compare import versions
from ghost_yolo.report.measure import Subject, quiet, require_stride
from ghost_yolo.report.render import Report, write
from ghost_yolo.swap import plan

LEAST = 256  # recorded views of a block, where there are fewer photographs


@dataclass(frozen=True)
class Settings:
    """How a model is fitted.

    Attributes:
        steps: Batches of 8 from which each block learns.
        polish: Batches of 8 of the last pass over the whole model.
        seed: Of all that is drawn.
        imgsz: Side of the images in pixels; 0 for the one at which the checkpoint was trained.
        cache: Most that recorded maps may take on disk, GiB.
        device: Where the models run, as in `yolo`.
        threads: CPU threads; 0 for all cores. Sums of another order differ in their last digits.
        cost: Of what a budget is a share: `gflops`, or milliseconds on the CPU in a runtime of `ghost-yolo bench`.
    """

    steps: int = 100
    polish: int = 250
    seed: int = 0
    imgsz: int = 0
    cache: float = 4.0
    device: str = "cpu"
    threads: int = 0
    cost: str = "gflops"

    def check(self) -> None:
        """Raise an error for what cannot be."""
        if self.steps < 1 or self.polish < 0:
            raise UserError(
                f"--steps {self.steps}, --polish {self.polish}: give at least one step, and 0 or more to polish"
            )
        if self.cache <= 0 or min(self.seed, self.imgsz, self.threads) < 0:
            raise UserError(
                f"--cache {self.cache:g}, --seed {self.seed}, --imgsz {self.imgsz}, --threads {self.threads}: none can be "
                "negative, nor the cache 0"
            )


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
        where: `backbone`, `neck`, `head` or `all`; see `ghost_yolo.swap.slots`.
        budget: Share of the cost (of `settings`) that may stay: which rows are swapped, and by which of the words, is then chosen.
        settings: See there.

    Returns:
        A row a block, and the whole.

    Raises:
        UserError: If an argument cannot be, or something that is needed is missing; nothing has then been written.
        KeyboardInterrupt: What was fitted so far stays in `<out>.part`, from which the same call goes on.
    """
    settings, out, photos = settings or Settings(), Path(out), find_photos([Path(path) for path in images])
    settings.check()
    require_cost(settings.cost, budget)
    require_new(out)
    start = time.perf_counter()
    with quiet(), torch.random.fork_rng(devices=[]), threads_kept():
        teacher = open_checkpoint(Path(model), settings.device)
        torch.set_num_threads(settings.threads or default_threads())  # the host has just left it all cores but one
        require_channels(teacher)
        imgsz = settings.imgsz or trained_at(teacher)
        require_stride(Subject(str(model), teacher, 0, "", ""), imgsz)
        plans = plans_of(teacher, blocks, where, budget)
        models = [drawn_student(teacher, words, settings.seed) for words in plans]
        asked = asdict(settings) | {"imgsz": imgsz, "where": where, "blocks": list(blocks), "budget": budget}
        part = Part(out, asked | {"model": fingerprint([Path(model)]), "images": fingerprint(photos)})
        pictures = Pictures(photos, imgsz, next(teacher.parameters()).device)
        trade = trade_of(teacher, plans, models, pictures, part) if budget is not None else None
        words = trade.chosen.words if trade else plans[0]
        student = drawn_student(teacher, words, settings.seed) if trade else models[0]
        fitted = fit_all(teacher, student, words, pictures, part)
        seconds = time.perf_counter() - start
        named = {"model": str(model), "weights": part.settings["model"]}
        report = report_of(teacher, student, fitted, seconds, pictures, asked | named, trade)
        deliver(teacher, student, report, out, trade)
        part.remove()
    return report


def require_new(out: Path) -> None:
    """Raise an error for an output that exists: a trained model is not replaced by one that may be worse."""
    if out.suffix != ".pt":
        raise UserError(f"--out {out}: a checkpoint's name ends in .pt")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}.")
    for file in (out, out.with_suffix(".json"), out.with_suffix(".png")):
        if file.exists():
            raise UserError(f"--out {out}: {file} already exists; name a new file, or remove it.")


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


def plans_of(teacher: Any, blocks: Sequence[str], where: str, budget: float | None) -> list[dict[int, str]]:
    """Return the plan of each word that was asked for, all candidates where there is a budget.

    Raises:
        UserError: If words and budget do not go together, or a word cannot stand in a row.
    """
    if budget is None:
        if len(blocks) > 1:
            raise UserError(f"{', '.join(blocks)}: several words are candidates for --budget; give one, or a budget.")
        return [plan(teacher.yaml, where, next(iter(blocks), None))]
    if not 0 < budget < 1:
        raise UserError(f"--budget {budget:g}: give the share of the cost that may stay, between 0 and 1, as 0.7")
    if where == "head":
        return [plan(teacher.yaml, where)]
    return [plan(teacher.yaml, where, word) for word in blocks or CANDIDATES]


def trade_of(
    teacher: Any, plans: Sequence[dict[int, str]], models: Sequence[Any], pictures: Pictures, part: Part
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


def fit_all(teacher: Any, student: Any, words: Mapping[int, str], pictures: Pictures, part: Part) -> list[Fitted]:
    """Fit all places in order, then polish the whole.

    What the part file holds is not done again, and every stage seeds anew, so that the result is the same.
    """
    places, asked = places_of(student, words), part.settings
    if any(place.name not in part.done for place in places):
        fit_places(teacher, student, places, pictures, part)
    for place in places:
        student.get_submodule(place.name).load_state_dict(part.done[place.name]["state"])
    torch.manual_seed(asked["seed"] + len(places))
    keep = partial(part.add, "polish")
    polish(teacher, student, places, pictures, asked["polish"], keep, part.done.get("polish"))
    done = [part.done[place.name] for place in places]
    return [Fitted(place, result["error"], result["seconds"]) for place, result in zip(places, done, strict=True)]


def fit_places(teacher: Any, student: Any, places: Sequence[Place], pictures: Pictures, part: Part) -> None:
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
    write_whole(out.with_suffix(".json"), write(report, versions(), "json"))
    host.save(student, out, dict(teacher.args) | {"task": host.task_of(student)})

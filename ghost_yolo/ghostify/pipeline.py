"""The ghostify pipeline: select blocks, reconstruct each one, distill the whole student, write it with its report."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ghost_yolo.accuracy import AgreementSet, require_data
from ghost_yolo.data.images import find_images, hold_out
from ghost_yolo.errors import ModelError, SwapError, UserError
from ghost_yolo.ghostify.activations import bytes_per_sample, limit_samples
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.config import (
    DISTILL_STEPS,
    MAPS_WEIGHT,
    RESHAPED_STEPS,
    Delivery,
    RunConfig,
    Settings,
    require_new_file,
    require_new_output,
    validate_budget,
    validate_delivery,
    validate_shape,
)
from ghost_yolo.ghostify.fitting import fit_bytes_per_sample, wanted_samples
from ghost_yolo.ghostify.options import build_option
from ghost_yolo.ghostify.report import Reconstruction
from ghost_yolo.ghostify.search import select_blocks
from ghost_yolo.ghostify.state import GhostifyRun, RunState
from ghost_yolo.ghostify.student import Candidate, build_candidate, build_candidates
from ghost_yolo.ghostify.target import (
    FINALISTS,
    TimeTarget,
    choose_distilled,
    finalists,
    result_prefix,
    search_target,
)
from ghost_yolo.ghostify.training import MIN_SAMPLES, train_student
from ghost_yolo.ghostify.writing import WRITTEN, score_student, write_outputs
from ghost_yolo.model.checkpoint import OpenedModel, open_checkpoint
from ghost_yolo.tables import Report
from ghost_yolo.utils.console import progress_of, quiet
from ghost_yolo.utils.files import fingerprint
from ghost_yolo.utils.system import default_threads, restore_threads

DEVICES = ("cpu", "cuda")


def ghostify(
    model: Path | str,
    images: Sequence[Path | str],
    out: Path | str,
    blocks: Sequence[str] = (),
    where: str = "backbone",
    budget: float | None = None,
    settings: Settings | None = None,
    act: str = "",
    width: Sequence[float] = (),
    delivery: Delivery | None = None,
) -> Report:
    """Make a trained YOLO faster without labels: other blocks, activation or width, fitted to it and distilled.

    Args:
        model: Checkpoint of a YOLOv8, YOLO11 or YOLO26, any task.
        images: Calibration images without labels, files or folders.
        out: The checkpoint to write; a report is written beside it as JSON, and with a budget, a target or held-out images for a timed file a plot as PNG.
        blocks: Module name for the C2f and C3k2 rows, none for the head alone; with a budget or target the candidates.
        where: `backbone`, `neck`, `head` or `all`; see `ghost_yolo.model.swap.slots`.
        budget: Keep at most this share of the cost (0 to 1); rows and blocks are then selected automatically.
        settings: Settings of the run; the defaults if None.
        act: Activation of the whole model: `relu`, `hardswish` or another one of `ghost_yolo.ghostify.reshape.ACTIVATIONS`.
        width: Share of the channels to keep, or two: up to P3 and behind it. Every row is then fitted in closed form.
        delivery: The exported file, its target in time, and labels to judge it by; only the checkpoint if None.

    Returns:
        The report: one row for each target module, and the whole model.

    Raises:
        UserError: If an argument is invalid, or something that is needed is missing; nothing is written then.
        KeyboardInterrupt: If the run is interrupted; the same call resumes it from `<out>.part`.
    """
    settings, out, delivery = settings or Settings(), Path(out), delivery or Delivery()
    paths = find_images([Path(path) for path in images])
    settings.validate()
    validate_budget(blocks, budget, settings.cost, delivery)
    validate_shape(act, width, blocks, where, delivery.target)
    reshapes = bool(act or width or delivery.target)
    validate_delivery(delivery, budget, reshapes=reshapes)
    require_new_output(out, delivery)
    start = time.perf_counter()
    with quiet(), torch.random.fork_rng(devices=[]), restore_threads():
        opened = open_checkpoint(Path(model), settings.device)
        if delivery.data:
            require_data(Path(model), delivery.data, delivery.split)
        torch.set_num_threads(settings.threads or default_threads())  # the host has changed it while loading
        config = RunConfig(
            settings=resolve_settings(opened, settings, reshapes=reshapes),
            where=where,
            blocks=tuple(blocks),
            budget=budget,
            act=act,
            width=tuple(width),
            model=str(model),
            weights=fingerprint([Path(model)]),
            images=fingerprint(paths),
            delivery=delivery,
        )
        state = RunState(out, config, start)
        require_new_file(out, delivery, state.results.get(WRITTEN, ()))
        with prefix_errors(model):
            candidates = build_candidates(opened.model, config)
        run = prepare(opened, config, state, candidates[0], paths)
        with agreement_set(run) as truth:
            return convert(replace(run, truth=truth), candidates, out)


def prepare(
    opened: OpenedModel, config: RunConfig, state: RunState, student: Candidate, paths: Sequence[Path]
) -> GhostifyRun:
    """Check that disk and memory suffice, divide the images, and read those for fitting."""
    settings = config.settings
    fitted, held_out = hold_out(paths, settings.holdout)
    samples = max(MIN_SAMPLES, wanted_samples(settings.imgsz, len(fitted)) if config.reshapes else 0)
    fit = fit_bytes_per_sample if student.reshaped else partial(bytes_per_sample, targets=student.targets)
    limit_samples(samples, fit(opened.model, imgsz=settings.imgsz), settings.cache)
    state.require_space(opened.model, FINALISTS if config.delivery.target else 1)
    random.Random(settings.seed).shuffle(
        fitted
    )  # some stages take the first ones, which may all be of one class by name
    device = next(opened.model.parameters()).device
    crop = opened.task == "classify"
    images = CalibrationImages(fitted, settings.imgsz, device, crop=crop)
    files = [path for path in fitted if path not in images.skipped]
    if not held_out:
        return GhostifyRun(config, opened.model, images, state, files)
    others = CalibrationImages(held_out, settings.imgsz, device, crop=crop)
    readable = [path for path in held_out if path not in others.skipped]
    return GhostifyRun(config, opened.model, images, state, files, readable, others)


@contextmanager
def agreement_set(run: GhostifyRun) -> Iterator[AgreementSet | None]:
    """Yield the held-out images with what the trained model finds in them, None without any.

    Raises:
        UserError: If it finds nothing; the work has not begun then.
    """
    if not run.held_out:
        yield None
        return
    settings = run.config.settings
    with ExitStack() as stack:
        try:
            truth = AgreementSet(Path(run.config.model), run.held_out, settings.imgsz, device=settings.device)
            with restore_threads():
                stack.enter_context(truth)
        except UserError as error:
            raise UserError(f"{error}; --holdout 0 leaves the agreement out") from error
        yield truth


def resolve_settings(opened: OpenedModel, settings: Settings, *, reshapes: bool) -> Settings:
    """Return the settings with image size, number of steps and weight of the maps filled in.

    Raises:
        UserError: If the model does not take RGB images of that size, the device cannot fit it, or an option counts nowhere.
    """
    steps, weight, device = settings.distill_steps, settings.maps_weight, next(opened.model.parameters()).device.type
    if device not in DEVICES:
        raise UserError(
            f"--device {settings.device}: the closed forms need float64, which it lacks; give cpu or a GPU by number"
        )
    if weight is not None and not reshapes:
        raise UserError(f"--maps-weight {weight:g}: only --act, --width and --target use it; leave it out")
    if steps is None:
        steps = RESHAPED_STEPS if reshapes else DISTILL_STEPS
    if settings.mixed_precision and not steps:
        raise UserError(f"--mixed-precision with --distill-steps {steps}: only the distillation uses it; leave it out")
    if settings.mixed_precision and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(f"--mixed-precision --device {settings.device}: it does not compute in bfloat16; leave it out")
    weight = MAPS_WEIGHT if weight is None and reshapes else weight
    return replace(settings, imgsz=resolve_imgsz(opened, settings.imgsz), distill_steps=steps, maps_weight=weight)


def resolve_imgsz(opened: OpenedModel, imgsz: int) -> int:
    """Return the image size to run at: the given one, or the one of the training if it is 0.

    Raises:
        UserError: If the model does not take RGB images of that size.
    """
    opened.require_rgb()
    imgsz = imgsz or opened.trained_imgsz
    opened.require_stride(imgsz)
    return imgsz


@contextmanager
def prefix_errors(model: Path | str) -> Iterator[None]:
    """Prefix errors about the model with the path of its checkpoint."""
    try:
        yield
    except (SwapError, ModelError) as error:
        raise UserError(f"{model}: {error}") from error


def convert(run: GhostifyRun, candidates: Sequence[Candidate], out: Path) -> Report:
    """Select blocks if there is a budget, train the student, write the outputs, and remove the resume file.

    Args:
        run: The run.
        candidates: One candidate for each block; only one without a budget or target.
        out: The checkpoint to write.
    """
    config, student = run.config, candidates[0]
    trade_off = target = None
    if config.budget is not None:
        trade_off = select_blocks(run, candidates, config.budget)
        student = build_candidate(run.teacher, trade_off.selected.blocks, config.settings.seed)
    if config.delivery.target is not None:
        target, student, rows = train_finalists(run, search_target(run, Path(config.model), config.delivery.target))
    else:
        rows = train_student(run, student)
    report = write_outputs(run, student, rows, (trade_off, target), out)
    run.state.remove()
    return report


def train_finalists(run: GhostifyRun, target: TimeTarget) -> tuple[TimeTarget, Candidate, list[Reconstruction]]:
    """Distill the best options of a target, and return the one that agrees most as it would be delivered, with its target."""
    trained, agreements = {}, {}
    for option in finalists(target):
        student = build_option(run.teacher, option, run.config.settings.seed)
        with progress_of(option.title):
            trained[option.title] = student, train_student(run, student, result_prefix(option))
            slack = target.share / option.time_ratio  # of what may stay in float32
            agreements[option.title] = score_student(run, student, result_prefix(option), slack)
    target = choose_distilled(target, agreements)
    return target, *trained[target.chosen.title]

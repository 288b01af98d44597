"""What is run: every training, ghostify and fine-tuning as the command that a user would type, and the folder it fills."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ghost_yolo.errors import UserError

MODELS = {  # key: YAML; a bare name is the host's own
    "stock": "yolov8{}.yaml",
    "ghost": "cfg/yolov8{}-ghost.yaml",
    "ghostv2": "cfg/yolov8{}-ghostv2.yaml",
    "host-ghost": "yolov8{}-ghost.yaml",
    "ghostfast": "cfg/yolov8{}-ghostfast.yaml",
    "narrow": "cfg/yolov8{}-narrow.yaml",
}
TUNE_EPOCHS = 10  # of fine-tuning; part of a run's name


@dataclass(frozen=True)
class Ghostify:
    """A setting of `ghost-yolo ghostify`.

    Attributes:
        where: What is swapped.
        block: By which word; with a budget None, for the command's own candidates.
        photographs: How many of the training split are used, by name; 0 for all.
        budget: Share of the GFLOPs that may stay.
        steps: Batches from which each block learns; tuned on val, and part of a run's name, as is the next.
        polish: Batches of the last pass over the whole model.
        like: YAML of the same architecture, whose time is also that of the result.
    """

    where: str
    block: str | None = "C2f_GhostBottleneck"
    photographs: int = 0
    budget: float | None = None
    steps: int = 100
    polish: int = 250
    like: str = ""

    def said(self, photographs: int) -> str:
        """Return the setting in words, with so many photographs in the training split."""
        swapped = f"budget {self.budget:g}" if self.budget else str(self.block)
        seen = min(self.photographs or photographs, photographs)
        return f"{self.where}, {swapped}, {seen} photographs, {self.steps} steps a block, {self.polish} over the whole"


GHOSTIFY = {
    "ghostify-backbone": Ghostify("backbone", like=MODELS["ghost"]),
    "ghostify-backbone-long": Ghostify("backbone", polish=1000, like=MODELS["ghost"]),
    "ghostify-all": Ghostify("all", polish=1000),
    "ghostify-16": Ghostify("backbone", photographs=16, like=MODELS["ghost"]),
    "ghostify-budget": Ghostify("all", None, budget=0.7, polish=1000),
}
TUNED = ("stock-tune", "ghostify-all-tune", "ghostify-all-distil")  # the first is the control of the others
KEYS = (*MODELS, *GHOSTIFY, *TUNED)


@dataclass(frozen=True)
class Asked:
    """What all runs share.

    Attributes:
        data: Dataset YAML, by its path.
        photos: The training photographs, sorted by name.
        folder: Where the runs are.
        scale: Of the models.
        imgsz: Image side in pixels.
        epochs: Of training from scratch.
        device: As in `yolo`.
        steps: Of ghostify for each block, where not that of its setting.
        polish: Of ghostify for the whole, where not that of its setting.
        tune: Epochs of fine-tuning.
    """

    data: str
    photos: Sequence[Path]
    folder: Path
    scale: str = "n"
    imgsz: int = 320
    epochs: int = 100
    device: str = "cpu"
    steps: int | None = None
    polish: int | None = None
    tune: int = TUNE_EPOCHS

    def name(self, key: str, seed: int, *more: str) -> str:
        """Return the folder of a run: what differs from the defaults is in the name, so that no two runs share one."""
        marks = [key, *([self.scale] if self.scale != Asked.scale else [])]
        marks += [f"imgsz{self.imgsz}"] if self.imgsz != Asked.imgsz else []
        marks += [f"epochs{self.epochs}"] if self.epochs != Asked.epochs else []
        return "-".join([*marks, *more, f"seed{seed}"])


@dataclass(frozen=True)
class Run:
    """One command and what it leaves.

    Attributes:
        key: What it is, the same for every seed.
        name: Its folder.
        model: As the table shows it.
        how: How it came to its weights.
        seed: Of all that is drawn.
        words: The command that begins it.
        file: The checkpoint that is evaluated.
        epochs: Of training, those of the run it starts from included.
        timed_as: Which model of a bench has its architecture: a YAML, or a checkpoint below the folder of the runs.
        needs: The run whose checkpoint it starts from.
        scale: Of the model.
    """

    key: str
    name: str
    model: str
    how: str
    seed: int
    words: tuple[str, ...]
    file: Path
    epochs: int
    timed_as: str
    needs: Run | None = None
    scale: str = Asked.scale

    @property
    def stage(self) -> int:
        """How many runs must come before it, one after the other."""
        return 0 if self.needs is None else self.needs.stage + 1

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.file.parents[1] if self.is_training else self.file.parent

    @property
    def is_training(self) -> bool:
        """Whether the host trains it."""
        return self.words[0] == "yolo"

    @property
    def last(self) -> Path:
        """The checkpoint from which an interrupted training goes on."""
        return self.folder / "weights" / "last.pt"

    def finished(self) -> bool:
        """Return whether it has ended: a training's last checkpoint is stripped then, ghostify's file is there only then."""
        return self.file.is_file() and (not self.is_training or epoch_of(self.last) == -1)

    def command(self) -> tuple[str, ...]:
        """Return the command that begins it or goes on with it; ghostify's is the same."""
        goes_on = self.is_training and self.last.is_file()
        return ("yolo", "train", "resume", f"model={self.last}") if goes_on else self.words


def epoch_of(file: Path) -> int | None:
    """Return the last epoch that a checkpoint has seen, -1 for one that is stripped, None where there is none.

    Raises:
        UserError: If it cannot be read.
    """
    if not file.is_file():
        return None
    try:
        return int(torch.load(file, map_location="cpu", weights_only=False)["epoch"])
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(
            f"{file} cannot be read ({error}). If it is being written just now, try again; else remove its folder to train anew."
        ) from error


def trained(
    asked: Asked, key: str, name: str, model: str, seed: int, how: str, epochs: int, needs: Run | None = None
) -> Run:
    """Return a training, from scratch or on from another run's checkpoint."""
    sizes = f"imgsz={asked.imgsz} epochs={epochs} batch=16 seed={seed} cache=ram".split()
    workers = 0 if asked.device == "cpu" else 8
    rest = [f"workers={workers}", "plots=False", f"device={asked.device}", f"project={asked.folder}", f"name={name}"]
    words = ("yolo", "train", f"model={model}", f"data={asked.data}", *sizes, *rest, "exist_ok=True")
    file = asked.folder / name / "weights" / "best.pt"
    if needs is None:
        return Run(key, name, model, how, seed, words, file, epochs, model, scale=asked.scale)
    return Run(
        key, name, needs.model, how, seed, words, file, needs.epochs + epochs, needs.timed_as, needs, asked.scale
    )


def scratch(asked: Asked, key: str, seed: int) -> Run:
    """Return a training from scratch."""
    model = MODELS[key].format(asked.scale)
    return trained(asked, key, asked.name(key, seed), model, seed, "from scratch", asked.epochs)


def ghostified(asked: Asked, key: str, teacher: Run) -> Run:
    """Return a run of ghostify on a trained model."""
    setting = GHOSTIFY[key]
    setting = replace(setting, steps=asked.steps or setting.steps, polish=asked.polish or setting.polish)
    name = asked.name(key, teacher.seed, f"steps{setting.steps}", f"polish{setting.polish}")
    file = asked.folder / name / "light.pt"
    given = {"--block": setting.block, "--where": setting.where, "--budget": setting.budget, "--steps": setting.steps}
    given |= {"--polish": setting.polish, "--seed": teacher.seed, "--imgsz": asked.imgsz, "--device": asked.device}
    words = [text for option, value in given.items() if value is not None for text in (option, str(value))]
    photos = asked.photos[: setting.photographs] if setting.photographs else [asked.photos[0].parent]
    images = [text for photo in photos for text in ("--images", str(photo))]
    command = ("ghost-yolo", "ghostify", str(teacher.file), "-o", str(file), *words, *images)
    like = setting.like.format(asked.scale) or f"{name}/{file.name}"
    how = f"{teacher.model} ghostified: {setting.said(len(asked.photos))}"
    return Run(key, name, teacher.model, how, teacher.seed, command, file, teacher.epochs, like, teacher, asked.scale)


def tuned(asked: Asked, key: str, base: Run, teacher: Run) -> Run:
    """Return the fine-tuning of a run with labels: alone, or with the teacher's help."""
    name = f"{base.name}-{key.rpartition('-')[2]}{asked.tune}"
    how = f"{base.key if base.key in GHOSTIFY else base.model}, then {asked.tune} epochs with labels"
    run = trained(asked, key, name, str(base.file), base.seed, how, asked.tune, base)
    if not key.endswith("-distil"):
        return run
    return replace(run, how=f"{how} and the teacher", words=(*run.words, f"distill_model={teacher.file}"))


def plan(asked: Asked, seeds: Iterable[int], only: Sequence[str] = (), line: str | None = None) -> list[Run]:
    """Return the runs, what they need included, in an order in which they can be done.

    Args:
        asked: What they share.
        seeds: One set of runs for each.
        only: Keys of those that are wanted; all if none.
        line: Another scale at which the stock model is trained, too.

    Raises:
        UserError: If a key is unknown, or the line is of the same scale.
    """
    if line == asked.scale:
        raise UserError(f"--line {line}: give another scale than --scale {asked.scale}, or none")
    unknown = [key for key in only if key not in KEYS]
    if unknown:
        raise UserError(f"--only {','.join(unknown)}: unknown. There are {', '.join(KEYS)}.")
    runs = []
    for seed in dict.fromkeys(seeds):
        made = {key: scratch(asked, key, seed) for key in MODELS}
        teacher = made["stock"]
        made |= {key: ghostified(asked, key, teacher) for key in GHOSTIFY}
        for key in TUNED:
            made[key] = tuned(asked, key, made[key.rpartition("-")[0]], teacher)
        wanted = {name for key in only or KEYS for name in needed(made[key])}
        runs += [run for run in made.values() if run.name in wanted]
        if line:
            runs.append(scratch(replace(asked, scale=line), "stock", seed))
    return sorted(runs, key=lambda run: run.stage)


def needed(run: Run) -> list[str]:
    """Return the names of a run and of all that it starts from."""
    return [run.name, *(needed(run.needs) if run.needs else [])]

"""What `ghost-yolo bench` is asked to measure, and what it keeps of each row on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghost_yolo.bench.runtimes import PRECISIONS, RUNTIMES, Setup, runtime_of
from ghost_yolo.errors import UserError


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        models: YAMLs, checkpoints, or files that the host exported; ratios are to the first.
        runtimes: Words of RUNTIMES; an exported file is run by its own.
        precisions: Of fp32, fp16 and int8; an exported file has its own.
        device: `cpu`, or the number of a GPU.
        nc: Classes of the YAMLs' models.
        imgsz: Image side in pixels.
        batch: Images in one forward pass.
        threads: Threads of the CPU; the physical cores where 0.
        rounds: How often every model has its turn.
        passes: Forward passes in a turn; their median is the turn's time.
        data: Dataset YAML with which INT8 is calibrated.
        profile: Whether to ask the runtimes where the time goes.
        keep: New or empty folder for the exported files; a temporary one where None.
    """

    models: tuple[str, ...]
    runtimes: tuple[str, ...] = ("pytorch",)
    precisions: tuple[str, ...] = ("fp32",)
    device: str = "cpu"
    nc: int = 80
    imgsz: int = 640
    batch: int = 1
    threads: int = 0
    rounds: int = 20
    passes: int = 5
    data: str = "coco8.yaml"
    profile: bool = False
    keep: Path | None = None

    def pairs(self, exist: bool = True) -> list[tuple[str, str]]:
        """Return the runtimes with their precisions of all asked for: those that exist, or those that do not."""
        every = [(runtime, precision) for runtime in self.runtimes for precision in self.precisions]
        return [pair for pair in every if RUNTIMES[pair[0]].offers(pair[1], self.device) is exist]

    @property
    def left_out(self) -> str:
        """What was asked for and does not exist, in words."""
        return ", no ".join(f"{RUNTIMES[runtime].title} {precision}" for runtime, precision in self.pairs(exist=False))

    def check(self) -> None:
        """Raise an error for what cannot be, before any work.

        Raises:
            UserError: If an argument is out of its range.
        """
        for name, known in (("runtimes", tuple(RUNTIMES)), ("precisions", PRECISIONS)):
            given = getattr(self, name)
            if not given or set(given) - set(known) or len(set(given)) < len(given):
                raise UserError(f"--{name} {','.join(given)}: give some of {','.join(known)}, each once")
        if not self.models or len(set(self.models)) < len(self.models):
            raise UserError("give one model or more, each once")
        for name in ("nc", "imgsz", "batch", "rounds", "passes"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give 1 or more")
        if self.threads < 0:
            raise UserError(f"--threads {self.threads}: give 1 or more")
        if self.device != "cpu" and not self.device.isdecimal():
            raise UserError(f"--device {self.device}: give cpu, or the number of a GPU, such as 0")
        if not self.pairs():
            raise UserError(f"on device {self.device} there is no {self.left_out}")
        if self.keep is not None and self.keep.exists() and (not self.keep.is_dir() or any(self.keep.iterdir())):
            raise UserError(f"--keep {self.keep} exists and is not an empty folder; name a new one")


@dataclass
class Subject:
    """A model as given, and what `prepare` says that it is.

    Attributes:
        name: As given.
        folder: For its checkpoint and its exports.
        facts: Task, scale, classes, GFLOPs and so on; empty until it is prepared.
        error: Why it cannot be measured at all.
    """

    name: str
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass
class Candidate:
    """One row on its way: a model in a runtime and a precision.

    Attributes:
        subject: The model.
        runtime: A word of RUNTIMES.
        precision: fp32, fp16 or int8; "" while that of an exported file is not known.
        file: What the runtime opens.
        file_mb: Its size in 1024 x 1024 bytes; of a checkpoint, once stripped.
        times: Milliseconds of a forward pass, one a round.
        memory_mb: Largest main memory of its process.
        operators: Milliseconds by operator kind.
        unprofiled: Why there are none.
        error: Why there are no times.
    """

    subject: Subject
    runtime: str
    precision: str
    file: Path | None = None
    file_mb: float | None = None
    times: list[float] = field(default_factory=list)
    memory_mb: float | None = None
    operators: dict[str, float] = field(default_factory=dict)
    unprofiled: str | None = None
    error: str | None = None

    @property
    def failed(self) -> str | None:
        """Why this row, or its model, cannot be measured."""
        return self.subject.error or self.error

    @property
    def kind(self) -> str:
        """Runtime and precision as they are printed."""
        return f"{RUNTIMES[self.runtime].title} {self.precision}".rstrip()

    @property
    def title(self) -> str:
        """What the row is called in messages."""
        return f"{self.subject.name}, {self.kind}"

    def setup(self, plan: Plan, threads: int) -> Setup:
        """Return how its file is run."""
        channels = self.subject.facts["channels"]
        return Setup(plan.batch, plan.imgsz, channels, self.precision, plan.device, threads)


def candidates_of(plan: Plan, folder: Path) -> list[Candidate]:
    """Return the rows of a plan: every runtime and precision for what is exported here, its own for an exported file."""
    rows: list[Candidate] = []
    for number, name in enumerate(plan.models, 1):
        subject, own = Subject(name, folder / f"{number}-{Path(name).stem}"), runtime_of(name)
        rows += [Candidate(subject, *pair) for pair in ([(own, "")] if own else plan.pairs())]
    return rows

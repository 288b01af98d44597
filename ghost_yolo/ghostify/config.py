"""Configuration of a ghostify run, validated before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from ghost_yolo.bench.results import MIN_ROUNDS
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.reshape import require_activation, require_shares
from ghost_yolo.utils.files import require_writable

COSTS = ("gflops", *RUNTIMES)
DEFAULT_BLOCKS = ("C2f_GhostBottleneck", "C2f_DepthwiseSeparable", "C2f_PartialConv", "NarrowELAN")
MINIMUM = {"reconstruct_steps": 1, "distill_steps": 0, "rounds": MIN_ROUNDS, "seed": 0, "imgsz": 0, "threads": 0}


@dataclass(frozen=True)
class Settings:
    """Settings of selection, reconstruction and distillation.

    Attributes:
        reconstruct_steps: Training steps for each block, one batch of 8 images each.
        distill_steps: Training steps for the whole model after the reconstruction; 0 for none.
        seed: Random seed.
        imgsz: Image side in pixels; 0 for the size at which the checkpoint was trained.
        cache: Disk space for cached activations, in GiB.
        device: Device to run on, as in `yolo`.
        threads: CPU threads, also for latency measurements; 0 for the number of physical cores. The number changes the
            order of floating-point sums, and so the result slightly.
        cost: What the budget limits: `gflops`, or the CPU latency in a runtime of `ghost-yolo bench`.
        rounds: Rounds of a latency measurement; every model runs once in each.
    """

    reconstruct_steps: int = 100
    distill_steps: int = 250
    seed: int = 0
    imgsz: int = 0
    cache: float = 4.0
    device: str = "cpu"
    threads: int = 0
    cost: str = "gflops"
    rounds: int = 40

    def validate(self) -> None:
        """Validate the settings.

        Raises:
            UserError: If a value is out of its range.
        """
        for name, minimum in MINIMUM.items():
            if getattr(self, name) < minimum:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {minimum}")
        if not 0 < self.cache < inf:
            raise UserError(f"--cache {self.cache:g}: must be a positive number of GiB")
        if self.cost not in COSTS:
            raise UserError(f"--cost {self.cost}: must be one of {', '.join(COSTS)}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that the result of a run depends on.

    Attributes:
        settings: Settings, with the image size resolved.
        where: Part of the model in which blocks are replaced.
        blocks: Module names to replace blocks by; more than one are candidates for the budget.
        budget: Share of the cost to keep; None to replace every target block.
        act: Activation of all rows; "" to leave it as it is.
        width: Share of the channels to keep, or two: up to P3 and behind it; empty for all.
        model: Path of the trained checkpoint.
        weights: Hash of the trained checkpoint.
        images: Hash of the calibration images.
    """

    settings: Settings
    where: str
    blocks: tuple[str, ...]
    budget: float | None
    act: str
    width: tuple[float, ...]
    model: str
    weights: str
    images: str

    @property
    def reshapes(self) -> bool:
        """Whether the whole model changes, and every row is fitted anew."""
        return bool(self.act or self.width)

    @property
    def candidate_blocks(self) -> tuple[str | None, ...]:
        """Module names to try; None for the class branch of the head, which has only one replacement."""
        if self.budget is None or self.where == "head":
            return self.blocks[:1] or (None,)
        return self.blocks or DEFAULT_BLOCKS

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as one flat dict."""
        content = asdict(self)
        return content.pop("settings") | content


def validate_budget(blocks: Sequence[str], budget: float | None, cost: str) -> None:
    """Validate the budget together with the candidate blocks and the cost that it limits.

    Raises:
        UserError: If they do not fit together, or the runtime to measure is not installed.
    """
    if budget is None and len(blocks) > 1:
        raise UserError(f"--block {','.join(blocks)}: give one block, or a --budget to select among several")
    if budget is not None and not 0 < budget < 1:
        raise UserError(f"--budget {budget:g}: must be a share between 0 and 1, such as 0.7")
    if cost in RUNTIMES and budget is None:
        raise UserError(f"--cost {cost}: needs a --budget, such as --budget 0.7")
    if cost in RUNTIMES:
        RUNTIMES[cost].require("fp32")


def validate_shape(act: str, width: Sequence[float], budget: float | None) -> None:
    """Validate activation and width.

    Raises:
        UserError: If there is no such activation, a share is out of its range, or there is a budget, too.
    """
    require_activation(act)
    require_shares(width)
    if budget is not None and (act or width):
        raise UserError("--budget selects blocks only: leave it out, or leave --act and --width out")


def resume_file(out: Path) -> Path:
    """Return the path of the resume file of an output."""
    return out.with_name(f"{out.name}.part")


def require_new_output(out: Path) -> None:
    """Check that the output can be written. Existing outputs are never overwritten.

    Raises:
        UserError: If the output is no `.pt` file, exists, or cannot be written.
    """
    if out.suffix != ".pt":
        raise UserError(f"--out {out}: must end in .pt")
    require_writable(out)
    reports = () if resume_file(out).exists() else (".json", ".png")  # a run that failed at its end leaves its reports
    for file in (out, *(out.with_suffix(suffix) for suffix in reports)):
        if file.exists():
            raise UserError(f"--out {out}: {file} already exists; give a new path, or remove the file")

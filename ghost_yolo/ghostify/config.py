"""What is asked for, and what of it cannot be: all that is checked before any work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from ghost_yolo.errors import ModelError, SwapError, UserError
from ghost_yolo.ghostify.activations import bytes_each, views_within
from ghost_yolo.ghostify.search import CANDIDATES
from ghost_yolo.ghostify.state import RunState, part_of
from ghost_yolo.ghostify.student import Target
from ghost_yolo.model.swap import plan_swap
from ghost_yolo.utils.files import require_writable
from ghost_yolo.utils.system import GIB

LEAST = 256  # recorded views of a block, where there are fewer photographs
COPIES = 10  # of the weights: new blocks, model and Adam's two moments in the part file, the old one beside it


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
        threads: CPU threads, of the fit and of milliseconds; 0 for the physical cores. Another number changes the last digits of
            sums, and so the result a little.
        cost: Of what a budget is a share: `gflops`, or milliseconds on the CPU in a runtime of `ghost-yolo bench`.
        rounds: How often every model has its turn while milliseconds are measured.
    """

    steps: int = 100
    polish: int = 250
    seed: int = 0
    imgsz: int = 0
    cache: float = 4.0
    device: str = "cpu"
    threads: int = 0
    cost: str = "gflops"
    rounds: int = 40

    def check(self) -> None:
        """Raise an error for what cannot be."""
        if self.steps < 1 or self.polish < 0:
            raise UserError(
                f"--steps {self.steps}, --polish {self.polish}: give at least one step, and 0 or more to polish"
            )
        if self.rounds < 2:
            raise UserError(f"--rounds {self.rounds}: give 2 or more")
        for name, value in (("seed", self.seed), ("imgsz", self.imgsz), ("threads", self.threads)):
            if value < 0:
                raise UserError(f"--{name} {value}: give 0 or more")
        if not 0 < self.cache < inf:
            raise UserError(f"--cache {self.cache:g}: give a number of GiB, more than 0")


def plans_of(teacher: Any, blocks: Sequence[str], where: str, budget: float | None) -> list[dict[int, str]]:
    """Return the plan of each word that was asked for, all candidates where there is a budget.

    Raises:
        UserError: If words and budget do not go together, or a word cannot stand in a row.
    """
    if budget is None and len(blocks) > 1:
        raise UserError(f"{', '.join(blocks)}: several words are candidates for --budget; give one, or a budget.")
    if budget is not None and not 0 < budget < 1:
        raise UserError(f"--budget {budget:g}: give the share of the cost that may stay, between 0 and 1, as 0.7")
    if budget is None or where == "head":  # for a head there is one word
        return [plan_swap(teacher.yaml, where, next(iter(blocks), None))]
    return [plan_swap(teacher.yaml, where, word) for word in blocks or CANDIDATES]


def require_new(out: Path) -> None:
    """Raise an error for an output that exists: a trained model is not replaced by one that may be worse."""
    if out.suffix != ".pt":
        raise UserError(f"--out {out}: a checkpoint's name ends in .pt")
    require_writable(out)
    others = () if part_of(out).exists() else (".json", ".png")  # else they are those of a run that failed at its end
    for file in (out, *(out.with_suffix(suffix) for suffix in others)):
        if file.exists():
            raise UserError(f"--out {out}: {file} already exists; name a new file, or remove it.")


def require_room(teacher: Any, places: Sequence[Target], part: RunState) -> None:
    """Raise an error, before any work, where the disk or the cache would not hold what is to be written."""
    asked, folder = part.settings, part.file.resolve().parent
    views_within(bytes_each(teacher, places, asked["imgsz"]), LEAST, asked["cache"] * GIB)
    needed = COPIES * 4 * sum(tensor.numel() for tensor in teacher.state_dict().values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"--out: an interrupted run may take {needed / GIB:.2f} GiB beside the output and {folder} has "
            f"{free / GIB:.2f}; name a file on another disk."
        )


@contextmanager
def named_in_errors(model: Path | str) -> Iterator[None]:
    """Put the checkpoint's name before what is wrong with it."""
    try:
        yield
    except (SwapError, ModelError) as error:
        raise UserError(f"{model}: {error}") from error

"""The whole models among which a target is searched: activation, widths and blocks together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from ghost_yolo.errors import SwapError, UserError
from ghost_yolo.ghostify.config import RunConfig
from ghost_yolo.ghostify.student import Candidate, SwapPlan, build_candidate, build_reshaped, describe_reshaped
from ghost_yolo.model.swap import plan_swap
from ghost_yolo.registry import PREFIX
from ghost_yolo.typing import HostModel

WIDTHS: tuple[tuple[float, ...], ...] = ((), (0.75,), (0.625,), (0.5, 0.625), (0.5,), (0.375,), (0.25,))
FEWER: tuple[tuple[float, ...], ...] = ((), (0.625,), (0.5,))
SHAPES = {"": FEWER, "hardswish": FEWER, "relu": WIDTHS}  # widths to try by activation, "" for the trained one
BLOCKS = ("C2f_GhostBottleneck", "NarrowELAN")  # to try beside the trained blocks
BLOCKS_ACT = "relu"  # with which alone blocks are tried, since it is the fastest everywhere


@dataclass(frozen=True)
class Shape:
    """What a whole model has that the trained one has not.

    Attributes:
        act: Its activation; "" for the trained one.
        width: Its widths, see `ghost_yolo.ghostify.reshape.require_shares`.
        block: Module name of its C2f and C3k2 rows in `where`; "" for the trained ones.
        where: Part of the model with other modules; "" for none.
    """

    act: str = ""
    width: tuple[float, ...] = ()
    block: str = ""
    where: str = ""

    @property
    def title(self) -> str:
        """What gives the model, as options of the command."""
        width, block = ",".join(f"{share:g}" for share in self.width), self.block.removeprefix(PREFIX)
        given = {"act": self.act, "width": width, "block": block, "where": self.where}
        return " ".join(f"--{name} {value}" for name, value in given.items() if value) or "as trained"

    @property
    def mean_width(self) -> float:
        """The mean share of the channels."""
        return sum(self.width) / len(self.width) if self.width else 1.0

    def plan(self, teacher: HostModel) -> SwapPlan:
        """Return row to module name of the blocks.

        Raises:
            SwapError: If the trained model has no such row, or the block does not fit.
        """
        return plan_swap(teacher.yaml, self.where, self.block or None) if self.where else {}


@dataclass(frozen=True, kw_only=True)
class ModelOption(Shape):
    """A whole model that may be fast enough.

    Attributes:
        time_ratio: Its time relative to the baseline's, measured untrained.
        milliseconds: Its median time.
        agreement: Agreement with the trained model once fitted, before the distillation; None where it was not fitted.
        distilled: Agreement after the distillation; None where it was not distilled.
    """

    time_ratio: float = inf
    milliseconds: float = inf
    agreement: float | None = None
    distilled: float | None = None


def list_shapes(config: RunConfig) -> list[Shape]:
    """Return all shapes to try; what the user gave is not varied."""
    given = bool(config.blocks) or config.where == "head"
    if given:
        blocks = [(block, config.where) for block in config.blocks or ("",)]
    else:
        blocks = [("", ""), ("", "head"), *((block, config.where) for block in BLOCKS)]
    acts = [config.act] if config.act else [*SHAPES]
    with_blocks = acts if given else [config.act or BLOCKS_ACT]
    return [
        Shape(act, width, block, where)
        for act in acts
        for block, where in blocks
        if not where or act in with_blocks
        for width in ([config.width] if config.width else FEWER if where else SHAPES.get(act, WIDTHS))
    ]


def distinct_shapes(teacher: HostModel, config: RunConfig) -> tuple[list[Shape], dict[str, str]]:
    """Return the shapes that differ from each other, and of the others, by title, why they are left out.

    Raises:
        UserError: If none is left.
    """
    known, left_out = list[tuple[object, Shape]](), dict[str, str]()
    for shape in list_shapes(config):
        try:
            content = describe_reshaped(teacher, shape.plan(teacher), shape.act, shape.width)[0]
        except SwapError as error:
            left_out[shape.title] = str(error)
            continue
        same = next((other.title for before, other in known if before == content), "")
        if same:
            left_out[shape.title] = f"the same as {same}"
        else:
            known.append((content, shape))
    if not known:
        raise UserError("; ".join(dict.fromkeys(left_out.values())))
    return [shape for _, shape in known], left_out


def widest(options: Sequence[ModelOption]) -> list[ModelOption]:
    """Return the option of each activation with the same blocks that has most channels.

    Other blocks are lighter than the trained ones: they are left out where they do not allow more channels than those do.
    """
    best: dict[tuple[str, str, str], ModelOption] = {}
    for option in options:
        family = option.act, option.block, option.where
        if family not in best or option.mean_width > best[family].mean_width:
            best[family] = option
    plain = {act: option.mean_width for (act, _, where), option in best.items() if not where}
    return [option for option in best.values() if not option.where or option.mean_width > plain.get(option.act, 0.0)]


def build_option(teacher: HostModel, shape: Shape, seed: int) -> Candidate:
    """Build the untrained student of a shape; where nothing changes it is the trained model."""
    plan = shape.plan(teacher)
    if not (plan or shape.act or shape.width):
        return build_candidate(teacher, {}, seed)
    return build_reshaped(teacher, plan, shape.act, shape.width, seed)

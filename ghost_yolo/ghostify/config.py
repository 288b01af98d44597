"""Configuration of a ghostify run, validated before any work starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from ghost_yolo.bench.results import MIN_ROUNDS
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.errors import UserError
from ghost_yolo.export.files import file_name, require_file
from ghost_yolo.ghostify.reshape import require_activation, require_shares
from ghost_yolo.utils.files import require_writable

COSTS = ("gflops", *RUNTIMES)
DEFAULT_BLOCKS = ("C2f_GhostBottleneck", "C2f_DepthwiseSeparable", "C2f_PartialConv", "NarrowELAN")
DISTILL_STEPS, RESHAPED_STEPS = 250, 800
MAPS_WEIGHT = 10.0
MINIMUM = {"reconstruct_steps": 1, "distill_steps": 0, "rounds": MIN_ROUNDS, "seed": 0, "imgsz": 0, "threads": 0}


@dataclass(frozen=True)
class Settings:
    """Settings of selection, reconstruction and distillation.

    Attributes:
        reconstruct_steps: Training steps for each block, one batch of 8 images each.
        distill_steps: Training steps for the whole model after the reconstruction; 0 for none, None for DISTILL_STEPS, or
            RESHAPED_STEPS where activation or width change.
        seed: Random seed.
        imgsz: Image side in pixels; 0 for the size at which the checkpoint was trained.
        cache: Disk space for cached activations, in GiB.
        device: Device to run on, as in `yolo`.
        threads: CPU threads, also for latency measurements; 0 for the number of physical cores. The number changes the
            order of floating-point sums, and so the result slightly.
        cost: What the budget limits: `gflops`, or the CPU latency in a runtime of `ghost-yolo bench`.
        rounds: Rounds of a latency measurement; every model runs once in each.
        holdout: Share of the images that nothing is fitted on, for the agreement with the trained model.
        maps_weight: Where activation or width change, the weight of the error of the maps beside the loss of the predictions
            in the distillation; None for MAPS_WEIGHT.
        mixed_precision: Distill in bfloat16.
    """

    reconstruct_steps: int = 100
    distill_steps: int | None = None
    seed: int = 0
    imgsz: int = 0
    cache: float = 4.0
    device: str = "cpu"
    threads: int = 0
    cost: str = "gflops"
    rounds: int = 40
    holdout: float = 0.2
    maps_weight: float | None = None
    mixed_precision: bool = False

    def validate(self) -> None:
        """Validate the settings.

        Raises:
            UserError: If a value is out of its range.
        """
        for name, minimum in MINIMUM.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {minimum}")
        if not 0 <= self.holdout < 1:
            raise UserError(f"--holdout {self.holdout:g}: must be a share of the images of at least 0 and below 1")
        if self.maps_weight is not None and not 0 <= self.maps_weight < inf:
            raise UserError(f"--maps-weight {self.maps_weight:g}: must be a number of at least 0")
        if not 0 < self.cache < inf:
            raise UserError(f"--cache {self.cache:g}: must be a positive number of GiB")
        if self.cost not in COSTS:
            raise UserError(f"--cost {self.cost}: must be one of {', '.join(COSTS)}")


@dataclass(frozen=True)
class Delivery:
    """The file that is delivered beside the checkpoint, and by what it is judged.

    Attributes:
        runtime: Runtime of the file, a key of `ghost_yolo.bench.runtimes.RUNTIMES`; "" for no file.
        precision: `fp32` or `int8`.
        target: Share of the baseline's time that the file may take; None for the shape that was asked for.
        baseline: Runtime and precision in which the trained model would be run otherwise.
        data: Data YAML with labels, for the true accuracy; "" for none.
        split: Split of it.
    """

    runtime: str = ""
    precision: str = "fp32"
    target: float | None = None
    baseline: tuple[str, str] = ("onnx", "fp32")
    data: str = ""
    split: str = "val"


@dataclass(frozen=True)
class RunConfig:
    """Everything that the result of a run depends on.

    Attributes:
        settings: Settings, with the image size resolved.
        where: Part of the model in which blocks are replaced.
        blocks: Module names to replace blocks by; more than one are candidates for the budget or target.
        budget: Share of the cost to keep; None to replace every target block.
        act: Activation of all rows; "" to leave it as it is.
        width: Share of the channels to keep, or two: up to P3 and behind it; empty for all.
        model: Path of the trained checkpoint.
        weights: Hash of the trained checkpoint.
        images: Hash of the calibration images.
        delivery: What is delivered beside the checkpoint.
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
    delivery: Delivery = Delivery()

    @property
    def reshapes(self) -> bool:
        """Whether the whole model changes, and every row is fitted anew."""
        return bool(self.act or self.width or self.delivery.target)

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


def validate_budget(blocks: Sequence[str], budget: float | None, cost: str, delivery: Delivery) -> None:
    """Validate the budget together with the candidate blocks and the cost that it limits.

    Raises:
        UserError: If they do not fit together, or the runtime to measure is not installed.
    """
    if budget is None and delivery.target is None and len(blocks) > 1:
        raise UserError(
            f"--block {','.join(blocks)}: give one block, or a --budget or --target to select among several"
        )
    if budget is not None and not 0 < budget < 1:
        raise UserError(f"--budget {budget:g}: must be a share between 0 and 1, such as 0.7")
    if cost in RUNTIMES and budget is None:
        raise UserError(f"--cost {cost}: needs a --budget, such as --budget 0.7")
    if cost in RUNTIMES:
        RUNTIMES[cost].require("fp32")


def validate_shape(act: str, width: Sequence[float], blocks: Sequence[str], where: str, target: float | None) -> None:
    """Validate activation and width, together with the blocks.

    Raises:
        UserError: If a value is out of its range, or they do not fit together.
    """
    require_activation(act)
    require_shares(width)
    if (act or width) and not (blocks or target) and where in ("neck", "all"):
        raise UserError(
            f"--where {where}: --act and --width are of the whole model; leave --where out, or give a --block"
        )


def validate_delivery(delivery: Delivery, budget: float | None, *, reshapes: bool) -> None:
    """Validate what is delivered, together with the budget.

    Raises:
        UserError: If they do not fit together, or a runtime is not installed.
    """
    if budget is not None and reshapes:
        raise UserError("--budget selects blocks only: leave it out, or leave --act, --width and --target out")
    if delivery.target and not delivery.runtime:
        raise UserError("--target needs the --runtime whose time is meant, such as --runtime openvino --precision int8")
    if delivery.precision != "fp32" and not delivery.runtime:
        raise UserError(f"--precision {delivery.precision}: needs a --runtime, such as --runtime openvino")
    if delivery.baseline != Delivery().baseline and not delivery.runtime:
        raise UserError(f"--baseline {':'.join(delivery.baseline)}: needs a --runtime, whose time is compared with it")
    if delivery.split != Delivery().split and not delivery.data:
        raise UserError(f"--split {delivery.split}: needs --data, a data YAML with labels")
    if delivery.runtime:
        require_file(delivery.runtime, delivery.precision)
        require_file(*delivery.baseline)


def parse_baseline(text: str) -> tuple[str, str]:
    """Return runtime and precision of a text such as `onnx:fp32`."""
    runtime, _, precision = text.partition(":")
    return runtime, precision or "fp32"


def resume_file(out: Path) -> Path:
    """Return the path of the resume file of an output."""
    return out.with_name(f"{out.name}.part")


def require_new_output(out: Path, delivery: Delivery) -> None:
    """Check that the output can be written. Existing outputs are never overwritten.

    Raises:
        UserError: If the output is no `.pt` file, exists, or cannot be written.
    """
    if out.suffix != ".pt":
        raise UserError(f"--out {out}: must end in .pt")
    require_writable(out)
    resumed = resume_file(out).exists()  # a run that failed at its end leaves its reports, and see `require_new_file`
    for file in (out, *(() if resumed else (out.with_suffix(".json"), out.with_suffix(".png")))):
        _require_new(out, file)
    if not resumed:
        require_new_file(out, delivery)


def require_new_file(out: Path, delivery: Delivery, own: Collection[str] = ()) -> None:
    """Check that the exported file is not there, or is this run's own, which was killed while it wrote its outputs.

    Args:
        out: The checkpoint.
        delivery: Runtime and precision of the file.
        own: Names that the run has written.

    Raises:
        UserError: If it is there.
    """
    name = file_name(out.stem, delivery.runtime, delivery.precision) if delivery.runtime else out.name
    if name not in own:
        _require_new(out, out.with_name(name))


def _require_new(out: Path, file: Path) -> None:
    """Raise an error for a file that exists."""
    if file.exists():
        raise UserError(f"--out {out}: {file} already exists; give a new path, or remove the file")

"""Selection of rows and blocks within a budget: measure savings and sensitivity of each option, take the best combination."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch

from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.activations import (
    BATCH_SIZE,
    ReconstructionData,
    bytes_per_sample,
    cache_activations,
    limit_samples,
)
from ghost_yolo.ghostify.closed_form import init_from_teacher
from ghost_yolo.ghostify.distill import distillation_loss
from ghost_yolo.ghostify.reconstruct import reconstruct, reconstruction_error
from ghost_yolo.ghostify.savings import Latency, Saving, Savings, measure_savings, time_selection
from ghost_yolo.ghostify.state import GhostifyRun
from ghost_yolo.ghostify.student import Candidate
from ghost_yolo.registry import PREFIX
from ghost_yolo.typing import HostModel

TRIAL_STEPS = 40
TRIAL_SAMPLES = 64  # for a trial reconstruction, and for its sensitivity
OPTIONS = "options"  # name in the run state


@dataclass(frozen=True)
class BlockOption:
    """One block in one row, measured alone in the trained model.

    Attributes:
        row: Row of the model.
        block: Module name of the replacement.
        saving: Saving in GFLOPs or milliseconds.
        sensitivity: Distillation loss of the predictions after a trial reconstruction, see `distillation_loss`.
        error: Reconstruction error, for a head the mean over its levels, see `reconstruction_error`.
        interval: 95 % confidence interval of a saving in milliseconds; None for GFLOPs, which are exact.
    """

    row: int
    block: str
    saving: float
    sensitivity: float
    error: float
    interval: tuple[float, float] | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the option saves anything; the whole interval of a latency must be above 0."""
        return (self.interval[0] if self.interval else self.saving) > 0


@dataclass(frozen=True)
class Selection:
    """A combination of options.

    Attributes:
        cost: Cost of the model with all of them.
        sensitivity: Sum of their sensitivities.
        blocks: Module name by row.
    """

    cost: float
    sensitivity: float
    blocks: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TradeOff:
    """The trade-off between cost and sensitivity, and the selection within the budget.

    Attributes:
        options: All options.
        pareto_front: Non-dominated selections, the most expensive first.
        selected: The selection of least sensitivity within the budget.
        budget: Share of the cost to keep.
        total: Cost of the trained model.
        unit: GFLOPs, or ms in a runtime.
        measured: Latency of the selection as a whole; None for GFLOPs.
    """

    options: Sequence[BlockOption]
    pareto_front: Sequence[Selection]
    selected: Selection
    budget: float
    total: float
    unit: str = "GFLOPs"
    measured: Latency | None = None

    @property
    def predicted(self) -> float:
        """Share of the cost that the selection keeps, by the sum of its savings."""
        return self.selected.cost / self.total


def select_blocks(run: GhostifyRun, candidates: Sequence[Candidate], budget: float) -> TradeOff:
    """Measure all options, each once, and select within the budget.

    Raises:
        UserError: If the budget cannot be reached.
    """
    savings = measure_savings(run, candidates)
    require_reachable(run, savings, budget)
    if OPTIONS not in run.state.results:
        run.state.add(OPTIONS, [asdict(option) for option in measure_options(run, candidates, savings)])
    options = [BlockOption(**values) for values in run.state.results[OPTIONS]]
    front = find_pareto_front(options, savings.total)
    selected = select_within(front, budget * savings.total)
    measured = None if run.config.settings.cost == "gflops" else time_selection(run, selected.blocks)
    return TradeOff(options, front, selected, budget, savings.total, savings.unit, measured)


def find_pareto_front(options: Iterable[BlockOption], total: float) -> list[Selection]:
    """Return the Pareto front of cost and sensitivity, the most expensive selection first.

    The front is exact under the assumption that savings and sensitivities of different rows add up: row by row, every selection
    is extended by each option of the row or by none, and dominated selections are dropped. Options without a significant saving
    are ignored.

    Args:
        options: All options.
        total: Cost of the trained model.
    """
    rows: dict[int, list[BlockOption]] = {}
    for option in (option for option in options if option.is_significant):
        rows.setdefault(option.row, []).append(option)
    front = [Selection(total, 0.0)]
    for row, alternatives in rows.items():
        extended = [
            Selection(before.cost - o.saving, before.sensitivity + o.sensitivity, {**before.blocks, row: o.block})
            for before in front
            for o in alternatives
        ]
        front = _non_dominated([*front, *extended])
    return front


def _non_dominated(selections: Iterable[Selection]) -> list[Selection]:
    """Return the non-dominated selections, the most expensive first."""
    kept: list[Selection] = []
    for selection in sorted(selections, key=lambda s: (s.cost, s.sensitivity)):
        if not kept or selection.sensitivity < kept[-1].sensitivity:
            kept.append(selection)
    return kept[::-1]


def select_within(front: Sequence[Selection], limit: float) -> Selection:
    """Return the selection of least sensitivity whose cost is within a limit that the front reaches."""
    return next(selection for selection in front if selection.cost <= limit)


def require_reachable(run: GhostifyRun, savings: Savings, budget: float) -> None:
    """Check before the trial reconstructions that a selection keeps the budget.

    The resume file is removed otherwise, since the latencies in it may be noise.

    Raises:
        UserError: If no selection does.
    """
    options = [BlockOption(*key, saving.amount, 0.0, 0.0, saving.interval) for key, saving in savings.options.items()]
    cheapest = find_pareto_front(options, savings.total)[-1].cost
    if cheapest <= budget * savings.total:
        return
    run.state.remove()
    noisy = sum(option.interval is not None and not option.is_significant for option in options)
    hint = (
        f". {noisy} of {len(options)} savings are within noise: use more --rounds on an idle machine" if noisy else ""
    )
    raise UserError(
        f"--budget {budget:g}: the cheapest selection keeps {cheapest / savings.total:.2f} of {savings.total:.2f} "
        f"{savings.unit}; give a larger budget, blocks that save more, or --where all{hint}"
    )


def measure_options(run: GhostifyRun, candidates: Sequence[Candidate], savings: Savings) -> list[BlockOption]:
    """Reconstruct each block briefly in each row, alone in the trained model, and measure its sensitivity."""
    settings, targets, options = run.config.settings, candidates[0].targets, []
    count = limit_samples(TRIAL_SAMPLES, bytes_per_sample(run.teacher, targets, settings.imgsz), settings.cache)
    torch.manual_seed(settings.seed)
    with cache_activations(run.teacher, run.teacher, run.images, count) as cache:
        for row in candidates[0].plan:
            data = [cache.data_for(target) for target in targets if target.row == row]
            by_block = {candidate.plan[row]: candidate for candidate in candidates}  # a head has one block only
            for block, candidate in by_block.items():
                options.append(measure_option(run, candidate, row, data, savings.options[row, block]))
    return options


def measure_option(
    run: GhostifyRun, candidate: Candidate, row: int, data: Sequence[ReconstructionData], saving: Saving
) -> BlockOption:
    """Measure one option.

    Args:
        run: The run.
        candidate: The candidate whose row is measured.
        row: The row.
        data: Reconstruction data of the row's target modules.
        saving: Saving of the option.
    """
    seed, block = run.config.settings.seed, candidate.plan[row]
    hybrid = copy.deepcopy(run.teacher)
    hybrid.model[row] = copy.deepcopy(candidate.model.model[row])
    torch.manual_seed(seed)
    errors = [trial_reconstruction(run.teacher, hybrid, item, block) for item in data]
    return BlockOption(
        row, block, saving.amount, measure_sensitivity(run, hybrid), sum(errors) / len(errors), saving.interval
    )


def trial_reconstruction(teacher: HostModel, hybrid: HostModel, data: ReconstructionData, block: str) -> float:
    """Reconstruct a target module of the hybrid model briefly, and return its reconstruction error."""
    name = data.target.name
    module = hybrid.get_submodule(name)
    init_from_teacher(module, teacher.get_submodule(name), data.init_inputs())
    reconstruct(module, data, TRIAL_STEPS, f"Trial of {block.removeprefix(PREFIX)} in {name}")
    return reconstruction_error(module, data)


@torch.no_grad()
def measure_sensitivity(run: GhostifyRun, hybrid: HostModel) -> float:
    """Return the distillation loss of a hybrid model on samples that are the same for all options.

    The samples are augmented differently from those of the trial reconstructions, which the seed itself draws.
    """
    torch.manual_seed(run.config.settings.seed + 1)
    starts = range(0, TRIAL_SAMPLES, BATCH_SIZE)
    batches = (run.images.batch(range(start, start + BATCH_SIZE)) for start in starts)
    losses = [distillation_loss(run.teacher, hybrid, batch, ()).item() for batch in batches]
    return sum(losses) / len(losses)

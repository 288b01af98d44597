"""Correlate each stage's redundancy, measured by `ghosts`, with the cost of swapping it, measured by `ghostify`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ghost_yolo.errors import UserError
from ghost_yolo.redundancy.measurements import GhostifyFile, Measurements, SurveyFile, SwappedLayer
from ghost_yolo.redundancy.ranks import RankCorrelation, Sample, rank_correlation
from ghost_yolo.registry import PREFIX

REDUNDANCY_LABELS = {
    "share": "share of maps",
    "median": "median error of maps",
    "inner": "share of inner maps",
}
COST_LABELS = {
    "error_isolated": "isolated error",
    "error_sequential": "sequential error",
    "sensitivity": "sensitivity",
}
MIN_STAGES = 3  # for a rank correlation


@dataclass(frozen=True)
class Stage:
    """Redundancy and cost of one stage of one model; see `SurveyedLayer` and `SwappedLayer`."""

    model: str
    layer: int
    module: str
    block: str
    share: float | None
    median: float | None
    inner: float | None
    error_isolated: float | None
    error_sequential: float | None
    sensitivity: float | None


@dataclass(frozen=True)
class CorrelationSettings:
    """Settings of a correlation.

    Attributes:
        block: Module name of the swapped block, without prefix.
        within: Largest relative error at which a map counts as reproduced.
        seed: Random seed of sampled permutations.
    """

    block: str
    within: float
    seed: int = 0

    def validate(self) -> None:
        """Validate the settings.

        Raises:
            UserError: If one is invalid.
        """
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must be 0 or more")


@dataclass(frozen=True)
class StageCorrelation:
    """Rank correlation of one measure of redundancy with one measure of cost, both named as in `Stage`."""

    redundancy: str
    cost: str
    ranks: RankCorrelation

    def to_row(self) -> dict[str, Any]:
        """Return all figures as one flat row."""
        return {"redundancy": self.redundancy, "cost": self.cost} | asdict(self.ranks)


def join_stages(measurements: Measurements, block: str | None = None) -> list[Stage]:
    """Return the stages that were both surveyed and swapped, model by model in the order of the surveys.

    Args:
        measurements: See `read_measurements`.
        block: Module name of the block, with or without prefix; not needed where there is only one.

    Raises:
        UserError: If the files do not belong together.
    """
    surveys = surveys_by_model(measurements)
    require_equal_bounds(measurements.surveys)
    require_equal_steps([run for run in measurements.runs if run.sequential])
    for run in measurements.runs:
        require_matching_survey(surveys, run)
    swaps = merge_swaps(measurements.runs)
    selected = select_block((name for model, layer, name in swaps if layer in surveys[model].layers), block)
    return [
        build_stage(surveys[model], swaps[model, layer, name])
        for model in surveys
        for _, layer, name in sorted(key for key in swaps if key[0] == model)
        if name == selected and layer in surveys[model].layers
    ]


def surveys_by_model(measurements: Measurements) -> dict[str, SurveyFile]:
    """Return the surveys by model.

    Raises:
        UserError: If a model has two surveys, or none of the ghostify runs.
    """
    surveys: dict[str, SurveyFile] = {}
    for survey in measurements.surveys:
        if survey.model in surveys:
            raise UserError(f"{survey.file}: {surveys[survey.model].file} is a survey of {survey.model} too; give one.")
        surveys[survey.model] = survey
    for survey in measurements.surveys:
        if not any(run.model == survey.model for run in measurements.runs):
            raise UserError(
                f"{survey.file} is of {survey.model}, but no result of ghostify is; give one of this model."
            )
    return surveys


def merge_swaps(runs: Sequence[GhostifyFile]) -> dict[tuple[str, int, str], SwappedLayer]:
    """Return the figures of all runs by model, layer and block.

    Raises:
        UserError: If a figure is given twice.
    """
    swaps: dict[tuple[str, int, str], SwappedLayer] = {}
    for run in runs:
        for swap in run.swaps:
            key = (run.model, swap.layer, swap.block)
            known = swaps.get(key, SwappedLayer(swap.layer, swap.block))
            figures = {cost: value for cost in COST_LABELS if (value := getattr(swap, cost)) is not None}
            if any(getattr(known, cost) is not None for cost in figures):
                raise UserError(
                    f"{run.file}: layer {swap.layer} of {run.model} is in another file too; give one run of each kind."
                )
            swaps[key] = replace(known, **figures)
    return swaps


def build_stage(survey: SurveyFile, swap: SwappedLayer) -> Stage:
    """Return one stage."""
    return Stage(model=survey.model, **asdict(survey.layers[swap.layer]), **asdict(swap))


def require_equal_bounds(surveys: Sequence[SurveyFile]) -> None:
    """Raise an error if the surveys count reproduced maps by different relative errors."""
    bounds = sorted({survey.within for survey in surveys})
    if len(bounds) > 1:
        raise UserError(f"--within differs between the surveys ({', '.join(map(str, bounds))}); use one value for all.")


def require_matching_survey(surveys: dict[str, SurveyFile], run: GhostifyFile) -> None:
    """Raise an error for a ghostify run without a survey, or at another image size."""
    if run.model not in surveys:
        raise UserError(
            f"{run.file} is of {run.model}, but no result of ghosts is; create one: ghost-yolo ghosts {run.model}"
        )
    survey = surveys[run.model]
    if survey.imgsz != run.imgsz:
        raise UserError(
            f"{run.model}: imgsz is {survey.imgsz} in {survey.file} and {run.imgsz} in {run.file}; use one --imgsz."
        )


def require_equal_steps(runs: Sequence[GhostifyFile]) -> None:
    """Raise an error if models were reconstructed with different numbers of steps, since errors depend on them."""
    for run in runs[1:]:
        if run.reconstruct_steps != runs[0].reconstruct_steps:
            raise UserError(
                f"--reconstruct-steps is {runs[0].reconstruct_steps} in {runs[0].file} and {run.reconstruct_steps} in {run.file}; "
                "sequential errors can only be compared for one value."
            )


def calibration_images(runs: Sequence[GhostifyFile]) -> dict[str, int]:
    """Return the number of calibration images of each model's sequential run, where the file has it."""
    return {run.model: run.calibration_images for run in runs if run.sequential and run.calibration_images is not None}


def select_block(names: Iterable[str], block: str | None) -> str:
    """Return the full module name of the block whose swaps are correlated.

    Raises:
        UserError: If there are several to choose from, or none.
    """
    known = sorted({name.removeprefix(PREFIX): name for name in names}.items())
    selected = [name for bare, name in known if block is None or block in (bare, name)]
    if len(selected) == 1:
        return selected[0]
    if not known:
        raise UserError("ghostify swapped none of the layers that ghosts measured; give files of the same layers.")
    choices = ", ".join(bare for bare, _ in known)
    given = f"--block {block}: no such swap" if block else "Several blocks were swapped"
    raise UserError(f"{given}; choose one of {choices} with --block.")


def correlation_settings(measurements: Measurements, stages: Sequence[Stage], seed: int = 0) -> CorrelationSettings:
    """Return the settings of joined stages; the surveys all have the same bound."""
    return CorrelationSettings(stages[0].block.removeprefix(PREFIX), measurements.surveys[0].within, seed)


def correlate_stages(stages: Sequence[Stage], settings: CorrelationSettings) -> list[StageCorrelation]:
    """Return the rank correlation of each measure of redundancy with each cost, over the stages that have both.

    Raises:
        UserError: If a setting is invalid, or no two measures are known for at least three stages.
    """
    settings.validate()
    correlations = []
    for x in REDUNDANCY_LABELS:
        for y in COST_LABELS:
            both = [stage for stage in stages if getattr(stage, x) is not None and getattr(stage, y) is not None]
            models = dict.fromkeys(stage.model for stage in both)
            samples = [build_sample([stage for stage in both if stage.model == model], x, y) for model in models]
            if len(both) >= MIN_STAGES:
                correlations.append(StageCorrelation(x, y, rank_correlation(samples, settings.seed)))
    if not correlations:
        raise UserError(explain_too_few(stages))
    return correlations


def explain_too_few(stages: Sequence[Stage]) -> str:
    """Return why nothing can be correlated, and what to do."""
    if len(stages) < MIN_STAGES:
        return f"{len(stages)} stage(s) are too few for a rank correlation: at least {MIN_STAGES} are needed."
    return (
        f'Fewer than {MIN_STAGES} of {len(stages)} stages have both redundancy and cost: where ghosts prints "-" it had too few '
        "positions to fit on; give it more images or a larger --imgsz."
    )


def build_sample(stages: Sequence[Stage], x: str, y: str) -> Sample:
    """Return two measures of one model's stages."""
    return Sample(tuple(s.layer for s in stages), [getattr(s, x) for s in stages], [getattr(s, y) for s in stages])

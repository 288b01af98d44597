"""Write the results of `ghosts`, `pairs` and `correlate` as reports and as folders of figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghost_yolo.data.images import skipped_text
from ghost_yolo.model.catalog import labels
from ghost_yolo.redundancy import plots
from ghost_yolo.redundancy.conventions import FILTER_CONVENTIONS, STAGE_CONVENTIONS, SURVEY_CONVENTIONS
from ghost_yolo.redundancy.correlate import COST_LABELS, REDUNDANCY_LABELS, CorrelationSettings, Stage, StageCorrelation
from ghost_yolo.redundancy.filters import FilterSimilarity
from ghost_yolo.redundancy.kernels import KERNEL_SIZES
from ghost_yolo.redundancy.survey import LayerRedundancy, SurveyResult, SurveySettings
from ghost_yolo.redundancy.two_pass import GHOST_KERNEL, RedundancyStats
from ghost_yolo.tables import Report, render_report, to_csv
from ghost_yolo.utils.files import atomic_folder, fingerprint

NETWORKS = ("trained", "shuffled", "untrained")


def survey_report(
    result: SurveyResult, settings: SurveySettings, model: str, num_images: int, skipped: Sequence[Path] = ()
) -> Report:
    """Return a survey's layers as a report; its JSON has the pairs too."""
    header = ["layer", "maps", "dead", *(f"d={d}" for d in KERNEL_SIZES), "removable", "median d=3"]
    header += [f"{name} d=3" for name in NETWORKS[1:]]
    saved = {"model": model, "weights": fingerprint([Path(model)]), "images": num_images} | asdict(settings)
    note = (
        f"{model}, {num_images} image(s){skipped_text(len(skipped))}, imgsz {settings.imgsz}, seed {settings.seed}. d=1 to d=7: "
        f"share of maps that a d x d depthwise kernel reproduces from another map with a relative error of at most {settings.within:g}."
    )
    lines = [layer_cells(layer) for layer in (*result.layers, *result.inner)]
    return Report(
        rows=[layer_row(layer) for layer in result.layers],
        tables=[(header, lines), *pairs_table(result.plotted)],
        conventions=SURVEY_CONVENTIONS,
        notes=[note],
        more={
            "settings": saved,
            "skipped": [str(path) for path in skipped],
            "pairs": [pair for layer in result.layers for pair in pair_rows(layer)],
            "inner": [layer_row(layer) for layer in result.inner],
        },
    )


def layer_row(layer: LayerRedundancy) -> dict[str, Any]:
    """Return the raw numbers of one layer or convolution."""
    num_fit, num_test = layer.trained.positions
    figures = {name: stats_row(getattr(layer, name)) for name in NETWORKS}
    return asdict(layer.source) | {"positions_fit": num_fit, "positions_test": num_test} | figures


def stats_row(stats: RedundancyStats) -> dict[str, Any]:
    """Return the raw numbers of one layer in one network."""
    counts = {"dead": stats.dead, "sampled": stats.sampled, "removable": stats.removable}
    shares = {f"share_d{d}": value for d, value in stats.share.items()}
    return counts | shares | {f"median_d{d}": value for d, value in stats.median.items()}


def pair_rows(layer: LayerRedundancy) -> list[dict[str, Any]]:
    """Return the raw numbers of one layer's most similar pairs."""
    return [
        {"layer": layer.source.index, "map": pair.map, "partner": pair.partner, "correlation": pair.correlation}
        | {f"mse_d{d}": pair.mse.get(d) for d in KERNEL_SIZES}
        | {f"relative_error_d{d}": pair.error.get(d) for d in KERNEL_SIZES}
        for pair in layer.trained.pairs
    ]


def pairs_table(layer: LayerRedundancy) -> list[tuple[list[str], list[list[str]]]]:
    """Return the table of the plotted layer's most similar pairs; no table without pairs."""
    if not layer.trained.pairs:
        return []
    header = [f"layer {layer.source.index}: map", "partner", "correlation"]
    header += [f"mean squared error d={d}" for d in KERNEL_SIZES]
    lines = [
        [str(pair.map), str(pair.partner), format_signed(pair.correlation)]
        + ["-" if (mse := pair.mse.get(d)) is None else f"{mse:.3g}" for d in KERNEL_SIZES]
        for pair in layer.trained.pairs
    ]
    return [(header, lines)]


def layer_cells(layer: LayerRedundancy) -> list[str]:
    """Return the table cells of one layer or convolution."""
    source, trained = layer.source, layer.trained
    name = f"{source.index}{'.' if source.conv else ' '}{source.module}"
    shares = [format_share(trained.share[d]) for d in KERNEL_SIZES]
    baselines = [format_share(stats.share[GHOST_KERNEL]) for stats in (layer.shuffled, layer.untrained)]
    median = format_error(trained.median[GHOST_KERNEL])
    counts = [str(source.channels), str(trained.dead)]
    return [name, *counts, *shares, format_share(trained.removable), median, *baselines]


def format_share(value: float | None) -> str:
    """Return a share as a percentage, "-" for None."""
    return "-" if value is None else f"{value:.1%}"


def format_error(value: float | None) -> str:
    """Return an error with three decimals, "-" for None."""
    return "-" if value is None else f"{value:.3f}"


def format_signed(value: float | None) -> str:
    """Return a correlation or cosine with its sign, "-" for None."""
    return "-" if value is None else f"{value:+.3f}"


def write_survey(out: Path, result: SurveyResult, report: Report, versions: dict[str, str], within: float) -> None:
    """Write figures, layers.csv, pairs.csv, inner.csv and ghosts.json into a new folder, all or none."""
    name = f"layer{result.plotted.source.index:02}"
    with atomic_folder(out) as work:
        if len(result.layers) > 1:
            plots.save(plots.depth_figure(result.layers, within), work / "redundancy.png")
        for kind, draw in (("maps", plots.maps_figure), ("pairs", plots.pairs_figure)):
            plots.save(draw(result.plotted, result.maps, result.image_index), work / f"{name}-{kind}.png")
        (work / "layers.csv").write_text(to_csv(report.rows), encoding="utf-8")
        for kind in ("pairs", "inner"):
            if report.more[kind]:
                (work / f"{kind}.csv").write_text(to_csv(report.more[kind]), encoding="utf-8")
        (work / "ghosts.json").write_text(render_report(report, versions, "json"), encoding="utf-8")


def filters_report(similarities: Sequence[FilterSimilarity], model: str, seed: int) -> Report:
    """Return the filter similarities of all convolutions as a report."""
    rows = [filter_row(item) for item in similarities]
    header = ["convolution", "shape", "mean", "random mean", "std", "min", "random min"]
    lines = [[row["convolution"], row["shape"], *similarity_cells(row)] for row in rows]
    note = f"{model}: cosine similarity of each filter to the most opposite filter of its convolution (seed {seed})."
    return Report(rows, [(header, lines)], FILTER_CONVENTIONS, [note], {"settings": {"model": model, "seed": seed}})


def similarity_cells(row: dict[str, Any]) -> list[str]:
    """Return the table cells of one convolution's similarities."""
    cosine, random = row["cosine"], row["random"]
    means = [format_signed(cosine["mean"]), format_signed(random["mean"]), format_error(random["std"])]
    return [*means, format_signed(cosine["min"]), format_signed(random["min"])]


def filter_row(item: FilterSimilarity) -> dict[str, Any]:
    """Return the raw numbers of one convolution."""
    about = {"convolution": item.name, "layer": item.layer, "shape": "x".join(map(str, item.shape))}
    about |= {"filters": item.shape[0], "zero": item.shape[0] - len(item.filters)}
    return about | {"cosine": summarize_values(item.cosine), "random": summarize_draws(item.random)}


def summarize_values(values: NDArray[Any]) -> dict[str, float | None]:
    """Return mean, median and minimum; None if there are no values."""
    if not values.size:
        return dict.fromkeys(("mean", "median", "min"))
    return {"mean": float(values.mean()), "median": float(np.median(values)), "min": float(values.min())}


def summarize_draws(draws: NDArray[Any]) -> dict[str, float | None]:
    """Return the summary of several draws (n, m): the minimum is the mean over draws, std that of a draw's mean."""
    if not draws.size:
        return summarize_values(draws) | {"std": None}
    return summarize_values(draws) | {"min": float(draws.min(1).mean()), "std": float(draws.mean(1).std(ddof=1))}


def write_filters(
    out: Path, similarities: Sequence[FilterSimilarity], report: Report, versions: dict[str, str]
) -> None:
    """Write the figure, convolutions.csv, filters.csv (one line per filter) and pairs.json into a new folder, all or none."""
    filters = [
        {"convolution": item.name, "filter": int(number), "opposite": int(opposite), "cosine": float(cosine)}
        for item in similarities
        for number, opposite, cosine in zip(item.filters, item.opposite, item.cosine, strict=True)
    ]
    with atomic_folder(out) as work:
        plots.save(plots.filters_figure(similarities), work / "pairs.png")
        (work / "convolutions.csv").write_text(to_csv(report.rows), encoding="utf-8")
        if filters:
            (work / "filters.csv").write_text(to_csv(filters), encoding="utf-8")
        (work / "pairs.json").write_text(render_report(report, versions, "json"), encoding="utf-8")


def correlation_report(
    stages: Sequence[Stage],
    correlations: Sequence[StageCorrelation],
    settings: CorrelationSettings,
    calibration_images: dict[str, int] | None = None,
) -> Report:
    """Return stages and their rank correlations as a report.

    Args:
        stages: See `join_stages`.
        correlations: See `correlate_stages`.
        settings: See `CorrelationSettings`.
        calibration_images: Number of images of each model's sequential run; mentioned where they differ.
    """
    models = dict.fromkeys(stage.model for stage in stages)
    about = (
        f"{settings.block} in {len(stages)} stages of {len(models)} model(s): {', '.join(models)}; a map counts as reproduced "
        f"with a relative error of at most {settings.within:g}."
    )
    notes = [about, explain_bonferroni(len(correlations))]
    counts = calibration_images or {}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{model} with {count}" for model, count in counts.items())
        notes.append(f"The sequential errors are from different numbers of calibration images: {listed}.")
    header = ["redundancy", "cost", "models", "n", "rho", "rho within", "p", "p joint"]
    return Report(
        rows=[asdict(stage) for stage in stages],
        tables=[stages_table(stages), (header, [correlation_cells(item) for item in correlations])],
        conventions=STAGE_CONVENTIONS,
        notes=notes,
        more={"settings": asdict(settings), "correlations": [item.to_row() for item in correlations]},
    )


def stages_table(stages: Sequence[Stage]) -> tuple[list[str], list[list[str]]]:
    """Return the table of stages."""
    names, short = {**REDUNDANCY_LABELS, **COST_LABELS}, labels([stage.model for stage in stages])
    formats = {"share": format_share, "inner": format_share}
    lines = [
        [f"{short[stage.model]} {stage.layer}"]
        + [formats.get(name, format_error)(getattr(stage, name)) for name in names]
        for stage in stages
    ]
    return ["stage", *names.values()], lines


def explain_bonferroni(count: int) -> str:
    """Return the p value that one of several correlations needs."""
    return f"{count} rank correlations were computed: with Bonferroni's correction, p < 0.05 / {count} = {0.05 / count:.2g} is significant."


def correlation_cells(item: StageCorrelation) -> list[str]:
    """Return the table cells of one correlation."""
    ranks = item.ranks
    sampled = "" if ranks.exact else " (sampled)"
    rhos = ["-" if rho is None else f"{rho:+.2f}" for rho in (ranks.rho, ranks.rho_within)]
    p_values = ["-" if p is None else f"{p:.2g}{sampled}" for p in (ranks.p, ranks.p_joint)]
    names = [REDUNDANCY_LABELS[item.redundancy], COST_LABELS[item.cost]]
    return [*names, str(ranks.models), str(ranks.n), *rhos, *p_values]


def write_correlation(
    out: Path,
    stages: Sequence[Stage],
    correlations: Sequence[StageCorrelation],
    report: Report,
    versions: dict[str, str],
) -> None:
    """Write the scatter plots, stages.csv, correlations.csv and correlation.json into a new folder, all or none."""
    with atomic_folder(out) as work:
        plots.save(plots.correlation_figure(stages, correlations), work / "correlation.png")
        (work / "stages.csv").write_text(to_csv(report.rows), encoding="utf-8")
        (work / "correlations.csv").write_text(to_csv(report.more["correlations"]), encoding="utf-8")
        (work / "correlation.json").write_text(render_report(report, versions, "json"), encoding="utf-8")

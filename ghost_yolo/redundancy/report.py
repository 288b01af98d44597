"""The studies as reports and as folders of figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import labels
from ghost_yolo.redundancy import plots
from ghost_yolo.redundancy.correlate import COST, REDUNDANCY, Stage, compare
from ghost_yolo.redundancy.filters import DRAWS, Convolution
from ghost_yolo.redundancy.kernels import ENOUGH, SIZES
from ghost_yolo.redundancy.survey import MAPS, POSITIONS, Row, Settings, Shares, Survey
from ghost_yolo.registry import PREFIX
from ghost_yolo.tables import Report, render_report, to_csv
from ghost_yolo.utils.files import fingerprint, whole_folder

NETWORKS = ("trained", "shuffled", "untrained")
GHOSTS = {
    "layer": "top-level index in the model; layers without weights, which only repeat maps, are left out",
    "trained_share_d3": "share of the sampled living maps that a 3 x 3 depthwise kernel with a bias makes from their "
    "partner within the relative error (d1, d5, d7: the other kernel sizes); empty where there are fewer than "
    f"{ENOUGH} (d x d + 1) positions to learn from",
    "trained_median_d3": "median of the relative errors",
    "relative error": "mean squared error / variance of the map, on positions that the kernel was not learned from: "
    "the images take turns, one to learn from and one to test on; a single image is cut into left and right half. 1 is what "
    "a constant would give, more than 1 is possible",
    "mean squared error": "of the drawn layer's three pairs, in the units of the maps, on positions that the kernel was not learned "
    "from; pairs.csv has all layers' pairs, and the errors relative to the variance",
    "partner": "the other map of the layer with the largest absolute correlation, on the images to learn from: the best "
    "for 1 x 1, while a larger kernel might do better from another",
    "trained_removable": "as the share for 3 x 3, but only of maps whose partner stays: two maps that make each other save one",
    "trained_dead": "constant maps; trivially redundant, and counted in no share",
    "shuffled": "the same with every map shuffled in space by itself",
    "untrained": "the same on an untrained network of the checkpoint's own YAML, its BN statistics set on the images to learn from",
    "images": "resized to the nearest multiples of the stride and not letterboxed: the edges of grey bars would make maps alike",
    "inner": "with --inner, the same for what each spatial convolution in a C2f or C3k2 gives: what a light block makes otherwise; "
    "what the row itself gives has been mixed by its last 1 x 1 convolution",
    "sampling": f"at most {MAPS} maps a layer and {POSITIONS} positions an image, drawn with the seed",
}
FILTERS = {
    "mean, median, least": "of the cosine similarities between each filter and the other filter of the same convolution "
    "most opposite to it; -1 is its negative",
    "random": f"the same of as many Gaussian filters of the same shape, {DRAWS} draws with the seed: small filters are close to "
    "opposite by chance. Mean and median of all draws, sd: the standard deviation of a draw's mean, least: the mean of "
    "the draws' least",
    "zero": "filters without direction; left out",
}
STAGES = {
    "stage": "a row that ghostify swapped and whose maps ghosts measured; the head makes no maps of its own",
    "share of maps": "share of what the stage gives that a 3 x 3 depthwise kernel makes from another map, within the relative "
    "error: ghosts' trained_share_d3",
    "median error of maps": "median of these relative errors: no bound to choose, and no ties; small means redundant",
    "share of inner maps": "as the share, of what the spatial convolutions inside the stage give, their mean: these are what a light "
    "block makes otherwise; needs ghosts --inner",
    "error alone": "relative error of the new block's maps when it alone stands in the trained model, after ghostify's brief trial fit: "
    "every stage gets the trained inputs and the same steps; needs ghostify --budget",
    "error in order": "the same as ghostify fits, from the first stage to the last: a later block gets what the new blocks before it "
    "give, so its error holds theirs too; not of runs with --budget, which swap a choice; all with the same --steps",
    "harm alone": "what the predictions lose by this block alone, after the same trial fit",
    "rho": "Spearman's rank correlation, equal values sharing their rank. If redundancy foretold a low cost it would be near "
    "-1 for shares and near +1 for the median error; within: of ranks within each model, as they are: "
    "they are not scaled, so a model with more stages weighs more",
    "p": "two-sided permutation p of rho within: each model's stages in any order; alike: models with exactly the same stages "
    "in the same order, as though they were one network measured several times; - where no two have. Both exact unless it says drawn",
}


def ghosts_report(result: Survey, settings: Settings, model: str, images: int) -> Report:
    """Return the layers as a report; JSON has the pairs too."""
    header = ["layer", "maps", "dead", *(f"d={d}" for d in SIZES), "removable", "median d=3"]
    header += [f"{name} d=3" for name in NETWORKS[1:]]
    asked = {"model": model, "weights": fingerprint([Path(model)]), "images": images} | asdict(settings)
    said = (
        f"{model}, {images} image(s) at {settings.imgsz}: share of each layer's maps that a cheap kernel makes from "
        f"another map within {settings.within:g} of their variance (seed {settings.seed})."
    )
    return Report(
        rows=[ghosts_row(row) for row in result.rows],
        tables=[(header, [ghosts_cells(row) for row in (*result.rows, *result.inner)]), *pairs_table(result.drawn)],
        conventions=GHOSTS,
        notes=[said],
        more={
            "settings": asked,
            "pairs": [pair for row in result.rows for pair in pair_rows(row)],
            "inner": [ghosts_row(row) for row in result.inner],
        },
    )


def ghosts_row(row: Row) -> dict[str, Any]:
    """Return the raw numbers of one layer, or of one convolution in it."""
    learned, tested = row.trained.positions
    figures = {name: network_figures(getattr(row, name)) for name in NETWORKS}
    return asdict(row.layer) | {"positions_fit": learned, "positions_test": tested} | figures


def network_figures(shares: Shares) -> dict[str, Any]:
    """Return what one network's layer gave, flat."""
    counted = {"dead": shares.dead, "sampled": shares.sampled, "removable": shares.removable}
    share = {f"share_d{d}": value for d, value in shares.share.items()}
    return counted | share | {f"median_d{d}": value for d, value in shares.median.items()}


def pair_rows(row: Row) -> list[dict[str, Any]]:
    """Return the table of mean squared errors of one layer's chosen pairs."""
    return [
        {"layer": row.layer.index, "map": pair.map, "partner": pair.partner, "correlation": pair.correlation}
        | {f"mse_d{d}": pair.mse.get(d) for d in SIZES}
        | {f"relative_error_d{d}": pair.error.get(d) for d in SIZES}
        for pair in row.trained.pairs
    ]


def pairs_table(row: Row) -> list[tuple[list[str], list[list[str]]]]:
    """Return the drawn layer's chosen pairs as a table for people, as the paper has it; none without pairs."""
    if not row.trained.pairs:
        return []
    header = [f"layer {row.layer.index}: map", "from", "correlation", *(f"mean squared error d={d}" for d in SIZES)]
    lines = [
        [str(pair.map), str(pair.partner), figure(pair.correlation)]
        + ["-" if (mse := pair.mse.get(d)) is None else f"{mse:.3g}" for d in SIZES]
        for pair in row.trained.pairs
    ]
    return [(header, lines)]


def ghosts_cells(row: Row) -> list[str]:
    """Return one layer, or one convolution in it, as people read it."""
    layer, trained = row.layer, row.trained
    shares = [percent(trained.share[d]) for d in SIZES]
    median = "-" if trained.median[3] is None else f"{trained.median[3]:.3f}"
    baselines = [percent(row.shuffled.share[3]), percent(row.untrained.share[3])]
    counts = [f"{layer.index}{'.' if layer.part else ' '}{layer.module}", str(layer.channels), str(trained.dead)]
    return [*counts, *shares, percent(trained.removable), median, *baselines]


def percent(value: float | None) -> str:
    """Return a share for people, "-" where it cannot be told."""
    return "-" if value is None else f"{value:.1%}"


def write_ghosts(out: Path, result: Survey, report: Report, versions: dict[str, str], within: float) -> None:
    """Write the folder: figures, layers.csv, pairs.csv, inner.csv and ghosts.json, all or nothing."""
    name = f"layer{result.drawn.layer.index:02}"
    with whole_folder(out) as work:
        if len(result.rows) > 1:  # one layer alone has no depth
            plots.save(plots.depth_figure(result.rows, within), work / "redundancy.png")
        plots.save(plots.maps_figure(result.drawn, result.maps, result.number), work / f"{name}-maps.png")
        plots.save(plots.pairs_figure(result.drawn, result.maps, result.number), work / f"{name}-pairs.png")
        (work / "layers.csv").write_text(to_csv(report.rows), encoding="utf-8")
        for kind in ("pairs", "inner"):
            if report.more[kind]:
                (work / f"{kind}.csv").write_text(to_csv(report.more[kind]), encoding="utf-8")
        (work / "ghosts.json").write_text(render_report(report, versions, "json"), encoding="utf-8")


def pairs_report(found: list[Convolution], model: str, seed: int) -> Report:
    """Return the convolutions as a report."""
    rows = [pairs_row(item) for item in found]
    header = ["convolution", "shape", "mean", "random mean", "sd", "least", "random least"]
    lines = [[row["convolution"], row["shape"], *opposite_cells(row)] for row in rows]
    footer = f"{model}: cosine similarity of each filter to the most opposite one of its convolution (seed {seed})."
    return Report(rows, [(header, lines)], FILTERS, [footer], {"settings": {"model": model, "seed": seed}})


def opposite_cells(row: dict[str, Any]) -> list[str]:
    """Return one convolution's cosines as people read them."""
    cosine, random = row["cosine"], row["random"]
    sd = "-" if random["sd"] is None else f"{random['sd']:.3f}"
    return [figure(cosine["mean"]), figure(random["mean"]), sd, figure(cosine["least"]), figure(random["least"])]


def figure(value: float | None) -> str:
    """Return a cosine for people."""
    return "-" if value is None else f"{value:+.3f}"


def pairs_row(item: Convolution) -> dict[str, Any]:
    """Return one convolution's raw numbers."""
    about = {"convolution": item.name, "layer": item.layer, "shape": "x".join(map(str, item.shape))}
    about |= {"filters": item.shape[0], "zero": item.shape[0] - len(item.filters)}
    return about | {"cosine": summary(item.cosine), "random": drawn_summary(item.random)}


def summary(values: np.ndarray[Any, Any]) -> dict[str, float | None]:
    """Return mean, median and least value; None where there are none."""
    if not values.size:
        return dict.fromkeys(("mean", "median", "least"))
    return {"mean": float(values.mean()), "median": float(np.median(values)), "least": float(values.min())}


def drawn_summary(draws: np.ndarray[Any, Any]) -> dict[str, float | None]:
    """Return the summary of several draws (n, m), their least values' mean, and the standard deviation of a draw's mean."""
    if not draws.size:
        return summary(draws) | {"sd": None}
    return summary(draws) | {"least": float(draws.min(1).mean()), "sd": float(draws.mean(1).std(ddof=1))}


def write_pairs(out: Path, found: list[Convolution], report: Report, versions: dict[str, str]) -> None:
    """Write the folder: the figure, convolutions.csv, filters.csv (a line a filter) and pairs.json, all or nothing."""
    filters = [
        {"convolution": item.name, "filter": int(number), "opposite": int(other), "cosine": float(cosine)}
        for item in found
        for number, other, cosine in zip(item.filters, item.partner, item.cosine, strict=True)
    ]
    with whole_folder(out) as work:
        plots.save(plots.cosines_figure(found), work / "pairs.png")
        (work / "convolutions.csv").write_text(to_csv(report.rows), encoding="utf-8")
        if filters:
            (work / "filters.csv").write_text(to_csv(filters), encoding="utf-8")
        (work / "pairs.json").write_text(render_report(report, versions, "json"), encoding="utf-8")


def correlate_report(
    stages: Sequence[Stage], within: float, seed: int, photographs: dict[str, int] | None = None
) -> Report:
    """Return stages and rank correlations as a report.

    Args:
        stages: See `cost.join`.
        within: Relative error that counts as reproduced.
        seed: Of drawn orders.
        photographs: On how many each model was fitted in order; said where they differ.

    Raises:
        UserError: If there are too few stages.
    """
    found = compare(stages, seed)
    if not found:
        raise UserError(too_few(stages))
    names, short = {**REDUNDANCY, **COST}, labels([stage.model for stage in stages])
    lines = [
        [f"{short[stage.model]} {stage.layer}", *(cost_cell(name, getattr(stage, name)) for name in names)]
        for stage in stages
    ]
    second = ["redundancy", "cost", "models", "n", "rho", "rho within", "p", "p alike"]
    word, models = stages[0].word.removeprefix(PREFIX), dict.fromkeys(stage.model for stage in stages)
    note = f"{word} in {len(stages)} stages of {len(models)} model(s): {', '.join(models)}; within {within:g} of the variance."
    notes = [note, chance_note(len(found))]
    if len(set((photographs or {}).values())) > 1:
        fitted = ", ".join(f"{model} on {count}" for model, count in (photographs or {}).items())
        notes.append(f"error in order was fitted on different numbers of photographs: {fitted}.")
    return Report(
        rows=[asdict(stage) for stage in stages],
        tables=[(["stage", *names.values()], lines), (second, [correlation_cells(row) for row in found])],
        conventions=STAGES,
        notes=notes,
        more={"settings": {"word": word, "within": within, "seed": seed}, "correlations": found},
    )


def too_few(stages: Sequence[Stage]) -> str:
    """Return why there is nothing to correlate, and what to do."""
    if len(stages) < 3:
        return f"{len(stages)} stages are too few for a rank correlation: give at least 3."
    return (
        f'Of {len(stages)} stages no redundancy and cost are known for the same three: where ghosts shows "-" it had too few '
        "positions to learn from; give it more photographs or a larger --imgsz."
    )


def chance_note(count: int) -> str:
    """Return how small a p must be where several correlations were looked at (Bonferroni)."""
    return f"{count} rank correlations were looked at: by Bonferroni only a p below 0.05 / {count} = {0.05 / count:.2g} counts by itself."


def cost_cell(name: str, value: float | None) -> str:
    """Return a share or an error for people."""
    return percent(value) if name in ("share", "inner") else "-" if value is None else f"{value:.3f}"


def correlation_cells(row: dict[str, Any]) -> list[str]:
    """Return one correlation as people read it."""
    drawn = "" if row["exact"] else " (drawn)"
    rhos = ["-" if row[key] is None else f"{row[key]:+.2f}" for key in ("rho", "within")]
    chances = ["-" if row[key] is None else f"{row[key]:.2g}{drawn}" for key in ("p", "p_alike")]
    return [REDUNDANCY[row["redundancy"]], COST[row["cost"]], str(row["models"]), str(row["n"]), *rhos, *chances]


def write_correlation(out: Path, stages: Sequence[Stage], report: Report, versions: dict[str, str]) -> None:
    """Write the folder: the scatter, stages.csv, correlations.csv and correlation.json, all or nothing."""
    with whole_folder(out) as work:
        plots.save(plots.cost_figure(stages, report.more["correlations"]), work / "correlation.png")
        (work / "stages.csv").write_text(to_csv(report.rows), encoding="utf-8")
        (work / "correlations.csv").write_text(to_csv(report.more["correlations"]), encoding="utf-8")
        (work / "correlation.json").write_text(render_report(report, versions, "json"), encoding="utf-8")

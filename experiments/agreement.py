"""Does agreement, which needs no labels, predict the true accuracy? Models of one teacher, scored in both ways.

python -m experiments agreement best.pt --images train/ --data datasets/bccd.yaml -o agreement.json fast.pt fast.onnx ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from scipy.stats import spearmanr

from experiments.records import write_json
from ghost_yolo.accuracy import AgreementSet, Score, evaluate, ratio
from ghost_yolo.data.images import find_images
from ghost_yolo.redundancy.ranks import Sample, rho_within
from ghost_yolo.report.figures import png
from ghost_yolo.utils.files import write_atomic
from ghost_yolo.utils.system import versions

RESAMPLES = 500


def measure(
    teacher: Path, images: Path, data: str, imgsz: int, models: Sequence[Path], split: str = "val"
) -> dict[str, Any]:
    """Return agreement and true mAP50-95 of each model, both relative to the teacher's own.

    Args:
        teacher: The trained checkpoint.
        images: Images that no model was fitted on, without labels.
        data: Data YAML.
        imgsz: Image side in pixels.
        models: Checkpoints or exported files.
        split: Split of it.
    """
    accuracies = {model: evaluate(model, data, split, imgsz, resamples=0) for model in models}
    true = evaluate(teacher, data, split, imgsz, resamples=0)
    facts, rows = compare(teacher, images, imgsz, true, accuracies)
    return facts | finish(data, rows) | {"true_map50_95": true.map50_95, "split": split}


def compare(
    teacher: Path, images: Path, imgsz: int, true: Score, accuracies: Mapping[Path, Score]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what the teacher found, and both figures of each model relative to the teacher's own.

    Args:
        teacher: The trained checkpoint.
        images: Images that no model was fitted on, without labels.
        imgsz: Image side in pixels.
        true: The teacher's true accuracy.
        accuracies: That of each model.
    """
    rows = []
    with AgreementSet(teacher, find_images([images]), imgsz) as truth:
        own = truth.score(teacher, resamples=0)
        for model, accuracy in accuracies.items():
            agreement = truth.score(model, resamples=0)
            pairs = {"agreement": ratio(agreement, own, RESAMPLES), "accuracy": ratio(accuracy, true, RESAMPLES)}
            rows.append({"model": model.name} | {f"{name}_ratio": value for name, value in pairs.items()})
        facts = {"images": truth.images, "teacher_boxes": truth.boxes, "teacher_boxes_by_class": truth.boxes_by_class}
        return facts | {"teacher": teacher.name, "imgsz": imgsz}, rows


def finish(data: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows of a data set with their rank correlation."""
    return correlate(rows) | {"data": Path(data).name, "rows": rows, "versions": versions()}


def correlate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return Spearman's rank correlation of agreement and accuracy, of all models and within those of one teacher.

    It is None where there is none, as of less than three models. A teacher's own file in float32 agrees by construction, and is
    left out.
    """
    groups = dict[tuple[str, str], list[tuple[float, float]]]()
    for row in (row for row in rows if not row.get("reference")):
        figures = (row["agreement_ratio"][0], row["accuracy_ratio"][0])
        groups.setdefault((row.get("data", ""), row.get("teacher", "")), []).append(figures)
    pairs = [pair for group in groups.values() for pair in group]
    if len(pairs) < 3:
        return {"spearman": None, "within": None, "models": len(pairs)}
    rho = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    within = rho_within([Sample((), *zip(*group, strict=True)) for group in groups.values()])
    return {"spearman": None if isnan(rho) else rho, "within": within, "models": len(pairs)}


def describe(result: Mapping[str, Any]) -> str:
    """Return a rank correlation in words."""
    known, within = (
        f"{result[name]:.3f}" if result.get(name) is not None else "unknown" for name in ("spearman", "within")
    )
    return f"{result['models']} models, Spearman {known}, within one trained model {within}"


def write(result: dict[str, Any], out: Path) -> None:
    """Write the figures as JSON and their scatter plot beside it as PNG."""
    sets = result.get("sets", [])
    write_atomic(out.with_suffix(".png"), draw([*sets, *([result] if len(sets) != 1 else [])]))
    write_json(out, result)


def draw(results: Sequence[dict[str, Any]]) -> bytes:
    """Return the scatter plot as PNG, one colour for each data set; a result without rows is that of all of them, in words."""
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    axes = figure.subplots()
    for result in results:
        alone = f"\nconversions alone: {describe(result['conversions'])}" if "conversions" in result else ""
        label = f"{result.get('data', 'all')}: {describe(result)}{alone}"
        points = [(row["agreement_ratio"], row["accuracy_ratio"]) for row in result.get("rows", [])]
        (xs, x_bars), (ys, y_bars) = (_with_bars([pair[axis] for pair in points]) for axis in (0, 1))
        if points:
            axes.errorbar(xs, ys, xerr=x_bars, yerr=y_bars, fmt="o", markersize=4, elinewidth=0.6, label=label)
        else:
            axes.plot([], [], linestyle="", label=label)
    ends = axes.get_xlim()
    axes.plot(ends, ends, color="grey", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xlabel="agreement, of the trained model's own", ylabel="true mAP50-95, of the trained model's")
    figure.legend(loc="outside lower center")
    return png(figure)


def _with_bars(values: Sequence[Sequence[float]]) -> tuple[list[float], list[list[float]]]:
    """Return the middles, and the lengths of the bars to both ends of the intervals."""
    bars = [[max(middle - low, 0) for middle, low, _ in values], [max(high - middle, 0) for middle, _, high in values]]
    return [value[0] for value in values], bars

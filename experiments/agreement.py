"""Does agreement, which needs no labels, predict the true accuracy? Models of one teacher, scored in both ways.

python -m experiments agreement best.pt --images train/ --data datasets/bccd.yaml -o agreement.json fast.pt fast.onnx ...
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from scipy.stats import spearmanr

from ghost_yolo.accuracy import AgreementSet, evaluate, ratio
from ghost_yolo.data.images import find_images
from ghost_yolo.report.figures import png
from ghost_yolo.utils.files import write_atomic
from ghost_yolo.utils.system import versions

RESAMPLES = 500


def measure(teacher: Path, images: Path, data: str, imgsz: int, models: Sequence[Path]) -> dict[str, Any]:
    """Return agreement and true mAP50-95 on val of each model, both relative to the teacher's own.

    Args:
        teacher: The trained checkpoint.
        images: Images that no model was fitted on, without labels.
        data: Data YAML; its val split is read.
        imgsz: Image side in pixels.
        models: Checkpoints or exported files.
    """
    true = evaluate(teacher, data, "val", imgsz, resamples=0)
    rows = []
    with AgreementSet(teacher, find_images([images]), imgsz) as truth:
        own = truth.score(teacher, resamples=0)
        for model in models:
            agreement, accuracy = truth.score(model, resamples=0), evaluate(model, data, "val", imgsz, resamples=0)
            pairs = {"agreement": ratio(agreement, own, RESAMPLES), "accuracy": ratio(accuracy, true, RESAMPLES)}
            rows.append({"model": model.name} | {f"{name}_ratio": value for name, value in pairs.items()})
        facts = {"images": truth.images, "teacher_boxes": truth.boxes, "teacher": teacher.name, "imgsz": imgsz}
    rho = spearmanr(*([row[name][0] for row in rows] for name in ("agreement_ratio", "accuracy_ratio")))
    found = {"spearman": float(rho.statistic), "p": float(rho.pvalue), "models": len(rows)}
    return (
        facts | found | {"true_map50_95": true.map50_95, "data": Path(data).name, "rows": rows, "versions": versions()}
    )


def write(result: dict[str, Any], out: Path) -> None:
    """Write the figures as JSON and their scatter plot beside it as PNG."""
    write_atomic(out.with_suffix(".png"), draw([result]))
    write_atomic(out, json.dumps(result, indent=1) + "\n")


def draw(results: Sequence[dict[str, Any]]) -> bytes:
    """Return the scatter plot as PNG, one colour for each data set."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for result in results:
        points = [(row["agreement_ratio"], row["accuracy_ratio"]) for row in result["rows"]]
        (xs, x_bars), (ys, y_bars) = (_with_bars([pair[axis] for pair in points]) for axis in (0, 1))
        label = f"{result['data']}: {len(points)} models, Spearman {result['spearman']:.3f}"
        axes.errorbar(xs, ys, xerr=x_bars, yerr=y_bars, fmt="o", markersize=4, elinewidth=0.6, label=label)
    ends = axes.get_xlim()
    axes.plot(ends, ends, color="grey", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xlabel="agreement, of the teacher's own", ylabel="true mAP50-95 on val, of the teacher's")
    figure.legend(loc="outside lower center")
    return png(figure)


def _with_bars(values: Sequence[Sequence[float]]) -> tuple[list[float], list[list[float]]]:
    """Return the middles, and the lengths of the bars to both ends of the intervals."""
    bars = [[middle - low for middle, low, _ in values], [high - middle for middle, _, high in values]]
    return [value[0] for value in values], bars

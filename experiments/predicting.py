"""Agreement beside the true accuracy of everything that the experiments deploy, on the val images of all data sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import rankdata

from experiments.agreement import compare, correlate, finish, write
from experiments.artifacts import STOCK, Artifact
from experiments.plan import Run, conversion_of, read_plan
from experiments.records import write_json
from experiments.scores import Scores
from ghost_yolo.accuracy import evaluate
from ghost_yolo.accuracy.counts import summarize
from ghost_yolo.errors import UserError

MISLEADING = 5  # models that are named where agreement ranks them otherwise than the truth


def measure(config: Mapping[str, Any], name: str, data: str, images: Path) -> dict[str, Any]:
    """Return agreement and accuracy of all files of a data set, each relative to the stock checkpoint of its scale and seed.

    Args:
        config: The configuration.
        name: Of the data set, whose scores on val are there.
        data: Its data YAML.
        images: Its val images.
    """
    plan, folder = read_plan(config), Path(config["runs"]) / name
    groups: dict[tuple[str, int], list[Artifact]] = {}
    for artifact in plan.artifacts(name).values():
        groups.setdefault((artifact.run.scale, artifact.run.seed), []).append(artifact)
    rows, skipped, found = list[dict[str, Any]](), list[str](), dict[str, Any]()
    for artifacts in groups.values():
        stock = next((artifact.run for artifact in artifacts if artifact.run.key == STOCK), None)
        if stock is None:
            skipped.append(f"{', '.join(artifact.label for artifact in artifacts)}: no stock model of their scale")
            continue
        try:
            facts, more = rows_of(
                folder, folder / stock.weights, artifacts, data, images, plan.datasets[name].imgsz, plan.runs[name]
            )
            rows += more
            found[stock.name] = facts["teacher_boxes_by_class"]
        except UserError as error:  # a teacher that finds nothing, or has no accuracy to compare with
            skipped.append(str(error))
    return finish(data, rows) | conversions(rows) | {"teacher_boxes_by_class": found, "skipped": skipped}


def conversions(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the rank correlation of the files that were converted from that teacher alone: its own agree with it by themselves."""
    return {"conversions": correlate([row for row in rows if row["converted"]])}


def rows_of(
    folder: Path,
    teacher: Path,
    artifacts: Sequence[Artifact],
    data: str,
    images: Path,
    imgsz: int,
    runs: Mapping[str, Run],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what one teacher found, and both figures of its files."""
    kept = {
        folder / artifact.file: Scores.read(folder / artifact.name / "scores-val.npz").images for artifact in artifacts
    }
    accuracies = {file: summarize(counts, resamples=0) for file, counts in kept.items()}
    true = evaluate(teacher, data, "val", imgsz, resamples=0)
    found, rows = compare(teacher, images, imgsz, true, accuracies)
    name, made = teacher.parent.name, [conversion_of(artifact.run, runs) for artifact in artifacts]
    facts = [
        {"model": artifact.label, "teacher": name, "converted": conversion is not None and conversion.base == name}
        | {"reference": artifact.run.name == name and artifact.is_fp32}
        for artifact, conversion in zip(artifacts, made, strict=True)
    ]
    return found, [row | more for row, more in zip(rows, facts, strict=True)]


def pool(files: Sequence[Path], out: Path) -> None:
    """Write the rank correlation over all models of several data sets, and one plot of them; files may be pooled already.

    Raises:
        UserError: If a data set is there more than once.
    """
    kept = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    sets = [found for content in kept for found in content.get("sets", [content])]
    if repeated := [name for name, count in Counter(found["data"] for found in sets).items() if count > 1]:
        raise UserError(f"{', '.join(repeated)}: there more than once; give each data set in one file")
    rows = [row | {"data": found["data"]} for found in sets for row in found["rows"]]
    result = correlate(rows) | conversions(rows) | {"misleading": misleading(rows), "sets": sets}
    if rows:
        write(result, out)
    else:
        write_json(out, result)


def misleading(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the models whose ranks by agreement and by accuracy differ most, 1 for the best."""
    rows = [row for row in rows if not row.get("reference")]
    ranks = [rankdata([-row[f"{figure}_ratio"][0] for row in rows]) for figure in ("agreement", "accuracy")]
    found = [
        {
            "model": row["model"],
            "data": row["data"],
            "rank_by_agreement": float(first),
            "rank_by_accuracy": float(second),
        }
        for row, first, second in zip(rows, *ranks, strict=True)
    ]
    found.sort(key=lambda row: -abs(row["rank_by_agreement"] - row["rank_by_accuracy"]))
    return found[:MISLEADING]

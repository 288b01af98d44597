"""What it took to make a model: seconds and labels, from what the commands left beside their outputs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from experiments.artifacts import Artifact
from experiments.plan import Run

DEPLOYED = "deployed.json"  # beside an exported file: seconds, and the modules that stay in float32
PRUNED = "pruned.json"  # beside a pruned model: the seconds of pruning


@dataclass(frozen=True)
class Making:
    """What an artifact took.

    Attributes:
        training: Seconds of the training from scratch that it comes from; None where they are unknown.
        seconds: Of what was done since: conversion, pruning, fine-tuning and export; None where one is unknown.
        labels: Whether that took labels.
        excluded: Names of modules that stay in float32 in an INT8 file.
    """

    training: float | None
    seconds: float | None
    labels: bool
    excluded: tuple[str, ...] = ()


def making_of(artifact: Artifact, runs: Mapping[str, Run], folder: Path) -> Making:
    """Return what an artifact took, from the folder of its data set."""
    chain = [artifact.run]
    while chain[-1].base:
        chain.append(runs[chain[-1].base])
    *since, first = chain
    training = training_seconds(folder / first.name / "train/results.csv")
    seconds, labels = total([seconds_of(run, folder) for run in since]), any(run.kind != "ghostify" for run in since)
    if not artifact.deployment:
        return Making(training, seconds, labels)
    kept = json.loads((folder / artifact.folder / DEPLOYED).read_text(encoding="utf-8"))
    return Making(training, total([seconds, kept["seconds"]]), labels, tuple(kept["excluded"]))


def mean_making(makings: Sequence[Making]) -> dict[str, Any]:
    """Return what the seeds of a model took, as a row of the table holds it."""
    if not makings:
        return {}
    sums = {name: total([getattr(making, name) for making in makings]) for name in ("training", "seconds")}
    means = {name: None if known is None else known / len(makings) for name, known in sums.items()}
    excluded = dict.fromkeys(name for making in makings for name in making.excluded)
    return means | {"labels": makings[0].labels, "excluded": [*excluded]}


def total(seconds: Sequence[float | None]) -> float | None:
    """Return the sum; None where one is unknown."""
    known = [one for one in seconds if one is not None]
    return sum(known) if len(known) == len(seconds) else None


def seconds_of(run: Run, folder: Path) -> float | None:
    """Return the seconds of a conversion, pruning or fine-tuning alone; None where it did not take place here."""
    if run.kind == "prune":
        return pruning_seconds(folder / run.name)
    if run.kind == "tune":
        return training_seconds(folder / run.name / "train/results.csv")
    file = folder / run.name / "light.json"
    return float(json.loads(file.read_text(encoding="utf-8"))["whole"]["seconds"]) if file.is_file() else None


def steps_folder(out: Path) -> Path:
    """Return the folder of the prunings and fine-tunings from which a checkpoint came."""
    return out.with_name(f"{out.stem}-steps")


def pruning_seconds(folder: Path) -> float | None:
    """Return the seconds of all prunings and of the fine-tunings after them; None where one is unknown."""
    seconds = list[float | None]()
    for step in steps_folder(folder / "best.pt").glob("step-*"):
        file = step / PRUNED
        seconds.append(json.loads(file.read_text(encoding="utf-8"))["seconds"] if file.is_file() else None)
        seconds.append(training_seconds(step / "train/results.csv"))
    return total(seconds) if seconds else None


def training_seconds(results: Path) -> float | None:
    """Return the seconds of a training from what Ultralytics wrote; None without that.

    The median of its epochs counts for each of them: other work on the machine for a while, and the restart of the clock where
    a training is resumed, change little.
    """
    if not results.is_file():
        return None
    with results.open(newline="", encoding="utf-8") as lines:
        rows = [{str(name).strip(): value for name, value in row.items()} for row in csv.DictReader(lines)]
    if not rows or "time" not in rows[0]:
        return None
    times = [float(row["time"]) for row in rows]
    epochs = [after - before if after > before else after for before, after in pairwise([0.0, *times])]
    return len(epochs) * median(epochs)

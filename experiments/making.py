"""What it took to make a model: seconds and labels, from what the commands left beside their outputs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.artifacts import Artifact
from experiments.plan import Run

DEPLOYED = "deployed.json"  # beside an exported file: seconds, and the modules that stay in float32
PRUNED = "pruned.json"  # beside a pruned model: the seconds of pruning


@dataclass(frozen=True)
class Making:
    """What an artifact took.

    Attributes:
        seconds: Of training, conversion, fine-tuning and export; None where one is unknown.
        labels: Whether it took labels.
        excluded: Names of modules that stay in float32 in an INT8 file.
    """

    seconds: float | None
    labels: bool
    excluded: tuple[str, ...] = ()


def making_of(artifact: Artifact, runs: Mapping[str, Run], folder: Path) -> Making:
    """Return what an artifact took, from the folder of its data set."""
    seconds, labels = seconds_of(artifact.run, runs, folder), artifact.run.kind != "ghostify"
    if not artifact.deployment:
        return Making(seconds, labels)
    kept = json.loads((folder / artifact.folder / DEPLOYED).read_text(encoding="utf-8"))
    return Making(None if seconds is None else seconds + kept["seconds"], labels, tuple(kept["excluded"]))


def mean_making(makings: Sequence[Making]) -> dict[str, Any]:
    """Return what the seeds of a model took, as a row of the table holds it."""
    if not makings:
        return {}
    seconds = [making.seconds for making in makings if making.seconds is not None]
    excluded = dict.fromkeys(name for making in makings for name in making.excluded)
    known = fmean(seconds) if len(seconds) == len(makings) else None
    return {"seconds": known, "labels": makings[0].labels, "excluded": [*excluded]}


def seconds_of(run: Run, runs: Mapping[str, Run], folder: Path) -> float | None:
    """Return the seconds that a run took; None where it did not take place here.

    A model that starts from one that was trained from scratch took what was done since: somebody who converts or fine-tunes
    has that model. A conversion that is then fine-tuned counts with the fine-tuning.
    """
    if run.kind == "ghostify":
        file = folder / run.name / "light.json"
        return float(json.loads(file.read_text(encoding="utf-8"))["whole"]["seconds"]) if file.is_file() else None
    if run.kind == "prune":
        return pruning_seconds(folder / run.name)
    own = training_seconds(folder / run.name / "train/results.csv")
    base = runs.get(run.base)
    if base is None or base.kind == "train":
        return own
    before = seconds_of(base, runs, folder)
    return None if own is None or before is None else own + before


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
    known = [one for one in seconds if one is not None]
    return sum(known) if known and len(known) == len(seconds) else None


def training_seconds(results: Path) -> float | None:
    """Return the seconds of a training from what Ultralytics wrote; None without that.

    Its clock starts again when a training is resumed: the last time before each start is counted.
    """
    if not results.is_file():
        return None
    with results.open(newline="", encoding="utf-8") as lines:
        rows = [{str(name).strip(): value for name, value in row.items()} for row in csv.DictReader(lines)]
    if not rows or "time" not in rows[0]:
        return None
    times = [float(row["time"]) for row in rows]
    return sum(time for time, after in pairwise([*times, 0.0]) if after < time)

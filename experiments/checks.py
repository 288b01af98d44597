"""Whether what lies in a run's folder is what the run would make."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import yaml
from runs import Run

from ghost_yolo.errors import UserError
from ghost_yolo.utils.files import fingerprint


def check(run: Run) -> None:
    """Raise an error where the folder holds what was made with other arguments, or from another trained model."""
    check_training(run) if run.is_training else check_light(run)


def check_training(run: Run) -> None:
    """Raise an error where the folder holds another training."""
    file = run.folder / "args.yaml"
    if not file.is_file():
        return
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    asked = dict(word.split("=", 1) for word in run.words if "=" in word)
    other = [f"{key}={found[key]}" for key in ("imgsz", "epochs", "seed", "batch") if str(found[key]) != asked[key]]
    if Path(found["model"]) != run.last and not same_file(found["model"], asked["model"]):  # resumed: last.pt
        other.append(f"model={found['model']}")
    if not same_file(found["data"], asked["data"]):
        other.append(f"data={found['data']}")
    if other:
        raise UserError(
            f"{run.folder} holds a training with {', '.join(other)}, and this one is: {' '.join(run.words)}. "
            "Give another --runs folder."
        )


def check_light(run: Run) -> None:
    """Raise an error where ghostify's report tells of other settings, or of a trained model that has changed since."""
    report = run.file.with_suffix(".json")
    if not (run.file.is_file() and report.is_file() and run.needs and run.needs.file.is_file()):
        return
    found = json.loads(report.read_text(encoding="utf-8"))["settings"]
    given = dict(pairwise(run.words))
    asked = {"weights": fingerprint([run.needs.file]), "where": given["--where"], "steps": int(given["--steps"])}
    asked |= {"polish": int(given["--polish"]), "seed": run.seed, "imgsz": int(given["--imgsz"])}
    asked |= {"budget": float(given["--budget"]) if "--budget" in given else None}
    asked |= {"blocks": [given["--block"]] if "--block" in given else []}
    other = [f"{key}={found.get(key)}" for key, value in asked.items() if found.get(key) != value]
    if other:
        raise UserError(
            f"{run.folder} was ghostified with {', '.join(other)}, and this one is: {' '.join(run.words)}. Remove the "
            "folder, or give another --runs folder."
        )


def same_file(one: str, other: str) -> bool:
    """Return whether two words name the same YAML: a bare name is the host's, and checkouts may lie in two places."""
    first, second = Path(one).parts, Path(other).parts
    return first[-2:] == second[-2:] and (len(first) > 1) == (len(second) > 1)

"""A trained model's accuracy on a split, kept image by image; see ghost_yolo.accuracy."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from ultralytics import YOLO

from ghost_yolo.accuracy.counts import KINDS, ImageCounts
from ghost_yolo.accuracy.validate import ImageValidator, count
from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.model.profile import profile_state
from ghost_yolo.utils.console import quiet
from ghost_yolo.utils.files import fingerprint, write_atomic
from ghost_yolo.utils.system import versions


@dataclass(frozen=True)
class Scores:
    """A model's scores on a split.

    Attributes:
        facts: What was evaluated and how, and the point estimates `map50_95` and `map50`.
        images: The counts from which they were computed.
    """

    facts: dict[str, Any]
    images: ImageCounts

    def write(self, file: Path) -> None:
        """Write the scores as a NumPy archive."""
        images, buffer = self.images, io.BytesIO()
        kinds: dict[str, Any] = {kind: np.concatenate(getattr(images, kind)) for kind in KINDS}
        kinds |= {"detections": [len(tp) for tp in images.tp], "boxes": [len(box) for box in images.target_cls]}
        np.savez_compressed(buffer, names=images.names, facts=json.dumps(self.facts), **kinds)
        write_atomic(file, buffer.getvalue())

    @classmethod
    def read(cls, file: Path) -> Scores:
        """Read the scores that were written."""
        with np.load(file) as kept:
            ends = {"boxes": np.cumsum(kept["boxes"])[:-1], "detections": np.cumsum(kept["detections"])[:-1]}
            parts = [np.split(kept[kind], ends["boxes" if kind == "target_cls" else "detections"]) for kind in KINDS]
            return cls(json.loads(str(kept["facts"])), ImageCounts(tuple(kept["names"].tolist()), *parts))


def evaluate(weights: Path, data: str, split: str, imgsz: int, device: str, file: Path | None = None) -> Scores:
    """Validate a checkpoint as `yolo val` does, or a file that was exported from it, which sees squares and runs on the CPU."""
    device = "cpu" if file else device
    if file:
        images = cast("ImageCounts", count(file, data, split, imgsz, device))
    else:
        images = count_checkpoint(weights, data, split, imgsz, device)
    map50_95, map50 = images.score()
    facts: dict[str, Any] = {"split": split, "imgsz": imgsz, "map50_95": map50_95, "map50": map50}
    sizes = {"images": len(images.names), "boxes": sum(map(len, images.target_cls))}
    return Scores(facts | sizes | model_facts(weights, imgsz) | conditions(device), images)


def count_checkpoint(weights: Path, data: str, split: str, imgsz: int, device: str) -> ImageCounts:
    """Return what `yolo val` counts for each image."""
    with quiet(), tempfile.TemporaryDirectory() as folder:
        settings = {"data": data, "split": split, "imgsz": imgsz, "device": device, "project": folder}
        images: ImageCounts = YOLO(weights).val(validator=ImageValidator, plots=False, **settings).images
    return images


def require_same_weights(out: Path, weights: Path) -> None:
    """Remember beside `out` which weights are evaluated, and raise an error if they are not those that were evaluated before.

    Snakemake evaluates a model again when it has changed; on the test split, which is read once, that must not happen unseen.
    """
    file, now = out.with_suffix(".weights"), fingerprint_of(weights)
    if file.is_file() and file.read_text(encoding="utf-8") != now:
        raise UserError(
            f"{weights} has changed since it was evaluated on the test split, which is read once. "
            f"Remove {file} if the first evaluation was a mistake."
        )
    write_atomic(file, now)


def fingerprint_of(weights: Path) -> str:
    """Return a hash of what a model computes: an ONNX file without its metadata, which hold the time of day."""
    if weights.suffix != ".onnx":
        return fingerprint(files_of(weights))
    import onnx

    model = onnx.load(weights)
    del model.metadata_props[:]
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def files_of(model: Path) -> list[Path]:
    """Return the files with a model's weights; the metadata of an exported folder hold the time of day."""
    if not model.is_dir():
        return [model]
    return sorted(file for file in model.iterdir() if file.is_file() and file.suffix != ".yaml")


def model_facts(weights: Path, imgsz: int) -> dict[str, Any]:
    """Return what the table shows of a model besides its accuracy."""
    import torch
    import ultralytics

    row = profile_state(open_checkpoint(weights), imgsz)
    version = torch.load(weights, map_location="cpu", weights_only=False).get("version", ultralytics.__version__)
    return {"parameters": row.parameters, "gflops": row.gflops, "nc": row.nc, "trained_with": version}


def conditions(device: str) -> dict[str, Any]:
    """Return the machine and the versions."""
    from ultralytics.utils.torch_utils import get_cpu_info, get_gpu_info

    first = device.partition(",")[0]
    return {"machine": get_gpu_info(int(first)) if first.isdigit() else get_cpu_info(), "versions": versions()}

"""Accuracy with its uncertainty: Ultralytics' own validation, counted per image, and a bootstrap over images."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.metrics import ap_per_class

from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.model.profile import profile_state
from ghost_yolo.utils.console import quiet
from ghost_yolo.utils.files import fingerprint, write_atomic
from ghost_yolo.utils.system import versions

LEVEL = 0.95  # of the intervals
KINDS = ("tp", "conf", "pred_cls", "target_cls")


class ImageValidator(DetectionValidator):
    """Ultralytics' validator, which also keeps what it counted for each image, as `metrics.images`."""

    def init_metrics(self, model: Any) -> None:
        """Start without images."""
        super().init_metrics(model)
        self.image_names: list[str] = []

    def update_metrics(self, preds: Any, batch: dict[str, Any]) -> None:
        """Count a batch and keep the names of its images."""
        super().update_metrics(preds, batch)
        self.image_names += [Path(file).name for file in batch["im_file"]]

    def get_stats(self) -> dict[str, Any]:
        """Keep the counts, which Ultralytics clears."""
        kept = {kind: list(self.metrics.stats[kind]) for kind in KINDS}
        stats = super().get_stats()
        self.metrics.images = ImageCounts(tuple(self.image_names), *(kept[kind] for kind in KINDS))
        return stats


@dataclass(frozen=True)
class ImageCounts:
    """What Ultralytics counted for each image, with n detections and m labelled boxes in one.

    Attributes:
        names: File names.
        tp: (n, 10) for each, whether a detection is right at IoU 0.5 to 0.95.
        conf: (n,) for each, the confidences.
        pred_cls: (n,) for each, the classes.
        target_cls: (m,) for each, the classes of the labelled boxes.
    """

    names: tuple[str, ...]
    tp: list[NDArray[Any]]
    conf: list[NDArray[Any]]
    pred_cls: list[NDArray[Any]]
    target_cls: list[NDArray[Any]]

    def score(self, chosen: Sequence[int] | None = None) -> tuple[float, float]:
        """Return mAP50-95 and mAP50 of the chosen images, of all if not given, by Ultralytics' own computation.

        Images may be repeated. Where none has a labelled box, there is no score: NaN.
        """
        indices = range(len(self.names)) if chosen is None else chosen
        parts = [np.concatenate([getattr(self, kind)[index] for index in indices]) for kind in KINDS]
        if not len(parts[-1]):
            return np.nan, np.nan
        ap = ap_per_class(*parts)[5]
        return float(ap.mean()), float(ap[:, 0].mean())

    def by_name(self) -> ImageCounts:
        """Return the same counts with the images in the order of their names."""
        order = np.argsort(self.names)
        parts = [[getattr(self, kind)[index] for index in order] for kind in KINDS]
        return ImageCounts(tuple(self.names[index] for index in order), *parts)


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


def evaluate(weights: Path, data: str, split: str, imgsz: int, device: str) -> Scores:
    """Validate a checkpoint as `yolo val` does."""
    with quiet(), tempfile.TemporaryDirectory() as folder:
        settings = {"data": data, "split": split, "imgsz": imgsz, "device": device, "project": folder}
        metrics = YOLO(weights).val(validator=ImageValidator, plots=False, **settings)
    images: ImageCounts = metrics.images
    facts = {"split": split, "imgsz": imgsz, "map50_95": float(metrics.box.map), "map50": float(metrics.box.map50)}
    sizes = {"images": len(images.names), "boxes": sum(map(len, images.target_cls))}
    return Scores(facts | sizes | model_facts(weights, imgsz) | conditions(device), images)


def require_same_weights(out: Path, weights: Path) -> None:
    """Remember beside `out` which weights are evaluated, and raise an error if they are not those that were evaluated before.

    Snakemake evaluates a model again when it has changed; on the test split, which is read once, that must not happen unseen.
    """
    file, now = out.with_suffix(".weights"), fingerprint([weights])
    if file.is_file() and file.read_text(encoding="utf-8") != now:
        raise UserError(
            f"{weights} has changed since it was evaluated on the test split, which is read once. "
            f"Remove {file} if the first evaluation was a mistake."
        )
    write_atomic(file, now)


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


def resample(models: Sequence[ImageCounts], resamples: int) -> NDArray[np.float64]:
    """Return (models, resamples), the mAP50-95 of bootstrap resamples of the images.

    A resample draws the same images for every model, so that differences and ratios of models are paired.

    Raises:
        UserError: If the models were not evaluated on the same images.
    """
    ordered = [model.by_name() for model in models]
    if len({model.names for model in ordered}) > 1:
        raise UserError("models that were evaluated on different images cannot be compared; evaluate them again")

    def scores(images: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([model.score(images.tolist())[0] for model in ordered])

    images = np.arange(len(ordered[0].names))
    options: dict[str, Any] = {"vectorized": False, "method": "percentile", "random_state": np.random.default_rng(0)}
    distribution = bootstrap((images,), scores, n_resamples=resamples, **options).bootstrap_distribution
    return np.asarray(distribution, dtype=np.float64).reshape(len(ordered), resamples)


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the percentile interval; resamples without a score are left out."""
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

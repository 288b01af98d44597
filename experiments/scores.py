"""Accuracy with its uncertainty: the host's own validation, image by image, and bootstrap intervals over images."""

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
from runs import Run
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.metrics import ap_per_class

from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.model.profile import profile_state
from ghost_yolo.utils.console import progress, quiet
from ghost_yolo.utils.files import fingerprint, write_whole

RESAMPLES = 1000
LEVEL = 0.95  # of the intervals
KINDS = ("tp", "conf", "pred_cls", "target_cls")


class ImageValidator(DetectionValidator):
    """The host's validator, which also hands over what it counted for each image, as `metrics.images`."""

    def init_metrics(self, model: Any) -> None:
        """Begin without images."""
        super().init_metrics(model)
        self.names_of_images: list[str] = []

    def update_metrics(self, preds: Any, batch: dict[str, Any]) -> None:
        """Count a batch and remember whose it is."""
        super().update_metrics(preds, batch)
        self.names_of_images += [Path(file).name for file in batch["im_file"]]

    def get_stats(self) -> dict[str, Any]:
        """Keep the counts, which the host clears."""
        kept = {kind: list(self.metrics.stats[kind]) for kind in KINDS}
        stats = super().get_stats()
        self.metrics.images = Images(tuple(self.names_of_images), *(kept[kind] for kind in KINDS))
        return stats


@dataclass(frozen=True)
class Images:
    """What the host counted for each of some images, n detections and m boxes in one.

    Attributes:
        names: Of the files.
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
        """Return mAP50-95 and mAP50 of some of the images, of all if not given, by the host's own computation.

        Images may come repeatedly. Where none has a labelled box, there is no score: NaN.
        """
        places = range(len(self.names)) if chosen is None else chosen
        parts = [np.concatenate([getattr(self, kind)[place] for place in places]) for kind in KINDS]
        if not len(parts[-1]):
            return np.nan, np.nan
        ap = ap_per_class(*parts)[5]
        return float(ap.mean()), float(ap[:, 0].mean())

    def resampled(self, count: int = RESAMPLES, text: str = "Resampling") -> NDArray[np.float64]:
        """Return (count, 2), the scores of resamples; the same images are drawn for every model, whatever their order."""
        by_name = np.argsort(self.names)
        draws = np.random.default_rng(0).integers(len(self.names), size=(count, len(self.names)))
        return np.array([self.score(by_name[draw].tolist()) for draw in progress(list(draws), text)])


@dataclass(frozen=True)
class Scores:
    """A model's scores on a split.

    Attributes:
        facts: What was evaluated, and the point estimates `map50_95` and `map50`.
        draws: (resamples, 2), both for each resample.
        names: Of the images.
    """

    facts: dict[str, Any]
    draws: NDArray[np.float64]
    names: tuple[str, ...]


def file_of(run: Run, split: str) -> Path:
    """Return where the scores of a run are kept."""
    return run.folder / f"scores-{split}.npz"


def evaluate(run: Run, data: str, split: str, imgsz: int, device: str, resamples: int) -> None:
    """Validate a run as `yolo val` does and keep its scores; what is already there is not done again.

    Raises:
        UserError: If what was evaluated on the test split, or how, is not what is asked for now.
    """
    asked = {"weights": fingerprint([run.file]), "data": "/".join(Path(data).parts[-2:]), "imgsz": imgsz}
    if file_of(run, split).is_file():
        known = read(run, split)
        if known.facts.items() >= asked.items():
            if len(known.draws) != resamples:
                resample(run, split, known.facts, read_images(file_of(run, split)), resamples)
            return
        if split == "test":
            raise UserError(
                f"{run.file}, on {asked['data']} at {imgsz}, is not what was evaluated on the test split, which is read once. "
                f"Remove {run.folder} if that run was a mistake."
            )
    with quiet(), tempfile.TemporaryDirectory() as folder:
        words = {"data": data, "split": split, "imgsz": imgsz, "device": device, "project": folder}
        metrics = YOLO(run.file).val(validator=ImageValidator, plots=False, **words)
    facts = asked | {"map50_95": float(metrics.box.map), "map50": float(metrics.box.map50)} | counted(run, imgsz)
    resample(run, split, facts, metrics.images, resamples)


def resample(run: Run, split: str, facts: dict[str, Any], images: Images, count: int) -> None:
    """Keep the scores of so many resamples, and all that they came from."""
    keep(file_of(run, split), images, facts, images.resampled(count, f"Resampling {run.name}, {split}"))


def counted(run: Run, imgsz: int) -> dict[str, Any]:
    """Return what the table says of a model besides its accuracy."""
    import torch
    import ultralytics

    row = profile_state(open_checkpoint(run.file), imgsz)
    version = torch.load(run.file, map_location="cpu", weights_only=False).get("version", ultralytics.__version__)
    return {"parameters": row.parameters, "gflops": row.gflops, "nc": row.nc, "trained_with": version}


def keep(file: Path, images: Images, facts: dict[str, Any], draws: NDArray[np.float64]) -> None:
    """Write scores and the counts from which they can be computed anew."""
    kinds: dict[str, Any] = {kind: np.concatenate(getattr(images, kind)) for kind in KINDS}
    kinds |= {"detections": [len(tp) for tp in images.tp], "boxes": [len(box) for box in images.target_cls]}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=images.names, facts=json.dumps(facts), draws=draws, **kinds)
    write_whole(file, buffer.getvalue())


def read(run: Run, split: str) -> Scores:
    """Return the scores that were kept."""
    with np.load(file_of(run, split)) as kept:
        sizes = {"images": len(kept["names"]), "boxes": len(kept["target_cls"]), "resamples": len(kept["draws"])}
        return Scores(json.loads(str(kept["facts"])) | sizes, kept["draws"], tuple(kept["names"].tolist()))


def read_images(file: Path) -> Images:
    """Return the counts that were kept, image by image."""
    with np.load(file) as kept:
        ends = {"boxes": np.cumsum(kept["boxes"])[:-1], "detections": np.cumsum(kept["detections"])[:-1]}
        parts = [np.split(kept[kind], ends["boxes" if kind == "target_cls" else "detections"]) for kind in KINDS]
        return Images(tuple(kept["names"].tolist()), *parts)


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the percentile interval."""
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

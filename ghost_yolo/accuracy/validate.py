"""Ultralytics' own validation of a checkpoint or an exported file, counted per image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.data.build import build_dataloader
from ultralytics.data.utils import check_cls_dataset, check_det_dataset
from ultralytics.models.yolo.classify import ClassificationValidator
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator

from ghost_yolo.accuracy.counts import RESAMPLES, ClassifiedImages, Counts, ImageCounts, Score, summarize
from ghost_yolo.bench.exporting import describe_exported
from ghost_yolo.bench.runtimes import RUNTIMES, runtime_of
from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.utils.console import quiet
from ghost_yolo.utils.files import temporary_folder

PREFIX = "ghost-yolo-val-"


class ImageValidator(DetectionValidator):
    """Ultralytics' validator, which also keeps what it counted for each image, as `metrics.images`."""

    tp = "tp"  # of boxes

    def init_metrics(self, model: Any) -> None:
        """Start without images.

        Raises:
            UserError: If the model's classes are not those of the data.
        """
        require_classes(self.args.model, model.names, self.data.get("names", model.names))
        super().init_metrics(model)
        self.image_names: list[str] = []

    def update_metrics(self, preds: Any, batch: dict[str, Any]) -> None:
        """Count a batch and keep the names of its images."""
        super().update_metrics(preds, batch)
        self.image_names += [Path(file).name for file in batch["im_file"]]

    def get_stats(self) -> dict[str, Any]:
        """Keep the counts, which Ultralytics clears."""
        kept = [list(self.metrics.stats[kind]) for kind in (self.tp, "conf", "pred_cls", "target_cls")]
        stats = super().get_stats()
        self.metrics.images = ImageCounts(tuple(self.image_names), *kept)
        return stats


class ImageSegmentationValidator(ImageValidator, SegmentationValidator):
    """The same for masks."""

    tp = "tp_m"


class ImagePoseValidator(ImageValidator, PoseValidator):
    """The same for keypoints."""

    tp = "tp_p"


class ImageOBBValidator(ImageValidator, OBBValidator):
    """The same for rotated boxes."""


class ImageClassificationValidator(ClassificationValidator):
    """Ultralytics' validator of classifiers, which also keeps which images were right, as `metrics.images`."""

    def get_dataloader(self, dataset_path: Any, batch_size: int) -> Any:
        """Return the images in their order; Ultralytics shuffles them."""
        dataset = self.build_dataset(dataset_path)
        self.image_names = ["/".join(Path(sample[0]).parts[-2:]) for sample in dataset.samples]
        return build_dataloader(dataset, batch_size, self.args.workers, shuffle=False, rank=-1)

    def get_stats(self) -> dict[str, Any]:
        """Keep the counts."""
        stats: dict[str, Any] = super().get_stats()
        hits = (torch.cat(self.pred) == torch.cat(self.targets)[:, None]).numpy()
        right = np.stack([hits[:, 0], hits.any(1)], 1)
        self.metrics.images = ClassifiedImages(tuple(self.image_names), right)
        return stats


VALIDATORS: dict[str, Any] = {
    "detect": ImageValidator,
    "segment": ImageSegmentationValidator,
    "pose": ImagePoseValidator,
    "obb": ImageOBBValidator,
    "classify": ImageClassificationValidator,
}


def evaluate(
    file: Path, data: str, split: str, imgsz: int, device: str = "cpu", resamples: int = RESAMPLES, **settings: Any
) -> Score:
    """Return a model's score on a labelled data set, by Ultralytics' own validation.

    Images are letterboxed to squares, as every exported file gets them, so that a checkpoint and what was exported from it
    see the same pixels. `yolo val` by default takes rectangles for checkpoints: give `rect=True` for its very figure.

    Args:
        file: A checkpoint, an ONNX file, or an OpenVINO or NCNN folder, of any precision.
        data: Data YAML; a folder for a classifier.
        split: `val`, `test` or `train`.
        imgsz: Image side in pixels; an exported file of fixed size keeps its own.
        device: As in `yolo`.
        resamples: Bootstrap resamples; 0 for no interval (NaN).
        settings: Further settings of the host's validation.

    Raises:
        UserError: If the file cannot be read, has other classes than the data set, or there are no such data.
    """
    return summarize(count(file, data, split, imgsz, device, **settings), resamples)


def count(file: Path, data: str, split: str, imgsz: int, device: str, **settings: Any) -> Counts:
    """Return what the host's validation counts for each image; see `evaluate`."""
    yolo, device = open_file(file), device_of(file, device)
    options = {"data": data, "split": split, "imgsz": imgsz, "device": device, "rect": False, **settings}
    with quiet(), temporary_folder(PREFIX) as folder:
        try:
            metrics = yolo.val(validator=VALIDATORS[yolo.task], plots=False, project=str(folder), **options)
        except (FileNotFoundError, IndexError, RuntimeError, ValueError, SyntaxError) as error:  # the host's for data
            raise UserError(f"{file} cannot be validated on {data}, split {split}: {first_line(error)}") from error
    counts: Counts = metrics.images
    return counts


def require_data(file: Path, data: str, split: str) -> None:
    """Check, before long work, that a checkpoint can be validated on a data set; one that prepares itself does so now.

    Raises:
        UserError: If it cannot: the data set or its split is not there, or has other classes.
    """
    opened = open_checkpoint(file)
    try:
        with quiet():
            found = check_cls_dataset(data, split) if opened.task == "classify" else check_det_dataset(data)
    except (OSError, RuntimeError, ValueError, SyntaxError) as error:  # the host's errors for data
        raise UserError(f"{file} cannot be validated on {data}, split {split}: {first_line(error)}") from error
    if not found.get(split):
        raise UserError(f"{file} cannot be validated on {data}: it has no {split} split")
    if opened.task == "classify":
        require_as_many_classes(file, opened.nc, len(found["names"]))
    else:
        require_classes(file, opened.model.names, found["names"])


def require_as_many_classes(file: Path, classes: int, folders: int) -> None:
    """Raise an error if a classifier has more or fewer classes than its data; the folders of ImageNet bear other names."""
    if classes != folders:
        raise UserError(
            f"the model {file} has {classes} classes and the data has {folders}; give data of those classes"
        )


def device_of(file: Path, device: str) -> str:
    """Return the device that a file is scored on: exported files run on the CPU, for which they are made."""
    return "cpu" if runtime_of(str(file)) else device


def require_classes(file: Path | str, names: Mapping[int, str], truth: Mapping[int, str]) -> None:
    """Check that a model has the classes of the truth.

    Raises:
        UserError: If it has not.
    """
    found, wanted = [*names.values()], [*truth.values()]
    if found != wanted:
        raise UserError(
            f"the model {file} has the classes {shorten(found)} and the truth has {shorten(wanted)}; "
            "give a model with the same classes in the same order"
        )


def open_file(file: Path) -> YOLO:
    """Open a checkpoint or an exported file, with the task that it says itself.

    Raises:
        UserError: If there is no such file, it cannot be read, its runtime is not installed, or its task has no score.
    """
    runtime = runtime_of(str(file))
    if runtime:
        RUNTIMES[runtime].require("fp32", exporting=False)
        task = describe_exported(file, runtime).task
    else:
        task = open_checkpoint(file).task
    if task not in VALIDATORS:
        raise UserError(f"{file} is a model for {task}, which is not scored here; give one for {', '.join(VALIDATORS)}")
    with quiet():
        return YOLO(str(file), task=task)


def shorten(names: list[str]) -> str:
    """Return class names as text of bounded length."""
    text = ", ".join(names)
    return text if len(text) <= 80 else f"{text[:80]}... ({len(names)})"


def first_line(error: Exception) -> str:
    """Return what an error of the host says, on one line of bounded length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]

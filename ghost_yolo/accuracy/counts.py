"""What a validation counts for each image, scores computed from that, and bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ultralytics.utils.metrics import ap_per_class

from ghost_yolo.errors import UserError

LEVEL = 0.95  # of the intervals
RESAMPLES = 1000
KINDS = ("tp", "conf", "pred_cls", "target_cls")


class Counts(Protocol):
    """What was counted for each image, in either form below."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images."""

    @property
    def labels(self) -> int:
        """Labelled boxes, or labelled images of a classifier."""

    def score(self, chosen: Sequence[int] | None = None) -> tuple[float, float]:
        """Return the score of the chosen images, of all if not given, and a second one that is easier to reach."""

    def by_name(self) -> Counts:
        """Return the same counts with the images in the order of their names."""


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

    @property
    def labels(self) -> int:
        """Number of labelled boxes."""
        return sum(map(len, self.target_cls))

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
class ClassifiedImages:
    """Which images a classifier got right.

    Attributes:
        names: File names.
        right: (n, 2), whether the class is the first, and whether it is among the first five.
    """

    names: tuple[str, ...]
    right: NDArray[np.bool_]

    @property
    def labels(self) -> int:
        """Number of images, each of which has one label."""
        return len(self.names)

    def score(self, chosen: Sequence[int] | None = None) -> tuple[float, float]:
        """Return top-1 and top-5 accuracy of the chosen images, of all if not given. Images may be repeated."""
        top1, top5 = (self.right if chosen is None else self.right[list(chosen)]).mean(0)
        return float(top1), float(top5)

    def by_name(self) -> ClassifiedImages:
        """Return the same counts with the images in the order of their names."""
        order = np.argsort(self.names)
        return ClassifiedImages(tuple(self.names[index] for index in order), self.right[order])


@dataclass(frozen=True)
class Score:
    """A model's score on images, against labels or against what a teacher finds (agreement).

    Attributes:
        map50_95: mAP50-95 of boxes, of masks for segmentation and of keypoints for pose; a classifier's top-1 accuracy.
        low: Lower end of its 95 % interval, by bootstrap over images.
        high: Upper end.
        images: Number of images.
        teacher_boxes: Number of boxes that count as truth: the teacher's, or the labelled ones; images of a classifier.
        counts: What the score was computed from, for paired comparisons.
    """

    map50_95: float
    low: float
    high: float
    images: int
    teacher_boxes: int
    counts: Counts = field(repr=False, compare=False)


def summarize(counts: Counts, resamples: int = RESAMPLES) -> Score:
    """Return the score with its interval.

    Args:
        counts: What was counted for each image.
        resamples: Bootstrap resamples; 0 for no interval (NaN), which is faster.
    """
    low, high = interval(resample([counts], resamples)[0]) if resamples else (np.nan, np.nan)
    return Score(counts.score()[0], low, high, len(counts.names), counts.labels, counts)


def ratio(score: Score, reference: Score, resamples: int = RESAMPLES) -> tuple[float, float, float]:
    """Return the ratio of two scores on the same images and the ends of its 95 % interval, by a paired bootstrap.

    Raises:
        UserError: If the images are not the same, or the reference scores nothing.
    """
    if not reference.map50_95 > 0:
        raise UserError("the reference model scores 0 on these images, so that there is no ratio; give other images")
    own, other = resample([score.counts, reference.counts], resamples)
    return ratio_of(score.map50_95, own, reference.map50_95, other)


def ratio_of(
    score: float, draws: NDArray[np.float64], reference: float, base: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Return the ratio of two scores with its interval; resamples in which the reference scores nothing are left out."""
    return (score / reference, *interval(draws / np.where(base > 0, base, np.nan)))


def resample(models: Sequence[Counts], resamples: int) -> NDArray[np.float64]:
    """Return (models, resamples), the scores of bootstrap resamples of the images.

    A resample draws the same images for every model, so that differences and ratios of models are paired.

    Raises:
        UserError: If the models were not evaluated on the same images.
    """
    from scipy.stats import bootstrap  # slow to import

    ordered = [model.by_name() for model in models]
    if len({model.names for model in ordered}) > 1:
        raise UserError("models that were evaluated on different images cannot be compared; evaluate them again")

    def scores(images: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([model.score(images.tolist())[0] for model in ordered])

    images = np.arange(len(ordered[0].names))
    if len(images) < 2:  # there is nothing to resample
        return np.repeat(scores(images)[:, None], resamples, 1)
    options: dict[str, Any] = {"vectorized": False, "method": "percentile", "random_state": np.random.default_rng(0)}
    distribution = bootstrap((images,), scores, n_resamples=resamples, **options).bootstrap_distribution
    return np.asarray(distribution, dtype=np.float64).reshape(len(ordered), resamples)


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the percentile interval; resamples without a score are left out."""
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

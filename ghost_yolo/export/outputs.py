"""Outputs of an exported file compared with PyTorch's, number by number or, of end-to-end heads, box by box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ghost_yolo.errors import UserError

BOX_TOLERANCE = 0.05  # pixels
SCORE_TOLERANCE = 1e-3  # scores and all other outputs of a head
CONFIDENT = 0.25  # from this score on, PyTorch's or the file's, the boxes of an INT8 or fp16 file must be alike
TOLERANCES = {  # pixels and scores: of all boxes in float32, of sure ones in other precisions
    "fp32": (BOX_TOLERANCE, SCORE_TOLERANCE),
    "fp16": (2.0, 0.02),
    "int8": (8.0, 0.2),
}

Array = NDArray[np.float32]


@dataclass(frozen=True)
class OutputCheck:
    """The largest differences between ONNX Runtime and PyTorch on one input.

    Attributes:
        size: Height and width of the input in pixels.
        image: `noise`, `image`, or a photograph's name.
        boxes: Largest difference of box coordinates in pixels.
        scores: Largest difference of all other outputs.
        box_tolerance: Of boxes, in pixels.
        score_tolerance: Of the others.
        compared: How many boxes were compared, where not all are; None where all are.
    """

    size: tuple[int, int]
    image: str
    boxes: float
    scores: float
    box_tolerance: float = BOX_TOLERANCE
    score_tolerance: float = SCORE_TOLERANCE
    compared: int | None = None

    @property
    def passed(self) -> bool:
        """Whether both are within tolerance; NaN is not."""
        return self.boxes <= self.box_tolerance and self.scores <= self.score_tolerance

    def __str__(self) -> str:
        """Return one line of the report."""
        verdict, (height, width) = "ok  " if self.passed else "FAIL", self.size
        if self.compared == 0:
            return f"{verdict} {height}x{width} {self.image:5} no box with a confidence of {CONFIDENT}: nothing is compared"
        of = "" if self.compared is None else f", of {self.compared} boxes"
        return (
            f"{verdict} {height}x{width} {self.image:5} boxes {self.boxes:.2g} px (tolerance {self.box_tolerance}), "
            f"scores {self.scores:.2g} (tolerance {self.score_tolerance}){of}"
        )


def compare(
    found: Sequence[Array],
    expected: Sequence[Array],
    nc: int,
    size: tuple[int, int],
    name: str,
    precision: str = "fp32",
    end2end: bool = False,
) -> OutputCheck:
    """Return the check of one input, by the tolerances of the file's precision.

    Args:
        found: The file's outputs.
        expected: PyTorch's.
        nc: Number of classes.
        size: Height and width of the input in pixels.
        name: Of the input.
        precision: Key of TOLERANCES.
        end2end: Whether the first output is (1, n, 6 + ...), boxes of an end-to-end head in the order of their scores.

    Raises:
        UserError: If the shapes differ.
    """
    require_shapes(found, expected)
    tolerances = TOLERANCES[precision]
    if end2end:
        # Keypoints and coefficients of masks have no tolerance but in float32
        least, columns = (-np.inf, None) if precision == "fp32" else (CONFIDENT, 6)
        ours, theirs = (outputs[0][0, :, :columns] for outputs in (found, expected))
        boxes, scores, count = paired_differences(ours, theirs, least, tolerances)
        if precision == "fp32":  # masks' prototypes
            scores = max([scores, *(float(np.abs(a - b).max()) for a, b in zip(found[1:], expected[1:], strict=True))])
        return OutputCheck(size, name, boxes, scores, *tolerances, count)
    if precision == "fp32" or expected[0].ndim != 3:
        return OutputCheck(size, name, *differences(found, expected, nc), *tolerances)
    scored = slice(4, 4 + nc)
    # A score that is not a number is not below it
    confident, in_file = (~(outputs[0][0, scored].max(0) <= CONFIDENT) for outputs in (expected, found))
    apart = np.abs(found[0] - expected[0])[0]
    boxes, scores = (float(part.max(initial=0)) for part in (apart[:4, confident], apart[scored, confident | in_file]))
    return OutputCheck(size, name, boxes, scores, *tolerances, int((confident | in_file).sum()))


def require_shapes(found: Sequence[Array], expected: Sequence[Array]) -> None:
    """Check that a file's outputs have the shapes of PyTorch's.

    Raises:
        UserError: If they have others.
    """
    shapes = [[array.shape for array in arrays] for arrays in (found, expected)]
    if shapes[0] != shapes[1]:
        raise UserError(f"the file's outputs are {shapes[0]}, PyTorch's are {shapes[1]}")


def differences(found: Sequence[Array], expected: Sequence[Array], nc: int) -> tuple[float, float]:
    """Return the largest difference of boxes in pixels and of all other outputs.

    The first output of a detector is (1, 4 + nc + ..., anchors), boxes first; a classifier's is (1, nc).
    """
    boxes = 4 if found[0].ndim == 3 and found[0].shape[1] >= 4 + nc else 0
    first = np.abs(found[0] - expected[0])
    rest = [first[:, boxes:], *(np.abs(a - b) for a, b in zip(found[1:], expected[1:], strict=True))]
    return float(first[:, :boxes].max(initial=0)), float(max(part.max(initial=0) for part in rest))


def paired_differences(
    found: Array, expected: Array, least: float, tolerances: tuple[float, float]
) -> tuple[float, float, int]:
    """Return the largest difference of boxes in pixels and of all else between boxes and their partners, and how many.

    The order of boxes changes with ties, so each box of either side above the least score is compared with the box of its
    class on the other side that is nearest, as measured by the tolerances; without one the difference is infinite. A box whose
    score is hardly above the lowest of the other list may have been cut off there, and is left out if it has no partner.

    Args:
        found: The file's rows (n, 6 + extra): box, score, class, and what the task adds.
        expected: PyTorch's.
        least: Score.
        tolerances: Of boxes in pixels, and of all else.
    """
    worst, counts = np.zeros(2), []
    for ours, others in ((expected, found), (found, expected)):
        cut = others[:, 4].min() + tolerances[1]
        count = 0
        for row in ours[~(ours[:, 4] <= least)]:  # NaN is not below it
            apart = np.abs(others[others[:, 5] == row[5]] - row)
            pairs = np.stack([apart[:, :4].max(1), np.delete(apart, np.s_[:4], 1).max(1)], 1) / tolerances
            nearest = pairs[pairs.max(1).argmin()] if len(pairs) else np.full(2, np.inf)
            if nearest.max() > 1 and row[4] <= cut:
                continue
            worst, count = np.maximum(worst, nearest), count + 1
        counts.append(count)
    boxes, scores = (worst * tolerances).tolist()
    return boxes, scores, max(counts)

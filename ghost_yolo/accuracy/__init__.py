"""Accuracy of any model file with its uncertainty: against labels, or against what a trained model finds (agreement)."""

import ultralytics  # noqa: F401 (whole, before any part of it: another thread may be importing it just now)

from ghost_yolo.accuracy.agreement import AgreementSet
from ghost_yolo.accuracy.counts import Score, ratio
from ghost_yolo.accuracy.validate import evaluate, require_data

__all__ = ["AgreementSet", "Score", "evaluate", "ratio", "require_data"]

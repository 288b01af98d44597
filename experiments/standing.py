"""Where exported files stand: above or below the line through stock, and beside the rivals that are as accurate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from experiments.deployed import deployed_file
from experiments.records import Rivalry, Row
from ghost_yolo.accuracy.counts import interval
from ghost_yolo.report.deployed import line_of

Draws = NDArray[np.float64]  # (resamples,), the score of a file in each resample of the images


def with_line(rows: Sequence[Row], draws: Sequence[Draws]) -> list[Row]:
    """Return the rows with what the timed exported files have above the line through stock, at their own time.

    The line is that of the plot. Beyond its ends it goes on level: a file that is faster than all of it is compared with its
    fastest file. A file of the line has nothing above it, and without a line no file has.
    """
    timed = [row for row in rows if row.deployment and row.time_ratio is not None]
    files = [deployed_file(row, row.time_ratio or 0.0) for row in timed]
    line = sorted((file.time, rows.index(timed[files.index(file)])) for file in line_of(files))
    if len(line) < 2:
        return [*rows]
    times, ends = zip(*line, strict=True)
    return [
        replace(row, above=above(index, rows, draws, times, ends)) if row in timed and index not in ends else row
        for index, row in enumerate(rows)
    ]


def above(
    index: int, rows: Sequence[Row], draws: Sequence[Draws], times: Sequence[float], ends: Sequence[int]
) -> tuple[float, float, float]:
    """Return how far a row is above the line at its own time, with its interval from the same resamples of all files."""
    time = rows[index].time_ratio or 0.0
    point = rows[index].score[0] - float(np.interp(time, times, [rows[end].score[0] for end in ends]))
    resampled = np.array([np.interp(time, times, scores) for scores in zip(*(draws[end] for end in ends), strict=True)])
    return (point, *interval(draws[index] - resampled))


def fastest_rivals(rows: Sequence[Row], draws: Sequence[Draws], ours: Sequence[bool]) -> list[Rivalry]:
    """Return for each timed exported file of ours the fastest other one that is not shown to be less accurate, if there is one.

    Args:
        rows: The files.
        draws: Their scores in the same resamples.
        ours: Whether a file comes from a conversion; all others are rivals.
    """
    timed = [index for index, row in enumerate(rows) if row.deployment and row.time_ratio is not None]
    found = []
    for own in (index for index in timed if ours[index]):
        others = [other for other in timed if not ours[other] and interval(draws[own] - draws[other])[0] <= 0]
        if others:
            rival = min(others, key=lambda other: rows[other].time_ratio or 0.0)
            ends = interval(draws[own] - draws[rival])
            found.append(rivalry(rows[own], rows[rival], ends))
    return found


def rivalry(own: Row, rival: Row, ends: tuple[float, float]) -> Rivalry:
    """Return the comparison of two files that were timed in one bench; the ends are those of the difference in accuracy."""
    times, rivals = (row.time_interval or (row.time_ratio or 0.0,) * 2 for row in (own, rival))
    verdict = "faster" if times[1] < rivals[0] else "slower" if times[0] > rivals[1] else "neither faster nor slower"
    ratio = (own.time_ratio or 0.0) / (rival.time_ratio or 1.0)
    return Rivalry(own.title, rival.title, (own.score[0] - rival.score[0], *ends), ratio, verdict)

"""Exported files above or below the Pareto front of stock, and beside the rivals that are as accurate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from experiments.deployed import deployed_file
from experiments.records import RivalComparison, Row, Triple
from ghost_yolo.accuracy.counts import interval
from ghost_yolo.report.deployed import DeployedFile, line_of

Draws = NDArray[np.float64]  # (resamples,), the score of a file in each resample of the images


def with_line(rows: Sequence[Row], draws: Sequence[Draws]) -> list[Row]:
    """Return the rows with what the timed exported files have above the line through stock, which is that of the plot.

    A file counts at the slow end of its time's interval. Beyond its ends the line goes on level: a file that is faster than all
    of it is compared with its fastest file. In each resample a slower file of the line counts at least as much as a faster one. A
    file of the line itself has no such figure, and without two stock files on it none has.
    """
    files = timed_files(rows)
    line = [index for file in line_of([*files.values()]) for index, other in files.items() if other == file]
    if len(line) < 2:
        return [*rows]
    scores = [np.array([rows[index].score[0], *draws[index]]) for index in line]  # the point, then the resamples
    line_scores = np.maximum.accumulate(scores)
    return [
        replace(row, above=above(files[index], row, draws[index], [files[end].time for end in line], line_scores))
        if index in files and index not in line
        else row
        for index, row in enumerate(rows)
    ]


def timed_files(rows: Sequence[Row]) -> dict[int, DeployedFile]:
    """Return the exported files that were timed, by the index of their row."""
    times = {index: row.time_ratio for index, row in enumerate(rows) if row.deployment and row.time_ratio is not None}
    return {index: deployed_file(rows[index], time) for index, time in times.items()}


def above(file: DeployedFile, row: Row, draws: Draws, times: Sequence[float], line: NDArray[np.float64]) -> Triple:
    """Return how far a file is above the line, with its interval from the same resamples of all files.

    Args:
        file: The file.
        row: Its row.
        draws: Its resamples.
        times: Of the files of the line, ascending.
        line: (files of the line, 1 + resamples), their scores: first the points.
    """
    there = np.array([np.interp(file.time_ends[1], times, scores) for scores in line.T])
    return (row.score[0] - float(there[0]), *interval(draws - there[1:]))


def fastest_rivals(rows: Sequence[Row], draws: Sequence[Draws], ours: Sequence[bool]) -> list[RivalComparison]:
    """Return for each timed converted file the fastest other one that is not shown to be less accurate.

    Args:
        rows: The files.
        draws: Their scores in the same resamples.
        ours: Whether a file comes from a conversion; all others are rivals.
    """
    files, found = timed_files(rows), []
    for index in (index for index in files if ours[index]):
        differences = {other: draws[index] - draws[other] for other in files if not ours[other]}
        equal = [other for other, difference in differences.items() if interval(difference)[0] <= 0]
        if equal:
            rival = min(equal, key=lambda other: files[other].time)
            difference = (rows[index].score[0] - rows[rival].score[0], *interval(differences[rival]))
            times = files[index].time / files[rival].time
            verdict = compare_times(files[index], [files[other] for other in equal])
            found.append(RivalComparison(rows[index].title, rows[rival].title, difference, times, verdict))
        elif differences:
            found.append(RivalComparison(rows[index].title))
    return found


def compare_times(own: DeployedFile, rivals: Sequence[DeployedFile]) -> str:
    """Return whether a file is faster than all rivals or slower than one of them, by the intervals of the times."""
    if own.time_ends[1] < min(rival.time_ends[0] for rival in rivals):
        return "faster"
    slower = any(own.time_ends[0] > rival.time_ends[1] for rival in rivals)
    return "slower" if slower else "neither faster nor slower"

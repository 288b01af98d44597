"""The commands `ghosts`, `pairs` and `correlate`: redundancy of feature maps and filters."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ghost_yolo.cli.common import Format, finish, new_folder

Checkpoint = Annotated[Path, typer.Argument(help="Path to a checkpoint (.pt) of any Ultralytics model.")]
Style = Annotated[Format, typer.Option("--format", help="Output format of the tables.")]


def ghosts(
    model: Checkpoint,
    image: Annotated[list[Path], typer.Option(help="Path to an image or a folder of images; repeat for several.")],
    layer: Annotated[int | None, typer.Option(help="Index of the only layer to measure and plot.")] = None,
    all_layers: Annotated[
        bool, typer.Option("--all", help="With --layer: measure all layers, plot only that one.")
    ] = False,
    inner: Annotated[
        bool, typer.Option("--inner", help="Also measure the spatial convolutions inside C2f and C3k2 rows.")
    ] = False,
    within: Annotated[
        float, typer.Option(help="Largest relative error (0 to 1) at which a map counts as reproduced.")
    ] = 0.1,
    imgsz: Annotated[
        int | None, typer.Option(help="Longer image side in pixels; defaults to the size used in training.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(help="Device to run on, e.g. cpu or 0; selected automatically if empty.")] = "",
    style: Style = Format.text,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New folder for figures and tables; defaults to runs/ghosts.")
    ] = None,
) -> None:
    """Measure the redundancy of each layer's feature maps: the share that a depthwise kernel reproduces from another map."""
    with redirect_stdout(sys.stderr):
        from ghost_yolo.data.images import find_images, split_readable
        from ghost_yolo.model.checkpoint import open_checkpoint
        from ghost_yolo.redundancy.report import survey_report, write_survey
        from ghost_yolo.redundancy.survey import SurveySettings, survey
        from ghost_yolo.tables import render_report
        from ghost_yolo.utils.system import versions

        folder, (images, skipped) = new_folder(out, "ghosts"), split_readable(find_images(image))
        opened = open_checkpoint(model, device)
        settings = SurveySettings(within, seed, imgsz or opened.trained_imgsz, inner)
        result = survey(opened, images, settings, layer, all_layers=all_layers or layer is None)
        report = survey_report(result, settings, str(model), len(images), skipped)
        text = render_report(report, versions(), style.value)
    finish(text, folder, lambda: write_survey(folder, result, report, versions(), within))


def pairs(
    model: Checkpoint,
    seed: Annotated[int, typer.Option(help="Random seed of the Gaussian filters.")] = 0,
    style: Style = Format.text,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New folder for figure and tables; defaults to runs/pairs.")
    ] = None,
) -> None:
    """Measure how close the filters of each convolution are to pairs of opposite phase, as in the CReLU paper."""
    with redirect_stdout(sys.stderr):
        from ghost_yolo.model.checkpoint import open_checkpoint
        from ghost_yolo.redundancy.filters import analyze_filters
        from ghost_yolo.redundancy.report import filters_report, write_filters
        from ghost_yolo.tables import render_report
        from ghost_yolo.utils.system import versions

        folder = new_folder(out, "pairs")
        similarities = analyze_filters(open_checkpoint(model).model, seed)
        report = filters_report(similarities, str(model), seed)
        text = render_report(report, versions(), style.value)
    finish(text, folder, lambda: write_filters(folder, similarities, report, versions()))


def correlate(
    results: Annotated[
        list[Path],
        typer.Argument(help="Output folders of `ghosts` and JSON files of `ghostify`, of one or several models."),
    ],
    block: Annotated[
        str | None, typer.Option(help="Module name of the swapped block; required if there are several.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Random seed of the permutations; all are enumerated for up to 9 stages per model.")
    ] = 0,
    style: Style = Format.text,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New folder for figure and tables; defaults to runs/correlate.")
    ] = None,
) -> None:
    """Correlate each stage's redundancy (`ghosts`) with its reconstruction error and sensitivity (`ghostify`)."""
    with redirect_stdout(sys.stderr):
        from ghost_yolo.redundancy.correlate import (
            calibration_images,
            correlate_stages,
            correlation_settings,
            join_stages,
        )
        from ghost_yolo.redundancy.measurements import read_measurements
        from ghost_yolo.redundancy.report import correlation_report, write_correlation
        from ghost_yolo.tables import render_report
        from ghost_yolo.utils.system import versions

        folder, measurements = new_folder(out, "correlate"), read_measurements(results)
        stages = join_stages(measurements, block)
        settings = correlation_settings(measurements, stages, seed)
        correlations = correlate_stages(stages, settings)
        report = correlation_report(stages, correlations, settings, calibration_images(measurements.runs))
        text = render_report(report, versions(), style.value)
    finish(text, folder, lambda: write_correlation(folder, stages, correlations, report, versions()))

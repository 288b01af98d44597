"""Read and validate the JSON files that `ghosts` and `ghostify` write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ghost_yolo.errors import SourceError, UserError
from ghost_yolo.utils.json_file import MAX_NUMBER, Fields, read_json


@dataclass(frozen=True)
class SurveyedLayer:
    """One layer of a survey by `ghosts`; None with too few positions, or where it was not measured.

    Attributes:
        module: Class name of the layer.
        share: Share of maps that a 3x3 kernel reproduces.
        median: Median relative error of the 3x3 kernels.
        inner: Mean share of the convolutions in the layer.
    """

    module: str
    share: float | None
    median: float | None
    inner: float | None


@dataclass(frozen=True)
class SurveyFile:
    """A `ghosts.json`.

    Attributes:
        file: The file itself.
        model: Name of the checkpoint.
        weights: Fingerprint of the checkpoint, None in older files.
        imgsz: Longer side of the images in pixels.
        within: Largest relative error at which a map counts as reproduced.
        layers: Layers by index.
    """

    file: Path
    model: str
    weights: str | None
    imgsz: int
    within: float
    layers: dict[int, SurveyedLayer]


@dataclass(frozen=True)
class SwappedLayer:
    """One layer that `ghostify` swapped; None where a figure was not measured.

    Attributes:
        layer: Index of the layer.
        block: Module name of the new block.
        error_isolated: Relative error of the new block alone in the trained model.
        error_sequential: The same where all earlier layers are swapped too.
        sensitivity: Loss of the predictions plus relative error of the head's inputs, with this block alone.
    """

    layer: int
    block: str
    error_isolated: float | None = None
    error_sequential: float | None = None
    sensitivity: float | None = None


@dataclass(frozen=True)
class GhostifyFile:
    """The JSON file beside a checkpoint of `ghostify`.

    Attributes:
        file: The file itself.
        model: Name of the trained checkpoint.
        weights: Fingerprint of the checkpoint, None in older files.
        imgsz: Image side in pixels.
        reconstruct_steps: Batches of reconstruction for each layer, None in older files.
        calibration_images: Number of images, None in older files.
        sequential: False for a run with a budget, which tries every block in isolation.
        swaps: Swapped layers; levels of a head have no maps of their own and are left out.
    """

    file: Path
    model: str
    weights: str | None
    imgsz: int
    reconstruct_steps: int | None
    calibration_images: int | None
    sequential: bool
    swaps: list[SwappedLayer]


@dataclass(frozen=True)
class Measurements:
    """All files of one correlation, each model by one name."""

    surveys: list[SurveyFile]
    runs: list[GhostifyFile]


AnyFile = TypeVar("AnyFile", SurveyFile, GhostifyFile)


def read_measurements(paths: Sequence[Path]) -> Measurements:
    """Read files of `ghosts` and `ghostify`; a folder stands for its ghosts.json.

    Raises:
        SourceError: If a file is neither.
        UserError: If one kind is missing.
    """
    files = [read_file(path / "ghosts.json" if path.is_dir() else path) for path in paths]
    surveys = [file for file in files if isinstance(file, SurveyFile)]
    runs = [file for file in files if isinstance(file, GhostifyFile)]
    if not surveys:
        raise UserError("No result of ghosts is given; create one: ghost-yolo ghosts best.pt --image images/")
    if not runs:
        raise UserError("No result of ghostify is given; create one: ghost-yolo ghostify best.pt --budget 0.9 ...")
    names = model_names(files)
    return Measurements([rename(survey, names) for survey in surveys], [rename(run, names) for run in runs])


def read_file(file: Path) -> SurveyFile | GhostifyFile:
    """Read and validate one file.

    Raises:
        SourceError: If it is neither of `ghosts` nor of `ghostify`.
    """
    try:
        content = read_json(file)
        parse = parse_survey if "within" in content.object("settings") else parse_run
        return parse(file, content)
    except SourceError as error:
        raise SourceError(
            f"{file} was not written by ghosts or ghostify; give the folder of ghosts or its ghosts.json, and the .json file "
            f"beside the checkpoint of ghostify ({error})"
        ) from error


def parse_survey(file: Path, content: Fields) -> SurveyFile:
    """Return the content of a `ghosts.json`."""
    settings = content.object("settings")
    inner: dict[int, list[float]] = {}
    for row in content.rows("inner") if "inner" in content else ():
        if (share := optional_number(row.object("trained"), "share_d3", 1.0)) is not None:
            inner.setdefault(row.count("index"), []).append(share)
    layers = {}
    for row in content.rows("rows"):
        index, trained = row.count("index"), row.object("trained")
        shares = inner.get(index)
        layers[index] = SurveyedLayer(
            module=row.text("module"),
            share=optional_number(trained, "share_d3", 1.0),
            median=optional_number(trained, "median_d3"),
            inner=sum(shares) / len(shares) if shares else None,
        )
    return SurveyFile(file, *identity_of(settings), within=settings.number("within", 1.0), layers=layers)


def parse_run(file: Path, content: Fields) -> GhostifyFile:
    """Return the content of the JSON file of a ghostify run."""
    settings, sequential = content.object("settings"), "options" not in content
    steps, images = optional_count(settings, "reconstruct_steps"), optional_count(content, "calibration_images")
    return GhostifyFile(
        file,
        *identity_of(settings),
        reconstruct_steps=steps,
        calibration_images=images,
        sequential=sequential,
        swaps=sequential_swaps(content) if sequential else isolated_swaps(content),
    )


def isolated_swaps(content: Fields) -> list[SwappedLayer]:
    """Return the options of a run with a budget."""
    return [
        SwappedLayer(
            option.count("row"),
            option.text("block"),
            error_isolated=option.number("error"),
            sensitivity=option.number("sensitivity", low=-MAX_NUMBER),
        )
        for option in content.rows("options")
    ]


def sequential_swaps(content: Fields) -> list[SwappedLayer]:
    """Return the rows of a run without a budget."""
    return [
        SwappedLayer(int(row.text("layer")), row.text("block"), error_sequential=row.number("error"))
        for row in content.rows("rows")
        if re.fullmatch(r"[0-9]{1,6}", row.text("layer"))  # the levels of a head are named 22.cv3.0 and so on
    ]


def identity_of(settings: Fields) -> tuple[str, str | None, int]:
    """Return model, fingerprint of its weights and image size."""
    weights = settings.text("weights") if "weights" in settings else None
    return settings.text("model"), weights, settings.count("imgsz", low=1)


def optional_number(values: Fields, name: str, high: float = MAX_NUMBER) -> float | None:
    """Return a number, and null as None."""
    return None if values.value(name) is None else values.number(name, high)


def optional_count(values: Fields, name: str) -> int | None:
    """Return a count, None where it is missing."""
    return values.count(name) if name in values else None


def model_names(files: Sequence[SurveyFile | GhostifyFile]) -> dict[tuple[str, str], str]:
    """Return a name for each (path, weights): the file name, with the fingerprint where several models share it."""
    models = {(file.model, file.weights) for file in files if file.weights}
    names = [name for name, _ in {(Path(model).name, weights) for model, weights in models}]
    result = {}
    for model, weights in models:
        path = Path(model)
        unique = names.count(path.name) == 1
        result[model, weights] = path.name if unique else f"{path.stem}-{weights[:6]}{path.suffix}"
    return result


def rename(file: AnyFile, names: dict[tuple[str, str], str]) -> AnyFile:
    """Return the file with the short name of its model; files without a fingerprint keep the path."""
    return replace(file, model=names[file.model, file.weights]) if file.weights else file

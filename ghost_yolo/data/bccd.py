"""BCCD, the blood cell photographs: from a local Pascal VOC copy, or downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ultralytics.utils import LOGGER
from ultralytics.utils.downloads import safe_download

from ghost_yolo.data.voc import convert
from ghost_yolo.errors import DatasetError
from ghost_yolo.utils.files import atomic_folder, temporary_folder

URL = "https://github.com/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip"
LOCAL = "GHOST_YOLO_BCCD_DIR"
SPLITS = ("train", "val", "test")
IMAGES, BOXES = (
    {"train": 205, "val": 87, "test": 72},
    4886,
)  # of the data set on which this project's figures were measured
HELP = (
    f"To use a copy of your own, set {LOCAL} to its Pascal VOC folder (Annotations/, ImageSets/ and JPEGImages/ in it), "
    "for example the BCCD/ folder of https://github.com/Shenggan/BCCD_Dataset."
)


def prepare(root: str | Path, names: Mapping[int, str]) -> None:
    """Write the YOLO data set at `root`, completely or not at all.

    Args:
        root: Folder to make.
        names: Class index to class name.

    Raises:
        DatasetError: If there is neither a local copy nor a way to download one.
        VOCError: If an annotation is invalid.
    """
    with _source(Path(root)) as voc, atomic_folder(Path(root)) as work:
        result = convert(voc, work, names, SPLITS)
    for box in result.dropped:
        LOGGER.warning(f"left out {box}")
    if (result.images, result.boxes) != (IMAGES, BOXES):
        LOGGER.warning(f"this is not the BCCD of {IMAGES} images and {BOXES} boxes: figures on it cannot be compared")
    LOGGER.info(
        f"{root}: {result.images} images, {result.boxes} boxes, {len(result.dropped)} boxes without area left out"
    )


@contextmanager
def _source(root: Path) -> Iterator[Path]:
    """Yield the VOC folder: the one that the environment names, else a downloaded one that is gone afterwards."""
    local = os.environ.get(LOCAL)
    if local:
        if not (Path(local) / "Annotations").is_dir():
            raise DatasetError(f"{LOCAL} is {local!r}, which has no Annotations/ folder. {HELP}")
        yield Path(local)
        return
    with temporary_folder("ghost-yolo-bccd-") as folder:
        try:
            safe_download(URL, dir=folder, unzip=True)
        except Exception as error:  # the host raises several kinds here
            raise DatasetError(
                f"The BCCD images are not at {root}, {LOCAL} is not set, and {URL} could not be downloaded ({error}). {HELP}"
            ) from error
        found = next(folder.rglob("Annotations"), None)
        if found is None:
            raise DatasetError(f"{URL} no longer holds a Pascal VOC folder. {HELP}")
        yield found.parent

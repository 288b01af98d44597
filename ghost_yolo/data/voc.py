"""Convert Pascal VOC annotations to YOLO labels; invalid annotations are refused, boxes without area reported."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from PIL import Image

from ghost_yolo.errors import DatasetError, VOCError
from ghost_yolo.utils.console import progress


@dataclass
class Conversion:
    """What was converted.

    Attributes:
        images: Images a split.
        boxes: Boxes written.
        dropped: The boxes without area that were left out, as text.
    """

    images: dict[str, int] = field(default_factory=dict)
    boxes: int = 0
    dropped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Photo:
    """One annotated image: its file, its label lines and the boxes left out."""

    image: Path
    lines: list[str]
    dropped: list[str]


def convert(voc: Path, out: Path, names: Mapping[int, str], splits: tuple[str, ...]) -> Conversion:
    """Write the splits of a VOC folder in YOLO layout: images/<split> and labels/<split>.

    Args:
        voc: Folder with Annotations/, JPEGImages/ and ImageSets/Main/<split>.txt.
        out: Folder to fill; nothing is written there before every annotation has been read.
        names: Class index to class name.
        splits: Which image sets to take.

    Returns:
        What was written and what was left out.

    Raises:
        DatasetError: If the folder is not in VOC layout.
        VOCError: If an annotation is broken, names an unknown class or has a box outside its image.
    """
    jobs = [(split, name) for split in splits for name in _image_set(voc, split)]
    index, problems, photos = {name: i for i, name in names.items()}, [], []
    for split, name in progress(jobs, f"Reading {voc.name}"):
        try:
            photos.append((split, _read(voc, name, index)))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise VOCError(problems)
    result = Conversion()
    for split, photo in progress(photos, f"Writing {out.name}"):
        _write(out, split, photo)
        result.images[split] = result.images.get(split, 0) + 1
        result.boxes += len(photo.lines)
        result.dropped += photo.dropped
    return result


def _image_set(voc: Path, split: str) -> list[str]:
    """Return the names in one image set."""
    file = voc / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        raise DatasetError(f"{voc} is no Pascal VOC folder: {file.relative_to(voc)} is missing.")
    return file.read_text(encoding="utf-8").split()


def _read(voc: Path, name: str, index: Mapping[str, int]) -> _Photo:
    """Read one annotation and check it against its image."""
    xml, image = voc / "Annotations" / f"{name}.xml", voc / "JPEGImages" / f"{name}.jpg"
    try:
        root = ET.parse(xml).getroot()
        with Image.open(image) as opened:
            width, height = opened.size
    except (OSError, ET.ParseError) as error:
        raise ValueError(f"{name}: cannot be read: {error}") from error
    lines, dropped = [], []
    for kind, box in _objects(root, xml.name):
        where = f"{xml.name}: {kind} {box}"
        if kind not in index:
            raise ValueError(f"{where}: class {kind!r} is not one of {', '.join(sorted(index))}")
        left, top, right, bottom = box
        if not (0 <= left <= right <= width and 0 <= top <= bottom <= height):
            raise ValueError(f"{where}: outside its image of {width} x {height}, or its corners are swapped")
        if left == right or top == bottom:
            dropped.append(f"{where}: no area")
            continue
        values = (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        )
        lines.append(" ".join([str(index[kind]), *(f"{value:.6f}" for value in values)]))
    return _Photo(image, lines, dropped)


def _objects(root: ET.Element, file: str) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """Yield class name and (xmin, ymin, xmax, ymax) of each object, in pixels."""
    for item in root.iter("object"):
        kind = item.findtext("name")
        try:
            left, top, right, bottom = (float(item.findtext(f"bndbox/{key}", "")) for key in BOX)
        except ValueError as error:
            raise ValueError(f"{file}: object {kind!r} has no readable bndbox ({', '.join(BOX)})") from error
        yield (kind or "").strip(), (left, top, right, bottom)


BOX = ("xmin", "ymin", "xmax", "ymax")


def _write(out: Path, split: str, photo: _Photo) -> None:
    """Copy one image and write its labels."""
    for kind in ("images", "labels"):
        (out / kind / split).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(photo.image, out / "images" / split / photo.image.name)
    text = "".join(f"{line}\n" for line in photo.lines)
    (out / "labels" / split / f"{photo.image.stem}.txt").write_text(text, encoding="utf-8")

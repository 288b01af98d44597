"""Convert Pascal VOC annotations to YOLO labels; invalid annotations are refused, boxes without area reported."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from PIL import Image
from ultralytics.data.utils import IMG_FORMATS

from ghost_yolo.data.images import open_with_pillow
from ghost_yolo.errors import DatasetError, VOCError
from ghost_yolo.utils.console import progress

BOX = ("xmin", "ymin", "xmax", "ymax")
MAX_NAME = 255  # bytes of a file name
ORIENTATION, FIRST_TRANSPOSED = 0x0112, 5  # EXIF: values from 5 on swap width and height


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
class _Example:
    """One annotated image of a split: its name there, its image file, its label lines and the boxes left out."""

    split: str
    name: str
    image: Path
    lines: list[str]
    dropped: list[str]

    @property
    def stem(self) -> str:
        """File name of image and labels without suffix; folders in the name become part of it."""
        return self.name.replace("/", "-")


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
        VOCError: If a split names an image twice or one that is not there, or if an annotation is broken, names an
            unknown class or has a box outside its image. Every problem is listed.
    """
    problems: list[str] = []
    entries = [(split, name) for split in splits for name in _image_set(voc, split, problems)]
    problems += _repeated(entries)
    images, index, examples = _images(voc), {name: i for i, name in names.items()}, []
    for split, name in progress(entries, f"Reading {voc.name}"):
        try:
            examples.append(_read(voc, split, name, images, index))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise VOCError(problems)
    result = Conversion()
    for example in progress(examples, f"Writing {out.name}"):
        _write(out, example)
        result.images[example.split] = result.images.get(example.split, 0) + 1
        result.boxes += len(example.lines)
        result.dropped += example.dropped
    return result


def _image_set(voc: Path, split: str, problems: list[str]) -> list[str]:
    """Return the names in one image set, one a line; lines that cannot be read become problems."""
    file = voc / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        raise DatasetError(f"{voc} is no Pascal VOC folder: {file.relative_to(voc)} is missing.")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        problems.append(f"{file.name}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8")
        return []
    return [_name(line.strip(), voc) for line in lines if line.strip()]


def _name(line: str, voc: Path) -> str:
    """Return the image name of a line: without an image suffix, and without the flag of a class's image set."""
    candidates = [line]
    if Path(line).suffix[1:].lower() in IMG_FORMATS:
        candidates.append(line[: -len(Path(line).suffix)])
    if flagged := re.fullmatch(r"(\S+)\s+(?:-1|0|1)", line):
        candidates.append(flagged[1])
    return next((name for name in candidates if _is_file(_annotation(voc, name))), line)


def _is_file(path: Path) -> bool:
    """Return whether there is such a file; a name that the file system refuses, of 300 letters for example, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _annotation(voc: Path, name: str) -> Path:
    """Return the annotation file of a name."""
    return voc / "Annotations" / f"{name}.xml"


def _repeated(entries: list[tuple[str, str]]) -> list[str]:
    """Return a problem for each image that stands twice in the splits, or whose output file another one has."""
    seen: dict[str, str] = {}
    problems = []
    for split, name in entries:
        stem, here = name.replace("/", "-"), f"{name} in {split}"
        if stem in seen:
            problems.append(f"{here}: already listed as {seen[stem]}; an image belongs to one split, once")
        seen.setdefault(stem, here)
    return problems


def _images(voc: Path) -> dict[str, list[Path]]:
    """Return the image files by name without suffix."""
    found: dict[str, list[Path]] = {}
    folder = voc / "JPEGImages"
    for path in sorted(folder.rglob("*")):
        if path.suffix[1:].lower() in IMG_FORMATS:
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def _read(voc: Path, split: str, name: str, images: Mapping[str, list[Path]], index: Mapping[str, int]) -> _Example:
    """Read one annotation and check it against its image."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f"{name} in {split}: not a name inside the folder")
    files = images.get(name, [])
    if len(files) != 1:
        found = f"{len(files)} images, {', '.join(file.name for file in files)}" if files else "no image in JPEGImages/"
        raise ValueError(f"{name} in {split}: {found}")
    example = _Example(split, name, files[0], [], [])
    if (length := len(f"{example.stem}{files[0].suffix}".encode())) > MAX_NAME:  # its folders become part of it
        raise ValueError(f"{name} in {split}: its copy's name would have {length} bytes; at most {MAX_NAME} are right")
    xml = _annotation(voc, name)
    root = _parse(xml)
    width, height = _size(files[0], root, xml.name)
    for kind, box in _objects(root, xml.name):
        where = f"{xml.name}: {kind} {box}"
        if kind not in index:
            raise ValueError(f"{where}: class {kind!r} is not one of {', '.join(sorted(index))}")
        left, top, right, bottom = box
        if not (0 <= left <= right <= width and 0 <= top <= bottom <= height):
            raise ValueError(f"{where}: outside its image of {width} x {height}, or its corners are swapped")
        if left == right or top == bottom:
            example.dropped.append(f"{where}: no area")
            continue
        values = (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        )
        example.lines.append(" ".join([str(index[kind]), *(f"{value:.6f}" for value in values)]))
    return example


def _parse(xml: Path) -> ET.Element:
    """Return the root of an annotation file; a file that is something else would become an empty label."""
    try:
        _require_regular(xml)
        root = ET.parse(xml).getroot()
    except (OSError, ET.ParseError, LookupError, ValueError) as error:  # LookupError: an encoding that does not exist
        raise ValueError(f"{xml.stem}: cannot be read: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"{xml.name}: its root is <{root.tag[:80]}>, not <annotation>")
    if (lost := _lost(root)) is not None:
        raise ValueError(f"{xml.name}: has <{lost.tag[:80]}> in place of <object> and its <bndbox>")
    return root


def _lost(root: ET.Element) -> ET.Element | None:
    """Return an element that seems to be an object or a box and would be left out silently; boxes of an object's parts may be."""
    boxes = {item.find("bndbox") for item in root.iter("object")} | {*root.iterfind(".//object/part/bndbox")}
    counted = {item for box in boxes if box is not None for item in box.iter()}
    for item in root.iter():
        tag = item.tag.lower()
        is_box = tag in ("bndbox", "xmin") and item not in counted
        is_object = tag.startswith("obj") or tag.endswith("object")
        if is_box or (is_object and item.tag != "object" and item.find(".//object") is None):
            return item
    return None


def _require_regular(file: Path) -> None:
    """Raise an error for a pipe, which would wait for ever, and for a device."""
    if file.exists() and not file.is_file():
        raise ValueError("it is not a regular file")


def _size(image: Path, root: ET.Element, xml: str) -> tuple[int, int]:
    """Return an image's width and height as it is displayed; refuse one whose boxes were drawn on its unrotated pixels."""
    try:
        _require_regular(image)
        with open_with_pillow(image) as opened:
            stored, turn = opened.size, opened.getexif().get(ORIENTATION, 1)
            opened.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{image.name}: cannot be read: {error}") from error
    if turn not in range(2, 9):
        return stored
    shown = stored[::-1] if turn >= FIRST_TRANSPOSED else stored
    annotated = tuple(root.findtext(f"size/{side}", "").strip() for side in ("width", "height"))
    if annotated != tuple(map(str, shown)) or shown == stored:
        raise ValueError(
            f"{xml}: {image.name} is rotated by its EXIF orientation {turn}, and the annotation does not say that its boxes "
            "are of the rotated image; save the image upright and annotate that"
        )
    return shown


def _objects(root: ET.Element, file: str) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """Yield class name and (xmin, ymin, xmax, ymax) of each object, in pixels."""
    for item in root.iter("object"):
        kind = item.findtext("name")
        try:
            left, top, right, bottom = (float(item.findtext(f"bndbox/{key}", "")) for key in BOX)
        except ValueError as error:
            raise ValueError(f"{file}: object {kind!r} has no readable bndbox ({', '.join(BOX)})") from error
        yield (kind or "").strip(), (left, top, right, bottom)


def _write(out: Path, example: _Example) -> None:
    """Copy one image and write its labels."""
    for kind in ("images", "labels"):
        (out / kind / example.split).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(example.image, out / "images" / example.split / f"{example.stem}{example.image.suffix}")
    text = "".join(f"{line}\n" for line in example.lines)
    (out / "labels" / example.split / f"{example.stem}.txt").write_text(text, encoding="utf-8")

"""Read one Pascal VOC annotation and check it against its image."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from PIL import Image

from ghost_yolo.data.images import open_with_pillow

Corners = tuple[float, float, float, float]
CORNERS = ("xmin", "ymin", "xmax", "ymax")
ORIENTATION, FIRST_TRANSPOSED = 0x0112, 5  # EXIF: values from 5 on swap width and height


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image.

    Attributes:
        kept: Class name, and (x, y, width, height) of the box relative to the image; x and y of its centre.
        empty: The boxes without area, as text.
        repeated: The boxes that are there twice, as text; they are kept too.
        wrong: What is wrong with others, as text.
        resized: That the boxes are of another size than the image has, as text.
    """

    kept: list[tuple[str, Corners]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)


def read_boxes(xml: Path, image: Path, known: Collection[str]) -> Boxes:
    """Return the boxes of an annotation.

    Args:
        xml: Annotation file.
        image: Its image, which is decoded completely.
        known: The class names that may occur, any where it is empty.

    Raises:
        ValueError: If one of the files cannot be read, or the annotation has another structure.
    """
    root, boxes = _parse(xml), Boxes()
    size = _size(image, root, xml.name)
    if (said := _annotated(root)) != (*map(str, size),) and not {*said} & {"", "0"}:
        boxes.resized.append(f"{xml.name}: is of {' x '.join(said)} pixels, but {image.name} has {size[0]} x {size[1]}")
    for item in root.iter("object"):
        kind = (item.findtext("name") or "").strip()
        try:
            left, top, right, bottom = corners = _corners(item)
        except ValueError:
            boxes.wrong.append(f"{xml.name}: object {kind!r} has no readable bndbox ({', '.join(CORNERS)})")
            continue
        where = f"{xml.name}: {kind} {corners}"
        if problem := _problem(kind, corners, size, known):
            boxes.wrong.append(f"{where}: {problem}")
        elif left == right or top == bottom:
            boxes.empty.append(f"{where}: no area")
        else:
            box = (kind, _relative(corners, size))
            boxes.repeated.extend([where] if box in boxes.kept else [])
            boxes.kept.append(box)
    return boxes


def _problem(kind: str, corners: Corners, size: tuple[int, int], known: Collection[str]) -> str:
    """Return what is wrong with an object, "" if nothing is."""
    left, top, right, bottom = corners
    if not kind:
        return "the object has no name"
    if known and kind not in known:
        return f"class {kind!r} is not one of {', '.join(sorted(known))}"
    if not (0 <= left <= right <= size[0] and 0 <= top <= bottom <= size[1]):
        return f"outside its image of {size[0]} x {size[1]}, or its corners are swapped"
    return ""


def _relative(corners: Corners, size: tuple[int, int]) -> Corners:
    """Return (x, y, width, height) relative to the image; x and y of the centre."""
    (left, top, right, bottom), (width, height) = corners, size
    return (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height


def _annotated(root: ET.Element) -> tuple[str, ...]:
    """Return the width and height that an annotation says its image has; "" or "0" where it does not."""
    return tuple(root.findtext(f"size/{side}", "").strip() for side in ("width", "height"))


def _corners(item: ET.Element) -> Corners:
    """Return (xmin, ymin, xmax, ymax) of an object, in pixels."""
    left, top, right, bottom = (float(item.findtext(f"bndbox/{key}", "")) for key in CORNERS)
    return left, top, right, bottom


def _parse(xml: Path) -> ET.Element:
    """Return the root of an annotation file; a file that is something else would become an empty label."""
    try:
        _require_regular(xml)
        root = ET.parse(xml).getroot()
    except (OSError, ET.ParseError, LookupError, ValueError) as error:  # LookupError: an encoding that does not exist
        raise ValueError(f"{xml.name}: cannot be read: {error}") from error
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
    if _annotated(root) != (*map(str, shown),) or shown == stored:
        raise ValueError(
            f"{xml}: {image.name} is rotated by its EXIF orientation {turn}, and the annotation does not say that its boxes "
            "are of the rotated image; save the image upright and annotate that"
        )
    return shown

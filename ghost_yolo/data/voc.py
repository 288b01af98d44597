"""Convert Pascal VOC annotations to YOLO labels; invalid annotations are refused, boxes without area reported."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from ultralytics.data.utils import IMG_FORMATS

from ghost_yolo.data.annotation import Boxes, read_boxes
from ghost_yolo.data.splits import SPLITS, Draw, annotation_of, is_file, read_image_set
from ghost_yolo.errors import DatasetError, UserError, VOCError, shorten
from ghost_yolo.tables import to_text
from ghost_yolo.utils.console import progress

MAX_NAME = 255  # bytes of a file name


@dataclass(frozen=True)
class _Example:
    """One annotated image: its name in the VOC folder, its image file and its boxes."""

    name: str
    image: Path
    boxes: Boxes

    @property
    def stem(self) -> str:
        """File name of image and labels without suffix; folders in the name become part of it."""
        return self.name.replace("/", "-")


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        names: Class index to class name.
        images: Images by split.
        boxes: Boxes by split and class name.
        dropped: The boxes without area that were left out, as text.
        repeated: The boxes that are there twice, as text.
        resized: The annotations that are of another size than their image, as text.
        unused: How many images have no annotation, or are in no split.
    """

    names: Mapping[int, str]
    images: dict[str, int]
    boxes: Counter[tuple[str, str]]
    dropped: list[str]
    repeated: list[str]
    resized: list[str]
    unused: int

    @property
    def table(self) -> str:
        """Images and boxes by split and class."""
        lines = [["images", *map(str, self.images.values())]]
        lines += [["boxes", *(str(sum(self.boxes[split, name] for name in self._classes)) for split in self.images)]]
        lines += [[f"- {name}", *(str(self.boxes[split, name]) for split in self.images)] for name in self._classes]
        return to_text(["", *self.images], lines)

    @property
    def warnings(self) -> list[str]:
        """What somebody who trains on it should know."""
        lines = shorten([f"left out {box}" for box in self.dropped])
        lines += shorten([f"{box}: there twice, of which Ultralytics takes one" for box in self.repeated])
        lines += shorten([f"{text}; its boxes may be wrong" for text in self.resized])
        if self.unused:
            lines.append(f"images of JPEGImages/ that are in no split or have no annotation, left out: {self.unused}")
        for split in self.images:
            if absent := [name for name in self._classes if not self.boxes[split, name]]:
                lines.append(f"{split} has no box of {', '.join(absent)}")
        spellings = Counter(name.lower() for name in self._classes)
        if alike := [name for name in self._classes if spellings[name.lower()] > 1]:
            lines.append(f"classes that differ in letter case only are different classes: {', '.join(alike)}")
        return lines

    @property
    def _classes(self) -> list[str]:
        return [*self.names.values()]


def convert(
    voc: Path, out: Path, names: Mapping[int, str] | None = None, splits: tuple[str, ...] | Draw = SPLITS
) -> Conversion:
    """Write a VOC folder in YOLO layout: images/<split> and labels/<split>.

    Args:
        voc: Folder with Annotations/ and JPEGImages/, and ImageSets/Main/<split>.txt unless splits are drawn.
        out: Folder to fill; nothing is written there before every annotation has been read.
        names: Class index to class name; by default the class names that occur, sorted.
        splits: Which image sets to take, or how to draw a split of all annotated images.

    Returns:
        What was written and what was left out.

    Raises:
        DatasetError: If the folder is not in VOC layout, or has no box.
        VOCError: If a split names an image twice or one that is not there, or if an annotation is broken, names an
            unknown class or has a box outside its image. Every problem is listed.
    """
    require_voc(voc)
    problems: list[str] = []
    listed = _listed(voc, splits, problems)
    images = _images(voc)
    examples = _read_all(voc, listed, images, {*(names or {}).values()}, problems)
    if problems:
        raise VOCError(problems)
    if isinstance(splits, Draw):
        kinds = {example.name: next((kind for kind, _ in example.boxes.kept), "") for example in examples}
        split_of, splits = splits.assign(kinds), SPLITS
    else:
        split_of = {name: split for split, name in listed}
    if not names:
        names = dict(enumerate(sorted({kind for example in examples for kind, _ in example.boxes.kept})))
    if not names:
        raise DatasetError(f"{voc}: none of the {len(examples)} annotations has a box with an area.")
    return _write_all(out, examples, split_of, names, sum(map(len, images.values())))


def require_voc(voc: Path) -> None:
    """Check that a folder is in Pascal VOC layout.

    Raises:
        DatasetError: If it is not.
    """
    missing = [name for name in ("Annotations", "JPEGImages") if not (voc / name).is_dir()]
    if not missing:
        return
    if not voc.is_dir():
        raise DatasetError(f"There is no folder {str(voc)!r} (with Annotations/ and JPEGImages/ in it).")
    inside = sorted(path.parent for depth in ("*", "*/*") for path in voc.glob(f"{depth}/Annotations"))
    hint = f" Did you mean {inside[0]}?" if inside else ""
    raise DatasetError(
        f"{str(voc)!r} is no Pascal VOC folder: it has no {' and no '.join(f'{m}/' for m in missing)}.{hint}"
    )


def write_data_yaml(folder: Path, result: Conversion) -> None:
    """Write the dataset YAML of a converted folder, which may be moved: Ultralytics starts from where the file is."""
    content = {split: f"images/{split}" for split in result.images} | {"names": dict(result.names)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_bytes(text.encode())


def read_names(text: str) -> dict[int, str] | None:
    """Return the class names of an option: a file with one a line, or names separated by commas; None for "".

    Raises:
        UserError: If a name is empty or stands twice, or the file is not there or not UTF-8.
    """
    if not text:
        return None
    if text.endswith(".txt") and not is_file(Path(text)):
        raise UserError(f"--names {text}: there is no such file")
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").splitlines() if is_file(Path(text)) else text.split(",")
    except UnicodeDecodeError as error:
        raise UserError(
            f"--names {text}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    names = [line.strip() for line in lines]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not all(names):
        raise UserError(f"--names {text}: {f'{twice[0]!r} stands twice' if all(names) else 'a name is empty'}")
    return dict(enumerate(names))


def _listed(voc: Path, splits: tuple[str, ...] | Draw, problems: list[str]) -> list[tuple[str, str]]:
    """Return split and name of each image to convert, without a split where one is to be drawn."""
    if isinstance(splits, Draw):
        folder = voc / "Annotations"
        listed = [("", xml.relative_to(folder).with_suffix("").as_posix()) for xml in sorted(folder.rglob("*.xml"))]
        if not listed:
            raise DatasetError(f"{folder} holds no .xml file.")
    else:
        listed = [(split, name) for split in splits for name in read_image_set(voc, split, problems)]
    problems += _repeated(listed)
    return listed


def _where(split: str, name: str) -> str:
    """Return an image for messages."""
    return f"{name} in {split}" if split else name


def _repeated(listed: list[tuple[str, str]]) -> list[str]:
    """Return a problem for each image that stands twice in the splits, or whose output file another one has."""
    seen: dict[str, str] = {}
    problems = []
    for split, name in listed:
        stem, here = name.replace("/", "-"), _where(split, name)
        if stem in seen:
            problems.append(
                f"{here}: {'listed twice' if here == seen[stem] else f'already listed as {seen[stem]}'}; an image belongs to one split, once"
            )
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


def _read_all(
    voc: Path, listed: list[tuple[str, str]], images: Mapping[str, list[Path]], known: set[str], problems: list[str]
) -> list[_Example]:
    """Read all annotations; what is wrong with them becomes problems."""
    examples = []
    for split, name in progress(listed, f"Reading {voc.name}"):
        try:
            image = _image_of(name, _where(split, name), images)
            example = _Example(name, image, read_boxes(annotation_of(voc, name), image, known))
        except ValueError as error:
            problems.append(str(error))
        else:
            examples.append(example)
            problems += example.boxes.wrong
    return examples


def _image_of(name: str, where: str, images: Mapping[str, list[Path]]) -> Path:
    """Return the image file of a name; `where` stands for it in messages."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f"{where}: not a name inside the folder")
    files = images.get(name, [])
    if len(files) != 1:
        found = f"{len(files)} images, {', '.join(file.name for file in files)}" if files else "no image in JPEGImages/"
        raise ValueError(f"{where}: {found}")
    copied = name.replace("/", "-") + files[0].suffix  # its folders become part of it
    if (length := len(copied.encode())) > MAX_NAME:
        raise ValueError(f"{where}: its copy's name would have {length} bytes; at most {MAX_NAME} are right")
    return files[0]


def _write_all(
    out: Path, examples: list[_Example], split_of: Mapping[str, str], names: Mapping[int, str], total: int
) -> Conversion:
    """Copy the images and write their labels."""
    index = {name: number for number, name in names.items()}
    images, boxes = Counter[str](), Counter[tuple[str, str]]()
    for example in progress(examples, "Writing images and labels"):
        split = split_of[example.name]
        _write(out, split, example, index)
        images[split] += 1
        boxes.update((split, kind) for kind, _ in example.boxes.kept)
    return Conversion(
        names=names,
        images={split: images[split] for split in SPLITS if split in images},
        boxes=boxes,
        dropped=[box for example in examples for box in example.boxes.empty],
        repeated=[box for example in examples for box in example.boxes.repeated],
        resized=[text for example in examples for text in example.boxes.resized],
        unused=total - len(examples),
    )


def _write(out: Path, split: str, example: _Example, index: Mapping[str, int]) -> None:
    """Copy one image and write its labels."""
    for kind in ("images", "labels"):
        (out / kind / split).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(example.image, out / "images" / split / f"{example.stem}{example.image.suffix}")
    lines = (
        " ".join([str(index[kind]), *(f"{value:.6f}" for value in box)]) + "\n" for kind, box in example.boxes.kept
    )
    (out / "labels" / split / f"{example.stem}.txt").write_bytes("".join(lines).encode())

"""Which image of a Pascal VOC folder is in which split: as its image sets say, or drawn class by class."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ultralytics.data.utils import IMG_FORMATS

from ghost_yolo.errors import DatasetError, UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Draw:
    """How a split is drawn where a folder has none: the shares of val and test, and the random seed."""

    val: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the shares."""
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UserError(
                f"shares of {self.val:g} for val and {self.test:g} for test: val must be above 0, test may be 0, and "
                "together they must be below 1"
            )

    def assign(self, kinds: Mapping[str, str]) -> dict[str, str]:
        """Return the split of each image.

        Args:
            kinds: Class of each image by name. Every class is divided in these shares, as far as whole images allow.

        Raises:
            DatasetError: If there are too few images for a share.
        """
        groups, result = defaultdict[str, list[str]](list), dict[str, str]()
        taken, seen = {"test": 0, "val": 0}, 0
        for name in sorted(kinds):
            groups[kinds[name]].append(name)
        rng = random.Random(self.seed)
        for kind in sorted(groups):
            rng.shuffle(groups[kind])
            seen += len(groups[kind])
            for split, share in (("test", self.test), ("val", self.val)):
                due = round(share * seen) - taken[split]  # what earlier classes were too small for included
                part, groups[kind] = groups[kind][:due], groups[kind][due:]
                taken[split] += len(part)
                result |= dict.fromkeys(part, split)
            result |= dict.fromkeys(groups[kind], "train")
        if missing := {split for split in SPLITS if split != "test" or self.test} - {*result.values()}:
            raise DatasetError(f"{len(kinds)} images are too few: none would be in {', '.join(sorted(missing))}.")
        return result


def choose_splits(voc: Path, draw: Draw) -> tuple[str, ...] | Draw:
    """Return the image sets of a VOC folder, or `draw` where it has none of SPLITS.

    Raises:
        DatasetError: If it has one of them, but not both of those that Ultralytics needs.
    """
    folder = voc / "ImageSets/Main"
    found = tuple(split for split in SPLITS if (folder / f"{split}.txt").is_file())
    missing = [f"{split}.txt" for split in ("train", "val") if split not in found]
    if found and missing:
        raise DatasetError(
            f"{folder} has {', '.join(f'{split}.txt' for split in found)}, but no {' and no '.join(missing)}, which "
            "Ultralytics needs; write what is missing, or move ImageSets/ away to have a split drawn."
        )
    return found or draw


def describe(splits: tuple[str, ...] | Draw, voc: Path) -> str:
    """Say where the splits of a VOC folder come from, and which lists that may have been meant were not used."""
    if not isinstance(splits, Draw):
        return f"that of {voc / 'ImageSets/Main'}"
    lists = sorted(file.relative_to(voc).as_posix() for file in (voc / "ImageSets").rglob("*.txt"))
    shown = f"{', '.join(lists[:3])}{', ...' if len(lists) > 3 else ''}"
    unused = f"; not used: {shown} (a split is ImageSets/Main/train.txt and val.txt)" if lists else ""
    return f"drawn class by class with seed {splits.seed}{unused}"


def read_image_set(voc: Path, split: str, problems: list[str]) -> list[str]:
    """Return the names in one image set, one a line; a set that cannot be read, or is empty though needed, becomes a problem.

    Raises:
        DatasetError: If there is no such image set.
    """
    file = voc / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        raise DatasetError(f"{voc} is no Pascal VOC folder: {file.relative_to(voc)} is missing.")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        problems.append(f"{file.name}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8")
        return []
    names = [_name(line.strip(), voc) for line in lines if line.strip()]
    if not names and split != "test":
        problems.append(f"{file.name}: names no image, and Ultralytics needs some")
    return names


def _name(line: str, voc: Path) -> str:
    """Return the image name of a line: without an image suffix, and without the flag of a class's image set."""
    candidates = [line]
    if Path(line).suffix[1:].lower() in IMG_FORMATS:
        candidates.append(line[: -len(Path(line).suffix)])
    if flagged := re.fullmatch(r"(\S+)\s+(?:-1|0|1)", line):
        candidates.append(flagged[1])
    return next((name for name in candidates if is_file(annotation_of(voc, name))), line)


def is_file(path: Path) -> bool:
    """Return whether there is such a file; a name that the file system refuses, of 300 letters for example, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def annotation_of(voc: Path, name: str) -> Path:
    """Return the annotation file of a name."""
    return voc / "Annotations" / f"{name}.xml"

"""The data sets: the same bytes everywhere, strict conversion, and clear errors where something is missing."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from factories import BLOOD_CELLS, annotation, refused
from PIL import Image

from ghost_yolo.data import bccd, smear
from ghost_yolo.data.voc import convert
from ghost_yolo.errors import VOCError


def test_smear_is_the_same_everywhere(golden: Callable[[str, str], None]) -> None:
    """The pixels and labels of the first pictures are the accepted ones, bit by bit."""
    lines = []
    for seed in range(4):
        image, labels = smear.draw(np.random.RandomState(seed))
        lines += [f"{seed} {hashlib.sha256(image.tobytes()).hexdigest()}", *labels]

    golden("smear.txt", "\n".join(lines) + "\n")


def test_smear_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder has the host's layout, PNG files that read back the drawn pixels, and boxes inside the image."""
    monkeypatch.setattr(smear, "SPLITS", {"train": 3, "val": 2})
    smear.prepare(tmp_path / "smear")
    image, labels = smear.draw(np.random.RandomState(3))
    boxes = np.array(
        [line.split()[1:] for file in (tmp_path / "smear").rglob("*.txt") for line in file.read_text().splitlines()],
        float,
    )

    assert sorted(p.name for p in (tmp_path / "smear").rglob("*.*")) == sorted(
        f"{i:04d}.{end}" for i in (0, 1, 2, 0, 1) for end in ("png", "txt")
    )
    assert np.array_equal(cv2.imread(str(tmp_path / "smear/images/val/0000.png")), image)
    assert (tmp_path / "smear/labels/val/0000.txt").read_bytes() == ("\n".join(labels) + "\n").encode()
    assert (boxes[:, 2:] > 0).all() and (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-6).all()
    assert (boxes[:, :2] + boxes[:, 2:] / 2 < 1 + 1e-6).all()


def test_smear_has_all_classes() -> None:
    """All three classes occur, red cells most often."""
    kinds = [line.split()[0] for seed in range(20) for line in smear.draw(np.random.RandomState(seed))[1]]

    assert set(kinds) == {"0", "1", "2"}
    assert kinds.count("1") > kinds.count("0") > 0


def test_convert(voc: Path, tmp_path: Path) -> None:
    """VOC corners become YOLO centres and sizes; a box without area is reported and not written."""
    result = convert(voc, tmp_path / "out", BLOOD_CELLS, ("train", "val", "test"))

    assert (tmp_path / "out/labels/train/train_0.txt").read_text() == (
        "1 0.500000 0.500000 1.000000 1.000000\n2 0.312500 0.312500 0.312500 0.208333\n"
    )
    assert (tmp_path / "out/labels/test/test_0.txt").read_text() == ""
    assert result.images == {"train": 1, "val": 1, "test": 1}
    assert result.boxes == {("train", "RBC"): 1, ("train", "WBC"): 1, ("val", "Platelets"): 1}
    assert len(result.dropped) == 1 and "train_0.xml: RBC (5.0, 5.0, 5.0, 5.0)" in result.dropped[0]
    assert (tmp_path / "out/images/val/val_0.jpg").read_bytes() == (voc / "JPEGImages/val_0.jpg").read_bytes()


@pytest.mark.parametrize(
    "text,name",
    [
        ("<annotation><object>", "val_0"),
        (annotation(("Parasite", 1, 1, 5, 5)), "Parasite"),
        (annotation(("RBC", 1, 1, 65, 5)), "64 x 48"),
        (annotation(("RBC", -1, 1, 5, 5)), "-1.0"),
        (annotation(("RBC", 9, 1, 5, 5)), "9.0"),
        (annotation().replace("</annotation>", "<object><name>RBC</name></object></annotation>"), "bndbox"),
    ],
)
def test_what_cannot_be_right_is_refused(text: str, name: str, voc: Path, tmp_path: Path) -> None:
    """A broken file, an unknown class and an impossible box are named, and nothing is written."""
    (voc / "Annotations/val_0.xml").write_text(text)

    with refused(VOCError, "val_0", name):
        bccd_from(voc, tmp_path / "out")

    assert sorted(p.name for p in tmp_path.iterdir()) == ["voc"]


def listed(voc: Path, split: str, text: str | bytes) -> None:
    """Set the image set of a split."""
    (voc / f"ImageSets/Main/{split}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())


def renamed(voc: Path, *texts: str) -> None:
    """Write an annotation of one box in which each text is replaced by the next."""
    text = annotation(("RBC", 1, 1, 5, 5))
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        text = text.replace(old, new)
    (voc / "Annotations/val_0.xml").write_text(text)


def piped(file: Path) -> None:
    """Replace a file by a pipe that nobody writes to."""
    if sys.platform == "win32":
        pytest.skip("Windows has no named pipes in the file system")
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "change,says",
    [
        (lambda voc: listed(voc, "val", "val_0\nval_0\n"), "val_0"),
        (lambda voc: listed(voc, "val", "train_0\n"), "train_0"),
        (lambda voc: listed(voc, "val", "../voc/val_0\n"), "../voc/val_0"),
        (lambda voc: listed(voc, "val", "val_1\n"), "val_1"),
        (lambda voc: listed(voc, "val", "h\xe9\n".encode("latin-1")), "val.txt"),
        (lambda voc: (voc / "JPEGImages/val_0.png").write_bytes(b""), "val_0.png"),
        (lambda voc: (voc / "JPEGImages/val_0.jpg").write_text("text"), "val_0.jpg"),
        (lambda voc: (voc / "Annotations/val_0.xml").write_text("<html/>"), "val_0.xml"),
        (lambda voc: (voc / "Annotations/val_0.xml").write_text('<annotation xmlns="a:b"/>'), "val_0.xml"),
        (lambda voc: (voc / "Annotations/val_0.xml").write_text("<annotation><Object/></annotation>"), "val_0.xml"),
        (lambda voc: renamed(voc, "object", "obj"), "<obj>"),
        (lambda voc: renamed(voc, "object", "item"), "<bndbox>"),
        (lambda voc: renamed(voc, "object", "item", "bndbox", "box"), "<xmin>"),
        (lambda voc: renamed(voc, "</object>", "<bndbox/></object>"), "<bndbox>"),
        (lambda voc: piped(voc / "Annotations/val_0.xml"), "val_0"),
        (lambda voc: piped(voc / "JPEGImages/val_0.jpg"), "val_0.jpg"),
        (lambda voc: (voc / "Annotations/val_0.xml").write_text('<?xml version="1.0" encoding="none"?><a/>'), "val_0"),
    ],
)
def test_odd_folders_are_refused(change: Callable[[Path], object], says: str, voc: Path, tmp_path: Path) -> None:
    """What would be silently lost, overwritten, misplaced or read from outside is a problem with a name."""
    change(voc)

    with pytest.raises(VOCError) as error:
        bccd_from(voc, tmp_path / "out")

    assert says in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", ["my img 1", "\ufeffmy img 1", "my img 1.jpg", "my img 1.JPG"])
def test_names_are_whole_lines(line: str, voc: Path, tmp_path: Path) -> None:
    """Spaces, a byte order mark and an image suffix in a split do not change which image is meant."""
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (voc / folder / f"val_0.{suffix}").rename(voc / folder / f"my img 1.{suffix}")
    (voc / "JPEGImages/my img 1.jpg").rename(voc / "JPEGImages/my img 1.JPG")
    listed(voc, "val", f"{line}\n")
    bccd_from(voc, tmp_path / "out")

    assert (tmp_path / "out/images/val/my img 1.JPG").is_file() and (tmp_path / "out/labels/val/my img 1.txt").is_file()


def test_objects_in_a_list_and_with_parts(voc: Path, tmp_path: Path) -> None:
    """Objects inside another element count, and boxes of their parts do not."""
    renamed(
        voc,
        "<object>",
        "<objects><object>",
        "</object>",
        "<part><bndbox><xmin>1</xmin></bndbox></part></object></objects>",
    )
    bccd_from(voc, tmp_path / "out")

    assert len((tmp_path / "out/labels/val/val_0.txt").read_text().splitlines()) == 1


def test_names_in_folders(voc: Path, tmp_path: Path) -> None:
    """Images of one name in two folders are two; where the names of their outputs would be one, they are refused."""
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        for place in ("a", "b"):
            (voc / folder / place).mkdir()
            shutil.copy(voc / folder / f"val_0.{suffix}", voc / folder / place / f"x.{suffix}")
        shutil.copy(voc / folder / f"val_0.{suffix}", voc / folder / f"a-x.{suffix}")
    listed(voc, "val", "a/x\nb/x\n")
    bccd_from(voc, tmp_path / "out")
    listed(voc, "train", "a-x\n")
    with refused(VOCError, "a/x in val", "a-x in train"):
        bccd_from(voc, tmp_path / "other")

    assert {path.name for path in (tmp_path / "out/images/val").iterdir()} == {"a-x.jpg", "b-x.jpg"}
    assert not (tmp_path / "other").exists()


def test_rotated_by_exif(voc: Path, tmp_path: Path) -> None:
    """Boxes of a photograph that its EXIF data rotates are taken where the annotation has the rotated size, else refused."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(voc / "JPEGImages/val_0.jpg", exif=exif)
    box = annotation(("RBC", 1, 1, 40, 60))
    (voc / "Annotations/val_0.xml").write_text(box)
    with pytest.raises(VOCError, match=r"val_0\.jpg"):
        bccd_from(voc, tmp_path / "out")
    (voc / "Annotations/val_0.xml").write_text(
        box.replace("<width>64", "<width>48").replace("<height>48", "<height>64")
    )
    bccd_from(voc, tmp_path / "out")

    assert (tmp_path / "out/labels/val/val_0.txt").read_text() == "1 0.427083 0.476562 0.812500 0.921875\n"


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that could not be written ends the preparation, and nothing stays."""
    monkeypatch.setattr(smear, "SPLITS", {"train": 1, "val": 1})
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)
    with pytest.raises(OSError, match=r"0000\.png"):
        smear.prepare(tmp_path / "smear")
    assert not list(tmp_path.iterdir())


def bccd_from(voc: Path, out: Path) -> None:
    """Prepare BCCD from a local folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(bccd.LOCAL, str(voc))
        bccd.prepare(out, BLOOD_CELLS)


def test_all_problems_at_once(voc: Path, tmp_path: Path) -> None:
    """Every broken annotation is listed, not only the first."""
    for split in ("train", "val"):
        (voc / f"Annotations/{split}_0.xml").write_text("")

    with refused(VOCError, "train_0", "val_0"):
        bccd_from(voc, tmp_path / "out")


def test_a_folder_that_is_there_is_not_overwritten(voc: Path, tmp_path: Path) -> None:
    """A target that already holds something is left alone, and that is an error."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")

    with refused(FileExistsError, tmp_path / "out"):
        bccd_from(voc, tmp_path / "out")

    assert (tmp_path / "out/mine.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["x" * 300, "sub/" + "y" * 248])
def test_names_that_no_file_can_have(name: str, voc: Path, tmp_path: Path) -> None:
    """A name that the file system refuses, or whose copy's name it would, is named."""
    (voc / "ImageSets/Main/val.txt").write_text(f"{name}\n")
    if "/" in name:
        for folder, suffix in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
            (voc / folder / "sub").mkdir()
            shutil.copy(voc / folder / f"val_0{suffix}", voc / folder / f"{name}{suffix}")
    with refused(VOCError, f"{name} in val"):
        convert(voc, tmp_path / "out", BLOOD_CELLS, ("train", "val"))
    assert not (tmp_path / "out").exists()

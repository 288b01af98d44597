"""Any Pascal VOC folder becomes a data set, split as it says or drawn by class; NEU-DET comes from a local copy."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from factories import ROOT, Run, annotation, refused

from ghost_yolo.data import neu_det
from ghost_yolo.data.prepare import content_of
from ghost_yolo.data.splits import SPLITS, Draw, choose_splits, describe
from ghost_yolo.data.voc import convert, read_names
from ghost_yolo.errors import DatasetError, UserError, VOCError

REAL = Path(os.environ.get("GHOST_YOLO_TEST_NEU_DET", "no copy"))  # conftest takes it from GHOST_YOLO_NEU_DET_DIR
real = pytest.mark.skipif(not REAL.is_dir(), reason="GHOST_YOLO_NEU_DET_DIR names no copy of NEU-DET")
STEEL = yaml.safe_load((ROOT / "datasets/neu-det.yaml").read_text(encoding="utf-8"))["names"]
SEEN = "import sys; from ultralytics.data.utils import check_det_dataset as c; d = c(sys.argv[1]); print(d['val'], d['names'])"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A VOC folder without image sets: ten images of each of two classes, two of a third, and three without a box."""
    root = tmp_path / "plain"
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for kind, count in {"nut": 10, "bolt": 10, "été": 2, "": 3}.items():
        for number in range(count):
            boxes = [(kind, 1, 2, 30, 40)] if kind else []
            (root / f"Annotations/{kind}{number}.xml").write_text(annotation(*boxes), encoding="utf-8")
            cv2.imwrite(str(root / "JPEGImages/image.png"), np.zeros((48, 64, 3), np.uint8))
            (root / "JPEGImages/image.png").rename(root / f"JPEGImages/{kind}{number}.png")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by name."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_becomes_a_data_set(voc: Path, run: Run, tmp_path: Path) -> None:
    """Images, labels and YAML are written, the report counts them, and Ultralytics finds the images, after a move too."""
    done = run("ghost-yolo", "voc", voc, "-o", "data")
    rows = [line.split() for line in done.stdout.splitlines()]
    seen = run("python", "-c", SEEN, "data/data.yaml").stdout.splitlines()[-1]
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = run("python", "-c", SEEN, tmp_path / "moved/data.yaml").stdout.splitlines()[-1]

    assert ["images", "1", "1", "1"] in rows and ["boxes", "2", "1", "0"] in rows
    assert ["-", "RBC", "1", "0", "0"] in rows and ["-", "Platelets", "0", "1", "0"] in rows
    assert all(
        text in done.stderr
        for text in ("left out train_0.xml", "val has no box of RBC, WBC", "data.yaml", "split: that of")
    )
    assert seen.startswith(str(tmp_path / "data/images/val")) and "{0: 'Platelets', 1: 'RBC', 2: 'WBC'}" in seen
    assert moved.startswith(str(tmp_path / "moved/images/val"))
    assert (tmp_path / "moved/labels/val/val_0.txt").read_text() == "0 0.031250 0.062500 0.031250 0.041667\n"


def test_drawn_by_class(plain: Path, run: Run, tmp_path: Path) -> None:
    """Without image sets every class is divided by itself, and the seed alone decides how."""
    for out, seed in (("one", 0), ("same", 0), ("other", 1)):
        run("ghost-yolo", "voc", plain, "-o", out, "--val", "0.2", "--test", "0.2", "--seed", str(seed))
    counts = Counter(
        (file.parent.name, file.stem.rstrip("0123456789")) for file in (tmp_path / "one/images").rglob("*.png")
    )

    assert all(
        counts[split, kind] == number
        for kind in ("nut", "bolt")
        for split, number in zip(SPLITS, (6, 2, 2), strict=True)
    )
    assert sum(counts.values()) == 25 == len({file.stem for file in (tmp_path / "one").rglob("*.png")})
    assert yaml.safe_load((tmp_path / "one/data.yaml").read_text(encoding="utf-8"))["names"] == {
        0: "bolt",
        1: "nut",
        2: "été",
    }
    assert contents(tmp_path / "one") == contents(tmp_path / "same") != contents(tmp_path / "other")


def test_many_small_classes_fill_the_shares() -> None:
    """Classes too small for a share of their own are divided together."""
    drawn = Draw(0.1, 0.2).assign({f"{kind}-{number}": kind for kind in "abcdefghij" for number in range(2)})

    assert Counter(drawn.values()) == {"train": 14, "val": 2, "test": 4}
    assert Counter(Draw(0.5, 0).assign(dict.fromkeys("abcd", "x")).values()) == {"train": 2, "val": 2}


def write_set(voc: Path, split: str, text: str) -> None:
    """Write an image set in Latin-1."""
    (voc / f"ImageSets/Main/{split}.txt").write_text(text, encoding="latin-1")


@pytest.mark.parametrize(
    "change,options,says",
    [
        (lambda voc: shutil.rmtree(voc / "Annotations"), [], ["voc", "Annotations/"]),
        (lambda voc: shutil.rmtree(voc / "JPEGImages"), [], ["voc", "JPEGImages/"]),
        (shutil.rmtree, [], ["voc", "no folder"]),
        (lambda voc: (voc / "ImageSets/Main/val.txt").unlink(), [], ["train.txt", "no val.txt"]),
        (lambda voc: write_set(voc, "val", "missing\n"), [], ["missing in val"]),
        (lambda voc: write_set(voc, "val", "\n"), [], ["val.txt", "no image"]),
        (None, ["--names", "names.txt"], ["names.txt", "no such file"]),
        (lambda voc: write_set(voc, "val", "\xe9t\xe9\n"), [], ["val.txt", "UTF-8"]),
        (lambda voc: (voc / "JPEGImages/val_0.jpg").unlink(), [], ["val_0 in val", "no image"]),
        (lambda voc: (voc / "JPEGImages/val_0.png").touch(), [], ["val_0.jpg, val_0.png"]),
        (
            lambda voc: (voc / "Annotations/val_0.xml").write_bytes(b"<annotation>\xe9</annotation>"),
            [],
            ["val_0", "not well-formed"],
        ),
        (lambda voc: (voc / "Annotations/val_0.xml").write_text(annotation(("", 1, 1, 5, 5))), [], ["no name"]),
        (None, ["--names", "RBC,WBC"], ["val_0.xml", "Platelets", "RBC, WBC"]),
        (None, ["--names", "RBC,WBC,RBC"], ["RBC", "twice"]),
        (None, ["--names", "RBC,,WBC"], ["empty"]),
        (None, ["--val", "0.2"], ["ImageSets", "--val"]),
        (lambda voc: shutil.rmtree(voc / "ImageSets"), ["--val", "0.6", "--test", "0.4"], ["0.6", "below 1"]),
        (lambda voc: shutil.rmtree(voc / "ImageSets"), [], ["3 images", "val"]),
        (lambda voc: (voc.parent / "data").mkdir() or (voc.parent / "data/mine").touch(), [], ["data", "exists"]),
    ],
)
def test_what_cannot_be_right_is_refused(
    change: Callable[[Path], object] | None, options: list[str], says: list[str], voc: Path, run: Run, tmp_path: Path
) -> None:
    """A wrong folder, annotation, split or option is named, without a traceback, and nothing is written."""
    if change:
        change(voc)
    before = {path for path in tmp_path.iterdir() if path.name != "voc"}
    done = run("ghost-yolo", "voc", voc, "-o", "data", *options, ok=False)

    assert [text for text in says if text not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert {path for path in tmp_path.iterdir() if path.name not in ("voc", "config")} == before


def test_a_folder_around_the_right_one_names_it(voc: Path) -> None:
    """The folder that holds the VOC folder is refused with the name of the one inside."""
    with refused(DatasetError, "Did you mean", voc):
        convert(voc.parent, voc.parent / "out")


def test_problems_are_counted_and_the_first_shown(plain: Path, run: Run) -> None:
    """All problems of all annotations are counted, several of one file too, and the first ten stand on lines of their own."""
    for number in range(10):
        text = annotation(("nut", 1, 1, 99, 5), ("nut", 9, 1, 5, 5))
        (plain / f"Annotations/nut{number}.xml").write_text(text)
    done = run("ghost-yolo", "voc", plain, "-o", "data", ok=False)
    lines = done.stderr.splitlines()

    assert "20 problems" in lines[-1] and "10 more" in lines[-2]
    assert sum(line.startswith("nut") for line in lines) == 10


def test_images_of_a_drawn_split_are_checked(plain: Path, run: Run, tmp_path: Path) -> None:
    """Where the folder has no image sets, too, a missing image and two of one stem are named."""
    (plain / "JPEGImages/nut0.png").unlink()
    shutil.copy(plain / "JPEGImages/bolt0.png", plain / "JPEGImages/bolt0.bmp")
    done = run("ghost-yolo", "voc", plain, "-o", "data", ok=False)

    assert "nut0: no image" in done.stderr and "bolt0.bmp, bolt0.png" in done.stderr and "2 problems" in done.stderr
    assert not (tmp_path / "data").exists()


def test_what_is_odd_is_said(plain: Path) -> None:
    """Images without an annotation, a box that is there twice, another size and spelling are warned of, and kept out of nothing else."""
    (plain / "Annotations/0.xml").unlink()
    (plain / "Annotations/nut0.xml").write_text(annotation(("nut", 1, 1, 9, 9), ("nut", 1, 1, 9, 9)))
    (plain / "Annotations/nut1.xml").write_text(annotation(("Nut", 1, 1, 9, 9)))
    (plain / "Annotations/nut2.xml").write_text(annotation(("nut", 1, 1, 30, 40)).replace(">64<", ">640<"))
    (plain / "Annotations/nut3.xml").write_text(annotation(("nut", 1, 1, 30, 40)).replace(">64<", ">0<"))
    result = convert(plain, plain.parent / "out", splits=Draw())
    text = "\n".join(result.warnings)

    assert result.boxes.total() == 23 and sum(result.images.values()) == 24
    assert all(
        part in text
        for part in ("left out: 1", "nut0.xml: nut (1.0, 1.0, 9.0, 9.0): there twice", "Nut, nut", "no box of")
    )
    assert result.resized == ["nut2.xml: is of 640 x 48 pixels, but nut2.png has 64 x 48"]
    assert result.resized[0] in text


def test_class_names_are_any_text(plain: Path) -> None:
    """What a terminal library takes for markup is printed as it is, and a folder without a box is refused."""
    for file in (plain / "Annotations").iterdir():
        file.write_text(annotation(("[/b] :cat:", 1, 1, 9, 9)))
    result = convert(plain, plain.parent / "out", splits=Draw())
    for file in (plain / "Annotations").iterdir():
        file.write_text(annotation())
    with refused(DatasetError, plain, "25"):
        convert(plain, plain.parent / "other", splits=Draw())

    assert "- [/b] :cat:" in result.table and not (plain.parent / "other").exists()


def test_other_image_sets_do_not_decide(plain: Path) -> None:
    """Lists of other names, such as an annotation tool's default.txt, are no split, and three right ones are."""
    (plain / "ImageSets/Main").mkdir(parents=True)
    (plain / "ImageSets/Main/default.txt").write_text("nut0\n")
    other = choose_splits(plain, Draw(seed=3))
    said = describe(other, plain)
    for split in SPLITS:
        (plain / f"ImageSets/Main/{split}.txt").touch()

    assert other == Draw(seed=3) and choose_splits(plain, Draw()) == SPLITS
    assert "drawn class by class with seed 3; not used: ImageSets/Main/default.txt" in said
    assert describe(SPLITS, plain) == f"that of {plain / 'ImageSets/Main'}"


def test_names_of_a_file(tmp_path: Path) -> None:
    """Class names may stand in a UTF-8 file, one a line."""
    file = tmp_path / "names.txt"
    file.write_text("été\nbolt, big\n", encoding="utf-8")
    names = read_names(str(file))
    file.write_text("été\n", encoding="latin-1")

    assert names == {0: "été", 1: "bolt, big"}
    with refused(UserError, file, "UTF-8"):
        read_names(str(file))


def test_named_classes_keep_their_order(voc: Path, tmp_path: Path) -> None:
    """The index of a class is its place among the given names."""
    convert(voc, tmp_path / "out", read_names("WBC,RBC,Platelets"))

    assert (tmp_path / "out/labels/val/val_0.txt").read_text().startswith("2 ")


def test_neu_det_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a local copy the error says where the authors publish it and how it is laid out; nothing is downloaded."""
    with refused(
        DatasetError, tmp_path / "out", neu_det.LOCAL, "10.1016/j.apsusc.2013.09.002", "neu.edu.cn", "JPEGImages/"
    ):
        neu_det.prepare(tmp_path / "out", STEEL)
    monkeypatch.setenv(neu_det.LOCAL, str(tmp_path / "nowhere"))
    with refused(DatasetError, neu_det.LOCAL, tmp_path / "nowhere"):
        neu_det.prepare(tmp_path / "out", STEEL)

    assert list(tmp_path.iterdir()) == []


def steel(root: Path) -> Path:
    """Write a generated VOC folder with ten images of each class of NEU-DET."""
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for kind in STEEL.values():
        for number in range(10):
            (root / f"Annotations/{kind}_{number}.xml").write_text(annotation((kind, 1, 1, 9, 9)))
            cv2.imwrite(str(root / f"JPEGImages/{kind}_{number}.jpg"), np.zeros((48, 64, 3), np.uint8))
    return root


def test_the_host_prepares_neu_det(run: Run, tmp_path: Path) -> None:
    """The YAML's one import and call prepares the local copy, says what it counted, and that it is another data set."""
    copy = steel(tmp_path / "steel")
    done = run("python", "-c", SEEN, ROOT / "datasets/neu-det.yaml", GHOST_YOLO_NEU_DET_DIR=str(copy))
    root = tmp_path / "datasets/ghost-yolo/neu-det"

    assert done.stdout.splitlines()[-1].startswith(str(root / "images/val"))
    assert [len(list(root.glob(f"images/{split}/*.jpg"))) for split in SPLITS] == [42, 6, 12]
    assert "- crazing" in done.stdout and neu_det.CONTENT.sha256 in done.stdout


def test_a_class_that_neu_det_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An annotation of another class is named, and nothing is written."""
    monkeypatch.setenv(neu_det.LOCAL, str(steel(tmp_path / "steel")))
    (tmp_path / "steel/Annotations/crazing_0.xml").write_text(annotation(("rust", 1, 1, 9, 9)))
    with refused(VOCError, "crazing_0.xml", "rust"):
        neu_det.prepare(tmp_path / "out", STEEL)

    assert [path.name for path in tmp_path.iterdir()] == ["steel"]


@real
def test_the_real_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set on which figures were measured, divided as drawn: by image sets or without them."""
    (tmp_path / "copy").mkdir()
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / "copy" / folder).symlink_to(REAL / folder)
    monkeypatch.setenv(neu_det.LOCAL, str(tmp_path / "copy"))
    neu_det.prepare(tmp_path / "out", STEEL)
    listed = {n: split for split in SPLITS for n in (REAL / f"ImageSets/Main/{split}.txt").read_text().split()}

    assert content_of(tmp_path / "out", neu_det.PREPARED) == neu_det.CONTENT
    assert neu_det.DRAW.assign({name: name.rpartition("_")[0] for name in listed}) == listed

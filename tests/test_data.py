"""The data sets: the same bytes everywhere, strict conversion, and clear errors where something is missing."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from factories import ROOT, Run, refused
from PIL import Image

from ghost_yolo.data import bccd, smear
from ghost_yolo.data.voc import convert
from ghost_yolo.errors import VOCError

NAMES = {0: "Platelets", 1: "RBC", 2: "WBC"}
REAL = Path(os.environ.get("GHOST_YOLO_TEST_BCCD", "no copy"))  # conftest takes it from GHOST_YOLO_BCCD_DIR
BOX = "<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>"


def annotation(*boxes: tuple[str, int, int, int, int]) -> str:
    """Return the VOC text of some boxes."""
    objects = "".join(f"<object><name>{name}</name>{BOX.format(*box)}</object>" for name, *box in boxes)
    return f"<annotation><size><width>64</width><height>48</height></size>{objects}</annotation>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A VOC folder of three photographs, one a split, with one box without area."""
    root = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, boxes in {
        "train": [("RBC", 0, 0, 64, 48), ("WBC", 10, 10, 30, 20), ("RBC", 5, 5, 5, 5)],
        "val": [("Platelets", 1, 2, 3, 4)],
        "test": [],
    }.items():
        (root / "ImageSets/Main" / f"{split}.txt").write_text(f"{split}_0\n")
        (root / "Annotations" / f"{split}_0.xml").write_text(annotation(*boxes))
        cv2.imwrite(str(root / "JPEGImages" / f"{split}_0.jpg"), np.zeros((48, 64, 3), np.uint8))
    return root


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
    result = convert(voc, tmp_path / "out", NAMES, ("train", "val", "test"))

    assert (tmp_path / "out/labels/train/train_0.txt").read_text() == (
        "1 0.500000 0.500000 1.000000 1.000000\n2 0.312500 0.312500 0.312500 0.208333\n"
    )
    assert (tmp_path / "out/labels/test/test_0.txt").read_text() == ""
    assert (result.images, result.boxes) == ({"train": 1, "val": 1, "test": 1}, 3)
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
        bccd.prepare(out, NAMES)


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


def test_no_copy_and_no_internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a copy and a connection the error says what is missing, where it looked and how to name a copy."""

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("not online")

    monkeypatch.setattr(bccd, "safe_download", offline)
    with refused(FileNotFoundError, tmp_path / "out", "GHOST_YOLO_BCCD_DIR", "github.com", "not online"):
        bccd.prepare(tmp_path / "out", NAMES)
    monkeypatch.setenv(bccd.LOCAL, str(tmp_path / "nowhere"))
    with refused(FileNotFoundError, tmp_path / "nowhere", "Annotations"):
        bccd.prepare(tmp_path / "out", NAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on this machine that serves a folder, standing in for the public one."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Say nothing."""

    (tmp_path / "www").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_download(voc: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a local copy the archive is downloaded and converted."""
    shutil.copytree(voc, tmp_path / "pack/BCCD_Dataset-master/BCCD")
    shutil.make_archive(str(tmp_path / "www/master"), "zip", tmp_path / "pack")
    monkeypatch.setattr(bccd, "URL", f"{server}/master.zip")
    bccd.prepare(tmp_path / "out", NAMES)

    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 3


@pytest.mark.skipif(not REAL.is_dir(), reason="GHOST_YOLO_BCCD_DIR names no copy of BCCD")
def test_the_real_photographs(tmp_path: Path) -> None:
    """BCCD has 205, 87 and 72 photographs, 4886 boxes that can be learnt and two without area."""
    result = convert(REAL, tmp_path / "bccd", NAMES, bccd.SPLITS)

    assert result.images == {"train": 205, "val": 87, "test": 72}
    assert result.boxes == 4886
    assert sorted(text[:21] for text in result.dropped) == ["BloodImage_00338.xml:", "BloodImage_00343.xml:"]


def test_the_host_prepares_it(voc: Path, run: Run, tmp_path: Path) -> None:
    """The host runs the YAML's one import and call at first use, and finds the images then."""
    code = f"from ultralytics.data.utils import check_det_dataset as c; print(c({str(ROOT / 'datasets/bccd.yaml')!r})['val'])"
    done = run("python", "-c", code, GHOST_YOLO_BCCD_DIR=str(voc), YOLO_OFFLINE="true")

    assert Path(done.stdout.split()[-1]) == tmp_path / "datasets/ghost-yolo/bccd/images/val"
    assert "RBC (5.0, 5.0, 5.0, 5.0)" in done.stdout
    assert len(list(tmp_path.rglob("images/val/val_0.jpg"))) == 1


def test_the_host_says_what_is_missing(run: Run) -> None:
    """Through the stock command a missing data set without internet ends in our error, not in a bare traceback."""
    data = str(ROOT / "datasets/bccd.yaml")
    done = run(
        "yolo", "train", "model=yolov8n.yaml", f"data={data}", "epochs=1", ok=False, https_proxy="http://127.0.0.1:9"
    )

    assert "GHOST_YOLO_BCCD_DIR" in done.stderr.strip().splitlines()[-1]

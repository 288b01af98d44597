"""BCCD: only the known content is taken from the public repository, and a copy of one's own is accepted as it is."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from factories import BLOOD_CELLS, ROOT, Run, refused

from ghost_yolo.data import bccd
from ghost_yolo.data.voc import convert
from ghost_yolo.errors import DatasetError

REAL = Path(os.environ.get("GHOST_YOLO_TEST_BCCD", "no copy"))  # conftest takes it from GHOST_YOLO_BCCD_DIR


def test_no_copy_and_no_internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a copy and a connection the error says what is missing, where it looked and how to name a copy."""

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("not online")

    monkeypatch.setattr(requests, "get", offline)
    with refused(FileNotFoundError, tmp_path / "out", "GHOST_YOLO_BCCD_DIR", "github.com", "not online"):
        bccd.prepare(tmp_path / "out", BLOOD_CELLS)
    monkeypatch.setenv(bccd.LOCAL, str(tmp_path / "nowhere"))
    with refused(FileNotFoundError, tmp_path / "nowhere", "Annotations"):
        bccd.prepare(tmp_path / "out", BLOOD_CELLS)
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


def serve(voc: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve a VOC folder as the archive that the public repository's page offers."""
    pack = tmp_path / "pack"
    shutil.copytree(voc, pack / "BCCD_Dataset-master/BCCD")
    (pack / "BCCD_Dataset-master/README.md").write_text("may change")
    shutil.make_archive(str(tmp_path / "www/master"), "zip", pack)
    shutil.rmtree(pack)
    monkeypatch.setattr(bccd, "URL", f"{server}/master.zip")


def test_download(voc: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a local copy the archive is downloaded and converted, if it holds what it should."""
    monkeypatch.setattr(bccd, "CONTENT", bccd.content(voc))
    serve(voc, tmp_path, server, monkeypatch)
    bccd.prepare(tmp_path / "out", BLOOD_CELLS)

    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 3


def flipped(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "change,says",
    [
        (lambda voc: flipped(voc / "JPEGImages/val_0.jpg"), "SHA-256"),
        (lambda voc: flipped(voc / "Annotations/val_0.xml"), "SHA-256"),
        (lambda voc: flipped(voc / "ImageSets/Main/val.txt"), "SHA-256"),
        (lambda voc: (voc / "JPEGImages/val_0.jpg").rename(voc / "JPEGImages/val_1.jpg"), "SHA-256"),
        (lambda voc: (voc / "Annotations/test_0.xml").unlink(), "8 files"),
        (lambda voc: (voc / "JPEGImages/more.jpg").touch(), "10 files"),
        (lambda voc: shutil.rmtree(voc / "Annotations"), "6 files"),
        (lambda voc: (voc / "JPEGImages/val_0.jpg").write_bytes(bytes(1 << 26)), "9 files of 67,"),
    ],
)
def test_another_download_is_refused(
    change: Callable[[Path], object], says: str, voc: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One other bit, name or file ends in an error that says what came, what should have, and what to do."""
    monkeypatch.setattr(bccd, "CONTENT", bccd.content(voc))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "www"))
    change(voc)
    serve(voc, tmp_path, server, monkeypatch)
    with refused(DatasetError, says, "9 files", bccd.CONTENT.sha256, bccd.LOCAL):
        bccd.prepare(tmp_path / "out", BLOOD_CELLS)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["voc", "www"]
    assert [path.name for path in (tmp_path / "www").iterdir()] == ["master.zip"]


@pytest.mark.parametrize("archive", [b"", b"<html>moved</html>", b"PK\x03\x04" + bytes(99), bytes(33 << 20)])
def test_what_is_no_archive_is_refused(
    archive: bytes, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page in place of the archive, a damaged one and one without end are refused."""
    (tmp_path / "www/master.zip").write_bytes(archive)
    monkeypatch.setattr(bccd, "URL", f"{server}/master.zip")
    with refused(DatasetError, "master.zip", "MiB" if len(archive) > bccd.MAX_BYTES else "zip file", bccd.LOCAL):
        bccd.prepare(tmp_path / "out", BLOOD_CELLS)

    assert [path.name for path in tmp_path.iterdir()] == ["www"]


@pytest.mark.skipif(not REAL.is_dir(), reason="GHOST_YOLO_BCCD_DIR names no copy of BCCD")
def test_the_checksum_is_that_of_the_real_photographs(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set on which the figures were measured is accepted as a download."""
    serve(REAL, tmp_path, server, monkeypatch)
    bccd.prepare(tmp_path / "out", BLOOD_CELLS)

    assert bccd.content(REAL) == bccd.CONTENT
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 364


@pytest.mark.skipif(not REAL.is_dir(), reason="GHOST_YOLO_BCCD_DIR names no copy of BCCD")
def test_the_real_photographs(tmp_path: Path) -> None:
    """BCCD has 205, 87 and 72 photographs, 4886 boxes that can be learnt and two without area."""
    result = convert(REAL, tmp_path / "bccd", BLOOD_CELLS, bccd.SPLITS)

    assert result.images == {"train": 205, "val": 87, "test": 72}
    assert result.boxes.total() == 4886
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

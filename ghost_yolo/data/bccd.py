"""BCCD, the blood cell photographs: from a local Pascal VOC copy, or downloaded."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import requests

from ghost_yolo.data.prepare import Content, content_of, local_copy, prepare_from, warn_if_other
from ghost_yolo.data.splits import SPLITS
from ghost_yolo.errors import DatasetError
from ghost_yolo.utils.files import temporary_folder

URL = "https://github.com/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip"
LOCAL = "GHOST_YOLO_BCCD_DIR"
USED = ("Annotations/*.xml", "JPEGImages/*.jpg", *(f"ImageSets/Main/{split}.txt" for split in SPLITS))
MAX_BYTES = 32 << 20  # of the archive; the data set has 9 MB
BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)  # what zipfile raises
HELP = (
    f"To use a copy of your own, set {LOCAL} to its Pascal VOC folder (Annotations/, ImageSets/ and JPEGImages/ in it), "
    "for example the BCCD/ folder of https://github.com/Shenggan/BCCD_Dataset."
)


# The data set on which this project's figures were measured: 364 images (205, 87 and 72), 364 annotations and three lists.
# The archive's own bytes are no measure: GitHub packs it anew.
CONTENT = Content(731, 8_795_974, "4e4be01c13a139818a66b63402a30b051853317a0fea3c6febcb40b53e363b8e")


def prepare(root: str | Path, names: Mapping[int, str]) -> None:
    """Write the YOLO data set at `root`, completely or not at all.

    Args:
        root: Folder to make.
        names: Class index to class name.

    Raises:
        DatasetError: If there is neither a local copy nor a way to download one.
        VOCError: If an annotation is invalid.
    """
    with _source(Path(root)) as voc:
        prepare_from(voc, Path(root), names, SPLITS)


def content(voc: Path) -> Content:
    """Return what a VOC folder holds, of the files that are used.

    The SHA-256 is that of the lines which a shell prints by `sha256sum Annotations/*.xml ImageSets/Main/{test,train,val}.txt
    JPEGImages/*.jpg` in that folder.
    """
    return content_of(voc, USED)


@contextmanager
def _source(root: Path) -> Iterator[Path]:
    """Yield the VOC folder: the one that the environment names, else a downloaded one that is gone afterwards."""
    if (local := local_copy(LOCAL, HELP)) is not None:
        warn_if_other(local, "BCCD", content(local), CONTENT)
        yield local
        return
    with temporary_folder("ghost-yolo-bccd-") as folder:
        try:
            archive = _download(folder)
        except OSError as error:  # those of requests are OSErrors, too
            raise DatasetError(
                f"The BCCD images are not at {root}, {LOCAL} is not set, and {URL} could not be downloaded ({error}). {HELP}"
            ) from error
        yield _unpack(archive, folder)


def _download(folder: Path) -> Path:
    """Download the archive, at most MAX_BYTES of it."""
    file = folder / "archive.zip"
    with requests.get(URL, stream=True, timeout=60) as response, file.open("wb") as out:
        response.raise_for_status()
        for chunk in response.iter_content(1 << 20):
            out.write(chunk)
            if out.tell() > MAX_BYTES:
                raise OSError(f"it has more than {MAX_BYTES >> 20} MiB")
    return file


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the files that are used and return their VOC folder; anything but the known data set is refused."""
    wrong = f"{URL} no longer holds the BCCD of {CONTENT}"
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = [item for item in zipped.infolist() if any(PurePosixPath(item.filename).match(u) for u in USED)]
            size = sum(item.file_size for item in members)
            if (len(members), size) != (CONTENT.files, CONTENT.size):  # before anything is unpacked
                raise ValueError(f"{len(members)} files of {size:,} bytes")
            zipped.extractall(folder, members)
    except BAD_ARCHIVE as error:
        raise DatasetError(f"{wrong}, but something else: {error}. {HELP}") from error
    voc = next(path.parent for path in folder.rglob("Annotations"))
    if (found := content(voc)) != CONTENT:
        raise DatasetError(f"{wrong}, but {found}. {HELP}")
    return voc

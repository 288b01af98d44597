"""Images of any kind are read or refused by name; nothing else happens."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ghost_yolo.data.images import find_images, preprocess, read_image, split_readable, spread, to_float
from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.calibration import CalibrationImages


def radiance(path: Path) -> None:
    """Write a Radiance picture."""
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 4\n" + bytes(64))


def pam(path: Path) -> None:
    """Write a PAM picture."""
    path.write_bytes(b"P7\nWIDTH 4\nHEIGHT 4\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(48))


def pfm(path: Path) -> None:
    """Write a portable float map in colour."""
    path.write_bytes(b"PF\n4 4\n-1.0\n" + bytes(192))


def huge(path: Path) -> None:
    """Write a PNG of a few bytes whose header announces 60000 x 60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def fifo(path: Path) -> None:
    """Make a pipe that nobody writes to."""
    if sys.platform == "win32":
        pytest.skip("Windows has no named pipes in the file system")
    os.mkfifo(path)


def text(path: Path) -> None:
    """Write text."""
    path.write_text("no image")


def empty(path: Path) -> None:
    """Write nothing."""
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["odd.jpg", "odd.png", "odd.pfm", "odd.tif"])
@pytest.mark.parametrize("make", [radiance, pam, pfm, huge, fifo, text, empty])
def test_odd_files(make: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    """A file that is no 8-bit image of a bounded size is read as one or refused by its name."""
    path = tmp_path / name
    make(path)
    message = ""
    try:
        image = read_image(path, truncated_is_error=True)
    except UserError as error:
        message = str(error)

    assert (name in message and len(message) < 1000) if message else image.shape == (4, 4, 3)


def test_what_is_no_file_in_a_folder(tmp_path: Path) -> None:
    """A pipe and a folder that are named like images are left out; given by name they are refused for what they are."""
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "b.jpg").mkdir()
    fifo(tmp_path / "a.jpg")

    assert find_images([tmp_path]) == [tmp_path / "c.png"]
    with pytest.raises(UserError, match=r"a\.jpg is not a regular file"):
        find_images([tmp_path / "a.jpg"])


def test_an_image_that_is_named_twice(tmp_path: Path) -> None:
    """Is taken once, so that none is both fitted on and held out."""
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "c.png").symlink_to(tmp_path / "a.png")

    assert find_images([tmp_path / "b.png", tmp_path, tmp_path]) == [tmp_path / "b.png", tmp_path / "a.png"]


def test_classifiers_get_the_middle(tmp_path: Path) -> None:
    """They are fitted on the square that the host's prediction shows them, other models on the whole image."""
    image = np.zeros((40, 64, 3), np.uint8)
    image[:, 12:52] = 200
    cv2.imwrite(str(tmp_path / "a.png"), image)
    whole, middle = (CalibrationImages([tmp_path / "a.png"], 64, crop=crop).images for crop in (False, True))

    assert middle.shape == whole.shape == (1, 3, 64, 64)
    assert (middle == 200).all() and {0, 114} < set(whole.unique().tolist())


def test_unreadable_files(tmp_path: Path) -> None:
    """Files that are no images are told apart, and a folder of nothing else is refused."""
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((8, 8, 3), np.uint8))
    text(tmp_path / "a.jpg")

    assert split_readable(find_images([tmp_path])) == ([tmp_path / "b.png"], [tmp_path / "a.jpg"])
    with pytest.raises(UserError, match=r"a\.jpg"):
        split_readable([tmp_path / "a.jpg"])


def test_preprocess_is_the_hosts_letterbox(tmp_path: Path) -> None:
    """Letterboxed pixels are those of the host's predictor: centred, grey bars, RGB, in 0..1."""
    image = np.random.RandomState(0).randint(0, 256, (40, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    tensor = to_float(preprocess(read_image(tmp_path / "a.png"), (64, 64)))

    assert tensor.shape == (3, 64, 64)
    assert np.array_equal((tensor[:, 12:52].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), image[..., ::-1])
    assert (tensor[:, :12] == 114 / 255).all() and (tensor[:, 52:] == 114 / 255).all()


@pytest.mark.parametrize(("count", "wanted"), [(0, 300), (1, 300), (300, 300), (301, 300), (1008, 300)])
def test_some_of_many_images_are_evenly_spaced(count: int, wanted: int) -> None:
    """None twice; few are all taken. The first ones of a folder would all be of one class where names begin with the class."""
    images = [Path(str(number)) for number in range(count)]
    taken = spread(images, wanted)
    assert len({*taken}) == len(taken) == min(count, wanted)
    assert not images or int(taken[-1].name) >= count - 1 - count // len(taken)

"""JSON files are not trusted: bounded in size and depth, and every value is checked where it is taken."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from factories import refused

from ghost_yolo.errors import SourceError
from ghost_yolo.redundancy.measurements import read_file
from ghost_yolo.report.sources import read_accuracy, read_bench
from ghost_yolo.utils import json_file
from ghost_yolo.utils.json_file import Fields, read_json


@pytest.mark.parametrize(
    "content,named",
    [
        (b"", "JSON"),
        (b"\xff\xfe{\x00", "JSON"),
        (b"[" * 1_000_000, "JSON"),
        (b"[" * 30 + b"]" * 30, "levels"),
        (b'{"a": ' * 900 + b"1" + b"}" * 900, "levels"),
        (b"9" * 100_000, "JSON"),
        (b" " * (json_file.MAX_BYTES + 1), "bytes"),
    ],
)
def test_what_is_refused(content: bytes, named: str, tmp_path: Path) -> None:
    """No content costs much time or gives a long error."""
    file = tmp_path / "odd.json"
    file.write_bytes(content)
    start = time.perf_counter()
    with refused(SourceError, "odd.json", named):
        read_json(file)

    assert time.perf_counter() - start < 1


def test_a_missing_file(tmp_path: Path) -> None:
    """A missing file and a folder are named."""
    for path in (tmp_path / "none.json", tmp_path):
        with refused(SourceError, path):
            read_json(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_file_without_an_end(tmp_path: Path) -> None:
    """A pipe that nobody writes to, and a device, are refused by every reader, without waiting."""
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        for read in (read_json, read_bench, read_accuracy, read_file):
            with refused(SourceError, path, "regular file"):
                read(path)


def test_values() -> None:
    """A value of another type, out of its bounds, or not finite is named with its place; half a character is escaped."""
    row = Fields({"text": "\ud800", "count": 3, "half": 0.5, "nan": float("nan"), "yes": True, "list": [1]}, "rows[2]")

    assert (row.text("text"), row.count("count"), row.number("half")) == ("\\ud800", 3, 0.5)
    for take, value in (
        (row.count, "half"), (row.count, "yes"), (row.number, "nan"), (row.number, "text"), (row.text, "count"),
        (row.text, "gone"), (row.number, "yes"), (row.positives, "count"), (row.scalar, "list"),
    ):  # fmt: skip
        with refused(SourceError, "rows[2]", value):
            take(value)

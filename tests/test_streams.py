"""Closed and full streams, other encodings, and outputs that cannot be written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from factories import Run

from ghost_yolo.cli import common, process
from ghost_yolo.errors import UserError

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


class Full(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        """Fail as a pipe whose reader is gone."""
        raise BrokenPipeError(32, "Broken pipe")


def test_lenient_streams() -> None:
    """What standard error cannot take is lost, and nothing else happens."""
    stream = process.Lenient(Full())
    print("text", file=stream, flush=True)

    assert stream.writable() and not hasattr(stream, "rich_proxied_file")


SHELL = {
    "| true": "the reader of standard output is gone",
    "2>&1 | true": "nobody reads anything",
    "> /dev/full": "the disk is full",
    ">&-": "standard output is closed",
    ">&- 2>&-": "both are closed",
}


@posix
@pytest.mark.parametrize("redirection", SHELL)
def test_streams_that_fail(redirection: str, tmp_path: Path) -> None:
    """A result that standard output cannot take is printed on standard error, in one piece and without a traceback."""
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    line = f"sleep 1; {sys.executable} -m ghost_yolo cfg {redirection}"
    line = line.replace("sleep 1; ", "(sleep 1; ", 1).replace(" cfg", " cfg; echo $? > status)", 1)
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if "2>" not in redirection:
        assert "yolov8-ghost" in done.stderr and "Models take a scale letter" in done.stderr
    assert int((tmp_path / "status").read_text()) == (0 if "&-" in redirection else 1)


@pytest.mark.parametrize(
    "words,encoding",
    [(["--help"], "ascii"), (["bench", "--help"], "cp1252"), (["cfg", "smear\u4e2d"], "cp1252"), (["cfg"], "utf-16")],
)
def test_streams_in_other_encodings(words: list[str], encoding: str, run: Run) -> None:
    """Help, tables and errors can be printed in any encoding."""
    done = run("ghost-yolo", *words, ok="smear\u4e2d" not in words, fresh=True, PYTHONIOENCODING=encoding)

    assert "Traceback" not in done.stderr and "UnicodeEncodeError" not in done.stderr
    assert done.stdout or "smear" in done.stderr


def no_space(*_: object) -> None:
    """Stand for a full disk."""
    raise OSError(28, "No space left on device")


def test_reports_that_cannot_be_written_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report whose file or folder cannot be written is not lost."""
    monkeypatch.setattr("ghost_yolo.utils.files.write_atomic", no_space)
    writers: list[Callable[[], None]] = [
        lambda: common.emit("result\n", tmp_path / "out.txt"),
        lambda: common.finish("result\n", tmp_path / "out", no_space),
    ]
    for write in writers:
        with pytest.raises(OSError, match="No space"):
            write()
        assert capsys.readouterr().out == "result\n"


def test_standard_output_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The result stands on standard error then."""
    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setattr(Full, "fileno", lambda _: 1)
    with pytest.raises(typer.Exit):
        common.show("result\n")

    assert "Broken pipe" in (error := capsys.readouterr().err) and error.endswith("\nresult\n")


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    """A folder below a file is refused before any work."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="may not write"):
        common.new_folder(tmp_path / "file" / "out", "ghosts")


def test_an_error_of_several_lines_is_one_line() -> None:
    """As a YAML parser's that is quoted in ours."""

    def work() -> int:
        raise UserError("my  model.yaml is no YAML:\n  while parsing\n    a scalar")

    with pytest.raises(SystemExit) as end:
        process.run_program("ghost-yolo", work)
    assert end.value.code == "ghost-yolo: my  model.yaml is no YAML: while parsing a scalar"

"""Files and folders are written whole or not at all, and what is not ours stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from factories import Run, refused

from ghost_yolo.errors import UserError
from ghost_yolo.utils.files import atomic_folder, write_atomic


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """An interruption leaves nothing behind, a file as little as a folder."""

    def interrupted() -> None:
        with atomic_folder(tmp_path / "data") as work:
            (work / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "text", "\ud800")

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current one is refused before the work; a link to an empty one stays a link."""
    monkeypatch.chdir(tmp_path)
    with refused(UserError, tmp_path.name, "inside it"), atomic_folder(Path()):
        pass
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with atomic_folder(tmp_path / "link") as work:
        (work / "a.txt").write_text("a")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real/a.txt").read_text() == "a"


def test_replacing_a_file_leaves_no_other_behind(tmp_path: Path) -> None:
    """The new text is there, and nothing else."""
    write_atomic(tmp_path / "a.txt", "one")
    write_atomic(tmp_path / "a.txt", "two")

    assert [p.read_text() for p in tmp_path.iterdir()] == ["two"]


def test_what_stood_there_keeps_its_kind(tmp_path: Path) -> None:
    """A link stays a link and a mode a mode; a device is written to, not replaced."""
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "real.txt").chmod(0o600)
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    write_atomic(tmp_path / "link.txt", "new")
    write_atomic(Path(os.devnull), "nothing")

    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"
    assert (tmp_path / "real.txt").stat().st_mode & 0o777 == 0o600
    assert not Path(os.devnull).is_file()


def test_what_killed_processes_left_is_removed(tmp_path: Path, run: Run) -> None:
    """Temporary files and folders whose process is gone are removed by the next writer; those in use stay."""
    code = """
import os, signal, sys
from pathlib import Path
from ghost_yolo.utils import files
root = Path(sys.argv[1])
with files.atomic_folder(root / "data") as work:
    (work / "half").write_text("x")
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    files.write_atomic(root / "text", "half")
"""
    (tmp_path / "root").mkdir()
    run("python", "-c", code, str(tmp_path / "root"), ok=False)
    left = sorted(path.name for path in (tmp_path / "root").iterdir())
    with atomic_folder(tmp_path / "root/data") as mine:
        (mine / "whole").write_text("x")
        with pytest.raises(RuntimeError), atomic_folder(tmp_path / "root/data"):
            raise RuntimeError
        assert (mine / "whole").exists()
    write_atomic(tmp_path / "root/text", "whole")

    assert len(left) == 2 and all(name.startswith(".") for name in left)
    assert sorted(path.name for path in (tmp_path / "root").rglob("*")) == ["data", "text", "whole"]


def test_two_writers_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer leaves alone what another one has completed and not yet renamed."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    copymode = shutil.copymode

    def and_meanwhile(source: Path, target: Path) -> None:
        monkeypatch.setattr(shutil, "copymode", copymode)
        write_atomic(file, "theirs")
        copymode(source, target)

    monkeypatch.setattr(shutil, "copymode", and_meanwhile)
    write_atomic(file, "mine")

    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_names_that_begin_alike(tmp_path: Path) -> None:
    """Writing `a.txt` leaves the temporary files and folders of `a.txt-old` alone."""
    (tmp_path / ".a.txt-old-0123abcd.tmp").write_text("x")
    (tmp_path / ".a.txt-old-0123abc_.tmp").mkdir()
    (tmp_path / ".a.txt-old-0123abc_.tmp/half").write_text("x")
    write_atomic(tmp_path / "a.txt", "x")
    with atomic_folder(tmp_path / "a") as work:
        (work / "a").write_text("x")

    assert len(list(tmp_path.glob(".a.txt-old-*"))) == 2


def test_hidden_folders_of_the_users_stay(tmp_path: Path) -> None:
    """A hidden file or folder that begins like a temporary one is not ours to remove."""
    (tmp_path / ".data-original").mkdir()
    (tmp_path / ".data-original/precious").write_text("x")
    (tmp_path / ".text-original").write_text("x")
    with atomic_folder(tmp_path / "data") as work:
        (work / "a").write_text("x")
    write_atomic(tmp_path / "text", "x")

    assert (tmp_path / ".data-original/precious").exists() and (tmp_path / ".text-original").exists()

"""Full disks, folders that may not be written to, and two processes at once."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from factories import GHOST, ROOT, TINY
from fresh import SUPPORTED, Zygote
from harness import BCCD, COMMAND, MODULES, SMEAR, Command, names_in, write_voc

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SUPPORTED, reason="limits and forks of Linux")]
NOBODY = 65534
LIMIT = """
import resource, sys
sys.dont_write_bytecode = True  # a module's cut bytecode would end every later import of it
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""
DROP = f"""
if os.getuid() == 0:
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""
TWICE = """
import multiprocessing
context = multiprocessing.get_context("fork")
barrier = context.Barrier(2)
def work():
    barrier.wait()
    {code}
pair = [context.Process(target=work) for _ in range(2)]
for process in pair: process.start()
for process in pair: process.join()
sys.exit(any(process.exitcode for process in pair))
"""
QUICKLY = ("-o", "out.pt", "--reconstruct-steps", 1, "--distill-steps", 1)
WRITERS = ("swap", "compare", "ghosts", "ghostify", "smear", "bccd", "voc")


@pytest.fixture(scope="module")
def loaded() -> Iterator[Zygote]:
    """A process that has loaded everything."""
    process = Zygote(*MODULES)
    yield process
    process.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may read, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def command_of(name: str, zygote: Zygote, folder: Path, best: Path, images: Path) -> Command:
    """Return a command that writes in `folder`/work; its inputs are copied beside it."""
    model, copied = folder / "tiny-yolov8n.yaml", folder / "images"
    model.write_text("# long\n" * 2000 + yaml.safe_dump(TINY))
    several = [shutil.copy(model, folder / f"tiny{number}-yolov8n.yaml") for number in range(12)]
    shutil.copytree(images, copied)
    shutil.copy(best, folder / "best.pt")
    if name in ("smear", "bccd"):
        voc = write_voc(folder / "voc")
        return Command(
            zygote, folder / "work", {"smear": SMEAR, "bccd": BCCD}[name], [], {"GHOST_YOLO_BCCD_DIR": str(voc)}
        )
    arguments = {
        "swap": ["swap", model, "--block", GHOST, "-o", "out.yaml"],
        "compare": ["compare", *several, "--imgsz", 32, "--format", "json", "-o", "out.json"],
        "voc": ["voc", write_voc(folder / "voc") if name == "voc" else "", "-o", "out"],
        "ghosts": ["ghosts", folder / "best.pt", "--image", copied / "0.png", "-o", "out"],
        "ghostify": ["ghostify", folder / "best.pt", "--images", copied, "--block", GHOST, *QUICKLY],
    }[name]
    return Command(zygote, folder / "work", COMMAND, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk(name: str, loaded: Zygote, tmp_path: Path, best: Path, image_folder: Path) -> None:
    """A file that does not fit ends the command with one line, and no result or half of one is left."""
    command = command_of(name, loaded, tmp_path, best, image_folder)
    done = command.run(LIMIT.format(size=8000))
    left = [file for file in names_in(command.folder) if not file.endswith(".part")]

    assert done.returncode != 0
    assert left == [] and names_in(command.temporary) == []
    assert "Traceback" not in done.stderr or name in ("smear", "bccd"), done.stderr  # these are called by the host


def is_open(path: Path) -> bool:
    """Return whether every user may read a folder and go through those above it."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents) and path.stat().st_mode & 0o005 == 0o005


@pytest.mark.skipif(
    os.name != "nt" and os.getuid() == 0 and not all(map(is_open, (Path(sys.prefix), ROOT))),
    reason="root may write everywhere, and the user `nobody` may not read this Python or checkout",
)
@pytest.mark.parametrize("name", WRITERS)
def test_read_only_folder(name: str, loaded: Zygote, open_folder: Path, best: Path, image_folder: Path) -> None:
    """A folder that may not be written to ends the command with one line that names it."""
    command = command_of(name, loaded, open_folder, best, image_folder)
    command.pid_file.touch()
    for path in open_folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o666)
    command.folder.chmod(0o555)
    command.temporary.chmod(0o777)
    done = command.run(DROP)

    assert done.returncode != 0 and names_in(command.folder) == []
    assert "Traceback" not in done.stderr or name in ("smear", "bccd"), done.stderr
    assert "out" in done.stderr or "data" in done.stderr


@pytest.mark.parametrize("code", [SMEAR, BCCD], ids=["smear", "bccd"])
def test_two_at_once(code: str, loaded: Zygote, tmp_path: Path) -> None:
    """Two first trainings prepare one data set at the same moment: both succeed, and one set is left."""
    command = Command(
        loaded,
        tmp_path / "work",
        TWICE.format(code=code),
        [],
        {"GHOST_YOLO_BCCD_DIR": str(write_voc(tmp_path / "voc"))},
    )
    for _ in range(6):
        done = command.run()
        assert done.returncode == 0, done.stderr[-3000:]
        assert names_in(command.folder) == ["data"]
        shutil.rmtree(command.folder / "data")


def test_a_foreign_set_is_refused(loaded: Zygote, tmp_path: Path) -> None:
    """A folder that holds other files is neither accepted nor touched."""
    command = Command(loaded, tmp_path / "work", SMEAR)
    (command.folder / "data").mkdir()
    (command.folder / "data/mine.txt").write_text("precious")
    done = command.run()

    assert done.returncode != 0 and "already holds something" in done.stderr
    assert names_in(command.folder / "data") == ["mine.txt"] and names_in(command.folder) == ["data"]

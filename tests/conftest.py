"""What all tests share: nobody's settings are touched, nothing reaches the network, goldens can be accepted."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_CONFIG = tempfile.TemporaryDirectory()
os.environ |= {"YOLO_CONFIG_DIR": _CONFIG.name, "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
if "GHOST_YOLO_BCCD_DIR" in os.environ:  # a real copy is for the one test that asks for it
    os.environ["GHOST_YOLO_TEST_BCCD"] = os.environ.pop("GHOST_YOLO_BCCD_DIR")
os.environ.pop("GHOST_YOLO_AUTOLOAD", None)
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background job ignores Ctrl-C, and its children with it

import ultralytics  # noqa: E402 (after the environment that it reads)
from little import LITTLE, photographs, settled, stock  # noqa: E402
from ultralytics.utils import SETTINGS  # noqa: E402
from ultralytics.utils.checks import check_version  # noqa: E402

from ghost_yolo import host  # noqa: E402
from ghost_yolo.ghostify.calibration import CalibrationImages  # noqa: E402

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
NEWEST = check_version(ultralytics.__version__, ">=8.4")
newest_only = pytest.mark.skipif(not NEWEST, reason="exact on the newest supported host; the oldest merges in float32")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that rewrites goldens and YAML headers from what is measured now."""
    parser.addoption("--accept", action="store_true", help="rewrite goldens and YAML headers")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name; `pytest --accept` rewrites it."""

    def check(name: str, text: str) -> None:
        file = GOLDEN / name
        if request.config.getoption("--accept"):
            file.write_text(text, encoding="utf-8")
        assert file.read_text(encoding="utf-8") == text, f"{name} differs; `pytest --accept` rewrites it"

    return check


def own_settings(folder: Path) -> Path:
    """Write settings under which the host keeps data sets, runs and weights in this folder, and return their folder."""
    config = folder / "config"
    file = config / SETTINGS.file.relative_to(_CONFIG.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    places = {f"{kind}_dir": str(folder / kind) for kind in ("datasets", "runs", "weights")}
    file.write_text(json.dumps(dict(SETTINGS) | places), encoding="utf-8")
    return config


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in a fresh folder with settings of its own, and return what it printed."""

    def start(
        *words: str | Path, ok: bool = True, cwd: Path = tmp_path, **env: str
    ) -> subprocess.CompletedProcess[str]:
        settings = {"YOLO_CONFIG_DIR": str(own_settings(tmp_path)), "PYTHONWARNINGS": "", **env}
        found = shutil.which(str(words[0]), path=sysconfig.get_path("scripts"))
        program = sys.executable if words[0] == "python" else found or words[0]
        done = subprocess.run(
            [program, *words[1:]], cwd=cwd, env=os.environ | settings, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is ok, f"exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    return start


@pytest.fixture
def python(run: Run) -> Run:
    """Run a piece of Python in a fresh interpreter."""
    return lambda code, **options: run(sys.executable, "-c", code, **options)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight smooth pictures."""
    return photographs(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def calibration_images(photos: Path) -> CalibrationImages:
    """The photos at 64 x 64."""
    return CalibrationImages(sorted(photos.iterdir()), 64)


@pytest.fixture(scope="session")
def teacher(photos: Path) -> Any:
    """A YOLOv8n of three classes."""
    return settled(stock("v8/yolov8"), photos)


@pytest.fixture(scope="session")
def little(photos: Path) -> Any:
    """A detector with two C2f in its backbone and one in its neck."""
    return settled(copy.deepcopy(LITTLE), photos)


@pytest.fixture(scope="session")
def best(little: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint, which says 64 pixels."""
    file = tmp_path_factory.mktemp("best") / "best.pt"
    host.save(little, file, {"imgsz": 64})
    return file

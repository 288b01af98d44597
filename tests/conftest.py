"""What all tests share: nobody's settings are touched, nothing reaches the network, goldens can be accepted."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

_CONFIG = tempfile.TemporaryDirectory()
os.environ |= {"YOLO_CONFIG_DIR": _CONFIG.name, "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
os.environ["TERM"] = "xterm"  # a dumb one is shown no progress, which some tests wait for
for name in ("BCCD", "NEU_DET"):  # a real copy is for the tests that ask for it
    if f"GHOST_YOLO_{name}_DIR" in os.environ:
        os.environ[f"GHOST_YOLO_TEST_{name}"] = os.environ.pop(f"GHOST_YOLO_{name}_DIR")
os.environ.pop("GHOST_YOLO_AUTOLOAD", None)
# A shell's background job ignores Ctrl-C, nohup's the hang-up, and their children with them
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):  # Windows has none
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

from factories import (  # noqa: E402 (after the environment)
    TINY,
    Run,
    annotation,
    calibrated,
    own_settings,
    save_sure,
    stock,
    write_data_yaml,
    write_images,
)
from fresh import SUPPORTED, Zygote  # noqa: E402
from torch import nn  # noqa: E402
from ultralytics.nn.modules.conv import Conv  # noqa: E402

from ghost_yolo import host  # noqa: E402
from ghost_yolo.data import smear  # noqa: E402
from ghost_yolo.ghostify.calibration import CalibrationImages  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER_FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that rewrites goldens and YAML headers from what is measured now, and the sizes of the suites."""
    parser.addoption("--accept", action="store_true", help="rewrite goldens and YAML headers")
    parser.addoption("--kills", type=int, default=20, help="kills of each command in tests/faults")
    parser.addoption("--examples", type=int, default=200, help="a tenth of the generated inputs of tests/fuzz")
    parser.addoption("--seed", type=int, default=0, help="seed of tests/faults and tests/fuzz")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many inputs and kills the suites tried."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    lines = [text for report in reports for name, text in report.user_properties if name == "tried"]
    if lines:
        terminalreporter.section("tried")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name; `pytest --accept` rewrites it."""

    def check(name: str, text: str) -> None:
        file = GOLDEN / name
        if request.config.getoption("--accept"):
            file.write_text(text, encoding="utf-8")
        assert file.read_text(encoding="utf-8") == text, f"{name} differs; `pytest --accept` rewrites it"

    return check


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """The process that tests fork theirs from."""
    process = Zygote()
    yield process
    process.close()


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    """Run a command in a folder and with settings of its own, and return what it printed.

    On Linux a Python program is a fork of the zygote, which saves the loading of torch; `fresh=True` starts a new interpreter, for
    what depends on its start, its options, the order of imports, or variables that are read when torch is loaded.
    """

    def start(
        *arguments: str | Path, ok: bool = True, cwd: Path = tmp_path, fresh: bool = False, **env: str
    ) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"YOLO_CONFIG_DIR": str(own_settings(tmp_path)), "PYTHONWARNINGS": "", **env}
        name, *rest = map(str, arguments)
        script = [] if name in ("python", sys.executable) else [shutil.which(name, path=sysconfig.get_path("scripts"))]
        if fresh or not SUPPORTED:
            command = [*(script or [sys.executable]), *rest]
            done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        else:
            done = request.getfixturevalue("zygote").run([*script, *rest], str(cwd), environment)
        assert (done.returncode == 0) is ok, f"exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    return start


@pytest.fixture
def python(run: Run) -> Run:
    """Run a piece of Python in a process that has imported neither Ultralytics nor this package."""
    return lambda code, **options: run("python", "-c", code, **options)


@pytest.fixture(scope="module")  # its event loop must not outlast the file
def launch() -> Iterator[Callable[..., Any]]:
    """Start the system's Chromium with further flags, headless, driven by Playwright; it reaches no network."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium: install one (apt-get install chromium), or name one in CHROMIUM")
    with playwright.sync_playwright() as driver:
        yield lambda *flags: driver.chromium.launch(executable_path=program, args=[*BROWSER_FLAGS, *flags])


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Any]) -> Iterator[Any]:
    """A browser without a graphics adapter."""
    opened = launch("--disable-gpu")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same weights whichever tests came before; fixtures of a wider scope draw earlier."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def silu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build models with SiLU: before 8.4 the host leaves the `activation:` of a YAML behind for all models after it."""
    monkeypatch.setattr(Conv, "default_act", nn.SiLU())


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight smooth pictures."""
    return write_images(tmp_path_factory.mktemp("image_folder"))


@pytest.fixture
def calibration_images(image_folder: Path) -> CalibrationImages:
    """The images at 64 x 64."""
    return CalibrationImages(sorted(image_folder.iterdir()), 64)


@pytest.fixture(scope="session")
def teacher(image_folder: Path) -> Any:
    """A YOLOv8n of three classes."""
    return calibrated(stock("v8/yolov8"), image_folder)


@pytest.fixture(scope="session")
def tiny_model(image_folder: Path) -> Any:
    """A detector with two C2f in its backbone and one in its neck."""
    return calibrated(copy.deepcopy(TINY), image_folder)


@pytest.fixture(scope="session")
def best(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint, which says 64 pixels."""
    file = tmp_path_factory.mktemp("best") / "best.pt"
    host.save(tiny_model, file, {"imgsz": 64})
    return file


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data YAML of a few generated images with boxes."""
    monkeypatch.setattr(smear, "SPLITS", {"train": 8, "val": 4})
    smear.prepare(tmp_path / "smear")
    return write_data_yaml(tmp_path, names=["Platelets", "RBC", "WBC"], path=str(tmp_path / "smear"))


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


@pytest.fixture(scope="session")
def sure(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that finds boxes."""
    return save_sure(tiny_model, tmp_path_factory.mktemp("sure") / "sure.pt")


@pytest.fixture
def sixteen(image_folder: Path, tmp_path: Path) -> Path:
    """Enough pictures to hold some out."""
    folder = tmp_path / "sixteen"
    folder.mkdir()
    for path in image_folder.iterdir():
        picture = cv2.imread(str(path))
        cv2.imwrite(str(folder / path.name), picture)
        cv2.imwrite(str(folder / f"flipped-{path.name}"), picture[:, ::-1])
    return folder


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the intervals of delivered files be drawn from few resamples, which takes a second less for each file."""
    monkeypatch.setattr("ghost_yolo.ghostify.delivery.RESAMPLES", 20)


@pytest.fixture(scope="session")
def squares(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The eight pictures as squares, so that nothing is found in a letterbox's bars."""
    folder = tmp_path_factory.mktemp("squares")
    for path in image_folder.iterdir():
        cv2.imwrite(str(folder / path.name), cv2.imread(str(path))[:64, :64])
    return sorted(folder.iterdir())

"""What must hold before a change lands: `nox` runs all of it, `nox -s lint` one session, `nox -l` lists them.

`nox -R` reuses environments that are there; what follows `--` goes to pytest: `nox -R -s tests -- -k swap`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["wheel", "tests", "lint", "docs", "slow", "hosts"]

ROOT = Path(__file__).parent
OFFLINE = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
OLDEST = re.search(r'"ultralytics>=([\d.]+),', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
HOSTS = os.environ.get("ULTRALYTICS", OLDEST).split()  # ULTRALYTICS="8.3.215 8.4.0" nox -s hosts
BETWEEN = ("8.3.235", "8.3.253", "8.4.0", "8.4.50", "8.4.120")
MATRIX = (OLDEST, *BETWEEN, "newest", "headless", "pre")
HOST_TESTS = (
    "tests/test_host.py",
    "tests/test_autoload.py",
    "tests/test_bccd.py",
    "tests/test_data.py",
    "tests/test_files.py",
    "tests/test_mixed.py",
    "tests/test_swap.py",
    "tests/test_swapfile.py",
    "tests/test_voc.py",
)
LONG_HOST_TESTS = ("tests/test_reshape.py",)
ROUND_TRIPS = (
    "tests/test_host.py::test_model_round_trip_safely",
    "tests/test_yolo.py::test_train_val_predict_export",
    "tests/test_yolo.py::test_from_python_with_the_host_alone",
    "tests/test_export.py::test_export_proves_itself",
)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the wheel."""
    session.install("build")
    dist = session.cache_dir / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(dist))


@nox.session(requires=["build"])
def wheel(session: nox.Session) -> None:
    """Install the wheel alone and train a model with it, outside the checkout."""
    (file,) = (session.cache_dir / "dist").glob("*.whl")
    session.install(str(file.resolve()))
    session.env.update(OFFLINE)
    with tempfile.TemporaryDirectory() as outside, session.chdir(outside):
        session.run("ghost-yolo", "doctor")
        model, data = (session.run("ghost-yolo", "cfg", name, silent=True) for name in ("yolov8m-ghostv2", "smear"))
        arguments = ("epochs=1", "imgsz=32", "fraction=0.05", "plots=False", "val=False", "device=cpu", "project=runs")
        said = session.run("yolo", "train", f"model={model.strip()}", f"data={data.strip()}", *arguments, silent=True)
    if "ghost_yolo.blocks." not in said:
        session.error(f"no block of ours in the layer table:\n{said}")


@nox.session(default=False)
def install(session: nox.Session) -> None:
    """Make the environment of `tests` and `slow` by the README's command, which must stand there as one line."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r'^pip install -e "(\.\[test\])" && pytest$', readme, re.MULTILINE)
    if len(commands) != 1:
        session.error('README.md must hold the line: pip install -e ".[test]" && pytest')
    session.install("-e", commands[0])
    session.install("-e", ".[experiments]")  # Snakemake, for one slow test


def environment(session: nox.Session) -> Path:
    """Return the folder of the environment of `install`."""
    return session.cache_dir.parent.resolve() / "install"


def pytest(session: nox.Session, *arguments: str, codes: tuple[int, ...] = (0,), **env: str) -> None:
    """Run pytest in the environment of `install`, in two processes."""
    folder = environment(session) / ("Scripts" if sys.platform == "win32" else "bin")
    session.env["PATH"] = os.pathsep.join([str(folder), os.environ["PATH"]])
    command = (str(folder / "pytest"), "-n", "2", *arguments)
    session.run(*command, external=True, env=OFFLINE | env, success_codes=codes)


@nox.session(venv_backend="none", requires=["install"])
def tests(session: nox.Session) -> None:
    """Run the fast tests."""
    pytest(session, "--dist", "loadfile", "--durations=8", *session.posargs)


@nox.session(venv_backend="none", requires=["install"])
def slow(session: nox.Session) -> None:
    """Run the tests that train and export through the real commands; without the longest, see `weekly`, and with few kills and generated inputs, see `faults`."""
    few = ("--kills", "2", "--examples", "20")
    pytest(session, "-m", "slow and not weekly", *few, "--durations=40", *session.posargs)


@nox.session(venv_backend="none", requires=["install"], default=False)
def faults(session: nox.Session) -> None:
    """Run the kills and the generated inputs in full."""
    pytest(session, "-m", "slow", "tests/faults", "tests/fuzz", *session.posargs)


@nox.session(venv_backend="none", requires=["install"], default=False)
def weekly(session: nox.Session) -> None:
    """Run the slow tests that `slow` leaves out."""
    pytest(session, "-m", "weekly", "--durations=40", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, layout, types and the layers of imports."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site; a broken link or reference is an error."""
    session.install("-e", ".[docs]")
    session.run(
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(session.cache_dir.resolve() / "site"),
        env=OFFLINE | {"NO_MKDOCS_2_WARNING": "1"},
    )


def overlay(session: nox.Session, release: str) -> str:
    """Install another release of Ultralytics, without dependencies, into a folder that goes before the environment of `install`."""
    name = "ultralytics-opencv-headless" if release == "headless" else "ultralytics"
    spec = f"{name}=={release}" if release[0].isdigit() else name
    folder = session.cache_dir.resolve() / "overlays" / release
    shutil.rmtree(folder, ignore_errors=True)
    more = ["--prerelease", "allow"] if release == "pre" else []
    session.run("uv", "pip", "install", "-q", "--no-deps", "--target", str(folder), *more, spec, external=True)
    return str(folder)


@nox.session(venv_backend="none", requires=["install"])
@nox.parametrize("ultralytics", HOSTS)
def hosts(session: nox.Session, ultralytics: str) -> None:
    """Run what depends on Ultralytics with another supported version, by default the oldest; without the longest, see `matrix`; of the slow tests the round trips."""
    spec = ("--python", str(environment(session)), "-e", ".[test]", f"ultralytics=={ultralytics}")
    session.run("uv", "pip", "install", "--dry-run", *spec, external=True)
    folder = overlay(session, ultralytics)
    codes = (0, 5) if session.posargs else (0,)  # 5: what was asked for is in the other part
    for part in (HOST_TESTS, ("-m", "slow and not weekly", *ROUND_TRIPS)):
        pytest(session, *part, *session.posargs, codes=codes, PYTHONPATH=folder)


@nox.session(venv_backend="none", requires=["install"], default=False)
def matrix(session: nox.Session) -> None:
    """Run what depends on Ultralytics with other releases.

    `nox -s matrix -- 8.4.50 headless` runs some of them; without arguments all of MATRIX.
    """
    failed = []
    for release in session.posargs or MATRIX:
        folder = overlay(session, release)
        try:
            pytest(session, "-q", "-m", "", *HOST_TESTS, *LONG_HOST_TESTS, *ROUND_TRIPS, PYTHONPATH=folder)
        except nox.command.CommandFailed:
            failed.append(release)
    if failed:
        session.error(f"failed with {', '.join(failed)}")


@nox.session(default=False)
def pythons(session: nox.Session) -> None:
    """Install with the Python that runs nox: import, registration, and a model that is built."""
    session.install("-e", ".")
    session.env.update(OFFLINE)
    session.run("ghost-yolo", "doctor")
    code = "import sys; from ultralytics import YOLO; YOLO(sys.argv[1]).info()"
    model = session.run("ghost-yolo", "cfg", "yolov8n-ghost", silent=True).strip()
    session.run("python", "-c", code, model)

"""Overheads of the plugin: interpreter start, registration, building a model.

    python benchmarks/overheads.py [rounds]

Interleaved rounds, medians with quartiles. This is not a test: times depend on the machine, whose conditions are printed.
"""

from __future__ import annotations

import copy
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
REGISTER = """
import time, ultralytics.nn.tasks
start = time.perf_counter()
import ghost_yolo; ghost_yolo.register()
print(time.perf_counter() - start)
"""


def quartiles(seconds: list[float]) -> str:
    """Return median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"{middle * 1e3:.3f} ms ({low * 1e3:.3f} to {high * 1e3:.3f})"


def interleave(rounds: int, *actions: Callable[[], object]) -> list[list[float]]:
    """Time the actions interleaved and return the seconds of each."""
    times: list[list[float]] = [[] for _ in actions]
    for action in actions:
        action()  # warm-up
    for _ in range(rounds):
        for action, seconds in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - start)
    return times


def interpreter_start(rounds: int) -> str:
    """Time the start of Python in two bare environments, one of them with the hook."""
    with tempfile.TemporaryDirectory() as folder:
        pythons = []
        for name in ("bare", "hooked"):
            venv.create(Path(folder) / name, symlinks=os.name != "nt")
            pythons.append(next((Path(folder) / name).glob("[bS]*/python*")))
        site = subprocess.run(
            [pythons[1], "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        shutil.copytree(ROOT / "ghost_yolo", Path(site) / "ghost_yolo", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "ghost_yolo_hook.pth", site)
        bare, hooked = interleave(rounds, *(lambda p=p: subprocess.run([p, "-c", ""], check=True) for p in pythons))
    gain = [b - a for a, b in zip(bare, hooked, strict=True)]
    return f"interpreter start: bare {quartiles(bare)}, with the hook {quartiles(hooked)}, difference {quartiles(gain)}"


def registering(rounds: int) -> str:
    """Time registration in fresh processes that have already imported the host."""
    with tempfile.TemporaryDirectory() as folder:  # an installed package is compiled; one that must not write is not
        env = os.environ | {"GHOST_YOLO_AUTOLOAD": "0", "PYTHONPYCACHEPREFIX": folder}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", REGISTER]
        seconds = [
            float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()[-1])
            for _ in range(1 + rounds)
        ]
    return f"registering, imports of the compiled blocks included: {quartiles(seconds[1:])}; compiling: {seconds[0] * 1e3:.1f} ms"


def building(rounds: int) -> str:
    """Construct the blocks of a model through their registered names and, with the same arguments, directly."""
    from ultralytics.nn import tasks

    from ghost_yolo import BLOCKS
    from ghost_yolo.model.catalog import path_of

    model = "yolov8s-ghostv2"
    config = tasks.yaml_model_load(str(path_of(model))) | {"scale": "s"}
    real = {block.qualified: block.cls for block in BLOCKS}
    stand_ins = {name: vars(tasks)[name] for name in real}
    rows = [
        (row[2], (layer.cv1.conv.in_channels, layer.cv2.conv.out_channels, len(layer.m), True))
        for row, layer in zip(
            config["backbone"], tasks.parse_model(copy.deepcopy(config), 3, verbose=False)[0], strict=False
        )
        if row[2] in real
    ]

    def through_names() -> None:
        for name, args in rows:
            stand_ins[name](*args)

    def directly() -> None:
        for name, args in rows:
            real[name](*args)

    ours, same = interleave(rounds, through_names, directly)
    ratio = statistics.median(a / b for a, b in zip(ours, same, strict=True))
    return f"the {len(rows)} blocks of this package in {model}: {ratio:.3f} times constructing the same classes directly ({quartiles(same)})"


def main() -> None:
    """Print the three measurements and their conditions."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    import torch
    import ultralytics

    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, torch {torch.__version__}, "
        f"ultralytics {ultralytics.__version__}, {rounds} rounds, load {os.getloadavg()[0] if hasattr(os, 'getloadavg') else 'unknown'}"
    )
    print(interpreter_start(rounds))
    print(registering(max(rounds // 10, 4)))
    print(building(rounds))


if __name__ == "__main__":
    main()

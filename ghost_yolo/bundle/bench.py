"""Time the models of this folder on this machine, photograph to boxes, without torch or Ultralytics: writes times.json.

    python bench.py                        all models whose runtime is installed
    python bench.py --threads 4 --rounds 50 --photo street.jpg

The models take turns in a new random order each round, so that a change in the machine's speed meets all of them; every turn
starts with one untimed pass. Reading and decoding the photograph is not timed. Temperature and clock rate are read where the
system tells them: a board that grows hot slows down, and its first times are not those of an hour later.
Copied with the folder to another machine, it measures that one: `ghost-yolo report --bench times.json` reads the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import run  # beside this file

PARTS = ("letterbox", "network", "nms")
FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
THROTTLED = 0.9  # of the clock rate or speed at the start: less is reported
SERIES = 8  # rounds from which on a model that became slower can be told from noise
UNKNOWN = ("nc", "ratio", "ratio_low", "ratio_high", "gflops", "realised_gain", "peak_memory_mb")  # in a row


class Timed:
    """A model that takes part: its name, its runtime and precision, and what was measured."""

    def __init__(self, folder: Path, name: str, precision: str, threads: int, hint: str = "f32") -> None:
        """Load the model."""
        self.name, self.precision = name, precision
        self.runtime = run.runtime_of(name)
        self.hint = hint if self.runtime == "openvino" else None  # the others have none
        self.detector = run.Detector(folder, name, threads, hint)
        self.rounds: dict[str, list[float]] = {part: [] for part in PARTS}

    def turn(self, photo: Any, passes: int) -> None:
        """Add the medians of some passes, after one that is not counted."""
        self.detector(photo)
        taken = []
        for _ in range(passes):
            self.detector(photo)
            taken.append(self.detector.times)
        for part in PARTS:
            self.rounds[part].append(float(np.median([times[part] for times in taken])))

    def row(self, threads: int) -> dict[str, Any]:
        """Return what `ghost-yolo bench` writes of a model, and the parts around the network."""
        times, known = self.rounds["network"], self.detector.known
        low, middle, high = np.percentile(times, (25, 50, 75)).tolist()
        files = [self.detector.file] if self.detector.file.is_file() else list(self.detector.file.iterdir())
        figures = {
            "median_ms": middle,
            "q25": low,
            "q75": high,
            "rounds": len(times),
            "times": times,
            "parts": self.rounds,
        }
        parts = {f"{part}_ms": float(np.median(self.rounds[part])) for part in PARTS}
        total = np.sum([self.rounds[part] for part in PARTS], 0)
        size = {"imgsz": max(known.size), "batch": 1, "file_mb": sum(file.stat().st_size for file in files) / 1024**2}
        kind = {"model": self.name, "scale": "", "runtime": self.runtime, "precision": self.precision, "device": "cpu"}
        kind |= {"hint": self.hint}
        own = (
            kind
            | size
            | figures
            | parts
            | {"end_to_end_ms": float(np.median(total)), "threads": threads, "error": None}
        )
        return dict.fromkeys(UNKNOWN) | own | {"nc": len(known.names)}


def load_all(folder: Path, threads: int) -> tuple[list[Timed], list[str]]:
    """Return the models that can be run, and for each other one why it cannot."""
    models, failed = [], []
    for name in run.read_description(folder).files:
        precision, runtime = "int8" if "_int8" in name else "fp32", run.runtime_of(name)
        hints = [(precision, "f32")] + (
            [("default", "default")] if (runtime, precision) == ("openvino", "fp32") else []
        )
        for label, hint in hints:  # OpenVINO's own choice is bfloat16 where the CPU has it
            try:
                models.append(Timed(folder, name, label, threads, hint))
            except run.RunError as error:
                failed.append(f"{name}: {error}")
    if not models:
        raise run.RunError("; ".join(failed))
    return models, list(dict.fromkeys(failed))


def sensors(root: Path = Path("/sys")) -> dict[str, float]:
    """Return the highest temperature in degrees Celsius and the mean clock rate in MHz, as far as the system tells them."""
    found = {}
    for name, pattern, unit, choose in (
        ("celsius", "class/thermal/thermal_zone*/temp", 1e3, max),
        ("mhz", "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq", 1e3, lambda values: sum(values) / len(values)),
        ("throttled", "devices/platform/soc/soc:firmware/get_throttled", 1, max),  # of a Raspberry Pi
    ):
        values = []
        for file in root.glob(pattern):
            try:
                text = file.read_text(encoding="ascii").strip()
                values.append((int(text, 16) if name == "throttled" else float(text)) / unit)
            except (OSError, ValueError):  # a sensor that is asleep, or another format
                continue
        if values:
            found[name] = round(choose(values), 1)
    return found


def slowed(readings: Sequence[dict[str, float]], models: Sequence[Timed]) -> list[str]:
    """Return the signs that the machine slowed down while it was measured."""
    signs, quarter = [], max(len(readings) // 4, 1)
    clock = [reading["mhz"] for reading in readings if "mhz" in reading]
    if clock and np.median(clock[-quarter:]) < THROTTLED * np.median(clock[:quarter]):
        signs.append(
            f"the clock rate fell from {np.median(clock[:quarter]):.0f} to {np.median(clock[-quarter:]):.0f} MHz"
        )
    if any(reading.get("throttled") for reading in readings):
        signs.append("the firmware reports low voltage or throttling")
    for model in models:
        times = model.rounds["network"]
        if len(times) >= SERIES and np.median(times[:quarter]) < THROTTLED * np.median(times[-quarter:]):
            first, last = np.median(times[:quarter]), np.median(times[-quarter:])
            signs.append(f"{model.name} went from {first:.1f} to {last:.1f} ms")
    return signs


def conditions(threads: int) -> dict[str, Any]:
    """Return the machine's properties on which times depend."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = (known.get("flags") or known.get("Features") or "").split()
    cpu = known.get("model name") or known.get("Model") or platform.processor() or platform.machine()
    load = {"load_before": round(os.getloadavg()[0], 1)} if hasattr(os, "getloadavg") else {}
    sets = " ".join(flag for flag in FLAGS if flag in flags) or platform.machine()
    machine = {"cpu": cpu, "instruction_sets": sets, "logical_cpus": os.cpu_count() or 0, "threads": threads}
    return {**machine, "system": platform.platform(), **load, "device": "cpu", "batch": 1}


def versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    installed = [module for _, module in run.RUNTIMES.values() if find_spec(module)]
    found = {name: version(name) for name in installed}
    return {"python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__, **found}


def version(module: str) -> str:
    """Return the version of a module whose distribution bears its name."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:  # such as onnxruntime of onnxruntime-gpu
        return "unknown"


def measure(folder: Path, threads: int, rounds: int, passes: int, photo: Any) -> tuple[dict[str, Any], list[str]]:
    """Time all models of a folder.

    Returns:
        What times.json holds, and what to warn of.
    """
    where, order, readings = conditions(threads), random.Random(0), [sensors()]
    models, failed = load_all(folder, threads)
    for number in range(rounds):
        for model in order.sample(models, len(models)):
            model.turn(photo, passes)
        readings.append(sensors())
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    signs = slowed(readings, models)
    ends = {
        f"{name}_{end}": reading[name]
        for end, reading in (("before", readings[0]), ("after", readings[-1]))
        for name in reading
    }
    height, width = models[0].detector.known.size
    size = {"input": f"{height} x {width}", "photograph": f"{photo.shape[0]} x {photo.shape[1]}"}
    looked = rounds >= SERIES or any("mhz" in reading for reading in readings)
    silent = "no sign of it" if looked else f"not known: no clock rate is told, and fewer than {SERIES} rounds"
    where |= {"rounds": rounds, "passes": passes, **size, **ends, "slowed_down": "; ".join(signs) or silent}
    rows = [model.row(threads) for model in models]
    return {"rows": rows, "conditions": where, "versions": versions(), "failed": failed}, failed + signs


def read_photo(path: str | None) -> Any:
    """Return a photograph (h, w, 3); noise where none is given."""
    if not path:
        return np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    image = next(run.read_pictures(path, 3)).image
    if image is None:
        raise run.RunError(f"--photo {path} cannot be read")
    return image


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table."""
    print(
        f"{'model':32} {'precision':9} {'letterbox':>9} {'network':>9} {'NMS':>9} {'in all':>9}   milliseconds, medians"
    )
    for row in rows:
        numbers = " ".join(f"{row[f'{part}_ms']:9.2f}" for part in (*PARTS, "end_to_end"))
        print(f"{row['model']:32} {row['precision']:9} {numbers}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status; errors are one line."""
    run.prepare_streams()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for all CPUs that this process may use")
    parser.add_argument("--rounds", type=int, default=20, help="rounds; every model is timed once in each")
    parser.add_argument("--passes", type=int, default=5, help="passes of each model in a round")
    parser.add_argument("--photo", help="a photograph, for the time of NMS; noise of 480 x 640 if none is given")
    parser.add_argument("-o", "--out", type=Path, default=Path("times.json"), help="file to write")
    options = parser.parse_args(arguments)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        photo = read_photo(options.photo)
        if min(options.rounds, options.passes) < 1 or not 0 <= options.threads <= run.MAX_THREADS:
            parser.error(f"--rounds and --passes must be 1 or more, --threads between 0 and {run.MAX_THREADS}")
        folder = Path(__file__).resolve().parent
        result, warnings = measure(folder, options.threads or usable, options.rounds, options.passes, photo)
        unfinished = options.out.with_name(f"{options.out.name}.part")
        unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(options.out)
    except (run.RunError, OSError) as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    show(result["rows"])
    print("".join(f"bench.py: warning: {line}\n" for line in warnings), end="", file=sys.stderr)
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What was tried on the way to `cfg/yolov8-ghostfast.yaml`: one change after the other, timed against stock YOLOv8s.

    python benchmarks/ghostfast.py [words of `ghost-yolo bench`, as --runtimes onnx --format json -o FILE.json]
    python benchmarks/ghostfast.py --show FILE.json FILE.json   # the kept files as one Markdown table

Writes the candidates as YAMLs into a temporary folder and hands them to `ghost-yolo bench`. Not a test: times depend on the
machine. Needs the extras `export` and `openvino`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml
from ultralytics.utils import ROOT

from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.cli import main
from ghost_yolo.model.catalog import path_of
from ghost_yolo.model.swap import Config, plan_swap, swap_rows

RELU, HARDSWISH, SILU = "torch.nn.ReLU()", "torch.nn.Hardswish()", None


def load(file: Path) -> Config:
    """Return the content of a model YAML."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))


STOCK = load(ROOT / "cfg" / "models" / "v8" / "yolov8.yaml")


def packaged(family: str) -> Config:
    """Return a packaged family at scale s."""
    config = load(path_of(f"yolov8s-{family}").with_name(f"yolov8-{family}.yaml"))
    return config | {"scales": {"s": config["scales"]["s"]}}


FAST = packaged("ghostfast")


def stock(activation: str | None = SILU, width: float = 0.5) -> Config:
    """Return stock YOLOv8s, with another activation or width."""
    return STOCK | {"activation": activation, "scales": {"s": [0.33, width, 1024]}}


def light(block: str, where: str = "all", head: str | None = None, activation: str | None = SILU) -> Config:
    """Return YOLOv8s with a block in all C2f of a part, and a head."""
    config = swap_rows(stock(activation), plan_swap(STOCK, where, block))
    last = config["head"][-1]
    return config | {"head": [*config["head"][:-1], [*last[:2], head or last[2], last[3]]]}


def fast(activation: str | None = RELU, head: str = "ghost_yolo.NarrowDetect", e: float = 0.25) -> Config:
    """Return ghostfast with another activation, head or width of its parts."""

    def row(old: list) -> list:
        if old[2] != "ghost_yolo.NarrowELAN":
            return old
        c2, shortcut = [*old[3], False][:2]
        return [*old[:3], [c2, shortcut, 1, e]]

    body = [row(old) for old in FAST["head"][:-1]]
    last = [*FAST["head"][-1][:2], head, FAST["head"][-1][3]]
    return FAST | {
        "activation": activation,
        "backbone": [row(old) for old in FAST["backbone"]],
        "head": [*body, last],
    }


TITLES = {name: runtime.title for name, runtime in RUNTIMES.items()}
HOSTS = ("yolov8s.yaml", "yolov8n.yaml", "yolov8s-ghost.yaml")  # a bare name is the host's own
NARROW = "ghost_yolo.NarrowDetect"
CANDIDATES: dict[str, Callable[[], Config]] = {
    "stock-relu": lambda: stock(RELU),
    "stock-hardswish": lambda: stock(HARDSWISH),
    "ghost-backbone": lambda: light("C2f_GhostBottleneck", "backbone"),
    "ghost-all": lambda: light("C2f_GhostBottleneck"),
    "ghost-all-relu": lambda: light("C2f_GhostBottleneck", activation=RELU),
    "partial-all": lambda: light("C2f_PartialConv"),
    "partial-all-narrowhead-relu": lambda: light("C2f_PartialConv", head=NARROW, activation=RELU),
    "elan-stockhead-relu": lambda: fast(head="Detect"),
    "elan-dwhead-relu": lambda: fast(head="ghost_yolo.LightDetect"),
    "elan-narrowhead-silu": lambda: fast(SILU),
    "elan-wide-narrowhead-relu": lambda: fast(e=0.375),
    "ghostfast": fast,
    "narrow": lambda: packaged("narrow"),
    "width25-relu": lambda: stock(RELU, 0.25),
    "width28-relu": lambda: stock(RELU, 0.28125),
    "width31-relu": lambda: stock(RELU, 0.3125),
    "width31-silu": lambda: stock(SILU, 0.3125),
}


def run(words: list[str]) -> None:
    """Write the candidates and time them between the host's models; a relative -o is in the folder one stands in."""
    here = Path.cwd()
    words = [
        str(here / word) if before in {"-o", "--out"} else word
        for before, word in zip(["", *words], words, strict=False)
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the report names the files as they are given
        for name, make in CANDIDATES.items():
            config = {key: value for key, value in make().items() if value is not None}
            Path(f"yolov8s-{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        sys.argv = [
            "ghost-yolo",
            "bench",
            HOSTS[0],
            *(f"yolov8s-{name}.yaml" for name in CANDIDATES),
            *HOSTS[1:],
            *words,
        ]
        try:
            main()
        finally:
            os.chdir(here)


def show(files: list[str]) -> str:
    """Return time as a share of stock's with its 95 % interval, a column a runtime and precision, as Markdown."""
    rows = [row for file in files for row in json.loads(Path(file).read_text(encoding="utf-8"))["rows"]]
    columns = list(dict.fromkeys((row["runtime"], row["precision"]) for row in rows))
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for row in rows:
        bare = row["model"].removesuffix(".yaml")
        name = f"{bare if row['model'] in HOSTS else bare.removeprefix('yolov8s-')} | {row['gflops']:.2f}"
        said = f"{row['ratio']:.3f} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f})"
        cells.setdefault(name, {})[row["runtime"], row["precision"]] = said
    header = "| model | GFLOPs | " + " | ".join(f"{TITLES[runtime]} {precision}" for runtime, precision in columns)
    lines = [f"| {name} | " + " | ".join(found[column] for column in columns) for name, found in cells.items()]
    return " |\n".join([header, "| ---" + " | ---:" * (1 + len(columns)), *lines]) + " |\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--show"]:
        print(show(sys.argv[2:]), end="")
    else:
        run(sys.argv[1:])

"""Write the tables and figures of docs/results/redundancy.md from what its commands wrote.

    python docs/scripts/redundancy.py            # tables and scatter plots, from results/redundancy/
    python docs/scripts/redundancy.py runs/      # first replace the kept results by those of the commands

A model is a folder: runs/<model>/ghosts/, light-isolated.json and light-sequential.json. Exactly one must also have pairs/; its figures are kept.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ghost_yolo.redundancy import plots
from ghost_yolo.redundancy.correlate import (
    CorrelationSettings,
    Stage,
    StageCorrelation,
    correlate_stages,
    correlation_settings,
    join_stages,
)
from ghost_yolo.redundancy.measurements import read_measurements
from ghost_yolo.redundancy.report import correlation_report, format_error, format_share, similarity_cells
from ghost_yolo.tables import to_markdown
from ghost_yolo.utils.files import write_atomic

PAGES = Path(__file__).parents[1] / "results"
KEPT = Path(__file__).parents[2] / "results" / "redundancy"
FIGURES = {
    "ghosts/layer02-maps.png": "maps",
    "ghosts/layer02-pairs.png": "kernels",
    "ghosts/redundancy.png": "depth",
    "pairs/pairs.png": "filters",
}
WIDTHS = (960, 880, 800, 720, 640)  # pixels
MAX_BYTES = 300_000


def take_over(runs: Path) -> None:
    """Replace the kept JSON files by those of all models, and the figures by those of the model with pairs/.

    Raises:
        SystemExit: If a file is missing; nothing is replaced then.
    """
    models = sorted(path for path in runs.glob("*/") if (path / "ghosts").is_dir())
    plotted = [folder for folder in models if (folder / "pairs").is_dir()]
    if len(plotted) != 1:
        names = ", ".join(folder.name for folder in plotted) or "none"
        sys.exit(f"{runs} holds {len(models)} folder(s) with ghosts/; exactly one must have pairs/ too: {names} has")
    wanted = {plotted[0] / "pairs" / "pairs.json": f"{plotted[0].name}-pairs.json"}
    for folder in models:
        wanted[folder / "ghosts" / "ghosts.json"] = f"{folder.name}-ghosts.json"
        wanted |= {folder / f"light-{kind}.json": f"{folder.name}-{kind}.json" for kind in ("isolated", "sequential")}
    figures = {plotted[0] / file: PAGES / "redundancy" / f"{name}.png" for file, name in FIGURES.items()}
    missing = [str(file) for file in (*wanted, *figures) if not file.is_file()]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}")
    replace(KEPT, {name: file.read_bytes() for file, name in wanted.items()})
    for file, figure_file in figures.items():
        shrink(file, figure_file)


def replace(folder: Path, contents: dict[str, bytes]) -> None:
    """Write the files of a folder and remove all others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomic(folder / name, content)
    for file in folder.iterdir():
        if file.name not in contents:
            file.unlink()


def shrink(source: Path, target: Path) -> None:
    """Write a figure as narrow as it must be for its size; a palette would make greys and pale colours into others."""
    target.parent.mkdir(exist_ok=True)
    with Image.open(source) as image:
        figure = image.convert("RGB")
    for width in WIDTHS:
        small, buffer = figure, BytesIO()
        if figure.width > width:
            small = figure.resize((width, round(figure.height * width / figure.width)), Image.Resampling.LANCZOS)
        small.save(buffer, "png", optimize=True)
        if len(buffer.getvalue()) < MAX_BYTES:
            break
    write_atomic(target, buffer.getvalue())


def kept(kind: str) -> dict[str, Any]:
    """Return the content of the kept files of a kind by model."""
    files = sorted(KEPT.glob(f"*-{kind}.json"))
    return {file.name.removesuffix(f"-{kind}.json"): json.loads(file.read_text(encoding="utf-8")) for file in files}


def measured_files() -> list[Path]:
    """Return the kept files of ghosts and ghostify."""
    return sorted(file for file in KEPT.glob("*.json") if "-pairs" not in file.name)


def correlated() -> tuple[list[Stage], list[StageCorrelation], CorrelationSettings]:
    """Return the stages of all models, their rank correlations, and the settings."""
    measurements = read_measurements(measured_files())
    stages = join_stages(measurements)
    settings = correlation_settings(measurements, stages)
    return stages, correlate_stages(stages, settings), settings


def tables(
    stages: Sequence[Stage], correlations: Sequence[StageCorrelation], settings: CorrelationSettings
) -> dict[str, str]:
    """Return the page's tables by their marks."""
    ((main, filters),) = kept("pairs").items()
    report = correlation_report(stages, correlations, settings)
    return {
        "layers": to_markdown(*layers(kept("ghosts")[main]["rows"])),
        "filters": to_markdown(*similarities(filters["rows"])),
        "stages": to_markdown(*report.tables[0]),
        "correlations": to_markdown(*report.tables[1]),
    }


def layers(rows: Iterable[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the table of one model's layers."""
    header = ["layer", "maps", "3 x 3: share", "removable", "median error", "untrained: share", "median error"]
    header += ["shuffled: share", "median error"]
    lines = []
    for row in rows:
        line = [f"{row['index']} {row['module']}", str(row["channels"])]
        for name in ("trained", "untrained", "shuffled"):
            figures = row[name]
            line += [format_share(figures[key]) for key in ("share_d3", "removable")[: 2 if name == "trained" else 1]]
            line.append(format_error(figures["median_d3"]))
        lines.append(line)
    return header, lines


def similarities(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the table of the convolutions that are layers by themselves, and of those furthest below chance."""
    header = ["convolution", "filters", "mean", "random", "std", "min", "random"]
    layers = [row for row in rows if row["convolution"].count(".") == 2]
    lines = []
    for row in (*layers, *furthest(rows)):
        name = row["convolution"].removeprefix("model.").removesuffix(".conv")
        lines.append([f"{name} ({row['shape']})", str(row["filters"]), *similarity_cells(row)])
    return header, lines


def gap(row: dict[str, Any]) -> float:
    """Return how much more opposite a convolution's filters are than random ones, in the mean."""
    return float(row["random"]["mean"] - row["cosine"]["mean"])


def furthest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the three convolutions with the largest gap, of those with enough filters to tell."""
    return sorted((row for row in rows if row["filters"] >= plots.MIN_FILTERS), key=gap, reverse=True)[:3]


def page(text: str) -> str:
    """Return the page with its tables as they are now."""
    for mark, table in tables(*correlated()).items():
        text = re.sub(rf"(?s)<!-- {mark} -->.*<!-- /{mark} -->", f"<!-- {mark} -->\n{table}<!-- /{mark} -->", text)
    return text


def main() -> None:
    """Write figures and tables."""
    if sys.argv[1:]:
        take_over(Path(sys.argv[1]))
    stages, correlations, _ = correlated()
    figure_file = PAGES / "redundancy" / "correlation.png"
    plots.save(plots.correlation_figure(stages, correlations), figure_file)
    shrink(figure_file, figure_file)
    file = PAGES / "redundancy.md"
    file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

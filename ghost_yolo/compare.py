"""Which models are compared, and how each stands to its baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ultralytics.utils import ROOT

from ghost_yolo.errors import ModelNameError, UserError
from ghost_yolo.model.catalog import SCALES, families, path_of, with_scale
from ghost_yolo.model.checkpoint import OpenedModel, build_from_yaml, open_checkpoint
from ghost_yolo.model.profile import CONVENTIONS, ProfileRow, profile_model, profile_state
from ghost_yolo.tables import Report, format_percent, render_report
from ghost_yolo.utils.console import progress

TASK_SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
FIGURES = ("layers", "leaf_layers", "parameters", "gflops", "checkpoint_kb")
HOST = ROOT / "cfg" / "models" / "v8"
KB_TOLERANCE = 0.02
PUBLISHED_FIGURES = ("layers", "parameters", "gflops", "checkpoint_kb")
FOOTER = (
    "Changes are against the stock model of the same task, scale, class count and state. "
    "The bare name yolov8s-ghost.yaml is Ultralytics' own model; cfg/... are the ones of this package."
)


@dataclass(frozen=True)
class Published:
    """One row of the widely copied table: what it printed, and what rebuilds it."""

    name: str
    yaml: str
    layers: int
    parameters: int
    gflops: float
    checkpoint_kb: int


PUBLISHED = (
    Published("YOLOv8s", "yolov8s", 168, 11125971, 28.4, 21991),
    Published("YOLOv8_C2f_GhostBottleneckV2s", "yolov8n-c2f-ghostbottleneckv2", 279, 2553539, 6.8, 5250),
    Published("YOLOv8_C2f_GhostBottlenecks", "yolov8n-c2f-ghostbottleneck", 267, 2553539, 6.8, 5248),
    Published("YOLOv8_C2f_g_ghostBottlenecks", "yolov8n-c2f-g-ghostbottleneck", 195, 2581091, 6.9, 5283),
)


@dataclass(frozen=True)
class ComparedRow:
    """A measured row and what it is held against.

    Attributes:
        row: The measured numbers.
        baseline: Name of the stock model of the same task, scale, classes and state; "" where there is none.
        change: Change of each figure against the baseline in percent.
        published: The published row, in the published comparison.
    """

    row: ProfileRow
    baseline: str = ""
    change: dict[str, float] | None = None
    published: Published | None = None

    @property
    def match(self) -> dict[str, bool]:
        """Whether each figure is the published one: exact as printed, kb within 2 %."""
        if self.published is None:
            return {}
        return {
            "layers": self.row.layers == self.published.layers,
            "parameters": self.row.parameters == self.published.parameters,
            "gflops": round(self.row.gflops, 1) == self.published.gflops,
            "checkpoint_kb": abs(self.kb_deviation) <= KB_TOLERANCE,
        }

    @property
    def kb_deviation(self) -> float:
        """Relative deviation of the checkpoint's size from the published one."""
        return self.row.checkpoint_kb / self.published.checkpoint_kb - 1 if self.published else 0.0


@dataclass(frozen=True)
class Comparison:
    """Measured rows and what a reader must know beside them."""

    entries: list[ComparedRow]
    footer: str


def compare_published() -> Comparison:
    """Rebuild the four published rows: one class, the host's own convolutions fused."""
    entries = []
    for published in progress(PUBLISHED, "Measuring"):
        path = HOST / "yolov8s.yaml" if published.yaml == "yolov8s" else path_of(published.yaml)
        subject = build_from_yaml(str(path), nc=1, label=published.name)
        (row,) = profile_model(subject, 640, states=(True,))
        entries.append(ComparedRow(replace(row, fused="host"), published=published))
    (truth,) = profile_model(build_from_yaml(str(path_of("yolov8s-c2f-ghostbottleneck")), nc=1), 640, states=(True,))
    return Comparison(entries, _published_footer(entries, _against(truth, entries[0].row)))


def _published_footer(entries: list[ComparedRow], truth: ComparedRow) -> str:
    """Say in three sentences what the table compares and what the same scale gives."""
    light, stock = entries[2].row, entries[0].row
    shown = [(getattr(light, figure) / getattr(stock, figure) - 1) * 100 for figure in ("parameters", "gflops")]
    assert truth.change is not None
    return (
        "The published table sets light models of scale n (their names carry no scale letter, so Ultralytics fell back "
        "to n) beside a YOLOv8 of scale s. "
        "Its V2 attention was never on, its g_ghost row holds no G-Ghost stage, and the convolutions of its shells stay "
        "unfused. "
        f"At the same scale s and class count the swap of its Ghost row gives {truth.row.parameters} parameters and "
        f"{truth.row.gflops:.1f} GFLOPs, {truth.change['parameters']:.0f} % and {truth.change['gflops']:.0f} % against "
        f"YOLOv8s, not {shown[0]:.0f} % and {shown[1]:.0f} %."
    )


def compare(models: Sequence[str] = (), scale: str = "s", nc: int = 80, imgsz: int = 640) -> Comparison:
    """Measure models beside the stock ones of the same scale and class count.

    Args:
        models: YAMLs or checkpoints of the user's; without any, the host's own Ghost model and all of ours.
        scale: Scale letter of the default models.
        nc: Classes of the YAMLs; a checkpoint keeps its own.
        imgsz: Image side in pixels.

    Raises:
        UserError: If an argument cannot be, or a model cannot be found, loaded or built.
    """
    if scale not in SCALES:
        raise UserError(f"scale={scale!r}: give one of {', '.join(SCALES)}")
    if nc < 1 or imgsz < 32 or imgsz % 32:
        raise UserError(f"nc={nc}, imgsz={imgsz}: give at least one class and a side that is a multiple of 32")
    entries: list[ComparedRow] = []
    baselines: dict[tuple[str, str, int], list[ProfileRow]] = {}
    for make in progress(_subjects(models, scale, nc), "Measuring"):
        subject = make()
        rows = profile_model(subject, imgsz)
        if subject.scale not in SCALES:  # there is no stock YOLOv8 to hold it against
            entries += map(ComparedRow, rows)
            continue
        key = (subject.task, subject.scale, subject.nc)
        if key not in baselines:
            baselines[key] = profile_model(_stock(*key), imgsz)
            entries += [ComparedRow(row, row.model, dict.fromkeys(FIGURES, 0.0)) for row in baselines[key]]
        entries += [_against(row, _in_state(baselines[key], row.fused)) for row in rows]
    return Comparison(entries, FOOTER)


def compare_deployed(scale: str, nc: int = 80, imgsz: int = 640) -> list[ComparedRow]:
    """Count, at one scale, the stock model, the host's own Ghost model and all of ours, fused; nothing is weighed."""
    makers: list[Callable[[], OpenedModel]] = [partial(_stock, "detect", scale, nc), *_subjects((), scale, nc)]
    base, *rows = (profile_state(make(), imgsz) for make in progress(makers, f"Counting scale {scale}"))
    return [_against(row, base) for row in (base, *rows)]


def _stock(task: str, scale: str, nc: int) -> OpenedModel:
    """Build the stock YOLOv8 of a task, whatever file of that name lies in the current folder."""
    name = f"yolov8{scale}{TASK_SUFFIX[task]}.yaml"
    return build_from_yaml(str(HOST / name), nc, name)


def _in_state(rows: Sequence[ProfileRow], fused: str) -> ProfileRow:
    """Return the unfused row for an unfused one, the fused row for any other."""
    return next(row for row in rows if (row.fused == "none") == (fused == "none"))


def _subjects(models: Sequence[str], scale: str, nc: int) -> list[Callable[[], OpenedModel]]:
    """Return what makes each subject, one at a time so that only one is in memory."""
    if models:
        return [partial(_named, name, nc) for name in models]
    ours = [with_scale(name, scale) for name in families()]
    hosts = f"yolov8{scale}-ghost.yaml"
    return [
        partial(build_from_yaml, str(HOST / hosts), nc, hosts),
        *(partial(build_from_yaml, str(path_of(name)), nc, f"cfg/{name}.yaml") for name in ours),
    ]


def _named(name: str, nc: int) -> OpenedModel:
    """Build or load what the user named."""
    if name.endswith(".pt"):
        return open_checkpoint(Path(name))
    if name.endswith((".yaml", ".yml")):
        return build_from_yaml(name, nc)
    raise ModelNameError(f"{name!r} is neither a model YAML (.yaml) nor a checkpoint (.pt)")


def _against(row: ProfileRow, base: ProfileRow) -> ComparedRow:
    """Return the row with its change against the stock model in the same state."""
    change = {figure: (getattr(row, figure) / getattr(base, figure) - 1) * 100 for figure in FIGURES}
    return ComparedRow(row, base.model, change)


def render_comparison(result: Comparison, versions: dict[str, str], style: str) -> str:
    """Return the comparison in one of FORMATS, ending in a newline."""
    rows = [to_dict(entry) for entry in result.entries]
    return render_report(Report(rows, [cells(result.entries)], CONVENTIONS, [result.footer]), versions, style)


def to_dict(entry: ComparedRow) -> dict[str, Any]:
    """Return one row as JSON has it."""
    result: dict[str, Any] = asdict(entry.row)
    if entry.published is not None:
        result["published"] = {figure: getattr(entry.published, figure) for figure in PUBLISHED_FIGURES}
        result["match"] = entry.match
        result["kb_deviation_percent"] = entry.kb_deviation * 100
    if entry.change is not None:
        result["baseline"] = entry.baseline
        result["change_percent"] = entry.change
    return result


def cells(entries: Sequence[ComparedRow]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table for people."""
    if entries[0].published is not None:
        return ["measured / published", "rebuilt from", "layers", "parameters", "GFLOPs", "kb"], [
            published_cells(entry) for entry in entries
        ]
    header = ["model", "fused", "layers", "", "leaf layers", "", "parameters", "", "GFLOPs", "", "kb", ""]
    return header, [compared_cells(entry) for entry in entries]


def published_cells(entry: ComparedRow) -> list[str]:
    """Return measured and published figure with a verdict, cell by cell."""
    row, published, match = entry.row, entry.published, entry.match
    assert published is not None  # cells() asked
    pairs = {
        "layers": (str(row.layers), str(published.layers)),
        "parameters": (str(row.parameters), str(published.parameters)),
        "gflops": (f"{row.gflops:.1f}", str(published.gflops)),
        "checkpoint_kb": (f"{row.checkpoint_kb:.0f}", str(published.checkpoint_kb)),
    }
    verdicts = {figure: "yes" if match[figure] else "NO" for figure in pairs}
    verdicts["checkpoint_kb"] += f", {entry.kb_deviation:+.1%}"
    what = [row.model, published.yaml]
    return what + [f"{ours} / {theirs} ({verdicts[figure]})" for figure, (ours, theirs) in pairs.items()]


def compared_cells(entry: ComparedRow) -> list[str]:
    """Return the figures of a row and its changes against stock."""
    row, change = entry.row, entry.change or {}
    return [
        row.model,
        row.fused,
        str(row.layers),
        format_percent(change.get("layers")),
        str(row.leaf_layers),
        format_percent(change.get("leaf_layers")),
        str(row.parameters),
        format_percent(change.get("parameters")),
        f"{row.gflops:.2f}",
        format_percent(change.get("gflops")),
        f"{row.checkpoint_kb:.0f}",
        format_percent(change.get("checkpoint_kb")),
    ]

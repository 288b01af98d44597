"""Compare models with the stock YOLOv8 built for the same task, scale and data, and rebuild the published table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ultralytics  # noqa: F401 (whole, before any part of it: another thread may be importing it just now)
from ultralytics.utils import ROOT

from ghost_yolo.errors import ModelNameError, UserError
from ghost_yolo.model.catalog import SCALES, families, path_of, with_scale
from ghost_yolo.model.checkpoint import OpenedModel, build_from_yaml, open_checkpoint
from ghost_yolo.model.profile import CONVENTIONS, ProfileRow, profile_model, profile_state
from ghost_yolo.tables import Report, format_percent, render_report
from ghost_yolo.utils.console import progress

TASK_SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
FIGURES = ("layers", "leaf_layers", "parameters", "gflops", "checkpoint_kb")
DATA = ("nc", "channels", "kpt_shape")  # fields of a row that the data decides
HOST_YAMLS = ROOT / "cfg" / "models" / "v8"
KB_TOLERANCE = 0.02
PUBLISHED_FIGURES = ("layers", "parameters", "gflops", "checkpoint_kb")
FOOTER = (
    "Changes are against the stock YOLOv8 of the same task, scale, class count and state, for the same images and keypoints. "
    "The bare name yolov8s-ghost.yaml is Ultralytics' own model; cfg/... are the ones of this package."
)


@dataclass(frozen=True)
class Published:
    """One row of the published table: its printed figures, and the YAML that rebuilds it."""

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
class BaselineKey:
    """What the figures of a stock model depend on: its scale, and the data for which a model is built.

    All else in a YAML, `reg_max` and `end2end` too, is the model, and its difference from stock is what is compared.
    """

    task: str
    scale: str
    nc: int
    channels: int
    kpt_shape: tuple[int, ...] | None

    @classmethod
    def of(cls, item: OpenedModel | ProfileRow) -> BaselineKey:
        """Return the key of a model, or of a row of figures."""
        return cls(item.task, item.scale, item.nc, item.channels, item.kpt_shape)


@dataclass(frozen=True)
class ComparedRow:
    """A measured row and its baseline.

    Attributes:
        row: The measured figures.
        baseline: Name of the stock model of the same `BaselineKey` and state; "" where there is none.
        change: Change of each figure against the baseline in percent.
        published: The row of the published table that this one rebuilds.
    """

    row: ProfileRow
    baseline: str = ""
    change: dict[str, float] | None = None
    published: Published | None = None

    @property
    def match(self) -> dict[str, bool]:
        """Whether each figure equals the published one, as printed; kb within 2 %."""
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
    """Measured rows, and the note below their table."""

    entries: list[ComparedRow]
    footer: str


def compare_published() -> Comparison:
    """Rebuild the four published rows: one class, the host's own convolutions fused."""
    entries = []
    for published in progress(PUBLISHED, "Measuring"):
        path = HOST_YAMLS / "yolov8s.yaml" if published.yaml == "yolov8s" else path_of(published.yaml)
        opened = build_from_yaml(str(path), nc=1, label=published.name)
        (row,) = profile_model(opened, 640, states=(True,))
        entries.append(ComparedRow(replace(row, fused="host"), published=published))
    opened = build_from_yaml(str(path_of("yolov8s-c2f-ghostbottleneck")), nc=1)
    (same_scale,) = profile_model(opened, 640, states=(True,))
    return Comparison(entries, _published_footer(entries, _with_change(same_scale, entries[0].row)))


def _published_footer(entries: list[ComparedRow], same_scale: ComparedRow) -> str:
    """Return in three sentences what the table compares, and the figures at the same scale."""
    light, stock = entries[2].row, entries[0].row
    printed = [(getattr(light, figure) / getattr(stock, figure) - 1) * 100 for figure in ("parameters", "gflops")]
    row, change = same_scale.row, same_scale.change or {}
    return (
        "The published table compares light models of scale n (their names have no scale letter, so Ultralytics used n) "
        "with a YOLOv8 of scale s. "
        "The attention of its V2 row was never on, its g_ghost row contains no G-Ghost stage, and the convolutions of its "
        "C2f blocks are not fused. "
        f"At scale s, the blocks of its Ghost row give {row.parameters} parameters and {row.gflops:.1f} GFLOPs, "
        f"{change['parameters']:.0f} % and {change['gflops']:.0f} % against YOLOv8s, not {printed[0]:.0f} % and "
        f"{printed[1]:.0f} %."
    )


def compare(models: Sequence[str] = (), scale: str = "s", nc: int | None = None, imgsz: int = 640) -> Comparison:
    """Profile models and the stock models of the same `BaselineKey`.

    Args:
        models: YAMLs or checkpoints; without any, the host's own Ghost model and all packaged ones.
        scale: Scale letter of the default models.
        nc: Number of classes of the YAMLs' models, each YAML's own if None; a checkpoint keeps its own.
        imgsz: Image side in pixels.

    Raises:
        UserError: If an argument is out of its range, or a model cannot be found, loaded or built.
    """
    if scale not in SCALES:
        raise UserError(f"--scale {scale}: give one of {', '.join(SCALES)}")
    if nc is not None and nc < 1:
        raise UserError(f"--nc {nc}: give 1 or more")
    if imgsz < 32 or imgsz % 32:
        raise UserError(f"--imgsz {imgsz}: give a multiple of 32")
    entries: list[ComparedRow] = []
    baselines: dict[BaselineKey, list[ProfileRow]] = {}
    for open_model in progress(_openers(models, scale, nc), "Profiling"):
        opened = open_model()
        key, rows = BaselineKey.of(opened), profile_model(opened, imgsz)
        if opened.scale not in SCALES:  # there is no stock YOLOv8 of this scale
            entries += map(ComparedRow, rows)
            continue
        if key not in baselines:
            baselines[key] = profile_model(_build_stock(key), imgsz)
            entries += [ComparedRow(row, row.model, dict.fromkeys(FIGURES, 0.0)) for row in baselines[key]]
        entries += [_with_change(row, _in_state(baselines[key], row.fused)) for row in rows]
    return Comparison(entries, FOOTER)


def compare_deployed(scale: str, nc: int = 80, imgsz: int = 640) -> list[ComparedRow]:
    """Profile the stock model of a scale, the host's own Ghost model and all packaged ones, fused; without file sizes."""
    openers: list[Callable[[], OpenedModel]] = [
        partial(_build_stock, BaselineKey("detect", scale, nc, 3, None)),
        *_openers((), scale, nc),
    ]
    base, *rows = (profile_state(opener(), imgsz) for opener in progress(openers, f"Profiling scale {scale}"))
    return [_with_change(row, base) for row in (base, *rows)]


def _build_stock(key: BaselineKey) -> OpenedModel:
    """Build the stock YOLOv8 of a task and its data, even if a file of that name is in the current folder."""
    name = f"yolov8{key.scale}{TASK_SUFFIX[key.task]}.yaml"
    keypoints = {"kpt_shape": list(key.kpt_shape)} if key.kpt_shape else {}
    return build_from_yaml(str(HOST_YAMLS / name), key.nc, name, channels=key.channels, **keypoints)


def _in_state(rows: Sequence[ProfileRow], fused: str) -> ProfileRow:
    """Return the unfused row for an unfused one, the fused row for any other."""
    return next(row for row in rows if (row.fused == "none") == (fused == "none"))


def _openers(models: Sequence[str], scale: str, nc: int | None) -> list[Callable[[], OpenedModel]]:
    """Return a function for each model that opens it, so that only one is in memory at a time."""
    if models:
        return [partial(_open, name, nc) for name in models]
    packaged = [with_scale(name, scale) for name in families()]
    host_ghost = f"yolov8{scale}-ghost.yaml"
    return [
        partial(build_from_yaml, str(HOST_YAMLS / host_ghost), nc, host_ghost),
        *(partial(build_from_yaml, str(path_of(name)), nc, f"cfg/{name}.yaml") for name in packaged),
    ]


def _open(name: str, nc: int | None) -> OpenedModel:
    """Build a YAML's model or load a checkpoint."""
    if name.endswith(".pt"):
        return open_checkpoint(Path(name))
    if name.endswith((".yaml", ".yml")):
        return build_from_yaml(name, nc)
    raise ModelNameError(f"{name!r} is neither a model YAML (.yaml) nor a checkpoint (.pt)")


def _with_change(row: ProfileRow, base: ProfileRow) -> ComparedRow:
    """Return the row with its change against the stock model in the same state."""
    change = {figure: (getattr(row, figure) / getattr(base, figure) - 1) * 100 for figure in FIGURES}
    return ComparedRow(row, base.model, change)


def render_comparison(result: Comparison, versions: dict[str, str], style: str) -> str:
    """Return the comparison in one of FORMATS, ending in a newline."""
    rows = [to_dict(entry) for entry in result.entries]
    return render_report(Report(rows, [cells(result.entries)], CONVENTIONS, [result.footer]), versions, style)


def to_dict(entry: ComparedRow) -> dict[str, Any]:
    """Return a row as JSON holds it."""
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
    """Return header and cells of the table."""
    if entries[0].published is not None:
        return ["measured / published", "rebuilt from", "layers", "parameters", "GFLOPs", "kb"], [
            published_cells(entry) for entry in entries
        ]
    header = ["model", "fused", "layers", "", "leaf layers", "", "parameters", "", "GFLOPs", "", "kb", ""]
    varying = [name for name in DATA if len({getattr(entry.row, name) for entry in entries}) > 1]
    return header, [compared_cells(entry, varying) for entry in entries]


def published_cells(entry: ComparedRow) -> list[str]:
    """Return the cells of a row of the published table: measured figure, published figure, match."""
    row, published, match = entry.row, entry.published, entry.match
    assert published is not None  # cells() checks it
    pairs = {
        "layers": (str(row.layers), str(published.layers)),
        "parameters": (str(row.parameters), str(published.parameters)),
        "gflops": (f"{row.gflops:.1f}", str(published.gflops)),
        "checkpoint_kb": (f"{row.checkpoint_kb:.0f}", str(published.checkpoint_kb)),
    }
    verdicts = {figure: "yes" if match[figure] else "NO" for figure in pairs}
    verdicts["checkpoint_kb"] += f", {entry.kb_deviation:+.1%}"
    return [row.model, published.yaml] + [
        f"{ours} / {theirs} ({verdicts[figure]})" for figure, (ours, theirs) in pairs.items()
    ]


def compared_cells(entry: ComparedRow, varying: Sequence[str] = ()) -> list[str]:
    """Return the cells of a row: each figure and its change against the baseline.

    Args:
        entry: The row.
        varying: Fields of DATA to write beside the name, as they tell rows of one name apart.
    """
    row, change = entry.row, entry.change or {}
    return [
        ", ".join([row.model, *(f"{name} {value}" for name in varying if (value := getattr(row, name)) is not None)]),
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

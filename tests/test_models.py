"""The packaged YAMLs: every header figure, every scale, and paths that resolve anywhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import NETWORK_YAMLS, OUR_YAMLS, ROOT, Run, refused
from ultralytics import YOLO

from ghost_yolo.errors import ModelNameError
from ghost_yolo.model import catalog
from ghost_yolo.model.catalog import SCALES, packaged, path_of, require_scale, scale_of, with_scale, without_scale
from ghost_yolo.model.checkpoint import build_from_yaml
from ghost_yolo.model.profile import ProfileRow, profile_model

FAMILIES = [item for item in packaged().values() if item.is_model]
SHELLS = [
    item for item in OUR_YAMLS if "ghost_yolo.C2f_" in item.path.read_text(encoding="utf-8")
]  # stock but for the C2f
LINE = re.compile(r"^(  (?P<scale>[nsmlx]): \[[^]]*\])(?P<comment>.*)$", re.MULTILINE)
EXPENSIVE = "mlx"


def rows_of(name: str) -> list[ProfileRow]:
    """Measure a packaged model with 80 classes, unfused and fused."""
    return profile_model(build_from_yaml(str(path_of(name)), nc=80), imgsz=640)


def header(row: ProfileRow) -> str:
    """Return what the scale line of a YAML says."""
    return f" # {row.layers} layers ({row.leaf_layers} leaf), {row.parameters} parameters, {row.gflops:.1f} GFLOPs"


def check_headers(name: str, scales: str, accept: bool) -> None:
    """Hold the scale lines of a YAML against what is measured, all at once."""
    path = packaged()[name].path
    text = path.read_text(encoding="utf-8")
    expected = {scale: header(rows_of(with_scale(name, scale))[0]) for scale in scales}
    new = LINE.sub(lambda line: line[1] + expected.get(line["scale"], line["comment"]), text)
    if accept:
        path.write_text(new, encoding="utf-8")
        if name == "yolov8-ghost":
            path.with_name("yolov8s-ghost.yaml").write_text(new, encoding="utf-8")
    found = {line["scale"]: line["comment"] for line in LINE.finditer(path.read_text(encoding="utf-8"))}
    assert {scale: found[scale] for scale in scales} == expected, "`pytest --accept` rewrites the headers"


@pytest.mark.parametrize("item", OUR_YAMLS, ids=lambda item: item.name)
def test_header_figures(item: packaged, request: pytest.FixtureRequest) -> None:  # type: ignore[valid-type]
    """What a YAML's header says of scales n and s is what is measured, with 80 classes at 640."""
    check_headers(item.name, "ns", request.config.getoption("--accept"))


@pytest.mark.slow
@pytest.mark.parametrize("item", OUR_YAMLS, ids=lambda item: item.name)
def test_header_figures_of_large_scales(item: packaged, request: pytest.FixtureRequest) -> None:  # type: ignore[valid-type]
    """What a YAML's header says of scales m, l and x is what is measured, so they build, too."""
    check_headers(item.name, EXPENSIVE, request.config.getoption("--accept"))


def test_golden_totals(golden: Callable[[str, str], None]) -> None:
    """Layers, parameters and GFLOPs of every packaged model at n and s are the accepted ones, digit by digit."""
    lines = []
    for item in FAMILIES:
        for scale in "ns":
            for row in rows_of(with_scale(item.name, scale)):
                figures = f"{row.layers:4} {row.leaf_layers:4} {row.parameters:9} {row.gflops:.6f}"
                lines.append(f"{with_scale(item.name, scale):32} {row.fused:5} {figures}")

    golden("models.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("item", SHELLS, ids=lambda item: item.name)
def test_every_backbone_c2f_is_swapped_and_nothing_else(item: packaged) -> None:  # type: ignore[valid-type]
    """A family's YAML is the stock one but for the word of the backbone's C2f rows."""
    stock = YOLO("yolov8n.yaml", verbose=False).model.yaml
    ours = YOLO(str(path_of(with_scale(item.name, "n"))), verbose=False).model.yaml
    changed = [(a, b) for a, b in zip(stock["backbone"], ours["backbone"], strict=True) if a != b]

    assert {key: value for key, value in stock.items() if key not in ("backbone", "yaml_file")} == {
        key: value for key, value in ours.items() if key not in ("backbone", "yaml_file")
    }
    assert len(changed) == 4
    assert all(
        a[2] == "C2f" and b[2].startswith("ghost_yolo.C2f_") and a[:2] + a[3:] == b[:2] + b[3:] for a, b in changed
    )


@pytest.mark.parametrize("item", NETWORK_YAMLS, ids=lambda item: item.name)
def test_neck_of_a_network_is_stocks(item: packaged) -> None:  # type: ignore[valid-type]
    """Behind a whole network stand stock's SPPF, neck and head, at scale s as wide as stock's and as deep at every scale."""
    stock = YOLO("yolov8s.yaml", verbose=False).model
    ours = YOLO(str(path_of(with_scale(item.name, "s"))), verbose=False).model
    rows = [list(model.model)[-len(stock.model) + 9 :] for model in (stock, ours)]

    assert [type(layer) for layer in rows[1]] == [type(layer) for layer in rows[0]]
    for theirs, layer in zip(*rows, strict=True):
        if hasattr(layer, "cv2") and hasattr(layer.cv2, "conv"):  # SPPF and C2f
            assert layer.cv2.conv.out_channels == theirs.cv2.conv.out_channels
        elif hasattr(layer, "conv"):
            assert layer.conv.weight.shape == theirs.conv.weight.shape
    assert {s: row[0] for s, row in ours.yaml["scales"].items()} == {s: r[0] for s, r in stock.yaml["scales"].items()}
    assert list(ours.yaml["scales"]) == list(SCALES)


def test_headline_file_equals_its_family() -> None:
    """cfg/yolov8s-ghost.yaml exists by itself and is its family's file, byte by byte."""
    assert (ROOT / "cfg/yolov8s-ghost.yaml").read_bytes() == (ROOT / "cfg/yolov8-ghost.yaml").read_bytes()


@pytest.mark.parametrize("scale", SCALES)
def test_path_resolves_from_anywhere(scale: str, run: Run) -> None:
    """The printed path of any scale opens under the stock command line's own loader, in any directory."""
    path = Path(run("ghost-yolo", "cfg", f"yolov8{scale}-ghost").stdout.strip())

    assert YOLO(str(path), verbose=False).model.yaml["scale"] == scale


@pytest.mark.parametrize("folder", ["exp3s", "run8n/env2x", "tmp5m_0"])
def test_path_resolves_under_folders_with_a_scale_letter(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the host would strip a folder's letter instead of the name's, a real file is made and printed."""
    home = tmp_path / folder / "ghost_yolo"
    shutil.copytree(ROOT / "cfg", home / "cfg")
    shutil.copytree(ROOT / "datasets", home / "datasets", ignore=shutil.ignore_patterns("*/"))
    monkeypatch.setattr(catalog, "PACKAGE", home)
    path = path_of("yolov8m-ghostv2")

    assert path.is_file() and home not in path.parents
    model = YOLO(str(path), verbose=False).model
    assert (model.yaml["scale"], model.yaml["backbone"][2][2]) == ("m", "ghost_yolo.C2f_GhostBottleneckV2")
    assert path_of("yolov8s-ghost").parent == home / "cfg"


def test_scale_letters() -> None:
    """Names are read as the host reads them."""
    assert [scale_of(name) for name in ("yolov8s-ghost.yaml", "yolov8-ghost", "a3s/yolov8-x", "mine")] == [
        "s",
        None,
        None,
        None,
    ]
    assert without_scale("yolov8m-ghost") == "yolov8-ghost"
    assert with_scale("yolov8-ghost", "x") == "yolov8x-ghost"


@pytest.mark.parametrize(
    "name,names",
    [
        ("yolov8-ghost", ["yolov8n-ghost", "yolov8s-ghost"]),
        ("yolov8s-gost", ["yolov8s-gost", "yolov8s-ghost"]),
        ("nothing", ["nothing", "smear"]),
    ],
)
def test_names_that_say_too_little(name: str, names: list[str]) -> None:
    """A missing scale letter and an unknown name are refused with the names that exist."""
    with refused(ModelNameError, *names):
        path_of(name)


def test_a_users_name_without_a_scale() -> None:
    """A name of the user's own is refused with a way to call it."""
    with refused(ModelNameError, "mine.yaml", "yolov8s-<name>.yaml"):
        require_scale("mine.yaml")

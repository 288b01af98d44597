"""The packaged YAMLs: every header figure, every scale, and paths that resolve anywhere."""

from __future__ import annotations

import copy
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import NETWORK_YAMLS, OUR_YAMLS, ROOT, Run, refused
from ultralytics import YOLO

from ghost_yolo.errors import ModelNameError
from ghost_yolo.model import catalog
from ghost_yolo.model.catalog import (
    SCALES,
    packaged,
    path_of,
    require_scale,
    resolve,
    scale_of,
    with_scale,
    without_scale,
)
from ghost_yolo.model.checkpoint import build_from_yaml
from ghost_yolo.model.profile import ProfileRow, profile_state

FAMILIES = [item for item in packaged().values() if item.is_model]
SHELLS = [
    item for item in OUR_YAMLS if "ghost_yolo.C2f_" in item.path.read_text(encoding="utf-8")
]  # stock but for the C2f
LINE = re.compile(r"^(  (?P<scale>[nsmlx]): \[[^]]*\])(?P<comment>.*)$", re.MULTILINE)
GOLDEN = ROOT / "tests/golden/models.txt"


def rows_of(name: str) -> list[ProfileRow]:
    """Measure a packaged model with 80 classes, unfused and fused."""
    opened = build_from_yaml(str(path_of(name)), nc=80)
    unfused = profile_state(replace(opened, model=copy.deepcopy(opened.model)), 640, fuse=False)
    return [unfused, profile_state(opened, 640)]


def header(row: ProfileRow) -> str:
    """Return what the scale line of a YAML says."""
    return f" # {row.layers} layers ({row.leaf_layers} leaf), {row.parameters} parameters, {row.gflops:.1f} GFLOPs"


def check_header(item: Any, rows: dict[str, list[ProfileRow]], accept: bool) -> None:
    """Compare the scale lines of a YAML with what was measured."""
    text = item.path.read_text(encoding="utf-8")
    expected = {scale: header(measured[0]) for scale, measured in rows.items()}
    new = LINE.sub(lambda line: line[1] + expected.get(line["scale"], line["comment"]), text)
    if accept:
        item.path.write_text(new, encoding="utf-8")
        if item.name == "yolov8-ghost":
            item.path.with_name("yolov8s-ghost.yaml").write_text(new, encoding="utf-8")
    assert accept or new == text, "`pytest --accept` rewrites the headers"


def check_golden(name: str, rows: list[ProfileRow], accept: bool) -> None:
    """Compare a model's lines of the golden file with what was measured, digit by digit."""
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    places = [number for number, line in enumerate(lines) if line.split()[0] == name] or [len(lines)]
    part = slice(places[0], places[0] + len(rows))
    expected = [
        f"{name:32} {row.fused:5} {row.layers:4} {row.leaf_layers:4} {row.parameters:9} {row.gflops:.6f}"
        for row in rows
    ]
    if accept:
        lines[part] = expected
        GOLDEN.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert lines[part] == expected, "`pytest --accept` rewrites the lines"


@pytest.mark.parametrize("item", FAMILIES, ids=lambda item: item.name)
@pytest.mark.parametrize("scale", "ns")
def test_figures(item: Any, scale: str, request: pytest.FixtureRequest) -> None:
    """What the golden file and a YAML's header say of scales n and s is what is measured, with 80 classes at 640."""
    rows, accept = rows_of(with_scale(item.name, scale)), request.config.getoption("--accept")

    check_golden(with_scale(item.name, scale), rows, accept)
    if item in OUR_YAMLS:
        check_header(item, {scale: rows}, accept)


def test_golden_names() -> None:
    """The golden file has every packaged model and no other."""
    names = {line.split()[0] for line in GOLDEN.read_text(encoding="utf-8").splitlines()}

    assert names == {with_scale(item.name, scale) for item in FAMILIES for scale in "ns"}


@pytest.mark.slow
@pytest.mark.weekly
@pytest.mark.parametrize("item", OUR_YAMLS, ids=lambda item: item.name)
def test_header_figures_of_large_scales(item: Any, request: pytest.FixtureRequest) -> None:
    """What a YAML's header says of scales m, l and x is what is measured, so they build, too."""
    rows = {scale: rows_of(with_scale(item.name, scale)) for scale in "mlx"}
    check_header(item, rows, request.config.getoption("--accept"))


@pytest.mark.parametrize("item", SHELLS, ids=lambda item: item.name)
def test_every_backbone_c2f_is_swapped_and_nothing_else(item: Any) -> None:
    """A family's YAML is the stock one but for the module name of the backbone's C2f rows."""
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
def test_neck_of_a_network_is_stocks(item: Any) -> None:
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


def test_yolo26_under_an_older_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Ultralytics without YOLO26's YAMLs is the reason that is given; under a newer one a mistyped name is not."""
    monkeypatch.setattr("ultralytics.utils.ROOT", tmp_path)
    with refused(ModelNameError, "yolo26n.yaml", "8.4 or later"):
        resolve("yolo26n.yaml")
    (tmp_path / "cfg/models/26").mkdir(parents=True)
    (tmp_path / "cfg/models/26/yolo26.yaml").touch()
    with pytest.raises(ModelNameError, match=r"yolo26n-pos\.yaml does not exist\. `"):
        resolve("yolo26n-pos.yaml")


def test_a_users_name_without_a_scale() -> None:
    """A name of the user's own is refused with a way to call it."""
    with refused(ModelNameError, "mine.yaml", "yolov8s-<name>.yaml"):
        require_scale("mine.yaml")

"""The door to the host: module names, reversibility, and errors under the stock parser."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from factories import GHOST, TINY, Run, every_block, newest_only, randomise, refused
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules.block import C2f

import ghost_yolo
from ghost_yolo import host
from ghost_yolo.errors import ModelError, UnknownBlockError, UserError
from ghost_yolo.export.verify import export_and_verify
from ghost_yolo.model import yaml_edit
from ghost_yolo.model.catalog import families, path_of, resolve, with_scale


def yaml_of(name: str, *args: Any) -> dict[str, Any]:
    """Return a small detector with one row of ours."""
    backbone = [[-1, 1, "Conv", [16, 3, 8]], [-1, 2, name, list(args) or [32, True]]]
    return {"nc": 2, "backbone": backbone, "head": [[[0, 1, 1], 1, "Detect", ["nc"]]]}


@every_block
def test_a_row_is_scaled_like_the_hosts(block: ghost_yolo.registry.Block) -> None:  # type: ignore[name-defined]
    """A row of ours gets input channels, scaled width and repeats exactly as the host's row of the same kind."""
    config = yaml_of(block.qualified, *([32, True] if block.like == "C2f" else [32])) | {
        "scales": {"n": [0.5, 2.0, 1024]}
    }
    config["scale"] = "n"
    model, _ = tasks.parse_model(config, 3, verbose=False)
    row = model[1]

    assert type(row) is block.cls or (isinstance(row, nn.Sequential) and block.like == "Conv")
    assert row.type.startswith("ghost_yolo.blocks.") or block.like == "Conv"
    assert row(torch.zeros(2, 32, 8, 8)).shape == (2, 64, 8, 8)


def test_the_hosts_own_names_stay_the_hosts() -> None:
    """GhostConv and GhostBottleneck without the prefix are the host's; with it, ours."""
    for name in ("GhostConv", "GhostBottleneck"):
        assert getattr(tasks, name).__module__.startswith("ultralytics.")
        assert repr(vars(tasks)[f"ghost_yolo.{name}"]).startswith("<class 'ghost_yolo.blocks.ghost.")


def test_register_twice_changes_nothing() -> None:
    """Registering again keeps the very same objects."""
    before = dict(vars(tasks))
    ghost_yolo.register()

    assert {name: id(value) for name, value in before.items()} == {name: id(v) for name, v in vars(tasks).items()}


def test_unregister_restores_the_host(python: Run) -> None:
    """After unregister() the host's globals, parser and safe globals are what they were before us."""
    code = """
import torch, ultralytics.nn.tasks as t
before, safe = dict(vars(t)), list(torch.serialization.get_safe_globals())
import ghost_yolo; import ghost_yolo.blocks
assert dict(vars(t)) == before, "off means off"
ghost_yolo.register(); ghost_yolo.register()
assert "ghost_yolo.C2f_GhostBottleneck" in vars(t) and "C2f_GhostBottleneck" in vars(t)
ghost_yolo.unregister(); ghost_yolo.unregister()
assert {k: id(v) for k, v in vars(t).items()} == {k: id(v) for k, v in before.items()}
assert set(torch.serialization.get_safe_globals()) == set(safe)
ghost_yolo.register(); assert "C2f_GhostBottleneck" in vars(t)
"""
    python(code, GHOST_YOLO_AUTOLOAD="0")


def test_stand_ins_leave_the_hosts_sets_alone() -> None:
    """A stand-in is found where the host looks for C2f, and C2f is still found where it is."""
    stand_in = vars(tasks)["C2f_GhostBottleneck"]

    assert stand_in in frozenset({C2f, nn.Conv2d})
    assert stand_in not in frozenset({nn.Conv2d, nn.ReLU})
    assert C2f in frozenset({C2f, nn.Conv2d})
    assert isinstance(ghost_yolo.blocks.ghost.C2f_GhostBottleneck(8, 8), stand_in)  # type: ignore[attr-defined]


def test_an_unknown_name_is_told_the_nearest() -> None:
    """A mistyped block under the host's parser names the nearest module name and what exists."""
    with refused(UnknownBlockError, "C2f_GhostBotleneckV2", "C2f_GhostBottleneckV2", "GhostConv"):
        tasks.DetectionModel(yaml_of("C2f_GhostBotleneckV2"), verbose=False)


def test_bad_argument_names_the_row() -> None:
    """An argument that a block refuses is reported with its row."""
    with refused(ModelError, "row 1", "ghost_yolo.GhostConv", "ratio=0"):
        tasks.DetectionModel(yaml_of("ghost_yolo.GhostConv", 32, 1, 1, 0), verbose=False)


def test_errors_of_others_pass_unchanged() -> None:
    """What goes wrong in the host's own rows is the host's to say."""
    with pytest.raises(TypeError) as caught:
        tasks.DetectionModel(yaml_of("Conv", 32, 1, 1, 0, 1, 1, True, 9, 9, 9), verbose=False)

    assert not isinstance(caught.value, UserError)


def test_blocks_that_are_not_registered(python: Run, run: Run, tmp_path: Path) -> None:
    """With the auto-load off, our API says to register and our command works."""
    (tmp_path / "yolov8n-tiny.yaml").write_text(yaml.safe_dump(TINY))
    code = f"from ghost_yolo.model.yaml_edit import swap\nfrom ghost_yolo.errors import ModelError\nname = {GHOST!r}"
    code += "\ntry: swap('yolov8n-tiny.yaml', 'backbone', name)\nexcept ModelError as error: print(error)"
    told = python(code, GHOST_YOLO_AUTOLOAD="0").stdout
    run("ghost-yolo", "swap", "yolov8n-tiny.yaml", "--block", GHOST, "-o", "out.yaml", GHOST_YOLO_AUTOLOAD="0")

    assert "row 1" in told and "ghost_yolo.register()" in told
    assert f"ghost_yolo.{GHOST}" in (tmp_path / "out.yaml").read_text()


@pytest.mark.parametrize("version", ["8.3.214", "8.0.145", "9.0.0", "8.5.0"])
def test_host_outside_the_range(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Ultralytics that was not tested is refused with its version, the range and the command."""
    monkeypatch.setattr(ultralytics, "__version__", version)

    with refused(host.UnsupportedHostError, version, host.SUPPORTED, "pip install"):
        host.register()


def test_every_way_to_a_model_checks_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What builds, rebuilds or loads a model says so where the host is unsupported; it would not know our modules."""
    model = host.build(copy.deepcopy(TINY))
    host.save(model, tmp_path / "best.pt")
    monkeypatch.setattr(ultralytics, "__version__", "9.0.0")

    for call in (
        lambda: host.build(copy.deepcopy(TINY)),
        lambda: host.untrained(model, 0),
        lambda: host.load(tmp_path / "best.pt"),
        lambda: export_and_verify("yolov8n.yaml"),
        lambda: yaml_edit.swap("yolov8n.yaml", "backbone", GHOST),
    ):
        with refused(host.UnsupportedHostError, "9.0.0", host.SUPPORTED):
            call()


def test_the_declared_range_is_the_checked_one() -> None:
    """pyproject.toml and the check name the same range."""
    assert f'"ultralytics{host.SUPPORTED}"' in (Path(__file__).parent.parent / "pyproject.toml").read_text()


def test_truncated_and_foreign_checkpoints(tmp_path: Path) -> None:
    """A cut-off file, a text file and a state dict are each refused with the file's name and what would do."""
    whole = tmp_path / "whole.pt"
    torch.save({"state_dict": {"w": torch.zeros(3)}}, whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:300])
    (tmp_path / "text.pt").write_text("not a checkpoint")

    for name in ("whole.pt", "cut.pt", "text.pt"):
        with refused(UserError, name):
            host.load(tmp_path / name)


@newest_only
@pytest.mark.slow
def test_model_round_trip_safely(tmp_path: Path, python: Run) -> None:
    """Every saved model loads under ULTRALYTICS_SAFE_LOAD=1 in a fresh process, with the same output.

    Fused ones too, where the host so loads a fused model of its own (8.4.120 does not).
    """
    torch.manual_seed(0)
    stock = ultralytics.YOLO("yolov8n.yaml", verbose=False)
    stock.fuse()
    stock.save(tmp_path / "stock.pt")
    x, expected = torch.rand(1, 3, 64, 64), {}
    for name in families():
        yolo = ultralytics.YOLO(str(path_of(with_scale(name, "n"))), verbose=False)
        for file in (f"{name}.pt", f"{name}-fused.pt"):
            yolo.save(tmp_path / file)
            expected[file] = ultralytics.YOLO(tmp_path / file).model.float().eval()(x)[0]
            yolo.fuse()
    torch.save((x, expected), tmp_path / "expected")
    code = """
import torch, ultralytics
x, expected = torch.load("expected", weights_only=True)
try:
    ultralytics.YOLO("stock.pt")
    loads_fused = True
except Exception:
    loads_fused = False
for file, y in expected.items():
    if "fused" in file and not loads_fused:
        continue
    model = ultralytics.YOLO(file).model.float().eval()
    assert "fused" not in file or model.is_fused(), file
    torch.testing.assert_close(model(x)[0], y, msg=file)
"""
    python(code, ULTRALYTICS_SAFE_LOAD="1")


@pytest.mark.parametrize("name", families())
def test_whole_models_fuse(name: str) -> None:
    """Under every supported host fuse() leaves no BN in a model of ours and keeps its output."""
    torch.manual_seed(0)
    model = randomise(ultralytics.YOLO(str(path_of(with_scale(name, "n"))), verbose=False).model).eval()
    x = torch.rand(1, 3, 64, 96)
    before = model(x)[0]
    model.fuse(verbose=False)

    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(model(x)[0], before, rtol=1e-3, atol=1e-2)


def test_an_activation_stays_in_its_model() -> None:
    """A YAML's `activation:` does not reach the models that our commands build after it, as it does on older hosts."""
    acts = []
    for name in ("yolov8n-ghostfast", "yolov8n-ghost"):
        config = host.read_yaml(resolve(str(path_of(name)))[0]) | {"scale": "n"}
        acts.append(type(host.build(config).model[0].act))

    assert acts == [nn.ReLU, nn.SiLU]


def test_a_row_that_fails_when_it_runs_is_named() -> None:
    """Maps that do not fit each other show only in the host's trial pass; the message says in which row."""
    head = [[[0, 1], 1, "Concat", [1]], [[2, 2, 2], 1, "Detect", ["nc"]]]  # strides 2 and 4
    backbone = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]

    with refused(ModelError, "row 2", "Concat", "RuntimeError"):
        host.build({"nc": 2, "backbone": backbone, "head": head, "yaml_file": "mine.yaml"})

"""Light blocks into any host's YAML: which rows, which arguments, that all else stays."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from factories import MODELS, NEWEST, QUALIFIED_GHOST, light, newest_only, outputs, refused, small, stock
from torch import nn
from ultralytics.utils import LOGGER

from ghost_yolo import BLOCKS, host
from ghost_yolo.blocks.detect import LightDetect, LightSegment
from ghost_yolo.errors import SwapError, UnknownBlockError
from ghost_yolo.model import swap

TASKS = ("", "-seg", "-pose", "-obb", "-cls")
FAMILIES = {"v8/yolov8": "C2f", "11/yolo11": "C3k2", "26/yolo26": "C3k2"}
STOCK = [name for family in FAMILIES for task in TASKS if (MODELS / f"{(name := family + task)}.yaml").is_file()]
C2F_LIKE = [block for block in BLOCKS if block.like == "C2f"]


@pytest.mark.parametrize("name", STOCK)
def test_rows_of_every_family(name: str) -> None:
    """In each stock YAML the backbone's and the neck's C2f or C3k2 rows are found, and nothing else is touched."""
    config = stock(name)
    kept, rows = copy.deepcopy(config), swap.yaml_rows(config)
    neck = [12, 15, 18, 21] if name.startswith("v8") else [13, 16, 19, 22]
    if name.endswith("-cls"):
        neck = []

    for where, expected in {"backbone": [2, 4, 6, 8], "neck": neck}.items():
        assert [slot.index for slot in swap.slots(config, where)] == expected
        if not expected:
            continue
        new = light(config, where)
        changed = [i for i, (a, b) in enumerate(zip(rows, swap.yaml_rows(new), strict=True)) if a != b]
        assert changed == expected
        assert {swap.yaml_rows(new)[i][2] for i in changed} == {QUALIFIED_GHOST}
        assert {k: v for k, v in new.items() if k not in ("backbone", "head")} == {
            k: v for k, v in config.items() if k not in ("backbone", "head")
        }
    assert config == kept


@pytest.mark.parametrize("name", [name for name in STOCK if NEWEST or name.endswith(("8", "11", "-seg", "-cls"))])
def test_all_rows_of_every_family(name: str) -> None:
    """With every C2f and C3k2 gone the model runs, keeps its task and output, and the rest has the same parameters."""
    config = stock(name)
    new = light(config, "all")
    before, after = host.build(config), host.build(new)
    x = torch.zeros(1, 3, 64, 64)
    newer = swap.is_newer(swap.yaml_rows(config))
    names = [row[2] for row in swap.yaml_rows(new)]

    assert not {"C2f", "C3k2"} & set(names)
    assert sum(name == QUALIFIED_GHOST for name in names) >= 4
    assert host.task_of(after) == host.task_of(before)
    assert [t.shape for t in outputs(after(x))] == [t.shape for t in outputs(before(x))]
    for a, b, module in zip(before.model, after.model, names, strict=True):
        if module != QUALIFIED_GHOST and (newer or not module.startswith("ghost_yolo.Light")):
            assert (module, b.np) == (module, a.np)
    assert sum(p.numel() for p in after.parameters()) < sum(p.numel() for p in before.parameters())


def test_without_the_heads_name_the_host_builds_the_older_branch() -> None:
    """The trap is real: YOLO11 without a C3k2 gets another Detect from the host, and LightDetect is the newer one."""
    config = stock("11/yolo11")
    new = light(config, "all")
    trapped = copy.deepcopy(new)
    trapped["head"][-1][2] = "Detect"
    newer, older, ours = (host.build(c).model[-1].np for c in (config, trapped, new))

    assert new["head"][-1] == [[16, 19, 22], 1, "ghost_yolo.LightDetect", ["nc"]]
    assert (newer < older, ours) == (True, newer)


@pytest.mark.parametrize("task", ["", "-seg", *(["-pose", "-obb"] if NEWEST else [])])
def test_head_of_yolov8_is_that_of_yolo11(task: str) -> None:
    """`head` gives a YOLOv8 of any scale the class branch, and the prototypes, that the host builds beside a C3k2."""
    config = stock(f"v8/yolov8{task}") | {"scale": "m"}
    new, other = light(config, "head"), copy.deepcopy(config)
    other["head"][-2][2:] = "C3k2", [1024, False]  # the host's own way to the depthwise branch

    assert [a != b for a, b in zip(swap.yaml_rows(config), swap.yaml_rows(new), strict=True)] == [False] * 22 + [True]
    ours, theirs = (host.build(c).model[-1] for c in (new, other))
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in theirs.named_parameters()]


@pytest.mark.parametrize(
    "host_word,row,block,expected",
    [
        ("C2f", [64], "C2f_GhostBottleneck", [64]),
        ("C2f", [64, True], "C2f_ShuffleUnit", [64, True]),
        ("C2f", [64, True, 2, 0.25], "C2f_GhostBottleneck", [64, True, 2, 0.25]),
        ("C2f", [64, True, 1], "C2f_ShuffleUnit", [64, True, 1]),
        ("C3k2", [64], "C2f_GhostBottleneck", [64, True]),
        ("C3k2", [64, False, 0.25], "C2f_GhostBottleneck", [64, True, 1, 0.25]),
        ("C3k2", [64, True, 0.25], "C2f_ShuffleUnit", [64, True, None, 0.25]),
    ],
)
def test_arguments_move_by_name(host_word: str, row: list[Any], block: str, expected: list[Any]) -> None:
    """c2, shortcut, g and e keep their meaning; C3k2's second argument is c3k, its third e, and its shortcut is on."""
    config = small([-1, 2, host_word, row])
    new = swap.swap_rows(config, {1: block})

    assert new["backbone"][1] == [-1, 2, f"ghost_yolo.{block}", expected]
    built = host.build(new).model[1]
    assert built.c == host.build(config).model[1].c  # the hidden width, c2 * e


@pytest.mark.parametrize(
    ("row", "moved"), [([64], [64, True]), ([64, True, 0.5], [64, True]), ([64, True, 0.25], [64, True, 1, 0.125])]
)
def test_a_hidden_width_is_moved_as_a_multiple(row: list[Any], moved: list[Any]) -> None:
    """Of the default: a block whose default is half of C3k2's stays half as wide where a row writes e."""
    assert swap.swap_rows(small([-1, 2, "C3k2", row]), {1: "NarrowELAN"})["backbone"][1][3] == moved


@newest_only
@pytest.mark.parametrize("exporter", ["tensorflow", "executorch"])
def test_key_points_of_a_light_head_are_decoded_as_yolo26s(exporter: str) -> None:
    """Some of the host's exporters ask for a head's exact type; decoded otherwise the key points would lie elsewhere."""
    name, wrapper = (
        f"ultralytics.utils.export.{exporter}",
        "tf_wrapper" if exporter == "tensorflow" else f"{exporter}_wrapper",
    )
    wrap = getattr(pytest.importorskip(name), wrapper)
    kept = []
    for config in (stock("26/yolo26-pose"), light(stock("26/yolo26-pose"), "all")):
        model = host.build(config)
        kept.append(wrap(model).model[-1].kpts_decode.__func__.keywords)
    assert kept == [{"is_pose26": True}] * 2


def test_a_row_of_masks_without_the_scales_width() -> None:
    """Is refused with what to write, whatever the parser puts behind it."""
    head = LightSegment
    for rest in ([], [16, True, [64, 128]], [[64, 128]]):
        with pytest.raises(ValueError, match=r"\[nc, 32, 256, width, max_channels\]"):
            head(80, 32, 256, *rest)


@newest_only
def test_attention_of_yolo26_is_an_inner_form() -> None:
    """YOLO26's last C3k2 has (c3k, e, attn): only e is the new block's."""
    config = small([-1, 1, "C3k2", [128, True, 0.25, True]], [-1, 1, "C3k2", [64, True, 0.5, True, 1, False]])

    new = swap.swap_rows(config, {1: "C2f_GhostBottleneck", 2: "C2f_GhostBottleneckV2"})

    assert [row[2:] for row in new["backbone"][1:]] == [
        [QUALIFIED_GHOST, [128, True, 1, 0.25]],
        ["ghost_yolo.C2f_GhostBottleneckV2", [64]],
    ]


@pytest.mark.parametrize("block", C2F_LIKE, ids=lambda block: block.name)
def test_every_c2f_like_block_fits(block: Any) -> None:
    """Each C2f-like block has the arguments that are moved, and builds in a YOLOv8 and a YOLO11 row."""
    assert list(inspect.signature(block.cls).parameters)[:6] == ["c1", "c2", "n", "shortcut", "g", "e"]

    config = small([-1, 2, "C2f", [32, True]], [-1, 2, "C3k2", [32, False, 0.25]])
    new = swap.swap_rows(config, swap.plan_swap(config, "backbone", block.name))
    model = host.build(new).model

    assert [type(layer) for layer in model[1:3]] == [block.cls] * 2


@pytest.mark.parametrize(
    "config,where,block,names",
    [
        (small([-1, 1, "C2f"]), "all", "C2f_Fire", ["row 1", "[-1, 1, 'C2f']"]),
        (small([-1, "2", "C2f", [8]]), "all", "C2f_Fire", ["row 1", "'2'"]),
        (small([-1, 1, "C2f", []]), "all", "C2f_Fire", ["row 1", "C2f", "[]", "c2, shortcut, g, e"]),
        (small([-1, 1, "C2f", [8, 1, 1, 1, 9]]), "all", "C2f_Fire", ["row 1", "[8, 1, 1, 1, 9]", "c2, shortcut, g, e"]),
        (small(), "backbone", "C2f_Fire", ["backbone", "Conv (row 0)"]),
        (small(), "all", "C2f_Fire", ["Conv (row 0)", "Detect (row 1)"]),
        (small() | {"head": []}, "all", "C2f_Fire", ["head:"]),
        (small([-1, 1, "C3k2", [8]]), "head", None, ["row 2", "Detect"]),
        (small() | {"head": [[-1, 1, "Classify", ["nc"]]]}, "head", None, ["row 1", "Classify", "Detect, Segment"]),
        (small([-1, 1, "C2f", [8]]), "all", "GhostConv", ["GhostConv", "C2f_GhostBottleneck"]),
        (small([-1, 1, "C2f", [8]]), "all", "LightDetect", ["LightDetect"]),
        (small([-1, 1, "C2f", [8]]), "all", "C2f_Fier", ["C2f_Fier", "C2f_Fire"]),
        (small([-1, 1, "C2f", [8]]), "all", None, ["--where all", "--block"]),
        (small([-1, 1, "C2f", [8]]), "head", "C2f_Fire", ["--block"]),
        (small([-1, 1, "C2f", [8]]), "everywhere", "C2f_Fire", ["everywhere", "backbone, neck, head, all"]),
    ],
)
def test_what_cannot_be_swapped(config: dict[str, Any], where: str, block: str | None, names: list[str]) -> None:
    """A row or a module name that does not fit is refused with its index and what would be right."""
    with refused(UnknownBlockError if block == "C2f_Fier" else SwapError, *names):
        swap.swap_rows(config, swap.plan_swap(config, where, block))


def test_a_row_that_is_no_slot() -> None:
    """Asked for by index, a row that is no C2f or C3k2 is refused with the rows that are."""
    with refused(SwapError, "row 0", "C2f_Fire", "1, 2"):
        swap.swap_rows(small([-1, 1, "C2f", [8]]), {0: "C2f_Fire"})


def test_a_light_head_stays_light() -> None:
    """Loading weights with another number of classes does not put their full class branch into a light head."""
    config = light(stock("v8/yolov8"), "head")
    model, trained = host.build(config), host.build(stock("v8/yolov8") | {"nc": 80})
    before = [(name, p.shape) for name, p in model.named_parameters()]

    model.load({"model": trained}, verbose=False)

    assert isinstance(model.model[-1], LightDetect)
    assert [(name, p.shape) for name, p in model.named_parameters()] == before
    torch.testing.assert_close(model.model[-1].cv2.state_dict(), trained.model[-1].cv2.state_dict())


def swap_head(config: dict[str, Any], head: str) -> dict[str, Any]:
    """Return a model's content with another head in its last row."""
    rows = config["head"]
    return config | {"head": [*rows[:-1], [*rows[-1][:2], f"ghost_yolo.{head}", *rows[-1][3:]]]}


@pytest.mark.parametrize(
    "task,ours,foreign",
    [
        ("", "NarrowDetect", "LightDetect"),
        ("", "NarrowDetect", "Detect"),
        ("", "LightDetect", "NarrowDetect"),
        ("", "LightDetect", "Detect"),
        *([("-pose", "LightPose", "Pose"), ("-obb", "LightOBB", "OBB")] if NEWEST else []),
    ],
)
def test_a_head_of_ours_takes_no_foreign_branch(
    task: str, ours: str, foreign: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of any other head, for more classes and in every branch, leave a head's structure as it was built; it says so."""
    monkeypatch.setattr(LOGGER, "propagate", True)
    config = stock(f"v8/yolov8{task}") | {"nc": 3}
    others = config | {"nc": 80}
    model = host.build(swap_head(config, ours))
    trained = host.build(others if foreign in others["head"][-1] else swap_head(others, foreign))
    head, before = model.model[-1], [(name, p.shape) for name, p in model.named_parameters()]

    model.load({"model": trained}, verbose=False)
    for name in ("cv2", "cv3", "cv4", "one2one_cv3"):
        branch = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 5)) for _ in range(3))
        if hasattr(head, name):
            setattr(head, name, branch)

    assert [(name, p.shape) for name, p in model.named_parameters()] == before
    assert f"{ours} keeps its own cv2" in caplog.text
    branch = copy.deepcopy(head.cv3)
    head.cv3 = branch  # one of the same structure is taken
    assert head.cv3 is branch


def test_a_light_model_fuses() -> None:
    """The host's fuse() leaves no BN in a wholly swapped model and keeps its output."""
    torch.manual_seed(0)
    model, x = host.build(light(stock("11/yolo11"), "all")), torch.rand(1, 3, 64, 64)
    before = model(x)[0]
    model.fuse(verbose=False)

    assert [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == []
    torch.testing.assert_close(model(x)[0], before, rtol=1e-3, atol=1e-3)

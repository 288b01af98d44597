"""The YAML that a swap writes: its layout and header, what is refused, the command, and that it trains."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml
from factories import MODELS, QUALIFIED_GHOST, ROOT, SMALL_RUN, Run, light, refused, run_folder, small, write_shapes
from ultralytics import YOLO

from ghost_yolo import host
from ghost_yolo.errors import ModelNameError, UserError
from ghost_yolo.model import swap, yaml_edit


def test_a_head_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a row that was not swapped would come out otherwise, it is named and nothing is written."""
    monkeypatch.setattr(swap, "LIGHT", {})
    monkeypatch.setattr(yaml_edit, "LIGHT", {})

    with refused(swap.SwapError, "row 23", "Detect"):
        yaml_edit.swap("yolo11n.yaml", "all", "C2f_GhostBottleneck")


def test_layout_and_comments_stay() -> None:
    """But for the header, the figures of the old model and the scale that was asked for, only swapped rows differ."""
    done = yaml_edit.swap("yolo11s.yaml", "backbone", "C2f_GhostBottleneck")
    assert done.scale == "s"
    before, after = (MODELS / "11/yolo11.yaml").read_text(encoding="utf-8").splitlines(), done.text.splitlines()
    gone, new = [line for line in before if line not in after], [line for line in after if line not in before]

    assert [line.split("#")[0].strip() for line in new if "ghost_yolo." in line and not line.startswith("#")] == [
        f"- [-1, 2, {QUALIFIED_GHOST}, [256, True, 1, 0.25]]",
        f"- [-1, 2, {QUALIFIED_GHOST}, [512, True, 1, 0.25]]",
        f"- [-1, 2, {QUALIFIED_GHOST}, [512, True]]",
        f"- [-1, 2, {QUALIFIED_GHOST}, [1024, True]]",
    ]
    assert after[1].startswith(f"# Rows 2, 4, 6, 8: C3k2 -> {QUALIFIED_GHOST}")
    assert all("C3k2" in line or "summary" in line for line in gone)
    assert len(gone) == 4 + 5
    assert list(yaml.safe_load(done.text)["scales"]) == ["s", "n", "m", "l", "x"]
    assert [line for line in after if "GFLOPs" in line] == []


STRANGE = {
    "block style and quotes": """\
    %YAML 1.1
    ---
    nc: 2
    backbone:
      - [-1, 1, Conv, [16, 3, 8]]
      - - -1
        - 2
        - 'C2f' # the word
        - - 32
          - yes
      - [-1, 1,
         "C2f", [ 32 ]] # last
    head: [[[0, 1, 2], 1, Detect, [nc]]]
    """,
    "aliases": """\
    nc: 2
    row: &row [-1, 2, C2f, [32, True]]
    backbone: [[-1, 1, Conv, [16, 3, 8]], *row, *row]
    head: [[[0, 1, 2], 1, Detect, [nc]]]
    """,
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("where", ["backbone", "all"])
def test_strange_layouts(text: str, where: str, tmp_path: Path) -> None:
    """A YAML in any layout becomes one with the content that the core decides, and it builds."""
    file = tmp_path / "mine.yaml"
    file.write_text(inspect.cleandoc(text), encoding="utf-8")
    old = yaml.safe_load(file.read_text())
    done = yaml_edit.swap(str(file), where, "C2f_GhostBottleneck")
    new = yaml.safe_load(done.text)

    assert new == light(old, where)
    assert {swap.yaml_rows(new)[i][2] for i in (1, 2)} == {QUALIFIED_GHOST}
    if "# the word" in text:
        assert "# the word" in done.text and "# last" in done.text


@pytest.mark.parametrize(
    "name,content,named",
    [
        ("none.yaml", None, "none.yaml"),
        ("best.pt", "x", "best.pt"),
        ("list.yaml", "- 1\n", "list.yaml"),
        ("broken.yaml", "backbone: [", "broken.yaml"),
        ("data.yaml", "train: images\n", "backbone:"),
        ("odd.yaml", "backbone: [[-1, 1, Conv]]\nhead: [[0, 1, Detect, [1]]]\n", "[-1, 1, 'Conv']"),
    ],
)
def test_files_that_are_no_model(name: str, content: str | None, named: str, tmp_path: Path) -> None:
    """What is not a model YAML is refused with its name or its row."""
    if content is not None:
        (tmp_path / name).write_text(content)

    with refused(UserError, named):
        yaml_edit.swap(str(tmp_path / name), "backbone", "C2f_Fire")


def test_an_argument_that_the_block_refuses(tmp_path: Path) -> None:
    """A row whose arguments the new block cannot take is named before anything is written."""
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(small([-1, 1, "C2f", [32, True, 2]])))

    with refused(host.ModelError, "row 1", "C2f_Fire", "g=2"):
        yaml_edit.swap(str(file), "backbone", "C2f_Fire")


def test_the_command(run: Run, tmp_path: Path) -> None:
    """The command writes a YAML that the host opens at the scale that was asked for, and prints what it saves."""
    command = "ghost-yolo swap yolov8s-seg.yaml --block C2f_GhostBottleneckV2 --where backbone -o "
    done = run(*command.split(), "my.yaml")
    model = YOLO(str(tmp_path / "my.yaml"), verbose=False).model
    parameters = sum(p.numel() for p in model.parameters())

    assert model.yaml["backbone"][2] == [-1, 3, "ghost_yolo.C2f_GhostBottleneckV2", [128, True]]
    assert str(parameters) in done.stdout
    guide = (ROOT / "docs/guides/swap.md").read_text(encoding="utf-8")
    assert done.stdout.splitlines()[0] in guide  # the figures that the guide shows
    kept = (tmp_path / "my.yaml").read_bytes()
    error = run("ghost-yolo", "swap", "yolov8s-cls.yaml", "--where", "head", "-o", "my.yaml", ok=False).stderr
    assert "Classify" in error.splitlines()[-1] and "Traceback" not in error
    assert (tmp_path / "my.yaml").read_bytes() == kept


@pytest.mark.parametrize(
    "name,scale,path",
    [
        ("yolov8-my.yaml", "", "yolov8-my.yaml"),
        ("yolov8-my.yaml", "x", "yolov8x-my.yaml"),
        ("yolov8m-my.yaml", "x", "yolov8m-my.yaml"),
        ("my.yaml", "", "my.yaml"),
    ],
)
def test_names_to_train_by(name: str, scale: str, path: str) -> None:
    """The hint names a file that the host reads at the right scale."""
    assert f"yolo train model={Path('runs') / path} " in yaml_edit.how_to_train(Path("runs") / name, scale)
    assert "yolo train" not in yaml_edit.how_to_train(Path("exp3s/yolov8-my.yaml"), "s")


def test_a_name_that_does_not_exist() -> None:
    """A stock name that is mistyped is refused."""
    with refused(ModelNameError, "yolov8s-sge.yaml"):
        yaml_edit.swap("yolov8s-sge.yaml", "all", "C2f_Fire")


@pytest.mark.slow
@pytest.mark.weekly
def test_a_swapped_model_trains(run: Run, tmp_path: Path) -> None:
    """A wholly swapped YAML trains under the stock command; its checkpoint loads safely and trains on with every tensor."""
    mine = "yolo11n-seg-my.yaml"
    run("ghost-yolo", "swap", "yolo11n-seg.yaml", "--block", "C2f_GhostBottleneck", "--where", "all", "-o", mine)
    source = write_shapes(tmp_path / "shapes", "segment")
    arguments = (f"data={source}", "epochs=1", *SMALL_RUN)
    run("yolo", "train", f"model={mine}", *arguments, *run_folder(tmp_path, "a"))
    last = tmp_path / "runs/a/weights/last.pt"
    done = run("yolo", "train", f"model={last}", *arguments, *run_folder(tmp_path, "b"), ULTRALYTICS_SAFE_LOAD="1")
    moved = next(line for line in done.stdout.splitlines() if "Transferred" in line).split()[1].split("/")

    assert "ghost_yolo.blocks.detect.LightSegment" in done.stdout
    assert moved[0] == moved[1]
    run("yolo", "export", f"model={last}", "format=onnx", "imgsz=64")

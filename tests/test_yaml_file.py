"""Model YAMLs of other people: bounded in time and memory, in UTF-8, and nothing in them is executed."""

from __future__ import annotations

import copy
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import ROOT, Run, refused, small

from ghost_yolo import host
from ghost_yolo.bench.exporting import prepare
from ghost_yolo.compare import compare
from ghost_yolo.errors import ModelError, ModelNameError
from ghost_yolo.model import yaml_edit
from ghost_yolo.model.catalog import resolve
from ghost_yolo.model.checkpoint import build_from_yaml
from ghost_yolo.model.pretrained import initialise
from ghost_yolo.utils.yaml_file import read_model_yaml

TEXT = yaml.safe_dump(small([-1, 1, "C2f", [32]]), default_flow_style=None)
READERS: dict[str, Callable[[str], Any]] = {
    "swap": lambda name: yaml_edit.swap(name, "backbone", "C2f_Fire"),
    "compare": lambda name: compare([name]),
    "bench": lambda name: prepare(name, Path("unused"), 80, 640),
    "pretrained": lambda name: initialise(name, None, Path("unused.pt")),
}
ENCODINGS = ("utf-16", "gbk", "latin-1")
BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(12))
LARGE = "backbone: [[-1, {}, Conv, [{}, 3, 2]]]\nhead: [[0, 1, Detect, [nc]]]\nnc: {}\n"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_other_encodings(reader: str, encoding: str, tmp_path: Path) -> None:
    """Every command that takes a YAML says in one line what is wrong, and what to do."""
    file = tmp_path / "yolov8n-mine.yaml"
    comment = "# \u00e4rger\n" if encoding == "latin-1" else "# \u6a21\u578b\n"
    file.write_bytes((comment + TEXT).encode(encoding))
    with refused(ModelError, file, "save it as UTF-8"):
        READERS[reader](str(file))


def test_other_encodings_in_training(run: Run, tmp_path: Path) -> None:
    """`train.py` gives the same one line."""
    (tmp_path / "yolov8n-mine.yaml").write_bytes(("# \u6a21\u578b\n" + TEXT).encode("gbk"))
    error = run("python", ROOT / "train.py", "model=yolov8n-mine.yaml", "data=coco8.yaml", ok=False).stderr

    assert "Traceback" not in error and "save it as UTF-8" in error.splitlines()[-1]


def test_a_byte_order_mark(tmp_path: Path) -> None:
    """UTF-8 with the mark that Windows' editors write is read, with names of any language."""
    file = tmp_path / "\u6a21\u578b-yolov8n.yaml"
    file.write_bytes(("# \u6a21\u578b\n" + TEXT).encode("utf-8-sig"))

    assert read_model_yaml(file)[1]["nc"] == build_from_yaml(str(file), 2).nc == 2


@pytest.mark.parametrize(
    "text,named",
    [
        (BOMB + TEXT, "values"),
        ("a: &a [*a]\n" + TEXT, "*a"),
        ("a: &a\n  b: {c: [*a]}\n" + TEXT, "*a"),
        (f"a: {'[' * 500}{']' * 500}\n" + TEXT, "levels"),
        ("".join(f"{' ' * n}a{n}:\n" for n in range(500)), "levels"),
        ("- x\n" * 300_000, "bytes"),
        (LARGE.format(10**9, 16, 1), "1000000000"),
        (LARGE.format(1001, 16, 1), "1002"),
        (LARGE.format(1, 16, 1).replace("Detect", "C2f").replace("[[0, 1,", "[[0, 1000,"), "1001"),
        (LARGE.format(11, 16, 1) + "scales: {n: [99, 1, 64]}\n", "99"),
        (LARGE.format(11, 16, 1) + "depth_multiple: 99\n", "99"),
        (LARGE.format(1, 10**12, 1), "1000000000000"),
        (LARGE.format(1, 16, 10**9), "1000000000"),
        (LARGE.format(1, 16, ".nan"), "nan"),
        (LARGE.format(1, 16, "9" * 6000), "mine.yaml"),
        (TEXT + "activation: exit()\n", "exit()"),
        (TEXT + "activation: torch.nn.ReLU(print(1))\n", "print(1)"),
        (TEXT + "activation: __import__('os').system('true')\n", "__import__"),
        (TEXT + "x: !!python/object/apply:os.system ['true']\n", "python/object"),
        (TEXT + "x: 2026-13-45\n", "mine.yaml"),
        (TEXT + "\x00", "mine.yaml"),
    ],
    ids=lambda value: value[:12].strip() if isinstance(value, str) else None,
)
def test_what_is_refused(text: str, named: str, tmp_path: Path) -> None:
    """No YAML costs more than a second or 100 MB, and every error is short and names the file."""
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ModelError) as error:
            resolve(str(file))
        seconds, memory = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert named in str(error.value) and str(file) in str(error.value) and len(str(error.value)) < 1000
    assert seconds < 1 and memory < 100e6


@pytest.mark.parametrize("reader", ["swap", "compare"])
@pytest.mark.parametrize(
    "change",
    [
        *({"nc": nc} for nc in ("3", 0, True, 1.0, None)),
        *({"scales": scales} for scales in ([], {}, {"n": [-1, -1, -1]}, {"n": [1, 1]}, {"n": 1}, {1: [1, 1, 64]})),
        {"backbone": [[-1, 1.0, "Conv", [16, 3, 8]], [-1, 1, "C2f", [32]]]},
        {"backbone": [[-1, True, "Conv", [16, 3, 8]], [-1, 1, "C2f", [32]]]},
        {"depth_multiple": 0},
        {"width_multiple": "1"},
        {"channels": 0},
    ],
    ids=str,
)
def test_values_that_mean_nothing(reader: str, change: dict[str, Any], tmp_path: Path) -> None:
    """Every command refuses the same counts, factors and scales, by name."""
    file = tmp_path / "yolov8n-mine.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(TEXT) | change))
    named = "repeats" if "backbone" in change else f"{next(iter(change))}:"
    with refused(ModelError, file, named, "right is"):
        READERS[reader](str(file))


@pytest.mark.parametrize(
    "rows,more,named",
    [
        ([[-1, 1, "Conv", [9000, 3, 1]], [-1, 1, "Conv", [9000, 3, 1]]], "", "729000000"),
        ([[-1, 1, "Conv", [16, 9000, 1]]], "", "values"),
        ([[-1, 1, "nn.Upsample", ["None", 300]], [-1, 1, "nn.Upsample", ["None", 300]]], "", "values"),
        ([[-1, 1, "Conv", [3000, 3, 1]]] * 6, "", "weights"),
        ([], "activation: nn.Linear(27000, 27000)\n", "729000000"),
    ],
)
def test_what_would_exhaust_the_memory(rows: list[Any], more: str, named: str, tmp_path: Path) -> None:
    """Sizes of weights and maps are known before any memory is taken for them."""
    file = tmp_path / "yolov8n-mine.yaml"
    content = small([-1, 1, "C2f", [32]])
    content["backbone"] += rows
    file.write_text(yaml.safe_dump(content) + more)
    start = time.process_time()
    with refused(ModelError, file.name, named):
        build_from_yaml(str(file), 2)

    assert time.process_time() - start < 5


def test_a_checkpoint_of_many_repeats(tiny_model: Any) -> None:
    """A checkpoint's own YAML is bounded like a file before it is built anew."""
    model = copy.deepcopy(tiny_model)
    model.yaml["backbone"][1][1] = 5000
    with refused(ModelError, "model.yaml", 5005):
        host.untrained(model, 0)


@pytest.mark.parametrize("activation", ["nn.ReLU()", "torch.nn.LeakyReLU(0.1)", "nn.Hardswish(inplace=True)"])
def test_activations_that_are_built(activation: str, tmp_path: Path) -> None:
    """A plain class of torch.nn is what the host's YAMLs have."""
    file = tmp_path / "yolov8n-mine.yaml"
    file.write_text(TEXT + f"activation: {activation}\n")

    assert read_model_yaml(file)[1]["activation"] == activation


def test_a_newline_in_the_name(tmp_path: Path) -> None:
    """The header comment of a new YAML stays a comment."""
    file = tmp_path / "yolov8n-\nnc: 77 #.yaml"
    file.write_text(TEXT)
    done = yaml_edit.swap(str(file), "backbone", "C2f_Fire")

    assert yaml.safe_load(done.text)["nc"] == 2


def test_blank_lines() -> None:
    """Figures of the old model are found in linear time among blank lines."""
    start = time.process_time()
    yaml_edit.SUMMARY.sub(r"\1", "\n" * 50_000 + "nc: 1")

    assert time.process_time() - start < 1


SCALED = yaml.safe_load(TEXT)
del SCALED["scale"]


@pytest.mark.parametrize(
    "name,scales,named,renamed",
    [
        ("yolov8-mine.yaml", "tn", ["no scale", "t, n", "yolov8n-mine.yaml"], ("yolov8n-mine.yaml", "tn")),
        ("yolov8s-mine.yaml", "tn", ["scale s", "t, n", "yolov8n-mine.yaml"], ("yolov8n-mine.yaml", "tn")),
        ("yolov8s-mine.yaml", "n", ["scale s", "yolov8n-mine.yaml"], ("yolov8n-mine.yaml", "n")),
        ("yolov8s-mine.yaml", "t", ["scale s", "are t;", "Rename its scales"], ("yolov8s-mine.yaml", "s")),
        ("mine.yaml", "ab", ["no scale", "a, b", "Rename its scales"], ("yolov8s-mine.yaml", "sm")),
    ],
)
def test_scale_letters_of_the_yamls_own(
    name: str, scales: str, named: list[str], renamed: tuple[str, str], tmp_path: Path
) -> None:
    """Messages name the letters that the YAML has and those that the host reads; following the advice works."""
    for number, (file, letters) in enumerate(((name, scales), renamed)):
        content = SCALED | {"scales": {letter: [1.0, 1.0, 1024] for letter in letters}}
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / file).write_text(yaml.safe_dump(content, sort_keys=False))
    with refused(ModelNameError, *named):
        build_from_yaml(str(tmp_path / "0" / name), 2)

    assert build_from_yaml(str(tmp_path / "1" / renamed[0]), 2).scale == renamed[1].replace("t", "")[0]

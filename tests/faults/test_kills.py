"""Long commands killed at random moments: nothing half-written, nothing left, and the next run gives the same result.

`--kills 100` kills each command more often, `--seed 1` at other moments.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml
from factories import GHOST, NETWORK, SURVEY, SWAPS, TINY
from fresh import SUPPORTED, Zygote
from harness import BCCD, COMMAND, MODULES, SMEAR, SPLITS, Command, kill_often, names_in, write_voc

from ghost_yolo import host
from ghost_yolo.nets import squeezenet1_1
from ghost_yolo.report.collect import collect

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SUPPORTED, reason="forks and signals of Linux")]
REPORT = (
    "import pickle; from ghost_yolo.report import collect; "
    "data = pickle.load(open('../data.pkl', 'rb')); collect.collect = lambda *_, **__: data; "
)


@pytest.fixture(scope="module")
def loaded() -> Iterator[Zygote]:
    """A process that has loaded everything."""
    process = Zygote(*MODULES)
    process.run(["-c", ""], ".", dict(os.environ))  # wait until it has
    yield process
    process.close()


@pytest.fixture
def kill(
    loaded: Zygote,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> Callable[..., None]:
    """Kill a command often."""

    def start(code: str, arguments: list[Any], result: Path, check: Any, **env: str) -> None:
        command = Command(loaded, tmp_path / "work", code, [str(argument) for argument in arguments], env)
        kills, seed = (request.config.getoption(name) for name in ("--kills", "--seed"))
        done = kill_often(command, result, kills, seed, check)
        record_property("tried", f"{request.node.name}: {done}")

    return start


def digest(folder: Path) -> str:
    """Return a hash of names and contents of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(repr([(str(f.relative_to(folder)), f.read_bytes()) for f in files]).encode()).hexdigest()


def same_weights(seen: list[dict[str, torch.Tensor]], file: Path, prefix: str = "") -> None:
    """Check that a checkpoint, where there is one, has the weights of the first that was seen."""
    if file.exists():
        seen.append(host.load(file).state_dict())
        assert all(torch.equal(value, seen[0][name]) for name, value in seen[-1].items() if name.startswith(prefix))


@pytest.mark.parametrize("change", [["--block", GHOST, "--where", "all"], ["--act", "relu", "--width", 0.5]], ids=str)
def test_ghostify(
    change: list[object], kill: Callable[..., None], best: Path, image_folder: Path, tmp_path: Path
) -> None:
    """The resumed run gives the uninterrupted one's weights, bit for bit."""
    out, seen = tmp_path / "work/light.pt", list[dict[str, torch.Tensor]]()
    steps = ["--reconstruct-steps", 2, "--distill-steps", 6, "--threads", 1]
    arguments = ["ghostify", best, "--images", image_folder, *change, *steps, "-o", out]
    code = "from ghost_yolo.ghostify import distill; distill.CHECKPOINT_EVERY = 2; " + COMMAND
    kill(code, arguments, out, lambda: same_weights(seen, out))

    assert len(seen) >= 2 and names_in(out.parent) == ["light.json", "light.pt"]


def test_pretrained(kill: Callable[..., None], tmp_path: Path) -> None:
    """The checkpoint is whole or not there, and holds the classifier's weights; the head's are random."""
    pytest.importorskip("timm", reason="timm reads the weight file")
    model, weights, out = tmp_path / "net.yaml", tmp_path / "weights.pth", tmp_path / "work/init.pt"
    model.write_text(yaml.safe_dump(NETWORK))
    torch.save(squeezenet1_1(num_classes=3, width=0.25).state_dict(), weights)
    seen = list[dict[str, torch.Tensor]]()
    arguments = ["pretrained", "--model", model, "--weights", weights, "-o", out]
    kill(COMMAND, arguments, out, lambda: same_weights(seen, out, "model.0."))

    assert len(seen) >= 2 and names_in(out.parent) == ["init.pt"]


def test_compare(kill: Callable[..., None], tmp_path: Path) -> None:
    """The table is whole or not there."""
    model, out, seen = tmp_path / "tiny.yaml", tmp_path / "work/out.json", set[str]()
    model.write_text(yaml.safe_dump(TINY))

    def check() -> None:
        if out.exists():
            seen.add(out.read_text(encoding="utf-8"))
        assert len(seen) <= 1

    kill(COMMAND, ["compare", model, "--imgsz", 32, "--format", "json", "-o", out], out, check)

    assert json.loads(seen.pop()) and names_in(out.parent) == ["out.json"]


def test_verify(kill: Callable[..., None], best: Path, tmp_path: Path) -> None:
    """The ONNX file is whole or not there."""
    onnx = pytest.importorskip("onnx", reason="verify writes ONNX")
    out = tmp_path / "work/best.onnx"

    def check() -> None:
        if out.exists():
            onnx.checker.check_model(str(out))

    copy = f"import shutil; shutil.copy({str(best)!r}, 'best.pt'); "
    kill(copy + COMMAND, ["verify", "best.pt", "--imgsz", 64], out, check)

    assert names_in(out.parent) == ["best.onnx", "best.pt"]


def test_bundle(kill: Callable[..., None], best: Path, image_folder: Path, tmp_path: Path) -> None:
    """The bundle is whole, as its checksums say, or not there; its scripts end with it."""
    pytest.importorskip("onnxruntime", reason="the bundle's runner needs a runtime")
    out = tmp_path / "work/bundle"

    def check() -> None:
        for line in (out / "checksums.txt").read_text().splitlines() if out.exists() else ():
            expected, name = line.split("  ")
            assert hashlib.sha256((out / name).read_bytes()).hexdigest() == expected, name

    options = ["--imgsz", 64, "--rounds", 1, "--threads", 1]
    kill(COMMAND, ["bundle", best, "--images", image_folder, *options, "-o", out], out, check)

    assert names_in(out.parent) == ["bundle"]


@pytest.mark.parametrize(
    "code,arguments",
    [(SMEAR, []), (BCCD, []), (COMMAND, ["voc", "../voc", "-o", "data"])],
    ids=["smear", "bccd", "voc"],
)
def test_data_sets(code: str, arguments: list[str], kill: Callable[..., None], tmp_path: Path) -> None:
    """A data set is whole or not there."""
    root, seen = tmp_path / "work/data", set[str]()
    voc = write_voc(tmp_path / "voc")

    def check() -> None:
        if root.exists():
            seen.add(digest(root))
        assert len(seen) <= 1

    kill(code, arguments, root, check, GHOST_YOLO_BCCD_DIR=str(voc))

    assert len(seen) == 1 and names_in(root.parent) == ["data"]


@pytest.mark.parametrize("name", ["ghosts", "correlate"])
def test_folders(name: str, kill: Callable[..., None], best: Path, image_folder: Path, tmp_path: Path) -> None:
    """The folder of figures and tables is whole or not there."""
    out, seen = tmp_path / "work/out", set[str]()
    files = [tmp_path / "ghosts.json", tmp_path / "light.json"]
    for file, content in zip(files, (SURVEY, SWAPS), strict=True):
        file.write_text(json.dumps(content))

    def check() -> None:
        if out.exists():
            seen.add(digest(out))
        assert len(seen) <= 1

    given = {"ghosts": [best, "--image", image_folder / "0.png", "--imgsz", 64], "correlate": files}[name]
    kill(COMMAND, [name, *given, "-o", out], out, check)

    assert len(seen) == 1 and names_in(out.parent) == ["out"]


@pytest.mark.weekly
def test_report(kill: Callable[..., None], tmp_path: Path) -> None:
    """Page and figures are whole or not there."""
    page = tmp_path / "work/page.html"
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(collect([], [], ["n"], 32, timing=False)))

    def check() -> None:
        assert not page.exists() or page.read_text(encoding="utf-8").rstrip().endswith("</html>")
        for file in page.parent.glob("page-figures/*.png"):
            assert cv2.imread(str(file)) is not None, file

    arguments = ["report", "--no-bench", "--scales", "n", "--imgsz", 32, "-o", page]
    kill(REPORT + COMMAND, arguments, page, check)

    assert not list(page.parent.rglob(".*"))


def test_bench(kill: Callable[..., None], tmp_path: Path) -> None:
    """The table is whole or not there, and the measuring processes end with their parent."""
    model, out = tmp_path / "tiny-yolov8n.yaml", tmp_path / "work/bench.json"
    model.write_text(yaml.safe_dump(TINY))
    arguments = ["bench", model, "--runtimes", "pytorch", "--imgsz", 32, "--rounds", 2, "--passes", 1, "--threads", 1]

    def check() -> None:
        if out.exists():
            json.loads(out.read_text())  # after Ctrl-C the rounds so far

    code = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import forked; " + COMMAND
    kill(code, [*arguments, "--format", "json", "-o", out], out, check)

    assert names_in(out.parent) == ["bench.json"]


def test_train(kill: Callable[..., None], tmp_path: Path) -> None:
    """A killed first training leaves a whole data set or none, and no worker of its data loader."""
    model, data, root = tmp_path / "tiny-yolov8n.yaml", tmp_path / "data.yaml", tmp_path / "work/set"
    model.write_text(yaml.safe_dump(TINY))
    download = f"from ghost_yolo.data import smear; smear.prepare({str(root)!r})"
    content = {"path": str(root), "train": "images/train", "val": "images/val", "names": ["a", "b", "c"]}
    data.write_text(yaml.safe_dump(content | {"download": download}))
    last = tmp_path / "work/runs/run/weights/last.pt"
    arguments = [
        "train",
        f"model={model}",
        f"data={data}",
        f"project={tmp_path / 'work/runs'}",
        "name=run",
        "exist_ok=True",
    ]
    arguments += ["epochs=1", "imgsz=32", "batch=8", "workers=1", "plots=False", "val=False", "device=cpu"]
    code = f"from ghost_yolo.data import smear; smear.SPLITS = {SPLITS}; "
    code += "import sys; from ultralytics.cfg import entrypoint; entrypoint(' '.join(['yolo', *sys.argv[1:]]))"

    def check() -> None:
        assert len(list(root.rglob("*.png"))) in (0, 16)

    kill(code, arguments, last, check)

    assert not list(root.parent.glob(".set*"))
    host.load(last)

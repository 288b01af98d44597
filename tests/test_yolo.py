"""The stock `yolo` command with our YAMLs and no code of the user's: train, val, predict, export, resume, all tasks."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factories import ROOT, SMALL_RUN, Run, run_folder, write_data_yaml, write_shapes
from ultralytics.utils import ROOT as HOST

from ghost_yolo.data import smear
from ghost_yolo.model.catalog import packaged, path_of, with_scale

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data YAML of a few generated pictures."""
    monkeypatch.setattr(smear, "SPLITS", {"train": 8, "val": 4})
    smear.prepare(tmp_path / "smear")
    return write_data_yaml(tmp_path, names=["Platelets", "RBC", "WBC"], path=str(tmp_path / "smear"))


def test_train_val_predict_export(run: Run, tmp_path: Path, data: Path) -> None:
    """The headline YAML, by its path in the checkout, goes through all four commands; the ONNX file predicts, too."""
    yolo = functools.partial(run, "yolo", fresh=True)  # as a user starts it
    model = ROOT / "cfg/yolov8s-ghost.yaml"
    trained = yolo("train", f"model={model}", f"data={data}", "epochs=1", *run_folder(tmp_path, "t"), *SMALL_RUN)
    best = tmp_path / "runs/t/weights/best.pt"
    picture = tmp_path / "smear/images/val/0000.png"

    assert "ghost_yolo.blocks.ghost.C2f_GhostBottleneck" in trained.stdout
    yolo("val", f"model={best}", f"data={data}", *SMALL_RUN)
    yolo("predict", f"model={best}", f"source={picture}", "imgsz=64", *run_folder(tmp_path, "p"))
    assert list((tmp_path / "runs/p").glob("0000.*"))
    yolo("export", f"model={best}", "format=onnx", "imgsz=64")
    yolo(
        "predict",
        f"model={best.with_suffix('.onnx')}",
        f"source={picture}",
        "imgsz=64",
        *run_folder(tmp_path, "o"),
    )
    assert list((tmp_path / "runs/o").glob("0000.*"))


# One with a gate, one whose inner block is a stage, one with convolutions that the host does not know
@pytest.mark.parametrize(
    "name",
    [
        "yolov8n-gghost",
        *(pytest.param(f"yolov8n-{it}", marks=pytest.mark.weekly) for it in ("ghostv2", "c2f-ghostbottleneckv2")),
    ],
)
def test_from_python_with_the_host_alone(name: str, python: Run, tmp_path: Path, data: Path) -> None:
    """A script that imports nothing of ours trains a packaged model, reloads it safely and trains on from it."""
    options = f"data={str(data)!r}, epochs=1, imgsz=64, batch=4, workers=0, plots=False, project={str(tmp_path)!r}, exist_ok=True"
    python(f"from ultralytics import YOLO; YOLO({str(path_of(name))!r}).train(name='a', {options})")
    (tmp_path / "my.pt").write_bytes(next(tmp_path.rglob("a/weights/best.pt")).read_bytes())
    again = f"from ultralytics import YOLO; YOLO('my.pt').val({options.replace(', epochs=1', '')}); YOLO('my.pt').train(name='b', {options})"
    done = python(again, ULTRALYTICS_SAFE_LOAD="1")
    moved = next(line for line in done.stdout.splitlines() if "Transferred" in line)

    assert moved.split()[1].split("/")[0] == moved.split()[1].split("/")[1], moved


@pytest.mark.parametrize("scale", ["n", pytest.param("s", marks=pytest.mark.weekly)])
def test_every_yaml_trains(scale: str, python: Run, data: Path) -> None:
    """An epoch of every packaged model has finite losses that see boxes, and its best.pt reloads safely as what was trained."""
    paths = [str(path_of(with_scale(name, scale))) for name, item in packaged().items() if item.is_model]
    done = python(
        f"""
import csv, math
from ultralytics import YOLO
wrong = {{}}
for path in {paths!r}:
    model = YOLO(path)
    built = [type(m) for m in model.model.modules()]
    model.train(data={str(data)!r}, epochs=1, imgsz=64, batch=4, fraction=0.5, workers=0, plots=False, amp=False, device="cpu",
                optimizer="SGD", mosaic=0.0, project={str(data.parent / "runs")!r})
    with open(model.trainer.csv) as file:
        losses = {{k.strip(): float(v) for k, v in next(csv.DictReader(file)).items() if "loss" in k}}
    best = YOLO(model.trainer.best).model
    rebuilt = type(best)(best.yaml, verbose=False).state_dict()  # as the host does to train on
    again = [type(m) for m in best.modules()]
    if again != built or rebuilt.keys() != best.state_dict().keys() or not all(map(math.isfinite, losses.values())) or not losses["train/box_loss"] > 0:
        wrong[path] = (again == built, losses)
print("wrong", wrong)
""",
        ULTRALYTICS_SAFE_LOAD="1",
    )

    assert done.stdout.splitlines()[-1] == "wrong {}"


def test_interrupted_training_resumes(tmp_path: Path, data: Path, run: Run) -> None:
    """Training that is stopped goes on with resume=True, by train.py, and reaches its last epoch."""
    arguments = [
        f"model={path_of('yolov8n-ghost')}",
        f"data={data}",
        "epochs=20",
        *run_folder(tmp_path, "r"),
        *SMALL_RUN,
    ]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    last, results = tmp_path / "runs/r/weights/last.pt", tmp_path / "runs/r/results.csv"
    deadline = time.time() + 120
    while process.poll() is None and time.time() < deadline:
        if results.exists() and len(results.read_text().splitlines()) > 3:  # the weights of two epochs are written
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    before = len(results.read_text().splitlines())

    assert 1 < before < 21
    run(sys.executable, ROOT / "train.py", f"model={last}", "resume=True")
    epochs = [int(line.split(",")[0]) for line in results.read_text().splitlines()[1:]]
    assert sorted(set(epochs)) == [*range(1, 21)]  # one may stand there twice: its line is written before its weights


def test_train_py_refuses_a_name_without_scale(run: Run) -> None:
    """train.py does not let the host fall back to scale n."""
    done = run(sys.executable, ROOT / "train.py", f"model={ROOT / 'cfg/yolov8-ghost.yaml'}", ok=False)

    assert "yolov8-ghost" in done.stderr and "Traceback" not in done.stderr


def test_without_the_auto_load(run: Run, tmp_path: Path, data: Path) -> None:
    """train.py needs no auto-load: it registers the blocks itself."""
    arguments = (
        f"model={path_of('yolov8n-ghost')}",
        f"data={data}",
        "epochs=1",
        *run_folder(tmp_path, "t"),
        *SMALL_RUN,
    )
    run(sys.executable, ROOT / "train.py", *arguments, GHOST_YOLO_AUTOLOAD="0", fresh=True)
    assert (tmp_path / "runs/t/weights/best.pt").is_file()


def test_an_unknown_word_under_the_command(run: Run, tmp_path: Path, data: Path) -> None:
    """The stock command's last line names the mistyped name and the nearest one."""
    mine = tmp_path / "yolov8n-mine.yaml"
    mine.write_text((ROOT / "cfg/yolov8-ghost.yaml").read_text().replace("ghost_yolo.C2f_Ghost", "C2f_Gost"))
    done = run("yolo", "train", f"model={mine}", f"data={data}", "epochs=1", *SMALL_RUN, ok=False)

    assert all(name in done.stderr.strip().splitlines()[-1] for name in ("C2f_GostBottleneck", "'C2f_GhostBottleneck'"))


@pytest.mark.parametrize(
    "task,suffix",
    [
        ("segment", "-seg"),
        ("classify", "-cls"),
        ("pose", "-pose"),
        pytest.param("obb", "-obb", marks=pytest.mark.weekly),
    ],
)
@pytest.mark.parametrize(
    "name", ["C2f_GhostBottleneckV2", pytest.param("ghost_yolo.C2f_GGhostBottleneck", marks=pytest.mark.weekly)]
)
def test_other_tasks(task: str, suffix: str, name: str, run: Run, tmp_path: Path) -> None:
    """A user's YAML of another task that names a block of ours trains, and its checkpoint predicts."""
    stock = (HOST / f"cfg/models/v8/yolov8{suffix}.yaml").read_text()
    mine = tmp_path / f"yolov8n{suffix}-mine.yaml"
    mine.write_text(stock.replace(", C2f,", f", {name},"))
    source = write_shapes(tmp_path / "shapes", task)
    done = run(
        "yolo", task, "train", f"model={mine}", f"data={source}", "epochs=1", *run_folder(tmp_path, "t"), *SMALL_RUN
    )
    picture = next((tmp_path / "shapes").rglob("val/**/0.png"))
    run("yolo", task, "predict", f"model={tmp_path / 'runs/t/weights/best.pt'}", f"source={picture}", "imgsz=64")

    assert done.stdout.count("ghost_yolo.blocks.") >= 4


def test_the_readme_job_on_the_generated_data(run: Run, tmp_path: Path) -> None:
    """datasets/smear.yaml prepares itself under the stock command, with nothing at hand and no network."""
    shutil.rmtree(tmp_path / "datasets", ignore_errors=True)
    data = str(ROOT / "datasets/smear.yaml")
    run("yolo", "train", f"model={path_of('yolov8n-ghost')}", f"data={data}", "epochs=1", "fraction=0.05", *SMALL_RUN)

    assert len(list(tmp_path.rglob("images/train/*.png"))) == smear.SPLITS["train"]

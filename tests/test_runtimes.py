"""The runtimes and their worker processes: what each opens, refuses and computes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import ROOT, newest_only, refused

from ghost_yolo import host
from ghost_yolo.bench.exporting import prepare
from ghost_yolo.bench.outputs import require_sound_outputs
from ghost_yolo.bench.runtimes import RUNTIMES, InferenceConfig, LoadedModel, file_mb, installed, runtime_of
from ghost_yolo.bench.worker import Worker
from ghost_yolo.errors import UserError, WorkerError
from ghost_yolo.export.verify import require_runtime
from ghost_yolo.model.checkpoint import build_from_yaml
from ghost_yolo.utils.system import default_threads


@pytest.mark.parametrize("runtime", ["pytorch", "onnx", "openvino", "ncnn"])
def test_a_gpu_that_is_not_there(runtime: str) -> None:
    """A device that a runtime cannot use is an error before the file is opened."""
    if RUNTIMES[runtime].missing("fp32", exporting=False):
        pytest.skip("not installed")
    with pytest.raises(UserError, match="--device 99"):
        RUNTIMES[runtime].open(Path("x"), InferenceConfig(1, 64, 3, "fp32", "99", 1))


def test_runtimes_and_their_files() -> None:
    """Exported files are recognised by their endings, and every row's extra is one of the project's."""
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert [runtime_of(name) for name in ("m.onnx", "m_int8_openvino_model/", "m_ncnn_model", "m.pt", "m.yaml")] == [
        "onnx", "openvino", "ncnn", "", "",
    ]  # fmt: skip
    assert all(f"\n{row.extra} = [" in extras for row in RUNTIMES.values() if row.extra)
    assert default_threads() >= 1


def test_outputs_that_show_that_nothing_is_computed(best: Path) -> None:
    """An output that is not finite, or the same for noise and black, is refused; a file with its own NMS may find nothing."""
    image = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    before = image.copy()
    for run, says in (
        (lambda: [image, {"b": image / (image != 0)}], "not finite"),
        (lambda: (image * np.inf,), "not finite"),
        (lambda: [np.ones(3)], "do not depend"),
    ):
        with np.errstate(all="ignore"), refused(UserError, says):
            require_sound_outputs(LoadedModel(run, image))
        image[...] = before
    require_sound_outputs(LoadedModel(lambda: [np.zeros(3), None], image), nms=True)
    require_sound_outputs(LoadedModel(image.sum, image))
    model = RUNTIMES["pytorch"].open(best, InferenceConfig(1, 64, 3, "fp32", "cpu", 1))
    image = model.image.clone()
    require_sound_outputs(model)

    assert (image == model.image).all()


def test_a_process_that_dies_is_an_error_and_the_next_call_works(tmp_path: Path) -> None:
    """A crash names the exit status and the last line printed; the call after it has a new process."""
    worker = Worker(tmp_path / "log.txt", 1)
    worker.close()
    code = "import sys; sys.stdin.readline(); print('out of luck', file=sys.stderr); sys.exit(3)"
    with (tmp_path / "log.txt").open("ab") as log:
        worker.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    with pytest.raises(WorkerError, match=r"status 3.*out of luck"):
        worker.call("time", 1)
    with pytest.raises(WorkerError, match="AttributeError"):
        worker.call("time", 1)  # nothing was opened in the new one
    worker.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Any]]:
    """A process that has prepared a model, and its answer."""
    folder = tmp_path_factory.mktemp("prepared")
    worker = Worker(folder / "log.txt", 1)
    yield worker, worker.call("prepare", "yolov8n.yaml", folder / "n", 80, 64)
    worker.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "runtime,precision,pixels,share",
    [
        ("onnx", "fp32", 0.05, 1.0),
        ("openvino", "fp32", 0.05, 1.0),
        ("openvino", "default", 40.0, 1.0),  # bfloat16 on some CPUs
        pytest.param("ncnn", "fp32", 0.05, 1.0, marks=newest_only),  # the oldest host downloads the converter
        pytest.param("onnx", "int8", np.inf, 0.3, marks=newest_only),  # the oldest exports none
        ("openvino", "int8", np.inf, 0.3),  # untrained weights and noise: what int8 gives is far from float32
    ],
)
def test_what_is_timed_is_the_network(
    runtime: str, precision: str, pixels: float, share: float, prepared: tuple[Worker, Any], tmp_path: Path
) -> None:
    """The exported float32 file computes PyTorch's boxes in that runtime, and the file size follows from the precision."""
    missing = RUNTIMES[runtime].missing(precision)
    if missing:
        pytest.skip(f"{missing} is not installed")
    worker, info = prepared
    data = str(ROOT / "datasets/smear.yaml")
    file = worker.call("export", info["file"], tmp_path / "made", runtime, precision, 64, 1, data)
    config = InferenceConfig(1, 64, 3, precision, "cpu", 1)
    expected = RUNTIMES["pytorch"].open(Path(info["file"]), config)()[0]
    model = RUNTIMES[runtime].open(Path(file), config)
    require_sound_outputs(model)  # each pass reads the image anew, and the check leaves it as it was
    (found,) = model()

    assert np.abs(np.array(found).reshape(84, -1) - expected[0].numpy())[:4].max() < pixels
    assert file_mb(Path(file)) == pytest.approx(2 * info["file_mb"] * share, rel=0.2)  # the checkpoint is fp16


def test_weights_are_written_once(tmp_path: Path) -> None:
    """A checkpoint that is stripped already is timed as it is; another is written stripped, as a YAML's model is."""
    model = build_from_yaml("yolov8n.yaml", 3).model
    host.save(model, tmp_path / "stripped.pt")
    torch.save({"model": model, "train_args": {}}, tmp_path / "full.pt")
    files = {
        name: Path(prepare(str(tmp_path / f"{name}.pt"), tmp_path / name, 3, 64).file) for name in ("stripped", "full")
    }

    assert files["stripped"].samefile(tmp_path / "stripped.pt")
    assert files["full"].stat().st_size < 0.6 * (tmp_path / "full.pt").stat().st_size


def test_nothing_is_reported_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO and NNCF find no telemetry package, ONNX Runtime its variable, once a runtime of ours is asked for."""
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "")  # so that it is put back
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    RUNTIMES["pytorch"].require("fp32")
    assert os.environ.pop("ORT_DISABLE_TELEMETRY") == "1"
    if "onnx" in installed():
        require_runtime()
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")

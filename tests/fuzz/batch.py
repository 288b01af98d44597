"""Run a batch of generated inputs through the functions of the commands: `python batch.py KIND COUNT SEED`.

For each, the only outcomes are a result that is right and a UserError of less than 2 kB; a traceback, more than SECONDS or
more than MEMORY ends the batch with the input that did it. SECONDS are those of the processor, since the machine may be busy;
an input that only waits ends the batch after WAITING seconds. The last line says how many inputs gave a result and how many only
UserErrors.
"""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from factories import ACCURACY_RECORD, GHOST, TINY, bench_row, light  # noqa: E402 (after the path)
from strategies import (  # noqa: E402
    ANNOTATION,
    change_weight,
    changed,
    changed_bytes,
    image_files,
    model_changes,
    voc_inputs,
    yaml_files,
)

from ghost_yolo import host  # noqa: E402
from ghost_yolo.bench import BenchResult  # noqa: E402
from ghost_yolo.bench.tables import render  # noqa: E402
from ghost_yolo.compare import compare  # noqa: E402
from ghost_yolo.data import images  # noqa: E402
from ghost_yolo.data.voc import convert  # noqa: E402
from ghost_yolo.errors import UserError  # noqa: E402
from ghost_yolo.ghostify import Settings, ghostify  # noqa: E402
from ghost_yolo.model import yaml_edit  # noqa: E402
from ghost_yolo.model.checkpoint import build_from_yaml, open_checkpoint  # noqa: E402
from ghost_yolo.redundancy.filters import analyze_filters  # noqa: E402
from ghost_yolo.report.sources import read_accuracy, read_bench  # noqa: E402

SECONDS, WAITING, MEMORY, MAX_TEXT = 30, 200, 2 * 2**30, 2000
NAMES = {0: "Platelets", 1: "RBC", 2: "WBC"}
MODELS = [
    TINY,
    light(TINY, "backbone"),
    TINY | {"scales": {"n": [0.33, 0.25, 1024], "t": [1, 1, 64]}, "activation": "nn.ReLU()"},
]
SPLITS = ("train", "val")
SETTINGS = Settings(reconstruct_steps=1, distill_steps=1, threads=1)  # the other cores may be busy
OUTCOMES: list[str] = []  # of the input at hand, one for each function that was given it


class TooSlow(BaseException):
    """An input took more than SECONDS."""


class BadRefusalError(AssertionError):
    """An error has no text or MAX_TEXT characters, or an input was refused only when MEMORY was taken."""


def interrupt(*_: Any) -> None:
    """End a slow input."""
    raise TooSlow


def attempt(work: Callable[[], None]) -> None:
    """Do the work within its time; a UserError of reasonable length is right."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAITING)
    try:
        work()
        OUTCOMES.append("right")
    except (UserError, OSError) as error:  # what the command line prints as one line
        if any(text in str(error) for text in ("allocate memory", "bad_alloc", "MemoryError")):
            raise BadRefusalError(str(error)[:300]) from error
        if not 0 < len(str(error)) < MAX_TEXT:
            raise BadRefusalError(f"{len(str(error))} characters: {str(error)[:300]}") from error
        OUTCOMES.append("refused")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def check_yaml(data: bytes) -> None:
    """Swap and compare a YAML: the swapped text builds, and the parameters are those of the host's own model."""
    file, swapped = FOLDER / "yolov8n-odd.yaml", FOLDER / "yolov8n-swapped.yaml"
    file.write_bytes(data)

    def swap() -> None:
        done = yaml_edit.swap(str(file), "all", GHOST)
        swapped.write_text(done.text, encoding="utf-8")
        assert "ghost_yolo." in done.text
        build_from_yaml(str(swapped), 3)

    def count() -> None:
        (entry, *_) = (e for e in compare([str(file)], "n", 3, 64).entries if e.row.parameters)
        built = build_from_yaml(str(file), 3).model
        assert sum(p.numel() for p in built.parameters()) in {
            e.row.parameters for e in compare([str(file)], "n", 3, 64).entries
        }, entry

    attempt(swap)
    attempt(count)


def checkpoint_bytes(change: tuple[str, str, Any]) -> bytes:
    """Return the checkpoint of the small model after one change."""
    kind, name, value = change
    model = torch.load(io.BytesIO(SAVED), weights_only=False)["model"]
    content = {"model": model, "train_args": {"imgsz": 64, "task": "detect"}, "version": "8.4.0", "date": "2026-01-01"}
    if kind == "attribute":
        model.__dict__[name] = value
    elif kind == "without":
        model.__dict__.pop(name, None)
        model._modules.pop(name, None)
    elif kind in ("yaml", "names"):
        setattr(model, kind, value)
    elif kind == "weight":
        change_weight(model, name, value)
    elif kind == "args":
        content["train_args"][name] = value
    elif kind == "head":
        model._modules["model"][-1].__dict__[name] = value
    else:
        content[name] = value
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def damaged(number: int) -> bytes:
    """Return the checkpoint with some bytes set, the rest cut, or both; the number is the random seed."""
    generator, data = random.Random(number), bytearray(SAVED)
    for _ in range(generator.randint(1, 8)):
        data[generator.randrange(len(data))] = generator.randrange(256)
    return bytes(data[: generator.choice([len(data), len(data), generator.randrange(len(data))])])


def check_checkpoint(change: tuple[str, str, Any]) -> None:
    """Open a checkpoint by `pairs`, `compare` and `ghostify`: what is written is finite and loads again."""
    file, out = FOLDER / "odd.pt", FOLDER / "light.pt"
    file.write_bytes(damaged(change[2]) if change[0] == "bytes" else checkpoint_bytes(change))

    def convert_it() -> None:
        report = ghostify(file, [FOLDER / "photo.png"], out, [GHOST], settings=SETTINGS)
        assert all(np.isfinite(row["error"]) for row in report.rows)
        assert len(open_checkpoint(out).model.model) == len(TEACHER.model)

    try:
        attempt(lambda: assert_(analyze_filters(open_checkpoint(file).model, 0)))
        attempt(lambda: assert_(compare([str(file)], "n", 3, 64).entries))
        attempt(convert_it)
    finally:
        for path in FOLDER.glob("light.*"):
            path.unlink()


def assert_(value: Any) -> None:
    """Check that there is a result."""
    assert value


def check_voc(data: tuple[bytes, bytes, bytes]) -> None:
    """Convert a VOC folder: as many label lines as boxes, each inside its image, and each image readable."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        root, out = Path(folder, "voc"), Path(folder, "out")
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True)
        for name, xml, photo in (("one", data[0], data[2]), ("two", ANNOTATION.encode(), PHOTO)):
            (root / f"Annotations/{name}.xml").write_bytes(xml)
            (root / f"JPEGImages/{name}.jpg").write_bytes(photo)
        (root / "ImageSets/Main/train.txt").write_bytes(data[1])
        (root / "ImageSets/Main/val.txt").write_text("two\n")

        def work() -> None:
            result = convert(root, out, NAMES, SPLITS)
            lines = [line.split() for file in out.glob("labels/*/*.txt") for line in file.read_text().splitlines()]
            copied = list(out.glob("images/*/*"))
            assert len(lines) == result.boxes and len(copied) == sum(result.images.values())
            assert all(0 <= float(value) <= 1 for line in lines for value in line[1:])
            assert all(cv2.imread(str(file)) is not None for file in copied)

        attempt(work)


def check_image(data: tuple[str, bytes]) -> None:
    """Read an image: three channels of bytes, and the model's input is finite."""
    file = FOLDER / f"odd.{data[0]}"
    file.write_bytes(data[1])

    def work() -> None:
        image = images.read_image(file, truncated_is_error=True)
        assert image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size
        tensor = images.resize_to_stride(image, 64, 32)
        assert tensor.shape[:2] == (1, 3) and bool(tensor.isfinite().all())

    try:
        attempt(work)
    finally:
        file.unlink()


def check_json(data: Any) -> None:
    """Read a benchmark and an accuracy record: the figures that come out are finite."""
    file = FOLDER / "odd.json"
    file.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    attempt(lambda: assert_(read_bench(file).rows))
    attempt(lambda: assert_(read_accuracy(file)))


def batches() -> dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """Return strategy and check of each kind."""
    row = bench_row("yolov8n.yaml", gflops=1.0, times=[1.0, 2.0], median_ms=1.5, q25=1.0, q75=2.0, rounds=2)
    bench = json.loads(render(BenchResult([row], {"cpu": "x"}, {}), "json"))
    damages = st.tuples(st.just("bytes"), st.just(""), st.integers(0, 2**32))
    documents = st.sampled_from([bench, [ACCURACY_RECORD], ACCURACY_RECORD]).flatmap(changed)
    return {
        "yaml": (yaml_files(MODELS), check_yaml),
        "checkpoint": (st.one_of(model_changes(TEACHER), damages), check_checkpoint),
        "voc": (voc_inputs(PHOTO), check_voc),
        "image": (image_files(PHOTOS), check_image),
        "json": (
            st.one_of(documents, documents.map(lambda d: json.dumps(d).encode()).flatmap(changed_bytes)),
            check_json,
        ),
    }


def limit_memory() -> None:
    """Limit what this process may take to MEMORY more than now."""
    most = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run(kind: str, count: int, number: int) -> None:
    """Run one batch."""
    strategy, check = batches()[kind]
    outcomes: Counter[str] = Counter()

    def counted(data: Any) -> None:
        OUTCOMES.clear()
        check(data)
        outcomes["right" if "right" in OUTCOMES else "refused"] += 1  # a benchmark is refused as an accuracy record

    chosen = settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a found input is small already, and shrinking it takes minutes
        print_blob=False,
    )
    seed(number)(chosen(given(strategy)(counted)))()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{kind}: {outcomes.total()} inputs, {outcomes['right']} right, {outcomes['refused']} refused, {used:.1f} GiB"
    )


def teacher() -> Any:
    """Return the small model, which says its classes and strides."""
    torch.manual_seed(0)
    model = host.build(TINY | {"nc": 3})
    model.names = dict(enumerate("abc"))
    return model


if __name__ == "__main__":
    random.seed(0)
    torch.set_num_threads(1)
    TEACHER = teacher()
    with tempfile.TemporaryDirectory() as root:
        FOLDER = Path(root)
        host.save(TEACHER, FOLDER / "best.pt", {"imgsz": 64, "task": "detect"})
        SAVED = (FOLDER / "best.pt").read_bytes()
        picture = np.random.RandomState(0).randint(0, 255, (64, 80, 3), np.uint8)
        PHOTOS = {name: cv2.imencode(f".{name}", picture)[1].tobytes() for name in ("jpg", "png", "bmp", "tif", "webp")}
        PHOTO = PHOTOS["jpg"]
        (FOLDER / "photo.png").write_bytes(PHOTOS["png"])
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, interrupt)
        limit_memory()
        run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

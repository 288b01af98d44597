"""Run a batch of generated inputs through the commands, in this process: `python batch.py KIND COUNT SEED`.

For each, the only outcomes are a result that is right and a UserError of one line and less than 2 kB; a traceback, more than
SECONDS or more than MEMORY ends the batch with the input that did it. SECONDS are those of the processor, since the machine may
be busy; an input that only waits ends the batch after WAITING seconds. The last line says how many inputs gave a result and how
many only UserErrors.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from checks import Checks, leave_out_what_is_not_odd  # noqa: E402 (after the path)
from factories import ACCURACY_RECORD, NETWORK, SURVEY, SWAPS, TINY, bench_row, light  # noqa: E402
from outcomes import OUTCOMES, set_limits  # noqa: E402
from strategies import (  # noqa: E402
    changed,
    changed_bytes,
    damages,
    image_files,
    model_changes,
    voc_inputs,
    weight_files,
    yaml_files,
)

from ghost_yolo import host  # noqa: E402
from ghost_yolo.bench import BenchResult  # noqa: E402
from ghost_yolo.bench.tables import render  # noqa: E402
from ghost_yolo.nets import squeezenet1_1  # noqa: E402

MODELS = [
    TINY,
    light(TINY, "backbone"),
    TINY | {"scales": {"n": [0.33, 0.25, 1024], "t": [1, 1, 64]}, "activation": "nn.ReLU()"},
]


def benchmark() -> dict[str, Any]:
    """Return the JSON file of a benchmark of three models."""
    times = {"times": [1.0, 2.0], "median_ms": 1.5, "q25": 1.0, "q75": 2.0, "rounds": 2}
    ratios = {"ratio": 0.8, "ratio_low": 0.7, "ratio_high": 0.9}
    rows = [
        bench_row("yolov8n.yaml", gflops=1.0, **times, operators={"Conv": 1.0, "Add": 0.5}),
        bench_row("yolov8n-ghost.yaml", gflops=0.7, **times, **ratios),
        bench_row("best.pt", error="it failed"),
    ]
    return dict(json.loads(render(BenchResult(rows, {"cpu": "x"}, {}), "json")))


def odd_pairs(*documents: Any) -> st.SearchStrategy[tuple[Any, Any]]:
    """Return two documents, one of them changed."""
    one, two = documents
    return st.one_of(st.tuples(changed(one), st.just(two)), st.tuples(st.just(one), changed(two)))


def batches(checks: Checks, teacher: Any) -> dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]]:
    """Return strategy and check of each kind."""
    models, photos = st.one_of(model_changes(teacher), damages()), image_files(checks.photos)
    bench = benchmark()
    documents = st.sampled_from([bench, [ACCURACY_RECORD], ACCURACY_RECORD]).flatmap(changed)
    flipped = documents.map(lambda document: json.dumps(document).encode()).flatmap(changed_bytes)
    weights = weight_files(sorted(checks.weights))
    usual = st.just(("as it is", "", None))
    networks = st.one_of(st.tuples(st.just(yaml_bytes(NETWORK)), weights), st.tuples(yaml_files([NETWORK]), usual))
    return {
        "yaml": (yaml_files(MODELS), checks.yaml),
        "checkpoint": (models, checks.checkpoint),
        "ghosts": (
            st.one_of(st.tuples(models, st.just(("png", checks.photos["png"]))), st.tuples(st.none(), photos)),
            checks.ghosts,
        ),
        "pretrained": (networks, checks.pretrained),
        "voc": (voc_inputs(checks.photos["jpg"]), checks.voc),
        "image": (photos, checks.image),
        "json": (st.one_of(documents, flipped), checks.json),
        "report": (odd_pairs(bench, [ACCURACY_RECORD]), checks.report),
        "correlate": (odd_pairs(SURVEY, SWAPS), checks.correlate),
    }


def yaml_bytes(content: Any) -> bytes:
    """Return a model YAML; JSON is YAML."""
    return json.dumps(content).encode()


def run(kind: str, strategy: st.SearchStrategy[Any], check: Callable[[Any], None], count: int, number: int) -> None:
    """Run one batch."""
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


def main(kind: str, count: int, number: int, folder: Path) -> None:
    """Make the real inputs, which the strategies change, and run a batch."""
    torch.manual_seed(0)
    teacher: Any = host.build(TINY | {"nc": 3})
    teacher.names = dict(enumerate("abc"))
    host.save(teacher, folder / "best.pt", {"imgsz": 64, "task": "detect"})
    picture = np.random.RandomState(0).randint(0, 255, (64, 80, 3), np.uint8)
    photos = {name: cv2.imencode(f".{name}", picture)[1].tobytes() for name in ("jpg", "png", "bmp", "tif", "webp")}
    weights = squeezenet1_1(num_classes=3, width=0.25, padded=True).state_dict()
    checks = Checks(folder, (folder / "best.pt").read_bytes(), len(teacher.model), weights, photos)
    leave_out_what_is_not_odd()
    set_limits()
    run(kind, *batches(checks, teacher)[kind], count, number)


if __name__ == "__main__":
    random.seed(0)
    torch.set_num_threads(1)
    tempfile.tempdir = None  # this may be a fork of a process that has already looked for it
    with tempfile.TemporaryDirectory() as root:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(root))

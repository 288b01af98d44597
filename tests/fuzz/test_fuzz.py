"""Generated inputs: the only outcomes are a result that is right and a UserError of one line and reasonable length.

`--examples 2000` tries ten times as many of each kind, `--seed 1` others; a failure prints the input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from factories import own_settings
from fresh import SUPPORTED, Zygote

BATCH = Path(__file__).with_name("batch.py")
MODULES = (
    "hypothesis",
    "timm",
    "torch.onnx",
    "ghost_yolo.cli",
    "ghost_yolo.ghostify.pipeline",
    "ghost_yolo.report.page",
)
SHARES = {  # of --examples, by how fast they are: ten in all
    "yaml": 0.5,
    "checkpoint": 0.3,
    "ghosts": 0.2,
    "pretrained": 0.2,
    "report": 0.1,
    "correlate": 0.3,
    "voc": 2,
    "image": 4.4,
    "json": 2,
}


@pytest.fixture(scope="module")
def loaded() -> Iterator[Zygote]:
    """A process that has loaded everything."""
    process = Zygote(*MODULES)
    yield process
    process.close()


@pytest.mark.slow
@pytest.mark.skipif(not SUPPORTED, reason="limits of memory and time of Linux")
@pytest.mark.parametrize("kind", SHARES)
def test_generated_inputs(
    kind: str,
    loaded: Zygote,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """No traceback, no hang, no exhausted memory, no long error."""
    count, seed = (request.config.getoption(name) for name in ("--examples", "--seed"))
    words = [str(BATCH), kind, str(round(count * SHARES[kind])), str(seed)]
    env = os.environ | {"YOLO_CONFIG_DIR": str(own_settings(tmp_path)), "TMPDIR": str(tmp_path)}
    done = loaded.run(words, str(tmp_path), env)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    record_property("tried", done.stdout.splitlines()[-1])

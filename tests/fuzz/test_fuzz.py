"""Generated inputs: the only outcomes are a result that is right and a UserError of reasonable length.

`--examples 2000` tries ten times as many of each kind, `--seed 1` others; a failure prints the input.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import Run
from fresh import SUPPORTED

BATCH = Path(__file__).with_name("batch.py")
SHARES = {"yaml": 0.5, "checkpoint": 0.3, "voc": 2, "image": 5, "json": 2.2}  # of --examples, by how fast they are


@pytest.mark.slow
@pytest.mark.skipif(not SUPPORTED, reason="limits of memory and time of Linux")
@pytest.mark.parametrize("kind", SHARES)
def test_generated_inputs(
    kind: str, run: Run, request: pytest.FixtureRequest, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """No traceback, no hang, no exhausted memory, no long error."""
    count, seed = (request.config.getoption(name) for name in ("--examples", "--seed"))
    words = [str(BATCH), kind, str(round(count * SHARES[kind])), str(seed)]
    done = run("python", *words, fresh=False, PYTHONPATH=os.environ.get("PYTHONPATH", ""), TMPDIR=str(tmp_path))
    record_property("tried", done.stdout.splitlines()[-1])

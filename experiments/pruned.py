"""Pruning in steps, each followed by fine-tuning with labels through Ultralytics' own trainer."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO
from ultralytics.cfg import parse_key_value_pair
from ultralytics.models.yolo.detect import DetectionTrainer

from experiments import training
from experiments.making import PRUNED, steps_folder
from experiments.mixed import enable
from experiments.pruning import prune_checkpoint
from experiments.records import write_json
from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.model.profile import count_gflops
from ghost_yolo.utils.files import fingerprint, write_atomic


class PrunedTrainer(DetectionTrainer):
    """Ultralytics' trainer for the network of a checkpoint as it is; `yolo train` builds that of its YAML, whose channels are others."""

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:  # noqa: ARG002 (the host's)
        """Return the checkpoint's network.

        Raises:
            UserError: If there is no checkpoint, or it has another number of classes than the data.
        """
        if weights is None:
            raise UserError("only a trained model can be fine-tuned after pruning: give its .pt file")
        if len(weights.names) != self.data["nc"]:  # type: ignore[arg-type]
            raise UserError(f"the pruned model has the classes {weights.names}, and the data have {self.data['names']}")
        return weights.float().requires_grad_()


def fine_tune(*arguments: str, mixed_precision: bool = False) -> None:
    """Do what `yolo train` does with these key=value and `resume`, for a pruned model; in bfloat16 on a CPU too."""
    settings = dict(parse_key_value_pair(pair) for pair in arguments if "=" in pair)
    model = YOLO(settings.pop("model"))
    if mixed_precision:
        model.add_callback("on_train_start", enable)
    model.train(trainer=PrunedTrainer, **settings, **({"resume": True} if "resume" in arguments else {}))


def run(
    weights: Path, share: float, steps: int, out: Path, settings: Sequence[str], *, mixed_precision: bool = False
) -> None:
    """Prune a trained model to a share of its GFLOPs, in equal ratios, and fine-tune after each step; resumed after an interruption.

    The steps lie in a folder beside `out`, with what each took.

    Args:
        weights: The trained model.
        share: Of its GFLOPs that is left.
        steps: Number of prunings.
        out: The checkpoint to write.
        settings: `key=value` of each fine-tuning, with imgsz among them.
        mixed_precision: Fine-tune in bfloat16 on a CPU too.

    Raises:
        UserError: If an argument is out of its range, or the model cannot be pruned.
    """
    imgsz = next((int(value) for key, value in map(parse_key_value_pair, settings) if key == "imgsz"), 0)
    if not 0 < share < 1 or steps < 1 or not imgsz:
        raise UserError(
            f"--gflops {share:g}, --steps {steps}, {' '.join(settings)}: give a share of the GFLOPs between 0 and 1, at least "
            "one step, and imgsz=..."
        )
    folder = steps_folder(out)
    state = folder / "steps.json"
    identity = {
        "settings": training.portable(settings),
        "share": share,
        "steps": steps,
        "files": fingerprint([weights, *training.input_files(settings)]),
    }
    begin(state, identity | training.precision(mixed_precision=mixed_precision))
    whole, model = count_gflops(open_checkpoint(weights).model, imgsz), weights
    for number in range(1, steps + 1):
        tuned = folder / f"step-{number}" / "best.pt"
        if not tuned.is_file():
            tuned.parent.mkdir(parents=True, exist_ok=True)
            pruned = prune_step(model, whole * share ** (number / steps), imgsz, tuned.with_name("pruned.pt"))
            training.train(
                tuned,
                [f"model={pruned}", *settings],
                partial(fine_tune, mixed_precision=mixed_precision),
                mixed_precision=mixed_precision,
            )
        model = tuned
    write_atomic(out, model.read_bytes())
    state.unlink()


def begin(state: Path, identity: dict[str, Any]) -> None:
    """Remember what is done, and set the steps of anything else aside; what is done is forgotten at the end."""
    if state.is_file() and json.loads(state.read_text(encoding="utf-8")) == identity:
        return
    training.set_aside(state.parent)
    state.parent.mkdir(parents=True)
    write_json(state, identity)


def prune_step(model: Path, gflops: float, imgsz: int, out: Path) -> Path:
    """Write the pruned model, unless it is there, and beside it the seconds that it took; return its file."""
    if not out.is_file():
        start, unfinished = time.monotonic(), out.with_name("unfinished.pt")
        prune_checkpoint(model, gflops, imgsz, unfinished)
        write_json(out.with_name(PRUNED), {"seconds": time.monotonic() - start})
        unfinished.replace(out)  # last, so that the seconds of what is there are known
    return out

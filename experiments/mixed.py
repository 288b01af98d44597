"""The `yolo` command with mixed precision on a CPU, where Ultralytics turns it off: `python -m experiments.mixed train ...`."""

from __future__ import annotations

import sys
from typing import Any

import torch

from ghost_yolo.errors import UserError

KNOWN = "8.4.190"  # a release of Ultralytics whose trainer computes under the autocast of its own device


def enable(trainer: Any) -> None:
    """Let Ultralytics' trainer run the network in bfloat16 on a CPU; losses, weights and validation stay in float32."""
    if trainer.device.type != "cpu":  # there it has its own
        return
    trainer.amp = True
    trainer.model.to(memory_format=torch.channels_last)  # as in ghostify: fewer copies in each convolution
    model = getattr(trainer.model, "student_model", trainer.model)  # of a distillation
    plain = model.loss

    def loss(batch: dict[str, Any], preds: Any = None) -> Any:
        require_autocast()
        preds = model.forward(batch["img"]) if preds is None else preds
        with torch.autocast("cpu", enabled=False):  # boxes of eight bits would be a pixel off
            return plain(batch, in_float32(preds))

    model.loss = loss


def in_float32(outputs: Any) -> Any:
    """Return nested outputs of a network with all tensors in float32."""
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return {name: in_float32(value) for name, value in outputs.items()}
    return type(outputs)(map(in_float32, outputs)) if isinstance(outputs, list | tuple) else outputs


def require_autocast() -> None:
    """Raise an error if a batch is not computed under autocast, as in releases that know that of CUDA alone."""
    if not torch.is_autocast_enabled("cpu"):
        import ultralytics

        raise UserError(
            f"Ultralytics {ultralytics.__version__} does not train in mixed precision on a CPU; install one that does, "
            f"pip install 'ultralytics>={KNOWN}', or train without --mixed-precision"
        )


def main() -> None:
    """Hand over to Ultralytics' own command line, with that for every training."""
    from ultralytics.cfg import entrypoint
    from ultralytics.utils.callbacks import default_callbacks

    default_callbacks["on_train_start"].append(enable)
    entrypoint()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"experiments: {error}")

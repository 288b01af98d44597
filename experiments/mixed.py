"""The `yolo` command with mixed precision on a CPU, where Ultralytics turns it off: `python -m experiments.mixed train ...`."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from ghost_yolo.errors import UserError

KNOWN = "8.4.190"  # a release of Ultralytics whose trainer computes under the autocast of its own device


def enable(trainer: Any) -> None:
    """Let Ultralytics' trainer compute its batches under torch's autocast, in bfloat16 on a CPU; validation stays in float32."""
    trainer.amp = True

    def at_first_batch(*_: Any) -> None:
        hook.remove()
        require_autocast(trainer.device.type)

    hook: RemovableHandle = trainer.model.register_forward_pre_hook(at_first_batch)


def require_autocast(device: str) -> None:
    """Raise an error if a batch is not computed under autocast, as in releases that know that of CUDA alone."""
    if not torch.is_autocast_enabled(device):
        import ultralytics

        raise UserError(
            f"Ultralytics {ultralytics.__version__} does not train in mixed precision on {device}; install one that does, "
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

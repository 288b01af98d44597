"""Refuse a model whose outputs show that it does not compute: its times would mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghost_yolo.bench.runtimes import LoadedModel
from ghost_yolo.errors import UserError


def require_sound_outputs(model: LoadedModel, *, nms: bool = False) -> None:
    """Check a model's outputs on noise and on a black image.

    Args:
        model: The model; its image is restored.
        nms: Whether the file itself drops what is not confident: noise and black may then both give nothing.

    Raises:
        UserError: If an output is not finite, or both images give the same.
    """
    noise = _hashes(model())
    kept = model.image * 1
    model.image[...] = 0
    black = _hashes(model())
    model.image[...] = kept
    if noise == black and not nms:
        raise UserError("its outputs do not depend on the image: noise and a black image give the same")


def _hashes(output: object) -> list[int]:
    """Return a hash of each output.

    Raises:
        UserError: If one is not finite.
    """
    arrays = list(_arrays(output))
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError("its outputs are not finite")
    return [hash(array.tobytes()) for array in arrays]


def _arrays(output: Any) -> Iterator[NDArray[Any]]:
    """Yield the arrays and tensors in an output."""
    if isinstance(output, Mapping | list | tuple):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _arrays(part)
    elif hasattr(output, "detach"):
        yield output.detach().float().cpu().numpy()
    elif output is not None:
        yield np.asarray(output)

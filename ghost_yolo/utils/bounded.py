"""Refuse a model that would exhaust the memory, before any of it is taken."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ghost_yolo.errors import ModelError

MAX_TENSOR = 100_000_000  # values of one weight or feature map; the host's largest model has 15 million in one
MAX_TENSORS = 400_000_000  # values of all weights and of a small image's maps; our yolov8x-xception has 235 million


def require_bounded(name: str, build: Callable[[], Any]) -> None:
    """Build a model on torch's meta device, which computes the sizes of tensors and nothing else.

    The host's constructors end with an error there, once the strides are known by a trial pass: its sizes are all that is
    wanted, and whatever else is wrong comes out when the model is really built.

    Args:
        name: What the model is called in the error.
        build: Builds it.

    Raises:
        ModelError: If it has more than MAX_TENSORS values in its weights and maps, or MAX_TENSOR in one of them.
    """
    sizes = _Sizes()
    with suppress(Exception), torch.device("meta"), sizes:
        build()
    if sizes.largest > MAX_TENSOR:
        raise ModelError(f"{name}: a weight or feature map has {sizes.largest} values; at most {MAX_TENSOR} are built")
    if sizes.made > MAX_TENSORS:
        raise ModelError(
            f"{name}: its weights and maps have over {MAX_TENSORS} values, which is the most that is built"
        )


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's base class is untyped
    """Count what is made under it, and end it with an error where that is too much.

    Attributes:
        largest: Values of the largest tensor.
        made: Values of all tensors that were not computed from others; also maps of convolutions.
    """

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = self.made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_batch_norm.default:  # on the meta device torch takes it apart in slow Python
            return torch.empty_like(args[0]), *(args[0].new_empty(0) for _ in range(2))
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(args)):
            self.made += sum(sizes)
        if self.largest > MAX_TENSOR or self.made > MAX_TENSORS:
            raise MemoryError
        return result

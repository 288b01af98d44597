"""What this package uses of the host's models, as types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableSequence
from typing import Any, Protocol

import torch
from torch import nn


class HostLayer(Protocol):
    """A layer of the host's model: one row of its YAML.

    Attributes:
        i: Its index.
        f: Index of the layer whose output it takes, or a list of them; -1 for the one before.
        type: Name of its class.
    """

    i: int
    f: int | list[int]
    type: str

    def __call__(self, x: Any) -> Any: ...

    def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: Any) -> None: ...


class HostModel(Protocol):
    """What we use of a model that Ultralytics built, for any task.

    Attributes:
        model: Its layers, in the order of the rows of `yaml`.
        yaml: The content of its YAML, from which the host rebuilds it.
        names: Class index to class name.
        args: Training arguments that its checkpoint keeps.
        stride: Strides of the head's maps.
    """

    model: MutableSequence[HostLayer]
    yaml: dict[str, Any]
    names: dict[int, str]
    args: dict[str, Any]
    stride: torch.Tensor

    def __call__(self, x: torch.Tensor) -> Any: ...

    def to(self, *args: Any, **kwargs: Any) -> HostModel: ...

    def fuse(self, verbose: bool = ...) -> HostModel: ...

    def eval(self) -> HostModel: ...

    def half(self) -> HostModel: ...

    def float(self) -> HostModel: ...

    def requires_grad_(self, requires_grad: bool = ...) -> HostModel: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def get_submodule(self, target: str) -> Any: ...

    def state_dict(self) -> dict[str, torch.Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor], strict: bool = ...) -> Any: ...

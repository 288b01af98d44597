"""Record a module's data flow from what it really calls, run once.

A box is a convolution with its BN and activation, or one call in a `forward`. A module class that occurs three times or more in
a block is one box there and has a panel of its own. Nothing here depends on a family, so a new one needs no edit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode
from ultralytics.nn.modules.conv import Conv, RepConv

OFTEN = 3  # a module class that occurs so often in a block is drawn once
JOINS = {"add": "+", "mul": "×", "cat": "concat"}
CALLS = {"avg_pool2d": "average pool", "max_pool2d": "max pool", "mean": "global pool", "interpolate": "resize"}
CALLS |= {"neg": "negate", "relu": "ReLU", "hardsigmoid": "hard sigmoid", "chunk": "split", "shuffle": "shuffle"}
HEIGHT = 36  # of a box, in pixels


@dataclass
class Node:
    """One box of the graph: its text, its output's shape and the indices of its inputs."""

    title: str
    note: str = ""
    kind: str = ""
    shape: tuple[int, ...] = ()
    channels: str = ""
    inputs: list[int] = field(default_factory=list)
    level: int = 0
    lane: int = 0
    x: float = 0
    y: float = 0

    @property
    def width(self) -> int:
        """Width of the box in pixels, from its text."""
        return 26 if self.height == 26 else max(52, 16 + 7 * len(self.title), 16 + 6 * len(self.note))

    @property
    def height(self) -> int:
        """Height of the box in pixels."""
        return 14 if self.kind == "end" else 26 if self.title in ("+", "×") else HEIGHT


class CallTracer(TorchFunctionMode):
    """Record modules that are drawn as one box, and every other call that makes a map from maps."""

    def __init__(self, x: torch.Tensor, boxed: Callable[[nn.Module], bool]) -> None:
        """Start with the input."""
        super().__init__()
        self.nodes, self.boxed, self.inside = (
            [Node("in", kind="end", shape=tuple(x.shape), channels=str(x.shape[1]))],
            boxed,
            0,
        )
        self.made = [(x, 0)]  # kept, so that no two tensors ever have one identity

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, and record the call unless it happens inside a box."""
        y = func(*args, **(kwargs or {}))
        if not self.inside:
            self.add(Node(name_of(func, args)), args, y)
        return y

    def add(self, node: Node, args: Any, y: Any) -> None:
        """Record a box between its inputs and its outputs."""
        outputs = [t for t in (y if isinstance(y, (tuple, list)) else [y]) if isinstance(t, torch.Tensor)]
        given = [t for a in args for t in (a if isinstance(a, (tuple, list)) else [a]) if isinstance(t, torch.Tensor)]
        sources = [index for t in given for known, index in self.made if known is t]
        if not outputs or not sources or any(t is outputs[0] for t in given):
            return
        node.inputs, node.shape = sources, tuple(outputs[0].shape)
        node.channels = " | ".join(dict.fromkeys(str(t.shape[1]) for t in outputs))  # of a split
        self.nodes.append(node)
        self.made += [(t, len(self.nodes) - 1) for t in outputs]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Register hooks that report the start and the end of every module's forward pass."""

        def start(module: nn.Module, _: Any) -> None:
            self.inside += self.boxed(module)

        def end(module: nn.Module, args: Any, y: Any) -> None:
            self.inside -= self.boxed(module)
            if self.boxed(module) and not self.inside:
                self.add(box_of(module), args, y)

        handles = [hooks.register_module_forward_pre_hook(start), hooks.register_module_forward_hook(end)]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()


def name_of(func: Any, args: Any) -> str:
    """Return a call's name as people say it: `Tensor.__add__` and `torch.add` are both `add`."""
    name = getattr(func, "__name__", str(func)).strip("_")
    if name == "getitem" and isinstance(args[1], tuple) and isinstance(args[1][1], slice):
        return "first" if args[1][1].start is None else "rest"
    return {"radd": "add", "rmul": "mul"}.get(name, name)


def box_of(module: nn.Module) -> Node:
    """Return the box of a module: its kernel, kind and what follows the convolution."""
    inner = module.conv1 if isinstance(module, RepConv) else module
    conv = inner.conv if isinstance(inner, Conv) else inner
    if not isinstance(conv, nn.Conv2d):
        plain = isinstance(module, nn.BatchNorm2d)
        return Node("BN" if plain else type(module).__name__, kind="" if plain else "module")
    k, g = conv.kernel_size, conv.groups
    kind = (
        "depthwise" if g == conv.in_channels > 1 else "grouped" if g > 1 else "pointwise" if max(k) == 1 else "standard"
    )
    act = getattr(module, "act", None)
    notes = ["branched" if inner is not module else "BN"] * isinstance(inner, Conv) + ["bias"] * (conv.bias is not None)
    notes += [type(act).__name__] * (act is not None and not isinstance(act, nn.Identity))
    suffixes = {"depthwise": " depthwise", "grouped": f", {g} groups"}
    title = f"{k[0]}×{k[1]}{suffixes.get(kind, '')}"
    return Node(title, ", ".join(notes), kind + (" module" if inner is not module else ""))


def record(module: nn.Module, shape: tuple[int, ...], often: set[type[nn.Module]]) -> list[Node]:
    """Return the boxes of a module, as it is in eval mode, for an input of this shape."""

    def boxed(m: nn.Module) -> bool:
        return m is not module and (isinstance(m, Conv) or type(m) in often or not list(m.children()))

    x = torch.rand(shape)
    recorder = CallTracer(x, boxed)
    with torch.no_grad(), recorder.listening():
        module.eval()(x)
    nodes = merged(recorder.nodes)
    return [*nodes, Node("out", kind="end", shape=nodes[-1].shape, inputs=[len(nodes) - 1])]


def merged(nodes: list[Node]) -> list[Node]:
    """Merge the calls that are one step to a reader (the three of a shuffle, sums of sums); drop those that change nothing."""
    used = Counter(i for node in nodes for i in node.inputs)
    new: list[Node] = []
    new_index: dict[int, int] = {}  # by old index
    for index, node in enumerate(nodes):
        first = new_index[node.inputs[0]] if node.inputs else 0
        parent, alone = new[first] if new else node, bool(node.inputs) and used[node.inputs[0]] == 1
        inputs = [new_index[i] for i in node.inputs]
        if node.title == "first" and node.shape == parent.shape:
            new_index[index] = first
        elif alone and {node.title, parent.title} <= {"reshape", "transpose", "shuffle"}:
            parent.title, parent.shape, parent.channels = "shuffle", node.shape, node.channels
            new_index[index] = first
        elif alone and node.title == parent.title == "add":
            parent.inputs += inputs[1:]
            new.remove(parent)
            new.append(parent)
            new_index = {old: at - (at > first) for old, at in new_index.items()}
            parent.inputs = [at - (at > first) for at in parent.inputs]
            new_index[index] = len(new) - 1
        else:
            new.append(node)
            node.inputs = inputs
            new_index[index] = len(new) - 1
    for node in new:
        node.title, node.kind = JOINS.get(node.title) or CALLS.get(node.title, node.title), node.kind or node.title
    return new


def panels_of(module: nn.Module, shape: tuple[int, ...], title: str) -> list[tuple[str, list[Node]]]:
    """Return the panel of a module and one of each module class that occurs in it often."""
    plain = (Conv, nn.Sequential, nn.ModuleList)
    inside = [m for m in module.modules() if list(m.children()) and not isinstance(m, plain)]
    often = {cls for cls, count in Counter(map(type, inside)).items() if count >= OFTEN}
    found = [(title, record(module, shape, often))]
    for cls in sorted(often, key=lambda cls: cls.__name__):
        largest = max((m for m in inside if type(m) is cls), key=lambda m: len(list(m.modules())))
        seen: list[tuple[int, ...]] = []
        handle = largest.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))  # noqa: B023
        with torch.no_grad():
            module(torch.rand(shape))
        handle.remove()
        found.append((cls.__name__, record(largest, seen[0], often - {cls})))
    return found

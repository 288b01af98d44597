"""Draw a module's data flow from what it really calls: run once, record, lay out in columns, write as SVG.

Each box is a convolution with its BN and activation, or one call in a `forward`; the figures on the edges are channels. A
module that stands three times or more in a block is one box there and gets a panel of its own. Nothing about any family is
written here, so a new one is drawn without an edit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode
from ultralytics.nn.modules.conv import Conv, RepConv

OFTEN = 3  # a module that stands so often in a block is drawn once
JOINS = {"add": "+", "mul": "×", "cat": "concat"}
CALLS = {"avg_pool2d": "average pool", "max_pool2d": "max pool", "mean": "global pool", "interpolate": "resize"}
CALLS |= {"neg": "negate", "relu": "ReLU", "hardsigmoid": "hard sigmoid", "chunk": "split", "shuffle": "shuffle"}
LEVEL, HEIGHT, FORK, LABEL, EDGE, TOP = 68, 36, 18, 40, 16, 46  # pixels


@dataclass
class Node:
    """One box: what stands in it, what it gives and whence it takes."""

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
        """Width of the box in pixels, from the words in it."""
        return 26 if self.height == 26 else max(52, 16 + 7 * len(self.title), 16 + 6 * len(self.note))

    @property
    def height(self) -> int:
        """Height of the box in pixels."""
        return 14 if self.kind == "end" else 26 if self.title in ("+", "×") else HEIGHT


class Recorder(TorchFunctionMode):
    """Record modules that are drawn as one box, and every other call that makes a map from maps."""

    def __init__(self, x: torch.Tensor, boxed: Callable[[nn.Module], bool]) -> None:
        """Begin with the input."""
        super().__init__()
        self.nodes, self.boxed, self.inside = (
            [Node("in", kind="end", shape=tuple(x.shape), channels=str(x.shape[1]))],
            boxed,
            0,
        )
        self.made = [(x, 0)]  # kept, so that no two tensors ever have one identity

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, and record the call where it stands in no box."""
        y = func(*args, **(kwargs or {}))
        if not self.inside:
            self.add(Node(name_of(func, args)), args, y)
        return y

    def add(self, node: Node, args: Any, y: Any) -> None:
        """Record a box between its inputs and its outputs."""
        outputs = [t for t in (y if isinstance(y, (tuple, list)) else [y]) if isinstance(t, torch.Tensor)]
        given = [t for a in args for t in (a if isinstance(a, (tuple, list)) else [a]) if isinstance(t, torch.Tensor)]
        whence = [index for t in given for known, index in self.made if known is t]
        if not outputs or not whence or any(t is outputs[0] for t in given):
            return
        node.inputs, node.shape = whence, tuple(outputs[0].shape)
        node.channels = " | ".join(dict.fromkeys(str(t.shape[1]) for t in outputs))  # of a split
        self.nodes.append(node)
        self.made += [(t, len(self.nodes) - 1) for t in outputs]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Have every module say when it begins and ends."""

        def begin(module: nn.Module, _: Any) -> None:
            self.inside += self.boxed(module)

        def end(module: nn.Module, args: Any, y: Any) -> None:
            self.inside -= self.boxed(module)
            if self.boxed(module) and not self.inside:
                self.add(box_of(module), args, y)

        handles = [hooks.register_module_forward_pre_hook(begin), hooks.register_module_forward_hook(end)]
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
    words = {"depthwise": " depthwise", "grouped": f", {g} groups"}
    title = f"{k[0]}×{k[1]}{words.get(kind, '')}"
    return Node(title, ", ".join(notes), kind + (" module" if inner is not module else ""))


def record(module: nn.Module, shape: tuple[int, ...], often: set[type[nn.Module]]) -> list[Node]:
    """Return the boxes of a module, as it is in eval mode, for an input of this shape."""

    def boxed(m: nn.Module) -> bool:
        return m is not module and (isinstance(m, Conv) or type(m) in often or not list(m.children()))

    x = torch.rand(shape)
    recorder = Recorder(x, boxed)
    with torch.no_grad(), recorder.listening():
        module.eval()(x)
    nodes = merged(recorder.nodes)
    return [*nodes, Node("out", kind="end", shape=nodes[-1].shape, inputs=[len(nodes) - 1])]


def merged(nodes: list[Node]) -> list[Node]:
    """Put together what is one step to a reader: the three calls of a shuffle, sums of sums; drop what changes nothing."""
    used = Counter(i for node in nodes for i in node.inputs)
    new: list[Node] = []
    place: dict[int, int] = {}  # old index -> new one
    for index, node in enumerate(nodes):
        first = place[node.inputs[0]] if node.inputs else 0
        before, alone = new[first] if new else node, bool(node.inputs) and used[node.inputs[0]] == 1
        inputs = [place[i] for i in node.inputs]
        if node.title == "first" and node.shape == before.shape:
            place[index] = first
        elif alone and {node.title, before.title} <= {"reshape", "transpose", "shuffle"}:
            before.title, before.shape, before.channels = "shuffle", node.shape, node.channels
            place[index] = first
        elif alone and node.title == before.title == "add":
            before.inputs += inputs[1:]
            new.remove(before)
            new.append(before)
            place = {old: at - (at > first) for old, at in place.items()}
            before.inputs = [at - (at > first) for at in before.inputs]
            place[index] = len(new) - 1
        else:
            new.append(node)
            node.inputs = inputs
            place[index] = len(new) - 1
    for node in new:
        node.title, node.kind = JOINS.get(node.title) or CALLS.get(node.title, node.title), node.kind or node.title
    return new


def chains(nodes: list[Node]) -> Iterator[list[int]]:
    """Yield paths, the longest first, that hold every edge once and touch only at their ends."""
    edges = [(a, b) for b, node in enumerate(nodes) for a in node.inputs]
    placed = {0, len(nodes) - 1}
    while edges:
        best: dict[int, list[int]] = {}  # node -> longest path from what is placed
        finished: list[list[int]] = []
        for a, b in sorted(edges, key=lambda edge: edge[1]):
            path = [*(best.get(a) or ([a] if a in placed else [])), b]
            if len(path) > 1 and b in placed:
                finished.append(path)
            elif len(path) > max(1, len(best.get(b, []))):
                best[b] = path
        longest = max(finished, key=len)
        for edge in pairwise(longest):
            edges.remove(edge)
        placed |= set(longest)
        yield longest


def lay_out(nodes: list[Node]) -> tuple[list[tuple[list[int], int]], dict[int, float]]:
    """Give every box its level and lane; return the chains with their lanes, and the middle of each lane in pixels.

    The longest chain runs straight down in lane 0, the others to its right and left, as near as they find a free lane.
    """
    for node in nodes:
        node.level = 1 + max((nodes[i].level for i in node.inputs), default=-1)
    found: list[tuple[list[int], int]] = []
    taken: dict[int, list[tuple[int, int]]] = {}
    paths = list(chains(nodes))
    for path in sorted(paths, key=lambda path: _outwards(path, paths, nodes)):
        start, end = nodes[path[0]], nodes[path[-1]]
        side = (-1, 1) if len(path) == 2 else (1, -1)
        if start.lane:  # outwards, not across what it belongs to
            side = (1,) if start.lane > 0 else (-1,)
        lanes = [0] if not found else [start.lane + s * n for n in range(1, 9) for s in side]
        lane = next(n for n in lanes if all(end.level <= a or b <= start.level for a, b in taken.get(n, [])))
        taken.setdefault(lane, []).append((start.level, end.level))
        found.append((path, lane))
        for index in path[1:-1]:
            nodes[index].lane = lane
    return found, middles(nodes, taken)


def _outwards(path: list[int], paths: list[list[int]], nodes: list[Node]) -> tuple[int, int]:
    """Order the chains from the middle outwards: those with boxes as they come, then the bare lines, the shortest first."""
    if len(path) > 2 or path is paths[0]:
        return 0, paths.index(path)
    return 1, nodes[path[-1]].level - nodes[path[0]].level


def middles(nodes: list[Node], lanes: Iterable[int]) -> dict[int, float]:
    """Return the middle of each lane in pixels, as near to each other as boxes and figures allow."""
    wide = {lane: max([node.width + LABEL for node in nodes if node.lane == lane], default=LABEL) for lane in lanes}
    x, found = float(EDGE), {}
    for lane in sorted(wide):
        found[lane] = x + wide[lane] / 2
        x += wide[lane]
    return found


def panel(nodes: list[Node], title: str, left: float) -> tuple[list[str], float, float]:
    """Return the SVG of one module, and the width and height that it takes."""
    found, middle = lay_out(nodes)
    for node in nodes:
        node.x, node.y = left + middle[node.lane], TOP + node.level * LEVEL
    parts = [f'<text x="{left + EDGE:g}" y="22" class="title">{escape(title)}</text>']
    for path, lane in found:
        parts += [line(nodes[a], nodes[b], left + middle[lane], lane) for a, b in pairwise(path)]
    parts += [dot(node) for i, node in enumerate(nodes) if sum(i in other.inputs for other in nodes) > 1]
    parts += [box(node) + figures(node, nodes[0]) for node in nodes]
    right = max([middle[node.lane] + node.width / 2 for node in nodes] + [*middle.values()]) + LABEL
    return parts, max(right, EDGE + 9 * len(title)), nodes[-1].y + EDGE


def line(a: Node, b: Node, x: float, lane: int) -> str:
    """Return one edge: straight down in its lane, or from the fork below `a` into the lane, or from there into `b`'s side."""
    points = [(a.x, a.y + a.height / 2)]
    if a.lane != lane:
        points += [(a.x, points[0][1] + FORK), (x, points[0][1] + FORK)]
    if b.lane == lane:
        points += [(x, b.y - b.height / 2)]
    else:
        points += [(x, b.y), (b.x + (b.width / 2 if lane > b.lane else -b.width / 2), b.y)]
    return '<polyline class="flow" points="' + " ".join(f"{px:g},{py:g}" for px, py in points) + '"/>'


def dot(node: Node) -> str:
    """Return the dot where a map goes more than one way."""
    return f'<circle cx="{node.x:g}" cy="{node.y + node.height / 2 + FORK:g}" r="3"/>'


def box(node: Node) -> str:
    """Return a box with its words."""
    x, y = node.x, node.y
    kind = "end" if node.kind == "end" else "what"
    words = f'<text x="{x:g}" y="{y + (-1 if node.note else 4):g}" class="{kind}">{escape(node.title)}</text>'
    if node.note:
        words += f'<text x="{x:g}" y="{y + 12:g}" class="note">{escape(node.note)}</text>'
    if node.kind == "end":
        return words
    if node.title in ("+", "×"):
        return f'<circle cx="{x:g}" cy="{y:g}" r="{node.width / 2:g}" class="box"/>' + words
    place = f'x="{x - node.width / 2:g}" y="{y - node.height / 2:g}" width="{node.width}" height="{node.height}"'
    return f'<rect {place} rx="6" class="box {node.kind}"/>' + words


def figures(node: Node, first: Node) -> str:
    """Return the channels below a box, and the size of the map where it is not the input's."""
    if node.title == "out":
        return ""
    size = f" · {node.shape[2]}×{node.shape[3]}" if node.shape[2:] != first.shape[2:] else ""
    return f'<text x="{node.x + 5:g}" y="{node.y + node.height / 2 + 12:g}" class="count">{node.channels}{size}</text>'


STYLE = """text{font-family:Verdana,DejaVu Sans,sans-serif;text-anchor:middle;fill:#1a1a1a;font-size:11px}
.title{font-size:13px;font-weight:bold}.note{font-size:9px}.end{font-style:italic}.title,.count{text-anchor:start}
.count{font-size:10px;fill:#444}circle{fill:#444}.box{stroke:#444;stroke-width:1.2;fill:#eee}circle.box,.cat{fill:#fff}
.flow{fill:none;stroke:#444;stroke-width:1.4;marker-end:url(#tip)}.module{stroke-width:2.4}
.pointwise{fill:#cfe2f7}.standard{fill:#fbd9a8}.depthwise{fill:#cdeccf}.grouped{fill:#e3d3f2}"""
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0,0 8,4 0,8z" fill="#444"/></marker>'
)


def svg(panels: list[tuple[str, list[Node]]]) -> str:
    """Return a drawing of titled panels, one beside the other, on white."""
    parts, left, height = [], 0.0, 0.0
    for title, nodes in panels:
        new, wide, high = panel(nodes, title, left)
        parts, left, height = [*parts, *new], left + wide, max(height, high)
    size = f'width="{left:g}" height="{height:g}" viewBox="0 0 {left:g} {height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n<defs>{TIP}</defs>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>"]) + "\n"


def panels_of(module: nn.Module, shape: tuple[int, ...], title: str) -> list[tuple[str, list[Node]]]:
    """Return the panel of a module and one of each module that stands in it often."""
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

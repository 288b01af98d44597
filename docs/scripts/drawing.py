"""Draw recorded data flows as SVG: lay the boxes out in levels and lanes, write them down.

The longest path runs straight down, what leaves it runs beside it; the figures at the edges are channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import pairwise

from dataflow import Node

LEVEL, FORK, LABEL, EDGE, TOP = 68, 18, 40, 16, 46  # pixels


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
    """Return a box with its text."""
    x, y = node.x, node.y
    kind = "end" if node.kind == "end" else "what"
    texts = f'<text x="{x:g}" y="{y + (-1 if node.note else 4):g}" class="{kind}">{escape(node.title)}</text>'
    if node.note:
        texts += f'<text x="{x:g}" y="{y + 12:g}" class="note">{escape(node.note)}</text>'
    if node.kind == "end":
        return texts
    if node.title in ("+", "×"):
        return f'<circle cx="{x:g}" cy="{y:g}" r="{node.width / 2:g}" class="box"/>' + texts
    position = f'x="{x - node.width / 2:g}" y="{y - node.height / 2:g}" width="{node.width}" height="{node.height}"'
    return f'<rect {position} rx="6" class="box {node.kind}"/>' + texts


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

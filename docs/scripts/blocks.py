"""Write docs/reference/blocks.md and its drawings from the table of blocks and the docstrings of their modules.

python docs/scripts/blocks.py
"""

from __future__ import annotations

import copy
import inspect
import sys
from pathlib import Path
from typing import NamedTuple

import thop
import torch
from dataflow import panels_of
from drawing import svg
from torch import nn
from ultralytics.nn.modules.block import C2f
from ultralytics.nn.tasks import BaseModel

from ghost_yolo import BLOCKS
from ghost_yolo.blocks.mobilenet import DepthwiseSeparable
from ghost_yolo.compare import Comparison, compare
from ghost_yolo.model.catalog import families, packaged
from ghost_yolo.model.profile import ProfileRow
from ghost_yolo.registry import Block
from ghost_yolo.tables import format_percent, to_markdown
from ghost_yolo.utils.files import write_atomic

REFERENCE = Path(__file__).parents[1] / "reference"
C, SIDE, N = 256, 40, 2  # of YOLOv8s' C2f rows at stride 16
HEAD = """# The blocks, drawn and counted

This page is written by `python docs/scripts/blocks.py` from the table of blocks in `ghost_yolo/registry.py`, from the docstrings of
the blocks, and from what the modules call when they run. A test compares the page and its drawings with them.

In the drawings a box is a convolution with its BN and activation, or one call. The figures beside an arrow are channels, and the
map's size where it differs from the input's. Blue is 1×1, orange dense k×k, green depthwise, violet grouped. A bold box is a module that
is used several times and is drawn once, beside the graph.
"""


class Cost(NamedTuple):
    """What a slot costs: parameters while training, parameters and GFLOPs when fused."""

    trained: int
    parameters: int
    gflops: float


def shown() -> list[Block]:
    """Return the blocks that can replace a C2f, without those of the widely copied table."""
    return [b for b in BLOCKS if b.like == "C2f" and not b.name.startswith("Published")]


def slot(cls: type[nn.Module]) -> nn.Module:
    """Build a class as YOLOv8s does at stride 16."""
    return cls(C, C, N, True).eval()


class Holder(BaseModel):
    """What the host's `fuse()` works on."""

    def __init__(self, module: nn.Module) -> None:
        """Hold a copy of one module."""
        nn.Module.__init__(self)
        self.model = nn.Sequential(copy.deepcopy(module))

    def info(self, *_: object, **__: object) -> None:
        """Print nothing."""


def cost(module: nn.Module) -> Cost:
    """Count a slot's parameters, and 2 x MACs / 1e9 by the host's counter on a 40 x 40 map."""
    fused = Holder(module).fuse(verbose=False).model
    image = torch.empty(1, C, SIDE, SIDE, device="meta")
    gflops = 2 * thop.profile(copy.deepcopy(fused).to("meta"), inputs=[image], verbose=False)[0] / 1e9
    return Cost(*(sum(p.numel() for p in m.parameters()) for m in (module, fused)), gflops)


def rows_by_name(result: Comparison) -> dict[str, ProfileRow]:
    """Return the fused row of the whole model whose YAML has a block in the four C2f rows of the backbone, and only there."""
    rows = {
        e.row.model.split("/")[-1].replace("yolov8s", "yolov8"): e.row for e in result.entries if e.row.fused == "all"
    }
    texts = {name: packaged()[name].path.read_text(encoding="utf-8") for name in families()}
    return {
        b.name: rows[f"{name}.yaml"]
        for b in shown()
        for name, text in texts.items()
        if text.count(f"{b.qualified},") == 4
    }


def by_hand() -> str:
    """Return the section that counts a separable convolution by hand, from a module that has these weights."""
    unit, dense = DepthwiseSeparable(3, 4), nn.Conv2d(3, 4, 3, bias=False)
    d, p, all_ = (m.weight.numel() for m in (unit.dw.conv, unit.pw.conv, dense))
    return f"""## Counted by hand: where the saving comes from

Four 3×3 filters over an image of three channels, BN and bias left aside:

| convolution | weights | |
| --- | --- | ---: |
| standard | 4 filters × 3 channels × 3×3 | {all_} |
| depthwise: one filter a channel | 3 channels × 3×3 | {d} |
| pointwise: 1×1, mixes the channels | 4 filters × 3 channels | {p} |
| separable: depthwise, then pointwise | {d} + {p} | {d + p} |

For c filters of k×k the share is 1/c + 1/k²: {d + p} of {all_} here, little more than a ninth with a hundred filters. Each
multiplication is repeated at every pixel, so GFLOPs follow the same ratio. The blocks below filter channels one by one
(depthwise), in groups, or only a few of them, or they make maps from other maps.
"""


def costs(stock: ProfileRow, whole: dict[str, ProfileRow]) -> str:
    """Return the table of what each block costs in one slot and in a whole model."""
    base = cost(slot(C2f))
    header = ["block in the slot", "parameters, training", "fused", "", "GFLOPs", ""]
    header += ["YOLOv8s with it: parameters", "", "GFLOPs", ""]
    lines = [["`C2f` (stock)", *cells(base, base), *whole_cells(stock, stock)]]
    for block in shown():
        row = whole.get(block.name)
        rest = whole_cells(row, stock) if row else [""] * 4
        lines.append([f"[`{block.name}`](#{block.name.lower()})", *cells(cost(slot(block.cls)), base), *rest])
    return f"""## What each costs

One slot: {C} channels in and out, {SIDE} × {SIDE}, n = {N}, shortcut, as at stride 16 of YOLOv8s for 640 × 640. The last four columns
are the packaged YOLOv8s whose backbone has the block in every C2f (80 classes, fused). GFLOPs are 2 × MACs, BN, pooling and
activations included; percentages are against stock. Fewer GFLOPs are not yet less time: [measured times](../results/speed.md).

{to_markdown(header, lines)}"""


def cells(found: Cost, base: Cost) -> list[str]:
    """Return a slot's figures and their changes."""
    changes = [format_percent((a / b - 1) * 100) for a, b in zip(found[1:], base[1:], strict=True)]
    return [str(found.trained), str(found.parameters), changes[0], f"{found.gflops:.3f}", changes[1]]


def whole_cells(row: ProfileRow, stock: ProfileRow) -> list[str]:
    """Return a whole model's figures and their changes."""
    changes = [
        format_percent((a / b - 1) * 100) for a, b in ((row.parameters, stock.parameters), (row.gflops, stock.gflops))
    ]
    return [str(row.parameters), changes[0], f"{row.gflops:.2f}", changes[1]]


def paragraphs(thing: object) -> list[str]:
    """Return a docstring's paragraphs, each in one line."""
    return [" ".join(part.split()) for part in (inspect.getdoc(thing) or "").split("\n\n")]


def family(block: Block) -> str:
    """Return the section of one block: its module's docstring, its drawing, its class's docstring."""
    module, own = paragraphs(sys.modules[block.cls.__module__]), paragraphs(block.cls)
    number = block.paper.split(",")[0].removeprefix("arXiv ")
    source = f"[{block.paper}](https://arxiv.org/abs/{number})" if block.paper.startswith("arXiv") else block.paper
    image = f"![Data flow of {drawn(block)[2]}](blocks/{block.name}.svg)"
    parts = [f"## {block.name}", f"{module[0]} Defined in {source}.", *module[1:], image, *own]
    return "\n\n".join(parts) + "\n"


def drawn(block: Block) -> tuple[nn.Module, tuple[int, ...], str]:
    """Return the module that a drawing shows, its input's shape and its name: a shell's inner block, else all of it."""
    module, width = slot(block.cls), C
    if isinstance(module, C2f):
        module, width = module.get_submodule("m.0"), C // 2
    return module, (1, width, SIDE, SIDE), type(module).__name__


def drawings() -> dict[str, str]:
    """Return the SVG of the shell and of every family by the name of its file."""
    shell = C2f(C, C, 3, True)
    found = {block.name: svg(panels_of(*drawn(block))) for block in shown()}
    found["C2f"] = svg(panels_of(shell, (1, C, SIDE, SIDE), "C2f, n = 3"))
    return {f"{name}.svg": text for name, text in found.items()}


def page(result: Comparison) -> str:
    """Return the page, given the comparison of all packaged models at scale s."""
    shell = (
        "## The slot\n\nEvery block is built into Ultralytics' C2f: a 1×1 convolution, half of whose maps pass n inner blocks in a "
        "row, and another 1×1 that fuses all of the results. A family changes the inner block and nothing else.\n\n"
        "![Data flow of the stock C2f and its Bottleneck](blocks/C2f.svg)\n"
    )
    stock = next(e.row for e in result.entries if e.row.model == "yolov8s.yaml" and e.row.fused == "all")
    return "\n".join([HEAD, by_hand(), shell, costs(stock, rows_by_name(result)), *map(family, shown())])


def main() -> None:
    """Write the page and the drawings."""
    (REFERENCE / "blocks").mkdir(exist_ok=True)
    write_atomic(REFERENCE / "blocks.md", page(compare()))
    for name, text in drawings().items():
        write_atomic(REFERENCE / "blocks" / name, text)


if __name__ == "__main__":
    main()

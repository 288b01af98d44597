"""Which rows of a model YAML can take a lighter block, and what the new rows are; used for YAMLs and for trained models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from ultralytics.nn.modules.block import C2f, C3k2

from ghost_yolo.blocks.detect import HEADS
from ghost_yolo.errors import SwapError
from ghost_yolo.registry import BLOCKS, PREFIX, Block, unknown_block

Config = dict[str, Any]
WHERE = ("backbone", "neck", "head", "all")
HOSTS = {"C2f": C2f, "C3k2": C3k2}  # the host's blocks that a C2f-like one can replace
LIGHT = {head.__name__.removeprefix("Light"): PREFIX + head.__name__ for head in HEADS}
# Beside one of these the host gives its own heads the depthwise class branch.
NEWER = frozenset({"C3k2", "A2C2f", "C2fCIB"})


@dataclass(frozen=True)
class Slot:
    """A row that can take a lighter module.

    Attributes:
        index: The layer's index, counted through `backbone:` and `head:`.
        where: `backbone`, `neck` or `head`.
        module: Name of the host's module there: C2f, C3k2 or a head.
        arguments: The row's arguments as they stand.
    """

    index: int
    where: str
    module: str
    arguments: list[Any]


def yaml_rows(config: Config) -> list[list[Any]]:
    """Return the rows of backbone and head in one list, so that a row's place is its layer's index.

    Raises:
        SwapError: If a row is not one that the host's parser could read.
    """
    rows = [*config["backbone"], *config["head"]]
    for i, row in enumerate(rows):
        shaped = isinstance(row, list) and [type(part) for part in row[1:]] == [int, str, list]
        if not shaped or not isinstance(row[0], (int, list)):
            right = "[from, repeats, module, [arguments]], as [-1, 3, C2f, [128]]"
            raise SwapError(f"Row {i} is {row!r}; right is {right}")
    if not config["head"]:
        raise SwapError("`head:` has no row; its last one must be the head, as [[15, 18, 21], 1, Detect, [nc]]")
    return rows


def slots(config: Config, where: str = "all") -> list[Slot]:
    """Return the rows that can take a lighter module in a part of the model.

    Args:
        config: The content of a model YAML; it is left as it is.
        where: `backbone`: the C2f and C3k2 rows of `backbone:`; `neck`: those of `head:`; `head`: the last row where its
            class branch is not the depthwise one yet; `all`: the three.

    Raises:
        SwapError: If `where` is unknown or a row malformed.
    """
    if where not in WHERE:
        raise SwapError(f"where={where!r}; give one of {', '.join(WHERE)}")
    rows, first = yaml_rows(config), len(config["backbone"])
    found = [
        Slot(i, "backbone" if i < first else "neck", row[2], row[3])
        for i, row in enumerate(rows[:-1])
        if row[2] in HOSTS
    ]
    if rows[-1][2] in LIGHT and not is_newer(rows):
        found.append(Slot(len(rows) - 1, "head", *rows[-1][2:]))
    return [slot for slot in found if where in (slot.where, "all")]


def is_newer(rows: list[list[Any]]) -> bool:
    """Return whether the host would give the heads it owns their depthwise class branch."""
    return any(row[2] in NEWER for row in rows)


def plan_swap(config: Config, where: str, block: str | None = None) -> dict[int, str]:
    """Return which module goes into which row.

    Args:
        config: The content of a model YAML.
        where: See `slots`.
        block: Module name for the C2f and C3k2 rows; not needed for the head alone.

    Raises:
        SwapError: If there is no such row, or the block does not fit.
        UnknownBlockError: If there is no such block.
    """
    found = slots(config, where)
    if not found or (where == "all" and found[0].where == "head"):  # a head alone would leave the block out
        raise SwapError(_nothing(config, where))
    if (block is None) is not (where == "head"):
        need = (
            "swaps the class branch only: leave --block out"
            if block
            else "needs --block, the name of a C2f-like module"
        )
        raise SwapError(f"--where {where} {need}")
    name = find_block(block).qualified if block else ""
    return {slot.index: LIGHT[slot.module] if slot.where == "head" else name for slot in found}


def _nothing(config: Config, where: str) -> str:
    """Say why a part of a model has no row to swap."""
    rows = yaml_rows(config)
    last, head = len(rows) - 1, rows[-1][2]
    if where != "head":
        first = len(config["backbone"])
        parts = {"backbone": range(first), "neck": range(first, last), "all": range(last + 1)}
        seen = {rows[i][2]: i for i in reversed(parts[where])}  # each module name with its first row
        held = ", ".join(f"{name} (row {i})" for name, i in sorted(seen.items(), key=lambda item: item[1]))
        part = "model" if where == "all" else where
        again = "; blocks of ghost_yolo are not swapped again" if any(name.startswith(PREFIX) for name in seen) else ""
        return (
            f"No row of the {part} is a C2f or a C3k2, as in YOLOv8, YOLO11 and YOLO26; it has "
            f"{held or f'no row before the head (row {last}, {head})'}{again}"
        )
    if head in LIGHT or head in LIGHT.values():
        return f"Row {last}, {head}, has the depthwise class branch already; swap the backbone, the neck or all"
    return f"Row {last} is {head}, whose class branch cannot be swapped; that of {', '.join(LIGHT)} can"


def find_block(name: str) -> Block:
    """Return the C2f-like block of a module name, with or without the prefix.

    Raises:
        UnknownBlockError: If there is no such block.
        SwapError: If it does not take a C2f's arguments.
    """
    like = [block for block in BLOCKS if block.like == "C2f"]
    known = [block.name for block in like if not block.name.startswith("Published")]  # those are no blocks to build on
    block = next((block for block in BLOCKS if name in (block.name, block.qualified)), None)
    if block is None:
        raise unknown_block(name, known)
    if block not in like:
        raise SwapError(f"{name} replaces a {block.like}, not a C2f or C3k2. These do: {', '.join(known)}")
    return block


def swap_rows(config: Config, plan: Mapping[int, str]) -> Config:
    """Return the content of the model YAML with other modules in some rows; all else, and every index, stays.

    Args:
        config: The content of a model YAML; it is left as it is.
        plan: Row to module name, as `plan_swap` returns it; rows may differ.

    Raises:
        SwapError: If a row is no slot, or holds what the new block has no argument for.
    """
    rows, known = yaml_rows(config), {slot.index: slot for slot in slots(config)}
    new = list(rows)
    for index, name in plan.items():
        if index not in known:
            free = ", ".join(map(str, known)) or "none"
            raise SwapError(f"Row {index} takes no {name}; the rows that can be swapped are {free}")
        new[index] = [*rows[index][:2], *_module(known[index], name)]
    last = Slot(len(rows) - 1, "head", *rows[-1][2:])
    older = is_newer(rows) and not is_newer(new)  # the host would now build its heavier class branch
    if older and last.module in LIGHT:
        new[-1] = [*rows[-1][:2], *_module(last, LIGHT[last.module])]
    first = len(config["backbone"])
    return config | {"backbone": new[:first], "head": new[first:]}


def _module(slot: Slot, name: str) -> tuple[str, list[Any]]:
    """Return module name and arguments of a new row."""
    if slot.where == "head":
        if name != LIGHT[slot.module]:
            raise SwapError(f"Row {slot.index}, {slot.module}, takes {LIGHT[slot.module]}, not {name}")
        scaled = slot.module.startswith("Segment")  # the parser scales the prototypes of its own heads only
        return name, [*slot.arguments, *(("width", "max_channels") if scaled else ())]
    block = find_block(name)
    return block.qualified, _arguments(slot, block)


def _arguments(slot: Slot, block: Block) -> list[Any]:
    """Return the arguments of a row for another block, moved by name.

    A shortcut that the host's block has by default is written out; its inner form (c3k, attn) goes with it. A hidden width e
    is moved as a multiple of the default, since a block whose default is narrower is meant to be.
    """
    host = list(signature(HOSTS[slot.module]).parameters.values())[3:]  # after c1, c2, n
    new = list(signature(block.cls).parameters.values())[3:]
    if not 1 <= len(slot.arguments) <= 1 + len(host):
        takes = ", ".join(["c2", *(parameter.name for parameter in host)])
        raise SwapError(f"Row {slot.index}, {slot.module} with {slot.arguments}: right is {takes}, at least c2")
    c2, *rest = slot.arguments
    given = {parameter.name: parameter.default for parameter in host if parameter.name == "shortcut"}
    given |= {parameter.name: value for parameter, value in zip(host, rest, strict=False)}
    widths = [p.default for parameters in (host, new) for p in parameters if p.name == "e"]
    if "e" in given and len(widths) == 2:
        given["e"] *= widths[1] / widths[0]
    values = [(given.get(p.name, p.default), p.default) for p in new]
    while values and values[-1][0] == values[-1][1]:
        values.pop()
    return [c2, *(value for value, _ in values)]

"""Which rows of a model YAML take a light block, and what the new rows are: one answer for YAMLs and for trained models."""

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
HOSTS = {"C2f": C2f, "C3k2": C3k2}  # the host's blocks in whose place a C2f-like one fits
LIGHT = {head.__name__.removeprefix("Light"): PREFIX + head.__name__ for head in HEADS}
# Beside one of these the host gives its own heads the depthwise class branch.
NEWER = frozenset({"C3k2", "A2C2f", "C2fCIB"})


@dataclass(frozen=True)
class Slot:
    """A row that can take a lighter module.

    Attributes:
        index: The layer's index, counted through `backbone:` and `head:`.
        where: `backbone`, `neck` or `head`.
        word: The host's module there: C2f, C3k2 or a head.
        arguments: The row's arguments as they stand.
    """

    index: int
    where: str
    word: str
    arguments: list[Any]


def rows_of(config: Config) -> list[list[Any]]:
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
        SwapError: If `where` or a row is none.
    """
    if where not in WHERE:
        raise SwapError(f"where={where!r}; give one of {', '.join(WHERE)}")
    rows, first = rows_of(config), len(config["backbone"])
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


def plan(config: Config, where: str, block: str | None = None) -> dict[int, str]:
    """Return which word goes into which row.

    Args:
        config: The content of a model YAML.
        where: See `slots`.
        block: The word for the C2f and C3k2 rows; not needed for the head alone.

    Raises:
        SwapError: If there is no such row, or the block does not fit.
        UnknownBlockError: If there is no such block.
    """
    found = slots(config, where)
    if not found or (where == "all" and found[0].where == "head"):  # a head alone would leave the block out
        raise SwapError(_nothing(config, where))
    if (block is None) is not (where == "head"):
        need = "swaps the class branch only: leave --block out" if block else "needs --block, a C2f-like word"
        raise SwapError(f"--where {where} {need}")
    word = block_named(block).qualified if block else ""
    return {slot.index: LIGHT[slot.word] if slot.where == "head" else word for slot in found}


def _nothing(config: Config, where: str) -> str:
    """Say why a part of a model has no row to swap."""
    rows = rows_of(config)
    last, word = len(rows) - 1, rows[-1][2]
    if where != "head":
        first = len(config["backbone"])
        parts = {"backbone": range(first), "neck": range(first, last), "all": range(last + 1)}
        seen = {rows[i][2]: i for i in reversed(parts[where])}  # each word with its first row
        held = ", ".join(f"{word} (row {i})" for word, i in sorted(seen.items(), key=lambda item: item[1]))
        part = "model" if where == "all" else where
        again = "; words of ghost_yolo are light already" if any(name.startswith(PREFIX) for name in seen) else ""
        return (
            f"No row of the {part} is a C2f or a C3k2, as in YOLOv8, YOLO11 and YOLO26; it has "
            f"{held or f'no row before the head (row {last}, {word})'}{again}"
        )
    if word in LIGHT or word in LIGHT.values():
        return f"Row {last}, {word}, has the depthwise class branch already; swap the backbone, the neck or all"
    return f"Row {last} is {word}, whose class branch cannot be swapped; that of {', '.join(LIGHT)} can"


def block_named(word: str) -> Block:
    """Return the C2f-like block of a word, with or without the prefix.

    Raises:
        UnknownBlockError: If there is no such word.
        SwapError: If its row is not like a C2f's.
    """
    like = [block for block in BLOCKS if block.like == "C2f"]
    known = [block.word for block in like if not block.word.startswith("Published")]  # those are no blocks to build on
    block = next((block for block in BLOCKS if word in (block.word, block.qualified)), None)
    if block is None:
        raise unknown_block(word, known)
    if block not in like:
        raise SwapError(f"{word} takes the place of a {block.like}, not of a C2f or C3k2. These do: {', '.join(known)}")
    return block


def swapped(config: Config, words: Mapping[int, str]) -> Config:
    """Return the content of the model YAML with other modules in some rows; all else, and every index, stays.

    Args:
        config: The content of a model YAML; it is left as it is.
        words: Row to word; rows may differ. `plan` gives one word for a part of the model.

    Raises:
        SwapError: If a row is no slot, or holds what the new block has no argument for.
    """
    rows, known = rows_of(config), {slot.index: slot for slot in slots(config)}
    new = list(rows)
    for index, word in words.items():
        if index not in known:
            free = ", ".join(map(str, known)) or "none"
            raise SwapError(f"Row {index} takes no {word}; the rows that can be swapped are {free}")
        new[index] = [*rows[index][:2], *_module(known[index], word)]
    last = Slot(len(rows) - 1, "head", *rows[-1][2:])
    older = is_newer(rows) and not is_newer(new)  # the host would now build its heavier class branch
    if older and last.word in LIGHT:
        new[-1] = [*rows[-1][:2], *_module(last, LIGHT[last.word])]
    first = len(config["backbone"])
    return config | {"backbone": new[:first], "head": new[first:]}


def _module(slot: Slot, word: str) -> tuple[str, list[Any]]:
    """Return word and arguments of a new row."""
    if slot.where == "head":
        if word != LIGHT[slot.word]:
            raise SwapError(f"Row {slot.index}, {slot.word}, takes {LIGHT[slot.word]}, not {word}")
        scaled = slot.word.startswith("Segment")  # the parser scales the prototypes of its own heads only
        return word, [*slot.arguments, *(("width", "max_channels") if scaled else ())]
    block = block_named(word)
    return block.qualified, _arguments(slot, block)


def _arguments(slot: Slot, block: Block) -> list[Any]:
    """Return the arguments of a row for another block, moved by name.

    A shortcut that the host's block has by default is written out; its inner form (c3k, attn) goes with it.
    """
    host = list(signature(HOSTS[slot.word]).parameters.values())[3:]  # after c1, c2, n
    if not 1 <= len(slot.arguments) <= 1 + len(host):
        takes = ", ".join(["c2", *(parameter.name for parameter in host)])
        raise SwapError(f"Row {slot.index}, {slot.word} with {slot.arguments}: right is {takes}, at least c2")
    c2, *rest = slot.arguments
    given = {parameter.name: parameter.default for parameter in host if parameter.name == "shortcut"}
    given |= {parameter.name: value for parameter, value in zip(host, rest, strict=False)}
    values = [(given.get(p.name, p.default), p.default) for p in list(signature(block.cls).parameters.values())[3:]]
    while values and values[-1][0] == values[-1][1]:
        values.pop()
    return [c2, *(value for value, _ in values)]

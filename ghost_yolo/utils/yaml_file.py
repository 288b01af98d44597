"""Read a model YAML that somebody else wrote: bounded in size, depth and aliases, and nothing in it is executed."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import yaml

from ghost_yolo.errors import ModelError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20  # of nested lists; the host's YAMLs have 4
MAX_NODES = 100_000  # with every alias expanded
MAX_NUMBER = 100_000  # channels, classes, repeats: a larger one would only exhaust the memory
MAX_REPEATS = 1000  # of all rows together, once scaled; the host's own YAMLs stay below 100
CLASS = re.compile(r"(torch\.)?nn\.[A-Z]\w*")  # nn.functional.torch.os is a path to the operating system
ACTIVATION = "write a class of torch.nn called with plain values, as torch.nn.ReLU()"


def read_model_yaml(file: Path) -> tuple[str, dict[str, Any]]:
    """Return a model YAML's text and content.

    Raises:
        ModelError: If it is not UTF-8, too large or too deep, no YAML, or no model; if a number in it is out of range; or if
            its `activation:` is more than a plain class of torch.nn, since the host evaluates that text.
    """
    text = _text(file)
    _check_events(file, text)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that does not exist
        raise ModelError(f"{file} is not a model YAML: {_first_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in ("backbone", "head")):
        raise ModelError(f"{file} is not a model YAML: it has no `backbone:` and `head:` lists")
    _check_numbers(file, content)
    check_repeats(str(file), content)
    _check_values(file, content)
    _check_activation(file, content)
    return text, content


def _text(file: Path) -> str:
    """Return the text of a file in UTF-8, a byte order mark left out."""
    if file.stat().st_size > MAX_BYTES:
        raise ModelError(f"{file} is not a model YAML: it has more than {MAX_BYTES} bytes")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{file} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error


def _first_line(error: Exception) -> str:
    """Return the beginning of an error's text."""
    return " ".join(str(error).split())[:200]


def _check_events(file: Path, text: str) -> None:
    """Raise an error where the YAML is nested too deeply, too large once its aliases are expanded, or contains itself."""
    nodes, stack, sizes = 0, list[tuple[str | None, int]](), dict[str, int]()  # stack: anchor, nodes before it
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    raise ModelError(f"{file} is not a model YAML: the alias *{event.anchor} stands inside itself")
                nodes += sizes[event.anchor]
            elif isinstance(event, yaml.NodeEvent):
                nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append((event.anchor, nodes))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = stack.pop()
                if anchor:
                    sizes[anchor] = nodes - before + 1
            elif isinstance(event, yaml.ScalarEvent) and event.anchor:
                sizes[event.anchor] = 1
            if len(stack) > MAX_DEPTH or nodes > MAX_NODES:
                raise ModelError(f"{file} is not a model YAML: more than {MAX_DEPTH} levels or {MAX_NODES} values")
    except yaml.YAMLError as error:
        raise ModelError(f"{file} is not a model YAML: {_first_line(error)}") from error


def _check_numbers(file: Path, value: Any) -> None:
    """Raise an error for a number that no model can have."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_numbers(file, item)
    elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER and value != float("inf"):
        raise ModelError(f"{file} is not a model YAML: {value!s:.40} is out of range (at most {MAX_NUMBER})")


def check_repeats(name: str, content: dict[str, Any]) -> None:
    """Raise an error where the rows' modules would be repeated so often that they are built for minutes.

    Args:
        name: What the model is called in the error.
        content: A model YAML's content, whatever its rows are.
    """
    rows = [row for part in ("backbone", "head") for row in content[part] if isinstance(row, list) and len(row) > 1]
    repeats = sum(row[1] for row in rows if isinstance(row[1], int | float) and row[1] > 0)
    scales = content.get("scales")
    factors = [*(scales.values() if isinstance(scales, dict) else ()), [content.get("depth_multiple")]]
    depths = [factor[0] for factor in factors if isinstance(factor, list) and factor]
    deepest = max([1.0, *(depth for depth in depths if isinstance(depth, int | float))])
    if repeats * deepest > MAX_REPEATS:
        raise ModelError(
            f"{name} is not a model YAML: its rows repeat {repeats:g} modules, times a depth of {deepest:g}; at most "
            f"{MAX_REPEATS} are built"
        )


def _check_values(file: Path, content: dict[str, Any]) -> None:
    """Raise an error for a count, a factor or a scale that the host would not refuse and that means nothing."""
    scales = content.get("scales", {"": [1, 1, 1]})
    rows = [row for part in ("backbone", "head") for row in content[part] if isinstance(row, list) and len(row) > 1]
    counts = {name: content[name] for name in ("nc", "channels") if name in content}
    for name, value in (*counts.items(), *((f"the repeats of {row!s:.80}", row[1]) for row in rows)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f"{file} says {name}: {value!r:.80}; right is a whole number of at least 1")
    for name in ("depth_multiple", "width_multiple"):
        if name in content and not _is_factor(content[name]):
            raise ModelError(f"{file} says {name}: {content[name]!r:.80}; right is a number above 0")
    if not isinstance(scales, dict) or not scales or not all(map(_is_scale, scales, scales.values())):
        right = "right is a depth, a width and most channels for each letter, as {n: [0.33, 0.25, 1024]}"
        raise ModelError(f"{file} says scales: {scales!r:.80}; {right}")


def _is_factor(value: Any) -> bool:
    """Return whether a value is a number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_scale(letter: Any, factors: Any) -> bool:
    """Return whether a scale has a name and three factors."""
    return isinstance(letter, str) and isinstance(factors, list) and len(factors) == 3 and all(map(_is_factor, factors))


def _check_activation(file: Path, content: dict[str, Any]) -> None:
    """Raise an error for an `activation:` that does more than build a module of torch.nn."""
    given = content.get("activation")
    if given is None:
        return
    try:
        call = ast.parse(str(given), mode="eval").body
        plain = isinstance(call, ast.Call) and CLASS.fullmatch(ast.unparse(call.func)) is not None
        for value in (*call.args, *(keyword.value for keyword in call.keywords)) if isinstance(call, ast.Call) else ():
            ast.literal_eval(value)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        plain = False
    if not plain:
        raise ModelError(f"{file}: activation: {str(given)[:80]!r} is not evaluated; {ACTIVATION}")

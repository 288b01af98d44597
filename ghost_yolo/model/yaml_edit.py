"""`ghost-yolo swap`: replace blocks in a model YAML and keep its layout and comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ultralytics.utils.torch_utils import get_num_params

from ghost_yolo import host
from ghost_yolo.errors import ModelNameError, SwapError
from ghost_yolo.model.catalog import resolve, scale_of, with_scale, without_scale
from ghost_yolo.model.profile import count_gflops
from ghost_yolo.model.swap import LIGHT, Config, is_newer, plan_swap, swap_rows, yaml_rows
from ghost_yolo.utils.console import quiet
from ghost_yolo.utils.yaml_file import read_model_yaml

IMGSZ = 640
SUMMARY = re.compile(r"^([ \t]*[nsmlx]:[ \t]*\[[^]\n]*\])[ \t]*#.*(?:parameters|GFLOPs).*$", re.MULTILINE)


@dataclass(frozen=True)
class Swapped:
    """A new model YAML.

    Attributes:
        text: Its content as written to a file.
        scale: The scale in the name that was given, "" where the YAML has none.
        figures: What it costs beside the old one.
    """

    text: str
    scale: str
    figures: str


def swap(name: str, where: str, block: str | None = None) -> Swapped:
    """Replace the blocks in one part of a model YAML.

    Args:
        name: A file of the user's or ours, or a bare name, which is the host's; with its scale letter where it has scales.
        where: `backbone`, `neck`, `head` or `all`; see `ghost_yolo.model.swap.slots`.
        block: Module name for the C2f and C3k2 rows.

    Raises:
        ModelNameError: If there is no such file, or it has several scales and its name does not say which.
        ModelError: If the YAML before or after cannot be built.
        SwapError: If there is no row to swap, or swapping it would change another.
        UnknownBlockError: If there is no such block.
    """
    if not name.endswith((".yaml", ".yml")):
        raise ModelNameError(f"{name} is no model YAML; give a file, or Ultralytics' as yolov8s-seg.yaml")
    file, scale = resolve(name)
    text, old = read_model_yaml(file)
    new = swap_rows(old, plan_swap(old, where, block))
    figures = compared(old, new, Path(name).name, scale)
    first = f"{file.name} changed by `ghost-yolo swap --where {where}`; all other rows, and every index, are unchanged."
    moved = [f"Scale {scale}, the requested one, is listed first in `scales`."] if scale else []
    header = "".join(f"# {printable(line)}\n" for line in [first, *changes(old, new), *moved])
    return Swapped(scale_first(header + rewritten(text, old, new), scale), scale, figures)


def printable(line: str) -> str:
    """Return a line without control characters: a newline in a file's name must not end the comment."""
    return "".join(character if character.isprintable() else "?" for character in line)


def changes(old: Config, new: Config) -> list[str]:
    """Return one line for each kind of change, with its rows."""
    before, after = yaml_rows(old), yaml_rows(new)
    kinds: dict[tuple[str, str], list[int]] = {}
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        if a[2] != b[2]:
            kinds.setdefault((a[2], b[2]), []).append(i)
    return [
        f"Row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))}: {a} -> {b}{_why(a, before)}"
        for (a, b), rows in kinds.items()
    ]


def _why(module: str, rows: list[list[Any]]) -> str:
    """Return what a reader must know about a changed row."""
    if module == "C3k2":
        return ", arguments moved by name; the new inner block replaces c3k and attn"
    if module not in LIGHT:
        return ""
    kept = ", the same module: without a C3k2 in the YAML, Ultralytics would build an older class branch under its name"
    return kept if is_newer(rows) else ", with the depthwise class branch of YOLO11"


def rewritten(text: str, old: Config, new: Config) -> str:
    """Return the text with changed module names and arguments edited in place; a fresh dump where that is impossible."""
    text = SUMMARY.sub(r"\1", text)  # figures of the old model
    edits = []
    for node, before, after in zip(_row_nodes(text), yaml_rows(old), yaml_rows(new), strict=True):
        for part in (2, 3):
            if before[part] != after[part]:
                cell = node.value[part]
                edits.append((cell.start_mark.index, cell.end_mark.index, flow(after[part])))
    edited = text
    for start, end, value in sorted(edits, reverse=True):
        edited = edited[:start] + value + edited[end:]
    if _loads_as(edited, new):
        return edited
    dumped = yaml.safe_dump(new, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    assert _loads_as(dumped, new), "a YAML that was read can be written"
    return dumped


def _row_nodes(text: str) -> list[Any]:
    """Return the YAML nodes of all rows, which know where in the text they stand."""
    parts = _nodes(text)
    return [*parts["backbone"].value, *parts["head"].value]


def _nodes(text: str) -> dict[str, Any]:
    """Return the YAML nodes of a file's keys."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode), "the host has read it"
    return {key.value: value for key, value in root.value}


def _loads_as(text: str, config: Config) -> bool:
    """Return whether a YAML holds this content."""
    try:
        return bool(yaml.safe_load(text) == config)
    except yaml.YAMLError:
        return False


def flow(value: Any) -> str:
    """Return a module name or argument list on one line, True and False as the host's YAMLs write them."""
    line = yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("...\n").strip()
    return re.sub(r"\b(true|false)\b", lambda found: found[0].title(), line)


def scale_first(text: str, scale: str) -> str:
    """Move a scale's line to the top: the host takes the first where a file name has no letter."""
    scales = _nodes(text).get("scales")
    if scales is None or scales.flow_style or scale not in {key.value for key, _ in scales.value}:
        return text
    lines = text.splitlines(keepends=True)
    first = scales.value[0][0].start_mark.line
    key, value = next(pair for pair in scales.value if pair[0].value == scale)
    if value.end_mark.line != key.start_mark.line:  # not on one line
        return text
    lines.insert(first, lines.pop(key.start_mark.line))
    moved = "".join(lines)
    return moved if _loads_as(moved, yaml.safe_load(text)) else text


def compared(old: Config, new: Config, name: str, scale: str) -> str:
    """Build both models, check that all other rows are equal, and return what the swap saves.

    Raises:
        ModelError: If one cannot be built.
        SwapError: If a row that was not swapped, or the task, is not what it was.
    """
    with quiet():
        before, after = (host.build(config | {"scale": scale, "yaml_file": name}) for config in (old, new))
    _hold_the_rest(before, after, yaml_rows(old), yaml_rows(new))
    (p, f), (q, g) = [(get_num_params(model), count_gflops(model, IMGSZ)) for model in (before, after)]
    return (
        f"{name}{f', scale {scale}' if scale else ''}, {old.get('nc')} classes, {IMGSZ} x {IMGSZ}, unfused: "
        f"{p} -> {q} parameters ({q / p - 1:+.1%}), {f:.2f} -> {g:.2f} GFLOPs ({g / f - 1:+.1%})"
    )


def _hold_the_rest(before: Any, after: Any, old: list[list[Any]], new: list[list[Any]]) -> None:
    """Raise an error where the task or another row changed: the host builds some rows depending on others."""
    stay = "Swap less, with --where backbone or --where neck"
    if host.task_of(before) != host.task_of(after):  # 8.3 knows pose and obb by their own names only
        unseen = f"this Ultralytics does not read the task from {new[-1][2]}, newer ones do"
        raise SwapError(f"Row {len(new) - 1}: {unseen}. {stay}")
    for i, (a, b) in enumerate(zip(before.model, after.model, strict=True)):
        kept = old[i][2] in LIGHT and is_newer(old)
        if (old[i] == new[i] or kept) and a.np != b.np:
            raise SwapError(f"Row {i}, {old[i][2]}, would come out with {b.np} instead of {a.np} parameters. {stay}")


def how_to_train(out: Path, scale: str) -> str:
    """Say under which name to train a written YAML so that the host takes the scale that is meant, "" where it has one."""
    stem = with_scale(out.stem, scale)
    if scale_of(out) is not None or not scale:
        return f"train it: yolo train model={out} data=..."
    if stem == out.stem:  # no yolov8 or the like in it
        taken = f"scale {scale}, the first one in the file"
        return (
            f"{out.name} has no scale letter, so Ultralytics will take {taken}; a name such as yolov8-my.yaml takes all"
        )
    named = out.with_name(f"{stem}{out.suffix}")
    if without_scale(str(named)) == str(out):
        return f"train it: yolo train model={named} data=... (its letter says the scale)"
    return f"the folder's name hides the scale letter from Ultralytics: rename {out.name} to {named.name} to train it"

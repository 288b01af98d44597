"""Hypothesis strategies: real inputs, changed in one or a few places."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from hypothesis import strategies as st

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 7, 0.5, 1e9, 10**30, -(2**63), float("nan"), float("inf"), "", "x", "nc", "None",
    "exit()", "__import__('os').getpid()", "nn.Upsample", "torch.nn.ReLU", "Conv", "C2f_GhostBottleneck", "../../x",
    "a\nb: c", "\ud83d\ude00", "é", [], {}, [[]], [None], [-1], [0, 0], [1.5, "x"], {"a": 1}, {0: 0}, {"n": [1]},
)  # fmt: skip
SELDOM = st.sampled_from([False] * 5 + [True])  # most inputs with several kinds of damage are refused for the first
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "gbk", "cp1252")


def paths_of(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of every value inside nested lists and dicts."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in items for path in ((*prefix, key), *paths_of(item, (*prefix, key)))]


def container_of(value: Any, path: tuple[Any, ...]) -> Any:
    """Return the list or dict in which a path ends."""
    for key in path[:-1]:
        value = value[key]
    return value


@st.composite
def changed(draw: st.DrawFn, value: Any, most: int = 2) -> Any:
    """Return a nested value of which up to `most` places are replaced, removed, repeated or nested deeply."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        places = paths_of(value)
        if not places:
            break
        path = draw(st.sampled_from(places))
        holder, key = container_of(value, path), path[-1]
        kind = draw(
            st.sampled_from(["near"] * 4 + ["odd", "odd", "number", "text", "remove", "repeat", "nest", "move"])
        )
        if kind == "remove":
            del holder[key]
        elif kind == "repeat" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == "nest":
            for _ in range(draw(st.sampled_from([1, 3, 30]))):
                holder[key] = [holder[key]]
        elif kind == "near" and isinstance(holder[key], int | float):  # what may still be right
            holder[key] = draw(st.sampled_from([holder[key] + 1, holder[key] * 2, holder[key] // 2, 1]))
        elif kind == "move":
            holder[key] = copy.deepcopy(container_of(value, other := draw(st.sampled_from(places)))[other[-1]])
        else:
            odd = {"number": st.integers(-70, 2000), "text": st.text(max_size=12)}
            holder[key] = copy.deepcopy(draw(odd.get(kind, st.sampled_from(ODD_VALUES))))
    return value


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes, most: int = 4) -> bytes:
    """Return bytes of which up to `most` places are flipped, removed, repeated, or the rest is cut."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, most))):
        if not out:
            break
        # the beginning, where headers are, as often as the rest
        place = draw(st.one_of(st.integers(0, min(64, len(out) - 1)), st.integers(0, len(out) - 1)))
        kind = draw(st.sampled_from(["set", "set", "cut", "remove", "repeat", "insert"]))
        if kind == "set":
            out[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, out[place] ^ 1, out[place] ^ 0x80]))
        elif kind == "cut":
            del out[place:]
        elif kind == "remove":
            del out[place : place + draw(st.integers(1, 64))]
        elif kind == "repeat":
            out[place:place] = out[place : place + draw(st.integers(1, 64))]
        else:
            out[place:place] = draw(st.binary(min_size=1, max_size=16))
    return bytes(out)


@st.composite
def yaml_files(draw: st.DrawFn, models: list[dict[str, Any]]) -> bytes:
    """Return a model YAML as bytes: with other values, in another encoding, or with other bytes."""
    content = draw(st.sampled_from(models))
    if draw(st.booleans()):
        content = draw(changed(content))
    try:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
        data = text.encode(draw(st.sampled_from(ENCODINGS)) if draw(SELDOM) else "utf-8")
    except (UnicodeEncodeError, RecursionError):
        data = b"nc: 1"
    return draw(changed_bytes(data)) if draw(SELDOM) else data

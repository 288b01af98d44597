"""Hypothesis strategies: real inputs, changed in one or a few places."""

from __future__ import annotations

import copy
from typing import Any

import torch
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


ODD_WEIGHTS = (float("nan"), float("inf"), -1.0, 0.0, -1e30, 3e38, 1e-45)


def model_changes(teacher: Any) -> st.SearchStrategy[tuple[str, str, Any]]:
    """Return changes of one attribute, one place of the YAML, one weight or one value beside the model."""
    odd = st.sampled_from([*ODD_VALUES, torch.tensor([]), torch.tensor([float("nan")]), torch.zeros(2, 3)])
    attributes = st.sampled_from(
        ["names", "yaml", "stride", "args", "nc", "task", "save", "model", "inplace", "training", "end2end"]
    )
    weights = st.sampled_from(sorted(teacher.state_dict()))
    return st.one_of(
        st.tuples(st.just("attribute"), attributes, odd),
        st.tuples(st.just("without"), attributes, st.none()),
        st.tuples(st.just("yaml"), st.just(""), changed(teacher.yaml, 1)),
        st.tuples(st.just("names"), st.just(""), changed({0: "a", 1: "b", 2: "c"})),
        st.tuples(st.just("weight"), weights, st.sampled_from([*ODD_WEIGHTS, "shape", "double", "none"])),
        st.tuples(st.just("args"), st.sampled_from(["imgsz", "task", "data", "model"]), odd),
        st.tuples(st.just("content"), st.sampled_from(["model", "ema", "train_args", "version", "date"]), odd),
        st.tuples(st.just("head"), st.sampled_from(["nc", "stride", "reg_max", "nl", "f", "i"]), odd),
    )


def damages() -> st.SearchStrategy[tuple[str, str, int]]:
    """Return seeds of a file's damage."""
    return st.tuples(st.just("bytes"), st.just(""), st.integers(0, 2**32))


def weight_files(names: list[str]) -> st.SearchStrategy[tuple[str, str, Any]]:
    """Return changes of a state dict: one tensor, the place where it stands, or all of it."""
    wide = torch.zeros(1).expand(10**9)  # saved as one number
    tensors = st.sampled_from(
        [
            *ODD_VALUES,
            wide,
            torch.tensor([]),
            torch.tensor(0.0),
            torch.full((64, 3, 3, 3), float("nan")),
            wide[:5].int(),
        ]
    )
    one = st.sampled_from(names)
    return st.one_of(
        st.tuples(st.just("tensor"), st.one_of(one, st.sampled_from([names[-1], "x", "classifier.1.bias"])), tensors),
        st.tuples(st.just("without"), one, st.none()),
        st.tuples(st.just("inside"), st.sampled_from(["state_dict", "state_dict_ema", "model", "x"]), st.none()),
        st.tuples(st.just("whole"), st.just(""), st.one_of(tensors, st.just({"model": {}}))),
        damages(),
    )


def change_weight(model: Any, name: str, value: Any) -> None:
    """Change a parameter or buffer."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    tensor = getattr(module, leaf)
    if value == "none":
        setattr(module, leaf, None)
    elif value in ("shape", "double"):
        new = torch.cat([tensor.flatten(), tensor.flatten()]) if value == "shape" else tensor.double()
        table = module._parameters if leaf in module._parameters else module._buffers
        table[leaf] = torch.nn.Parameter(new, requires_grad=False) if leaf in module._parameters else new
    elif tensor.is_floating_point():
        tensor.data.view(-1)[0] = value


ANNOTATION = (
    '<?xml version="1.0" encoding="UTF-8"?><annotation><size><width>80</width><height>64</height></size>'
    "<object><name>RBC</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>"
    "<object><name>WBC</name><bndbox><xmin>5.5</xmin><ymin>2</ymin><xmax>79</xmax><ymax>64</ymax></bndbox></object></annotation>"
)
TEXTS = (
    "nan", "inf", "-1", "1e400", "0x10", "", " ", "RBC ", "\uff11", "1,5", "<a/>", "&lol;", "&#0;", "latin-1", "utf-16", "cp037", "hex", "object>",
    "<object/>", "ANNOTATION", "<!DOCTYPE a [<!ENTITY lol 'x'>]>", "<!DOCTYPE a SYSTEM 'file:///etc/passwd'>", " xmlns='x'", "\x00",
)  # fmt: skip


@st.composite
def voc_inputs(draw: st.DrawFn, photo: bytes) -> tuple[bytes, bytes, bytes]:
    """Return an annotation, the list of its split and its photograph, one or two of them changed."""
    text, listed = ANNOTATION, b"one\n"
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        old = draw(
            st.sampled_from(["RBC", "UTF-8", "30", "5.5", "object", "annotation", "bndbox", ">1<", "<size>", "xmin"])
        )
        text = text.replace(old, draw(st.sampled_from(TEXTS)), draw(st.sampled_from([1, -1])))
    xml = text.encode(draw(st.sampled_from(["utf-8"] * 5 + ["latin-1", "utf-16"])), "replace")
    xml = draw(changed_bytes(xml)) if draw(SELDOM) else xml
    lines = st.sampled_from(
        [
            b"one\n",
            b"one\none\n",
            b"one 1\n",
            b"one.jpg\n",
            b"../two\n",
            b"\xff\n",
            b"",
            b"\xef\xbb\xbfone\n",
            b"/one\n",
            b"one\x00\n",
            b"o" * 300,
            b"sub/one\n",
        ]
    )
    listed = draw(st.one_of(lines, st.binary(max_size=20))) if draw(SELDOM) else listed
    photo = draw(changed_bytes(photo)) if draw(SELDOM) else photo
    return xml, listed, photo


@st.composite
def image_files(draw: st.DrawFn, photos: dict[str, bytes]) -> tuple[str, bytes]:
    """Return a photograph in one of the formats, changed, under its own suffix or another."""
    suffix = draw(st.sampled_from(sorted(photos)))
    data = draw(changed_bytes(photos[suffix], most=2))
    return draw(st.sampled_from([suffix, suffix, "jpg", "png", "bmp", "tif"])), data

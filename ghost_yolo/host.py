"""The only door to Ultralytics' internals.

The host's parser finds a module by name in the globals of `ultralytics.nn.tasks`, but only members of two sets local to
the function get their input channels, width scaling and repeats; any other class silently gets wrong channels. So each
word is bound to a small stand-in type that hashes and compares like a stock class and, when called, builds ours.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch
import ultralytics
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils.checks import check_version

from ghost_yolo import blocks
from ghost_yolo.registry import Block, unknown_block

SUPPORTED = ">=8.3.200,<8.5"  # both ends are tested; pyproject.toml declares the same range


class UnsupportedHostError(RuntimeError):
    """The installed Ultralytics is not one that this package was tested with."""


class _StandIn(type):
    """Make a type look like a host class to the parser's sets and like ours to everything else."""

    real: type[nn.Module]
    like: type[nn.Module]

    def __hash__(cls) -> int:
        return hash(cls.like)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.like

    def __repr__(cls) -> str:  # the parser prints this in its layer table and keeps it as the layer's type
        return repr(cls.real)

    def __call__(cls, *args: Any, **kwargs: Any) -> nn.Module:
        return cls.real(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.real)


def register() -> None:
    """Teach the host every word of the table. Calling it again changes nothing.

    Raises:
        UnsupportedHostError: If the installed Ultralytics is outside the supported range or lacks what we build on.
    """
    check_host()
    known = vars(tasks)
    for block in blocks.BLOCKS:
        stand_in = known.get(block.qualified) or _stand_in(block)
        known[block.qualified] = stand_in
        known.setdefault(block.word, stand_in)  # a word that the host owns stays the host's
    torch.serialization.add_safe_globals([*_module_classes()])
    if not hasattr(tasks.parse_model, "_ghost_yolo_original"):
        tasks.parse_model = _with_clear_error(tasks.parse_model)


def unregister() -> None:
    """Take every word back and leave the host as it was."""
    known = vars(tasks)
    for block in blocks.BLOCKS:
        for word in words_of(block):
            del known[word]
    ours = {*_module_classes()}
    others = [entry for entry in torch.serialization.get_safe_globals() if entry not in ours]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(others)
    tasks.parse_model = getattr(tasks.parse_model, "_ghost_yolo_original", tasks.parse_model)


def words_of(block: Block) -> tuple[str, ...]:
    """Return the words under which the host knows a block now: none, the qualified one, or both."""
    known = vars(tasks)
    return tuple(word for word in (block.qualified, block.word) if isinstance(known.get(word), _StandIn))


def check_host() -> None:
    """Raise an error that says what to install, unless the installed Ultralytics is supported."""
    version = ultralytics.__version__
    install = f"pip install --force-reinstall 'ultralytics{SUPPORTED}'"
    if not check_version(version, SUPPORTED):
        raise UnsupportedHostError(
            f"Ultralytics {version} is installed, and ghost_yolo supports {SUPPORTED}. Install one of these: {install}"
        )
    missing = [name for name in ("parse_model", "C2f", "Conv") if not hasattr(tasks, name)]
    if missing:
        raise UnsupportedHostError(
            f"Ultralytics {version} has no {', '.join(missing)} in ultralytics.nn.tasks, on which ghost_yolo builds. "
            f"Install an unmodified one: {install}"
        )


def _stand_in(block: Block) -> _StandIn:
    """Build the stand-in of one block. As a subclass it also passes the restricted loader's `issubclass` check."""
    attributes = {"real": block.cls, "like": vars(tasks)[block.like], "__module__": block.cls.__module__}
    return _StandIn(block.cls.__name__, (block.cls,), attributes)


def _module_classes() -> Iterator[type[nn.Module]]:
    """Yield every module class that the rooms define, so that restricted loading knows nested ones too."""
    for room in {sys.modules[block.cls.__module__] for block in blocks.BLOCKS}:
        for member in vars(room).values():
            if isinstance(member, type) and issubclass(member, nn.Module) and member.__module__.startswith("ghost_yolo."):
                yield member


def _with_clear_error(parse_model: Any) -> Any:
    """Wrap the parser so that an unknown word says what exists; the host itself raises a bare KeyError."""

    @functools.wraps(parse_model)
    def explained(d: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return parse_model(d, *args, **kwargs)
        except KeyError as error:
            word = error.args[0] if error.args else None
            if word in vars(tasks) or word not in {row[2] for row in d["backbone"] + d["head"]}:
                raise
            hosts = [name for name, value in vars(tasks).items() if isinstance(value, type)]
            raise unknown_block(word, [block.word for block in blocks.BLOCKS], hosts) from error

    explained._ghost_yolo_original = parse_model  # type: ignore[attr-defined]
    return explained

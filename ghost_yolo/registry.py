"""What a row of the blocks table is, and the errors about words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

PREFIX = "ghost_yolo."


@dataclass(frozen=True)
class Block:
    """One word that a model YAML may use.

    Attributes:
        word: The bare word; `ghost_yolo.<word>` is always understood, the bare one where the host does not own it.
        cls: The module that the word builds.
        like: The host's class whose YAML row it imitates: `C2f` for `(c1, c2, n, ...)`, `Conv` for `(c1, c2, ...)`, or any
            other that the host's parser treats by itself.
        paper: Where the block is defined.
    """

    word: str
    cls: type[nn.Module]
    like: str
    paper: str

    @property
    def qualified(self) -> str:
        """The word that no host can ever own."""
        return PREFIX + self.word


class UserError(Exception):
    """Something that the user can put right; our commands show its message without a traceback."""


class UnknownBlockError(UserError, KeyError):
    """A model YAML names a module that neither the host nor this package has."""

    def __str__(self) -> str:
        """Show the message as text; KeyError would show its repr."""
        return str(self.args[0])


def unknown_block(word: str, ours: Iterable[str], hosts: Iterable[str] = ()) -> UnknownBlockError:
    """Say which word is unknown, which known one is nearest, and what exists; the host's words only where they count."""
    import difflib

    ours, hosts = sorted(ours), [*hosts]
    close = difflib.get_close_matches(word, [*ours, *hosts], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    rest = "; every other word must be one of the installed Ultralytics'" if hosts else ""
    where = " in the model YAML" if hosts else ""
    return UnknownBlockError(f"Unknown block {word!r}{where}.{hint} Words of ghost_yolo: {', '.join(ours)}{rest}.")

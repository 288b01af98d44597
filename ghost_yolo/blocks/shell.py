"""The C2f shell: split, n inner blocks in a row, concat, fuse. A family supplies only the inner block."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from ultralytics.nn.modules.block import C2f
from ultralytics.nn.modules.conv import Conv


class C2fShell(C2f):
    """The host's C2f with another inner block; forward, `forward_split` and the names `cv1`, `cv2`, `m` are the host's.

    The same names let `cv1` and `cv2` of a trained stock model transfer by name and shape.
    Input (b, c1, h, w), output (b, c2, h, w).
    """

    def __init__(self, c1: int, c2: int, n: int, inner: Callable[[int], nn.Module], e: float = 0.5) -> None:
        """Build the shell around n inner blocks.

        Args:
            c1: Input channels.
            c2: Output channels, at least 2.
            n: Number of inner blocks.
            inner: Builds one inner block of the given width; it keeps shape and width.
            e: Hidden width as a share of c2.

        Raises:
            ValueError: If c2 is below 2 or the hidden width is below 1.
        """
        nn.Module.__init__(self)  # not C2f's own: it would build Bottlenecks only to throw them away
        check_channels(type(self).__name__, c2)
        self.c = int(c2 * e)
        if self.c < 1:
            raise ValueError(
                f"{type(self).__name__}: c2={c2} and e={e} leave no hidden channel; c2 * e must be at least 1"
            )
        self.cv1 = Conv(c1, 2 * self.c, 1, 1)
        self.cv2 = Conv((2 + n) * self.c, c2, 1)
        self.m = nn.ModuleList(inner(self.c) for _ in range(n))


def check_channels(name: str, c2: int) -> None:
    """Raise a ValueError for an output width that has no half to be made cheaply."""
    if c2 < 2:
        raise ValueError(f"{name}: c2={c2}; it makes part of its channels from the others, so c2 must be at least 2")


def check_kernel(name: str, k: int, s: int) -> None:
    """Raise a ValueError for a kernel that has no middle or a stride that is none."""
    if k < 1 or k % 2 == 0 or s < 1:
        raise ValueError(f"{name}: k={k}, s={s}; the kernel must be odd and the stride at least 1")


def check_ungrouped(name: str, g: int, why: str) -> None:
    """Raise a ValueError with the reason where a block that takes no groups is given some."""
    if g != 1:
        raise ValueError(f"{name}: g={g}; {why}: leave g at 1")

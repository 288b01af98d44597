"""Lightweight backbones for stock Ultralytics YOLO.

Importing this package is cheap: neither torch nor Ultralytics is imported. It installs the same import hook as the installed
`ghost_yolo_hook.pth`, so that the blocks are registered as soon as Ultralytics is imported.
"""

# From Python 3.15 on this file runs at every interpreter start: it imports nothing but the hook, not even `typing`.
from ghost_yolo import _hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ghost_yolo.host import register, unregister
    from ghost_yolo.registry import BLOCKS

__version__ = "0.1.0"
__all__ = ["BLOCKS", "__version__", "register", "unregister"]

_HOMES = {"BLOCKS": "ghost_yolo.registry", "register": "ghost_yolo.host", "unregister": "ghost_yolo.host"}


def __getattr__(name: str) -> object:
    """Import a public name, and what it needs, on first access."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


_hook.install()

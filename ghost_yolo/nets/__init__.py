"""Whole light networks, as classifiers and as sources of features; each is loaded when it is first asked for."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ghost_yolo.nets.gghost import (
        g_ghost_regnetx_032,
        g_ghost_regnetx_040,
        g_ghost_regnetx_080,
        g_ghost_regnetx_160,
    )
    from ghost_yolo.nets.ghost import ghostnet, ghostnetv2, ghostnetv3
    from ghost_yolo.nets.weights import load_timm

__all__ = [
    "g_ghost_regnetx_032",
    "g_ghost_regnetx_040",
    "g_ghost_regnetx_080",
    "g_ghost_regnetx_160",
    "ghostnet",
    "ghostnetv2",
    "ghostnetv3",
    "load_timm",
]

# No room is called like a function of its own: once loaded, the room would hide the function.
_HOMES = {
    "g_ghost_regnetx_032": "gghost",
    "g_ghost_regnetx_040": "gghost",
    "g_ghost_regnetx_080": "gghost",
    "g_ghost_regnetx_160": "gghost",
    "ghostnet": "ghost",
    "ghostnetv2": "ghost",
    "ghostnetv3": "ghost",
    "load_timm": "weights",
}


def __getattr__(name: str) -> object:
    """Load a public name, and what it needs, when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

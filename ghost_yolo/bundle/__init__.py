"""One folder with a model, a runner that needs no torch, and the proof: `bundle(BundlePlan(...))` writes it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghost_yolo.bundle.build import Bundle, bundle
    from ghost_yolo.bundle.plan import BundlePlan
    from ghost_yolo.bundle.web import WebPlan

__all__ = ["Bundle", "BundlePlan", "WebPlan", "bundle"]

_MODULES = {"Bundle": "build", "BundlePlan": "plan", "WebPlan": "web", "bundle": "build"}


def __getattr__(name: str) -> object:
    """Import a public name on first use: the runner beside this file needs nothing of the rest."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

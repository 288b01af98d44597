"""Measure latency in the runtimes in which models are deployed: `bench(BenchPlan(...))` returns a `BenchResult`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghost_yolo.bench.plan import BenchPlan
    from ghost_yolo.bench.results import BenchResult, BenchRow
    from ghost_yolo.bench.runner import bench

__all__ = ["BenchPlan", "BenchResult", "BenchRow", "bench"]

_MODULES = {"BenchPlan": "plan", "BenchResult": "results", "BenchRow": "results", "bench": "runner"}


def __getattr__(name: str) -> object:
    """Import a public name on first use: a worker process must hold nothing but the runtime that it times."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

"""Register the blocks by themselves: right after Ultralytics' parser is loaded, whoever loads it.

`ghost_yolo_hook.pth` imports `ghost_yolo`, and so calls `install()`, when Ultralytics itself is first imported: at
interpreter start even one file to look for costs a millisecond. From Python 3.15 on `ghost_yolo_hook.start` calls
`install()` at the start, so this module stays within the standard library. `GHOST_YOLO_AUTOLOAD=0` turns it off.
"""

import os
import sys

PARSER = "ultralytics.nn.tasks"
# What takes part in registering, each with a name that only the whole module has.
PARTS = {PARSER: "parse_model", "ghost_yolo.blocks": "BLOCKS", "ghost_yolo.host": "register"}


def install() -> None:
    """Arm the hook once; register at once where the host is loaded already (a running notebook, say)."""
    if os.environ.get("GHOST_YOLO_AUTOLOAD") == "0" or is_armed():
        return
    sys.meta_path.insert(0, _Finder())
    _register_when_whole()


def is_armed() -> bool:
    """Return whether this process registers the blocks by itself."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


class _Finder:
    """Let the other finders find the parts, and have each part call back when it has loaded."""

    def find_spec(self, name, path=None, target=None):
        if name not in PARTS:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)  # old finders have none
            spec = find(name, path, target) if find else None
            if spec is not None:
                if spec.loader is not None:
                    _call_after(spec.loader, _register_when_whole)
                return spec
        return None


def _call_after(loader, callback):
    """Have a loader call back once, after its module has been executed; the loader itself stays the module's own."""
    execute = loader.exec_module

    def exec_module(module):
        loader.__dict__.pop("exec_module", None)
        execute(module)
        callback()

    loader.exec_module = exec_module


def _register_when_whole() -> None:
    """Register once the parser is there and no part is half built; a part that is still loading calls again at its end.

    A room imported first loads the host, which loads the parser, while `ghost_yolo.blocks` is only half built.
    """
    if PARSER not in sys.modules or not all(hasattr(sys.modules[p], PARTS[p]) for p in PARTS if p in sys.modules):
        return
    try:
        from ghost_yolo.host import register

        register()
    except Exception as error:  # Ultralytics must stay usable without us, but never in silence
        import warnings

        warnings.warn(f"ghost_yolo did not register its blocks: {error}", RuntimeWarning, stacklevel=2)

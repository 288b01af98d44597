"""Register the blocks automatically, right after Ultralytics' parser has been imported, whoever imports it.

`ghost_yolo_hook.pth` imports `ghost_yolo`, and so calls `install()`, when Ultralytics itself is first executed: at
interpreter start even one file to look for costs a millisecond. Neither that file nor this one imports anything inside
`find_spec`: importlib then holds its global lock, and another thread's import would wait for it for ever. From Python 3.15 on `ghost_yolo_hook.start` calls
`install()` at the start, so this module stays within the standard library. `GHOST_YOLO_AUTOLOAD=0` turns it off.
"""

import os
import sys

PARSER = "ultralytics.nn.tasks"
OURS = "ghost_yolo."
_loading: "set[str]" = set()  # modules whose code is running now


def install(always: bool = False) -> None:
    """Install the hook once; register at once where the host is loaded already (a running notebook, for example).

    `always` is for processes of our own, which know the blocks whatever GHOST_YOLO_AUTOLOAD says.
    """
    if is_armed() or (os.environ.get("GHOST_YOLO_AUTOLOAD") == "0" and not always):
        return
    sys.meta_path.insert(0, _Finder())
    _register_when_loaded()


def is_armed() -> bool:
    """Return whether this process registers the blocks automatically."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


class _Finder:
    """Let the other finders find the parser and our modules, and have each report when it has been executed."""

    registered = False  # once is enough: what is unregistered later stays so

    def find_spec(self, name, path=None, target=None):
        if self.registered or (name != PARSER and not name.startswith(OURS)):
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)  # old finders have none
            spec = find(name, path, target) if find else None
            if spec is not None:
                if spec.loader is not None:
                    _report(spec.loader, name)
                return spec
        return None


def _report(loader, name):
    """Have a loader report the begin and the end of its module's execution, once; it stays the module's own loader.

    Other tools' loaders may lack `exec_module` or take no attribute; their modules are imported as if we were not there.
    """
    execute, attributes = getattr(loader, "exec_module", None), getattr(loader, "__dict__", None)
    if execute is None or not isinstance(attributes, dict):
        if name == PARSER:
            _warn(f"{type(loader).__name__} loads {PARSER}; call ghost_yolo.register()")
        return

    def exec_module(module):
        attributes.pop("exec_module", None)
        _loading.add(name)
        try:
            execute(module)
        finally:
            _loading.discard(name)
        _register_when_loaded()  # not behind an import that failed, whose own error tells more

    attributes["exec_module"] = exec_module


def _warn(reason):
    """Say that nothing was registered: Ultralytics must stay usable without us, but never in silence."""
    import warnings  # long loaded by torch, so that nobody waits for it

    warnings.warn(f"ghost_yolo did not register its blocks: {reason}", RuntimeWarning, stacklevel=3)


def _register_when_loaded() -> None:
    """Register once the parser is there and none of our modules is half executed.

    A block's module that is imported first imports the host, which imports the parser: registering just then would
    import that module's unfinished namespace. It reports again at its end.
    """
    if _Finder.registered or PARSER not in sys.modules or _loading:
        return
    try:
        from ghost_yolo.host import register

        register()
        _Finder.registered = True
    except Exception as error:
        _warn(error)

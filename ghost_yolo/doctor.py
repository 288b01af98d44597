"""Diagnostics: versions, auto-registration in a fresh process, and which module names resolve to this package."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

from ghost_yolo import __version__, _hook
from ghost_yolo.utils.system import version

# A process that imports the host and nothing of ours, then looks for one of our module names.
PROBE = "import ultralytics.nn.tasks as t; print('ghost_yolo.C2f_GhostBottleneck' in vars(t))"


def examine() -> tuple[str, bool]:
    """Return the report, and whether everything is in order."""
    lines = [f"python       {platform.python_version()}", f"ghost-yolo   {__version__}"]
    lines += [f"{name:12} {version(name)}" for name in ("ultralytics", "torch")]
    try:
        from ghost_yolo import host
        from ghost_yolo.registry import BLOCKS

        host.register()
    except Exception as error:  # noqa: BLE001 (an unsupported or broken host is just what is to be reported)
        return "\n".join([*lines, f"host         NO: {error}"]), False
    lines.append(f"supported    yes: ultralytics {host.SUPPORTED}")
    loads, how = autoload()
    lines += [f"auto-load    {how}", "", f"{'module name in a YAML':34} bare name"]
    names = {block: host.registered_names(block) for block in BLOCKS}
    for block, known in names.items():
        owner = "resolves to ghost_yolo" if block.name in known else f"{block.name} resolves to Ultralytics"
        lines.append(f"{block.qualified if block.qualified in known else 'MISSING':34} {owner}")
    healthy = loads and all(block.qualified in known for block, known in names.items())
    return "\n".join([*lines, "", "no problems found" if healthy else "PROBLEMS FOUND: see above"]), healthy


def autoload() -> tuple[bool, str]:
    """Return whether a fresh process registers the blocks automatically, and a line that says so."""
    if os.environ.get("GHOST_YOLO_AUTOLOAD") == "0":
        return False, "NO: GHOST_YOLO_AUTOLOAD=0 turns it off; unset it, or call ghost_yolo.register() yourself"
    child = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if child.returncode == 0 and child.stdout.strip().endswith("True"):
        return True, "yes: a fresh process that loads only Ultralytics knows the blocks"
    why = child.stderr.strip().splitlines()[-1:] or ["ghost_yolo_hook.pth is not in this environment's site-packages"]
    armed = "armed" if _hook.is_armed() else "not armed"
    return False, f"NO ({why[0]}; here {armed}): reinstall with pip, or `import ghost_yolo` before the model is made"

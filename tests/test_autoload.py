"""The blocks are there by themselves, whatever a fresh process imports or unpickles first."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

import pytest
import torch
from factories import ROOT, Run
from ultralytics import YOLO

from ghost_yolo.model.catalog import path_of

KNOWN = "; import ultralytics.nn.tasks as t; assert 'ghost_yolo.C2f_GhostBottleneck' in vars(t), 'not registered'"
STRICT = "import warnings; warnings.simplefilter('error', RuntimeWarning); "
BLOCK_FILES = [name for _, name, _ in pkgutil.iter_modules([str(ROOT / "ghost_yolo/blocks")], "ghost_yolo.blocks.")]
FIRST = [
    "ultralytics",
    "ultralytics.nn.tasks",
    "ultralytics.nn.modules",
    "ultralytics.engine.trainer",
    "ghost_yolo",
    "ghost_yolo.host",
    "ghost_yolo.blocks",
    "ghost_yolo.data.bccd",
    "ghost_yolo.nets",
    "ghost_yolo.nets.ghost",
    "ghost_yolo.compare",
    "ghost_yolo.export.verify",
    *BLOCK_FILES,
]
IN_A_NEW_INTERPRETER = {"ultralytics", "ghost_yolo.blocks.ghost"}  # the others start with torch already loaded


@pytest.mark.parametrize("module", FIRST)
def test_whichever_is_imported_first(module: str, python: Run) -> None:
    """Each import order ends with the blocks registered and without a warning."""
    done = python(f"{STRICT}import {module}{KNOWN}", fresh=module in IN_A_NEW_INTERPRETER)

    assert "Warning" not in done.stderr


@pytest.mark.parametrize("arguments", [["cfg"], ["--help"], ["bench", "--help"]])
def test_the_command_starts_light(arguments: list[str], python: Run) -> None:
    """Help and list come without torch, matplotlib and the host: they take seconds to load."""
    code = f"import sys; from ghost_yolo.cli import main; sys.argv[1:] = {arguments}\n"
    check = "finally: assert not {'torch', 'matplotlib', 'ultralytics'} & {*sys.modules}, 'loaded'"

    assert python(f"{code}try: main()\n{check}", fresh=True).stdout


def test_a_wrong_argument_is_told_soon(python: Run) -> None:
    """A folder without images is refused before what takes longest to load."""
    code = "import sys; from ghost_yolo.cli import main; sys.argv[1:] = 'ghostify nope.pt --images . -o light.pt'.split()\n"
    check = "assert not {'torchvision', 'torch._dynamo', 'scipy.stats'} & {*sys.modules}, 'loaded'"

    done = python(f"{code}try: main()\nexcept SystemExit as end: print(end)\n{check}", fresh=True)

    assert "holds no image itself" in done.stdout


def test_unpickled_first(python: Run, tmp_path: Path) -> None:
    """A fresh process that only unpickles one of our blocks ends with the blocks registered."""
    code = "import pickle; from ghost_yolo.blocks.gghost import GGhostStage; pickle.dump(GGhostStage(8, 8), open('b', 'wb'))"
    python(code)
    python(f"{STRICT}import pickle; pickle.load(open('b', 'rb')){KNOWN}")


def test_spawned_child(python: Run, tmp_path: Path) -> None:
    """A spawned process that is handed a model of ours builds another one."""
    (tmp_path / "work.py").write_text(
        "import multiprocessing as mp\n"
        "def child(model):\n"
        "    from ultralytics.nn.tasks import DetectionModel\n"
        "    DetectionModel(model.yaml, verbose=False)\n"
        "if __name__ == '__main__':\n"
        "    from ultralytics import YOLO\n"
        f"    model = YOLO({str(path_of('yolov8n-gghost'))!r}).model\n"
        "    with mp.get_context('spawn').Pool(1) as pool:\n"
        "        pool.apply(child, (model,))\n"
    )
    python("import runpy; runpy.run_path('work.py', run_name='__main__')", fresh=True)


def test_without_the_hook_file(python: Run) -> None:
    """Where `site` reads no .pth file, importing the package is enough, before or after the host."""
    path = f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}; "
    for order in ("import ghost_yolo, ultralytics", "import ultralytics.nn.tasks, ghost_yolo"):
        done = python(f"{path}{STRICT}{order}{KNOWN}", PYTHONNOUSERSITE="1")
        assert done.stderr == ""


def test_site_is_skipped(run: Run) -> None:
    """Under `python -S`, which reads no .pth file at all, importing the package is enough."""
    code = f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}; {STRICT}import ultralytics.nn.tasks as t; "
    code += "assert 'ghost_yolo.C2f_GhostBottleneck' not in vars(t); import ghost_yolo" + KNOWN
    run("python", "-S", "-c", code, fresh=True)


def test_can_be_turned_off(python: Run) -> None:
    """With GHOST_YOLO_AUTOLOAD=0 nothing is registered until register() is called."""
    off = "import ghost_yolo, ultralytics.nn.tasks as t; assert 'ghost_yolo.GhostConv' not in vars(t); "
    python(f"{off}ghost_yolo.register(){KNOWN}", GHOST_YOLO_AUTOLOAD="0")


@pytest.mark.parametrize("times", [1, 2])
def test_the_hook_file_by_itself(times: int, run: Run) -> None:
    """Its line, which `site` runs twice in a virtual environment, has Ultralytics' import register the blocks."""
    line = (ROOT / "ghost_yolo_hook.pth").read_text().strip()
    code = f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n" + f"{line}\n" * times
    code += f"import warnings; warnings.simplefilter('error', RuntimeWarning)\nimport ultralytics.nn.tasks{KNOWN}"
    done = run(sys.executable, "-S", "-c", code, fresh=True)
    assert done.stderr == ""


def test_light_at_start(run: Run) -> None:
    """The hook's line loads no module at all, and `import ghost_yolo` only itself and the hook."""
    loaded = "; import sys; print(*sorted(sys.modules))"
    path = f"import os, sys; sys.path.insert(0, {str(ROOT)!r})"
    line = (ROOT / "ghost_yolo_hook.pth").read_text().strip()
    codes = {"bare": path, "hooked": f"{path}; {line}", "imported": f"{path}; import ghost_yolo"}
    # -S: without the environment's own .pth files, ours among them
    seen = {
        name: set(run("python", "-S", "-c", code + loaded, fresh=True).stdout.split()) for name, code in codes.items()
    }

    assert seen["hooked"] == seen["bare"]
    assert seen["imported"] - seen["bare"] <= {"ghost_yolo", "ghost_yolo._hook"}


def test_a_broken_host_is_told_not_hidden(python: Run) -> None:
    """Where registering fails, Ultralytics still imports and a warning says why."""
    code = """
import sys, types, warnings
import ultralytics
ultralytics.__version__ = "7.0.0"
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import ultralytics.nn.tasks
assert any(w.category is RuntimeWarning and "7.0.0" in str(w.message) for w in seen), [str(w.message) for w in seen]
"""
    python(code)


def test_an_import_that_fails(python: Run) -> None:
    """Where Ultralytics itself cannot be imported its own error comes, and no warning of ours before it."""
    code = """
import sys, warnings
import ultralytics
sys.modules["ultralytics.nn.autobackend"] = None
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    try: import ultralytics.nn.tasks
    except ImportError: print("failed")
assert not [w for w in seen if "ghost_yolo" in str(w.message)], [str(w.message) for w in seen]
"""
    assert python(code).stdout


@pytest.mark.parametrize("kind", ["old", "slots"])
def test_loaders_of_other_tools(kind: str, python: Run) -> None:
    """A loader that cannot report leaves Ultralytics importable; a warning says what to do, and doing it works."""
    code = f"""
import sys, types, warnings
import ultralytics
from importlib.machinery import ModuleSpec, PathFinder
class Old:
    def __init__(self, real): self.real = real
    def load_module(self, name): return self.real.load_module(name)
class Slots:
    __slots__ = ("real",)
    def __init__(self, real): self.real = real
    def create_module(self, spec): return None
    def exec_module(self, module): self.real.exec_module(module)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "ultralytics.nn.tasks": return None
        found = PathFinder.find_spec(name, path)
        return ModuleSpec(name, {kind.title()}(found.loader), origin=found.origin)
sys.meta_path.insert(1, Finder())
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import ultralytics.nn.tasks as t
    assert any("call ghost_yolo.register()" in str(w.message) for w in seen), [str(w.message) for w in seen]
import ghost_yolo; ghost_yolo.register(){KNOWN}
"""
    python(code)


def test_multi_gpu_child_file(python: Run, tmp_path: Path) -> None:
    """The file that the host writes for its multi-GPU children rebuilds a Ghost model in a fresh process."""
    pytest.importorskip("cloudpickle")
    code = f"""
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.dist import generate_ddp_file
overrides = dict(model={str(path_of("yolov8n-ghost"))!r}, data="none.yaml", epochs=1, device="cpu")
trainer = DetectionTrainer.__new__(DetectionTrainer)
from ultralytics.cfg import get_cfg
trainer.args, trainer.model, trainer.callbacks = get_cfg(overrides=overrides), overrides["model"], {{}}
trainer.hub_session = None
print(generate_ddp_file(trainer))
"""
    file = Path(python(code).stdout.split()[-1])
    child = file.read_text().replace(
        "trainer.train()", "print('TRAIN', trainer.get_model(trainer.args.model, verbose=False).yaml)"
    )
    child = child.replace("    trainer = ", "    from ghost_child import patched; patched()\n    trainer = ")
    (tmp_path / "ghost_child.py").write_text(
        "def patched():\n"
        "    from ultralytics.engine.trainer import BaseTrainer\n"
        "    BaseTrainer.get_dataset = lambda self: {'nc': 3, 'channels': 3, 'names': {0: 'a', 1: 'b', 2: 'c'}}\n"
    )
    file.write_text(child)
    done = python(f"import runpy; runpy.run_path({str(file)!r}, run_name='__main__')", PYTHONPATH=str(tmp_path))

    assert "ghost_yolo.C2f_GhostBottleneck" in done.stdout


def test_hook_files_are_installed() -> None:
    """Both hook files lie where this environment's `site` reads them."""
    folders = [Path(p) for p in sys.path if p and Path(p).is_dir()]
    for name in ("ghost_yolo_hook.pth", "ghost_yolo_hook.start"):
        assert any((folder / name).is_file() for folder in folders), name


def test_every_class_of_ours_is_a_safe_global() -> None:
    """Each class of ours inside a model is on torch's list for restricted loading."""
    model = YOLO(str(path_of("yolov8n-gghost")), verbose=False).model
    names = {type(m) for m in model.modules() if type(m).__module__.startswith("ghost_yolo.")}

    assert names and names <= set(torch.serialization.get_safe_globals())

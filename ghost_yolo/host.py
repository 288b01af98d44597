"""The only door to Ultralytics' internals.

The host's parser finds a module by name in the globals of `ultralytics.nn.tasks`, but only members of two sets local to
the function get their input channels, width scaling and repeats; any other class silently gets wrong channels. So each
module name is bound to a small stand-in type that hashes and compares like a stock class and, when called, builds ours. The
parser itself is only wrapped, so that an error about a row of ours says which row and what would be right.
"""

from __future__ import annotations

import copy
import functools
import io
import sys
import traceback
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import torch
import ultralytics
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules.conv import Conv
from ultralytics.utils.checks import check_version

from ghost_yolo.errors import ModelError, UnsupportedHostError, UserError
from ghost_yolo.registry import BLOCKS, Block, unknown_block
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.bounded import require_bounded
from ghost_yolo.utils.files import write_atomic
from ghost_yolo.utils.yaml_file import check_repeats, read_model_yaml

SUPPORTED = ">=8.3.215,<8.5"  # the oldest that exports to ONNX on current torch; both ends are tested
HOW_TO_GET_A_CHECKPOINT = "give the best.pt or last.pt that `yolo train` wrote, or what YOLO.save() did"

MODELS = {  # by name: an unsupported host may lack one, and check_host must still run
    "detect": "DetectionModel",
    "segment": "SegmentationModel",
    "pose": "PoseModel",
    "obb": "OBBModel",
    "classify": "ClassificationModel",
}


class _StandIn(type):
    """Make a type look like a host class to the parser's sets and like ours to everything else."""

    real: type[nn.Module]
    like: type[nn.Module]

    def __hash__(cls) -> int:
        return hash(cls.like)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.like

    def __repr__(cls) -> str:  # the parser prints this in its layer table and keeps it as the layer's type
        return repr(cls.real)

    def __call__(cls, *args: Any, **kwargs: Any) -> nn.Module:
        return cls.real(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.real)


def register() -> None:
    """Register every block with the host's parser. Calling it again changes nothing.

    Raises:
        UnsupportedHostError: If the installed Ultralytics is outside the supported range or lacks what we build on.
    """
    check_host()
    known = vars(tasks)
    for block in BLOCKS:
        stand_in = known.get(block.qualified) or _stand_in(block)
        known[block.qualified] = stand_in
        known.setdefault(block.name, stand_in)  # the host's own names stay the host's
    torch.serialization.add_safe_globals([*_module_classes()])
    if not hasattr(tasks.parse_model, "_ghost_yolo"):  # ours may also lie below another plugin's wrapper
        tasks.parse_model = _with_clear_error(tasks.parse_model)


def unregister() -> None:
    """Remove every block from the host and leave it as it was."""
    known = vars(tasks)
    for block in BLOCKS:
        for name in registered_names(block):
            del known[name]
    ours = {*_module_classes()}
    others = [entry for entry in torch.serialization.get_safe_globals() if entry not in ours]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(others)
    parser = vars(tasks)["parse_model"]
    if getattr(parser, "_ghost_yolo", None) is parser:  # not below another plugin's wrapper
        tasks.parse_model = vars(parser)["__wrapped__"]


def registered_names(block: Block) -> tuple[str, ...]:
    """Return the module names under which the host knows a block now: none, the qualified one, or both."""
    known = vars(tasks)
    return tuple(name for name in (block.qualified, block.name) if isinstance(known.get(name), _StandIn))


def check_host() -> None:
    """Raise an error that says what to install, unless the installed Ultralytics is supported."""
    version = ultralytics.__version__
    install = f"pip install --force-reinstall 'ultralytics{SUPPORTED}'"
    if not check_version(version, SUPPORTED):
        raise UnsupportedHostError(
            f"Ultralytics {version} is installed, and ghost_yolo supports {SUPPORTED}. Install one of these: {install}"
        )
    needed = {"parse_model", *MODELS.values(), *(block.like for block in BLOCKS)}
    missing = sorted(name for name in needed if not hasattr(tasks, name))
    if missing:
        raise UnsupportedHostError(
            f"Ultralytics {version} has no {', '.join(missing)} in ultralytics.nn.tasks, on which ghost_yolo builds. "
            f"Install an unmodified one: {install}"
        )


def _stand_in(block: Block) -> _StandIn:
    """Build the stand-in of one block. As a subclass it also passes the restricted loader's `issubclass` check."""
    attributes = {"real": block.cls, "like": vars(tasks)[block.like], "__module__": block.cls.__module__}
    return _StandIn(block.cls.__name__, (block.cls,), attributes)


def _module_classes() -> Iterator[type[nn.Module]]:
    """Yield every module class that is loaded from our package, so that restricted loading knows nested ones too."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("ghost_yolo.blocks.")]
    for member in {member for module in modules for member in vars(module).values() if isinstance(member, type)}:
        if issubclass(member, nn.Module) and member.__module__.startswith("ghost_yolo."):
            yield member


def _with_clear_error(parse_model: Any) -> Any:
    """Wrap the parser so that a bad row of ours says which row it is and what would be right.

    The host itself raises a bare KeyError for an unknown name, and passes on what a module raises without naming its row.
    """

    @functools.wraps(parse_model)
    def explained(d: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return parse_model(d, *args, **kwargs)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            index = _failing_row(error, parse_model)
            if index is None:
                raise
            name, arguments = (d["backbone"] + d["head"])[index][2:4]
            if isinstance(error, KeyError) and error.args == (name,):
                hosts = [name for name, value in vars(tasks).items() if isinstance(value, type)]
                raise unknown_block(name, [block.name for block in BLOCKS], hosts) from error
            if not isinstance(vars(tasks).get(name), _StandIn):
                raise
            raise ModelError(f"Row {index} of the model YAML, {name} with {arguments}: {error}") from error

    explained._ghost_yolo = explained  # type: ignore[attr-defined]
    return explained


def _failing_row(error: BaseException, parse_model: Any) -> int | None:
    """Return the row that the parser was at, from its frame; None where the error came from elsewhere."""
    code = getattr(parse_model, "__code__", None)
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code is code)
    return next((frame.f_locals.get("i") for frame in frames), None)


def _failing_layer(error: BaseException) -> str:
    """Name the row that failed in the trial pass by which the host finds the strides, "" where it was not there."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "_predict_once")
    layer = next((frame.f_locals.get("m") for frame in frames), None)
    return "" if layer is None else f" in row {layer.i}, {layer.type}"


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the content of a model YAML.

    Raises:
        ModelError: If the file holds no model.
    """
    content = read_model_yaml(file)[1]  # refuses what must not be loaded, or evaluated
    return content | {"scale": tasks.guess_model_scale(str(file)), "yaml_file": str(file)}


def build(config: dict[str, Any]) -> HostModel:
    """Build the untrained model of a YAML's content in eval mode, for any task that the host guesses from it.

    Raises:
        UnsupportedHostError: If the installed Ultralytics is not supported: it knows none of our modules then.
        ModelError: If one of its rows cannot be built, or names a block that is not registered.
    """
    check_host()
    task, name = tasks.guess_model_task(config), str(config.get("yaml_file"))
    if task not in MODELS:
        raise ModelError(f"{name}: task {task!r} is none of {', '.join(MODELS)}")
    return _construct(getattr(tasks, MODELS[task]), config, name).eval()


def _construct(kind: Any, config: dict[str, Any], name: str) -> HostModel:
    """Build a model from rows that are checked, and of a size that is known."""
    _check_rows(name, config)
    activation = Conv.default_act
    channels = config.get("channels", 3)  # not every release reads the YAML's own
    try:
        require_bounded(name, lambda: kind(copy.deepcopy(config), ch=channels, verbose=False))
        return cast("HostModel", kind(config, ch=channels, verbose=False))
    except UserError:
        raise
    except Exception as error:  # a row of the host's own modules
        raise ModelError(f"{name} cannot be built by Ultralytics{_failing_layer(error)}: {error!r}") from error
    finally:
        Conv.default_act = activation  # before 8.4 a YAML's `activation:` also changes every model built after it


def _check_rows(name: str, config: Mapping[str, Any]) -> None:
    """Raise an error for a row that names a block of ours while the parser does not know them, or that names a function.

    The parser calls whatever it finds in its namespace by that name.
    """
    known = vars(tasks)
    ours = {name for block in BLOCKS for name in (block.name, block.qualified)} - set(known)
    for number, row in enumerate([*(config.get("backbone") or ()), *(config.get("head") or ())]):
        texts = [part for part in row if isinstance(part, str)] if isinstance(row, list) else []
        if ours.intersection(texts):
            raise ModelError(
                f"{name}: row {number} is {row!r:.80}, and its block is not registered here: call "
                "ghost_yolo.register() first, which GHOST_YOLO_AUTOLOAD=0 turns off"
            )
        found = known.get(row[2]) if texts and len(row) > 2 and row[2] in texts else None
        if found is not None and not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise ModelError(f"{name}: row {number} names {row[2]!r}, which is no module")


def untrained(model: HostModel, seed: int) -> HostModel:
    """Build the network of a model's own YAML anew in eval mode, on the same device, with weights drawn from the seed.

    Raises:
        UnsupportedHostError: If the installed Ultralytics is not supported.
        ModelError: If its YAML cannot be built, as after layers were changed by hand.
    """
    check_host()
    name = "The checkpoint's own model.yaml"
    check_repeats(name, model.yaml)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = _construct(type(model), copy.deepcopy(model.yaml), name)
    return fresh.to(next(model.parameters()).device).eval()


def task_of(model: HostModel) -> str:
    """Return the task for which a model was built; a ModelError if none of MODELS: a DepthModel is a detector by inheritance alone."""
    known = [task for task, name in MODELS.items() if isinstance(model, getattr(tasks, name))]
    if not known or type(model).__name__ == "DepthModel":
        raise ModelError(f"a {type(model).__name__}, which is for none of the tasks {', '.join(MODELS)}")
    return known[-1]


def load(path: Path) -> HostModel:
    """Load a checkpoint's model in eval mode and float32.

    Raises:
        UnsupportedHostError: If the installed Ultralytics is not supported.
        ModelError: If the file is truncated or is not an Ultralytics checkpoint.
    """
    check_host()
    try:
        model = ultralytics.YOLO(str(path)).model
    except Exception as error:  # the host raises half a dozen kinds, some only on some releases
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ModelError(
            f"{path} is not a checkpoint that Ultralytics can load (truncated or foreign?); {HOW_TO_GET_A_CHECKPOINT}: {reason}"
        ) from error
    if not isinstance(model, tasks.BaseModel):
        raise ModelError(f"{path} holds a {type(model).__name__} and no YOLO model; {HOW_TO_GET_A_CHECKPOINT}.")
    return model.float().eval()


def save(model: HostModel, path: Path, train_args: Mapping[str, Any] | None = None) -> None:
    """Write a model as an ordinary checkpoint in fp16, as the host's own `YOLO.save()` does; the file appears whole.

    Args:
        model: The model.
        path: The file.
        train_args: With what it was trained; the host takes imgsz and data from them when it loads the file.
    """
    content = {
        "model": copy.deepcopy(model).half(),
        "train_args": dict(train_args or {}),
        "date": datetime.now(timezone.utc).isoformat(),
        "version": ultralytics.__version__,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())

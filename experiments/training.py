"""Training by the `yolo` command, resumed after an interruption, and the data that it needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ghost_yolo.data.images import find_images, spread
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import resolve
from ghost_yolo.utils.files import fingerprint, write_atomic

DISTILL, DISTILLS = "distill_model", "8.4.190"  # the setting, and a release that is known to have it


def prepare(data: str, out: Path) -> None:
    """Prepare the images of a dataset YAML, as Ultralytics does at first use, and write the folders of its splits as JSON.

    Raises:
        UserError: If it does not name one folder for each split, or one of them is no folder.
    """
    from ultralytics.data.utils import check_det_dataset

    found = check_det_dataset(data)
    if not all(isinstance(found.get(split), str) for split in ("train", "val", "test")):
        raise UserError(f"{data}: it must name one folder each for train, val and test.")
    splits = {split: found[split] for split in ("train", "val", "test")}
    if absent := [folder for folder in splits.values() if not Path(folder).is_dir()]:
        raise UserError(f"{data}: {', '.join(absent)} {'is no folder' if len(absent) == 1 else 'are no folders'}.")
    write_atomic(out, json.dumps(splits | {"nc": found["nc"]}, indent=2) + "\n")


def link_images(splits: Path, count: int, out: Path) -> None:
    """Make a folder with links to `count` training images, evenly spaced by name, all of them for 0."""
    images = find_images([Path(json.loads(splits.read_text(encoding="utf-8"))["train"])])
    out.mkdir(parents=True, exist_ok=True)
    for image in spread(images, count or len(images)):
        (out / image.name).symlink_to(image.resolve())


def train(
    out: Path, settings: Sequence[str], command: Callable[..., None] | None = None, *, mixed_precision: bool = False
) -> None:
    """Run `yolo train`, or resume it where it was interrupted, and copy the best checkpoint to `out`.

    The checkpoints of the training lie in the folder `train` beside `out`, which Snakemake does not know and so does not
    remove. What is trained is written to `train.json` until the training has ended: only an interrupted training of the
    same settings and input files is resumed, any other is moved to `train-before`. A resumed one reads the files of the paths
    that its checkpoint names.

    Args:
        out: The checkpoint to write.
        settings: `key=value` of the command.
        command: What is called with the command's arguments instead.
        mixed_precision: Compute in bfloat16 on a CPU too.

    Raises:
        UserError: If the command fails, the training did not end where it is looked for, as after the folder has moved, or this
            Ultralytics lacks what a setting asks for.
    """
    require_distillation(settings)
    folder, state = out.parent / "train", out.parent / "train.json"
    identity: dict[str, Any] = {"settings": portable(settings), "files": fingerprint(input_files(settings))}
    identity |= precision(mixed_precision=mixed_precision)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not state.is_file() or json.loads(state.read_text(encoding="utf-8")) != identity:
        set_aside(folder)
        write_atomic(state, json.dumps(identity))
    last = folder / "weights/last.pt"
    if not has_ended(last):
        new = [
            *settings,
            "cache=ram",
            "plots=False",
            f"project={folder.parent.resolve()}",
            "name=train",
            "exist_ok=True",
        ]
        (command or (mixed_yolo if mixed_precision else yolo))(
            "train", *(["resume", f"model={last}"] if last.is_file() else new)
        )
        if not has_ended(last):
            raise UserError(f"{last} is not that of a training that ended; remove {folder} to train again.")
    write_atomic(out, (folder / "weights/best.pt").read_bytes())
    state.unlink()


def set_aside(folder: Path) -> None:
    """Move what an earlier training left, in place of what was moved before."""
    before = folder.with_name(f"{folder.name}-before")
    if folder.is_dir():
        shutil.rmtree(before, ignore_errors=True)
        folder.rename(before)


def portable(settings: Sequence[str]) -> list[str]:
    """Return the settings that decide what is trained, with files of a full path by their name; their content counts by itself."""
    pairs = [setting.partition("=") for setting in settings if not setting.startswith("workers=")]
    return [f"{key}={Path(value).name if Path(value).is_absolute() else value}" for key, _, value in pairs]


def precision(*, mixed_precision: bool) -> dict[str, bool]:
    """Return what a precision adds to the identity of a training."""
    return {"mixed_precision": True} if mixed_precision else {}


def input_files(settings: Sequence[str]) -> list[Path]:
    """Return the files that settings name; a model YAML may have a scale in its name that its file does not have."""
    named = [(key, value) for key, _, value in (setting.partition("=") for setting in settings)]
    files = [resolve(value)[0] if key == "model" and value.endswith(".yaml") else Path(value) for key, value in named]
    return [file for file in files if file.is_file()]


def require_distillation(settings: Sequence[str]) -> None:
    """Raise an error if a teacher is given to an Ultralytics that does not distill."""
    import ultralytics
    from ultralytics.utils import DEFAULT_CFG_DICT

    given = [setting for setting in settings if setting.startswith(f"{DISTILL}=")]
    if given and DISTILL not in DEFAULT_CFG_DICT:
        raise UserError(
            f"{given[0]}: Ultralytics {ultralytics.__version__} does not distill; install one that does: "
            f"pip install 'ultralytics>={DISTILLS}'"
        )


def has_ended(last: Path) -> bool:
    """Return whether a training has ended: Ultralytics then strips its last checkpoint and sets the epoch to -1.

    Raises:
        UserError: If the checkpoint cannot be read.
    """
    if not last.is_file():
        return False
    import torch

    try:
        return int(torch.load(last, map_location="cpu", weights_only=False)["epoch"]) == -1
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(f"{last} cannot be read ({error}). Remove {last.parents[1]} to train again.") from error


def yolo(*arguments: str) -> None:
    """Run the `yolo` command of this environment.

    Raises:
        UserError: If it fails.
    """
    require_success([shutil.which("yolo", path=str(Path(sys.executable).parent)) or "yolo", *arguments])


def mixed_yolo(*arguments: str) -> None:
    """Run the same with mixed precision on a CPU.

    Raises:
        UserError: If it fails.
    """
    require_success([sys.executable, "-m", "experiments.mixed", *arguments])


def require_success(command: Sequence[str]) -> None:
    """Run a command, and raise an error if it fails."""
    status = subprocess.run(command, check=False).returncode
    if status:
        raise UserError(f"{' '.join(command)}: exit status {status}")

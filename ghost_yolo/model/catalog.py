"""The packaged YAMLs: their names, their paths, their scale letters. Loads neither torch nor Ultralytics."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ghost_yolo.errors import ModelNameError
from ghost_yolo.utils.files import write_atomic
from ghost_yolo.utils.yaml_file import read_model_yaml

SCALES = ("n", "s", "m", "l", "x")
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Packaged:
    """A YAML that comes with the package.

    Attributes:
        name: As given to `ghost-yolo cfg`; models take a scale letter after the 8.
        path: The file; one for all scales.
        is_model: False for a data set.
    """

    name: str
    path: Path
    is_model: bool

    @property
    def summary(self) -> str:
        """The YAML's first line."""
        with self.path.open(encoding="utf-8") as lines:
            return next(lines).lstrip("# ").strip()


def folder(kind: str) -> Path:
    """Return the folder of the packaged `cfg` or `datasets`: inside the wheel, else beside the package in a checkout."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def packaged() -> dict[str, Packaged]:
    """Return the packaged YAMLs by name, models first; a copy for one scale is not listed beside its family."""
    models = [path for path in sorted(folder("cfg").rglob("*.yaml")) if scale_of(path) is None]
    data = [folder("datasets") / f"{name}.yaml" for name in ("bccd", "neu-det", "smear")]
    return {path.stem: Packaged(path.stem, path, path not in data) for path in [*models, *data]}


def families() -> list[str]:
    """Return the names of the packaged models, without those of the widely copied table."""
    return [item.name for item in packaged().values() if item.is_model and item.path.parent.name == "cfg"]


def scale_of(path: str | Path) -> str | None:
    """Return the scale letter that the host reads from a YAML's name, None where there is none."""
    found = re.search(r"yolo(?:e-)?v?\d+([nslmx])", Path(path).stem)
    return found.group(1) if found else None


def without_scale(path: str) -> str:
    """Return the name that the host tries when a file is missing: the first digit's scale letter left out."""
    return re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", path)


def with_scale(name: str, scale: str) -> str:
    """Return a family's name with a scale letter: `yolov8-ghost` and `m` give `yolov8m-ghost`."""
    return re.sub(r"(yolo(?:e-)?v?\d+)", rf"\g<1>{scale}", name, count=1)


def path_of(name: str) -> Path:
    """Return a path that the host can open, from any directory.

    Args:
        name: A packaged model with its scale letter (`yolov8m-ghost`) or a packaged data set (`smear`).

    Raises:
        ModelNameError: If nothing of that name is packaged, or the scale letter is missing.
    """
    stem, known = name.removesuffix(".yaml"), packaged()
    family = known.get(stem if scale_of(stem) is None else without_scale(stem))
    if family is None:
        shown = [with_scale(n, scale_of(stem) or "s") if known[n].is_model else n for n in known]
        close = difflib.get_close_matches(stem, shown, n=1) or [name for name in shown if stem in name]
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ModelNameError(f"No packaged YAML is called {name!r}.{hint} Packaged: {', '.join(shown)}.")
    if not family.is_model:
        return family.path
    require_scale(stem)
    path = family.path.with_name(f"{stem}.yaml")
    if path.is_file() or without_scale(str(path)) == str(family.path):
        return path
    return _copy_for_scale(family.path, path.name)


def find_yaml(name: str) -> Path | None:
    """Return the file that the host would open: by the name, then without its scale letter, here or among its own."""
    from ultralytics.utils import ROOT

    for path in (Path(name), Path(name).with_name(without_scale(Path(name).name))):
        own = sorted((ROOT / "cfg" / "models").rglob(path.name)) if path.parent == Path() else []
        for candidate in (path, *own):
            if candidate.is_file():
                return candidate
    return None


def resolve(name: str) -> tuple[Path, str]:
    """Return the file of a model YAML and its scale, "" where it has none.

    Raises:
        ModelNameError: If there is no such file, or it has several scales and its name does not say which.
    """
    file = find_yaml(name) or _packaged_file(name)
    if file is None:
        newer = " YOLO26 needs Ultralytics 8.4 or later." if "yolo26" in name and not find_yaml("yolo26.yaml") else ""
        raise ModelNameError(f"{name} does not exist.{newer} `ghost-yolo cfg` lists the packaged YAMLs.")
    scales, scale = _scales_in(file), scale_of(name)
    if scales and scale not in scales and (scale or len(scales) > 1):
        _refuse_scale(name, scales)
    return file, scale or "".join(scales[:1])


def _refuse_scale(name: str, scales: list[str]) -> NoReturn:
    """Raise the error for a name whose scale letter its YAML does not have."""
    known = [scale for scale in scales if scale in SCALES]  # what the host reads from a file's name
    if scale_of(name) is None and known == scales:
        require_scale(name)
    choices = [with_scale(without_scale(Path(name).name), scale) for scale in known]
    given = f"scale {scale_of(name)}" if scale_of(name) else "no scale"
    advice = f"Call the file {' or '.join(choices)}" if choices else f"Rename its scales to some of {', '.join(SCALES)}"
    raise ModelNameError(
        f"{name!r} says {given}, and its `scales` are {', '.join(scales)}; Ultralytics reads {', '.join(SCALES)} from a name. "
        f"{advice}."
    )


def _packaged_file(name: str) -> Path | None:
    """Return the packaged family of a name such as `cfg/yolov8s-ghost.yaml`, which is no file outside a checkout."""
    path = Path(name)
    family = packaged().get(without_scale(path.name.removesuffix(".yaml")))
    return family.path if family and family.is_model and path.parent in (Path(), Path("cfg")) else None


def require_scale(name: str | Path) -> None:
    """Raise an error where a model's name has no scale letter: the host would take scale n and only warn."""
    if scale_of(name) is None:
        stem = Path(name).name.removesuffix(".yaml")
        choices = ", ".join(with_scale(stem, scale) for scale in SCALES)
        advice = (
            f"Write one of {choices}."
            if with_scale(stem, "n") != stem
            else "Rename it, for example to yolov8s-<name>.yaml."
        )
        raise ModelNameError(f"{str(name)!r} does not say which scale is meant, and Ultralytics would take n. {advice}")


def _scales_in(file: Path) -> list[str]:
    """Return the scale letters of a YAML.

    Raises:
        ModelError: If it is no model YAML.
    """
    scales = read_model_yaml(file)[1].get("scales")
    return [str(scale) for scale in scales] if isinstance(scales, dict) else []


def _copy_for_scale(family: Path, name: str) -> Path:
    """Write a real file for one scale: in a folder such as `exp3s/` the host strips the folder's letter, not the name's."""
    from ultralytics.utils import USER_CONFIG_DIR

    target = Path(USER_CONFIG_DIR) / "ghost_yolo" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, family.read_text(encoding="utf-8"))
    return target


def is_stock(name: str) -> bool:
    """Return whether a name is the bare name of a stock model."""
    return re.fullmatch(r"yolov?\d+[nslmx]\.(yaml|pt)", name) is not None


def labels(names: Sequence[str]) -> dict[str, str]:
    """Return a short name of each model: its stem, with as many folders as tell it from the others.

    A bare name that ends in -ghost is Ultralytics' own model, which would otherwise be confused with ours.
    """
    result: dict[str, str] = {}
    for name in dict.fromkeys(names):
        parts = Path(name).with_suffix("").parts if Path(name).suffix in (".yaml", ".pt") else Path(name).parts
        rivals = [Path(other).with_suffix("").parts for other in names if other != name]
        depth = 1
        while depth < len(parts) and any(other[-depth:] == parts[-depth:] for other in rivals):
            depth += 1
        label = "/".join(parts[-depth:])
        result[name] = f"{label} (Ultralytics)" if re.fullmatch(r"yolov8[nslmx]?-ghost\.yaml", name) else label
    return result

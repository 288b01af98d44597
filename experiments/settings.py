"""The settings of an experiment: data sets, and how models are trained, converted, fine-tuned and pruned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from ghost_yolo.errors import UserError

Section = TypeVar("Section", bound="Dataset | Train | Ghostify | Tune | Prune")


@dataclass(frozen=True)
class Dataset:
    """A data set and how models are trained on it; `config.yaml` describes each setting."""

    data: str
    imgsz: int = 320
    epochs: int = 100
    tune_epochs: int = 10
    prune_epochs: int = 10
    batch: int = 16
    scales: tuple[str, ...] = ("n",)
    line: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    models: tuple[str, ...] = ()
    deploy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Train:
    """A training from scratch: the model YAML, and the model at a scale, such as `stock:s`, that it is distilled from, if any."""

    model: str
    teacher: str = ""


@dataclass(frozen=True)
class Ghostify:
    """A setting of `ghost-yolo ghostify`; `config.yaml` describes what is not an option of the command."""

    where: str | None = None
    teacher: str = "stock"
    block: str | None = "C2f_GhostBottleneck"
    act: str | None = None
    width: str | None = None
    images: int = 0
    budget: float | None = None
    reconstruct_steps: int = 100
    distill_steps: int = 250
    maps_weight: float | None = None
    mixed_precision: bool = False
    architecture: str = ""

    @property
    def options(self) -> str:
        """The options of the command."""
        given = {"where": self.where, "block": self.block, "act": self.act, "width": self.width, "budget": self.budget}
        given |= {"reconstruct-steps": self.reconstruct_steps, "distill-steps": self.distill_steps}
        given |= {"maps-weight": self.maps_weight}
        flags = ["--mixed-precision"] if self.mixed_precision else []
        return " ".join([*(f"--{name} {value}" for name, value in given.items() if value is not None), *flags])

    @property
    def description(self) -> str:
        """The setting as the table shows it."""
        swapped = f"budget {self.budget:g}" if self.budget else self.block
        changes = (self.where, swapped, self.act, self.width and f"width {self.width}")
        images = f"{self.images or 'all'} training images"
        blocks = f"{self.reconstruct_steps} reconstruction steps per block, " if self.block else ""
        steps = f"{blocks}{self.distill_steps} distillation steps"
        weight = " in bfloat16" if self.mixed_precision else ""
        weight += "" if self.maps_weight is None else f" with maps of weight {self.maps_weight:g}"
        return ", ".join([*filter(None, changes), images, steps + weight])


@dataclass(frozen=True)
class Tune:
    """A fine-tuning with labels: the model that it starts from, and the teacher, if any."""

    base: str
    teacher: str = ""


@dataclass(frozen=True)
class Prune:
    """A trained model pruned by Torch-Pruning to a share of its GFLOPs, in steps that are each fine-tuned for the epochs of the data set."""

    gflops: float
    teacher: str = "stock"
    steps: int = 1


@dataclass(frozen=True)
class Sections:
    """The sections of a configuration that name models."""

    train: dict[str, Train]
    ghostify: dict[str, Ghostify]
    tune: dict[str, Tune]
    prune: dict[str, Prune]

    @property
    def trained_further(self) -> dict[str, Tune]:
        """The fine-tunings that have to do with models from scratch alone, which conversions and prunings may start from."""
        return {key: tune for key, tune in self.tune.items() if {tune.base, tune.teacher or tune.base} <= {*self.train}}

    def require_known_models(self) -> None:
        """Raise an error if one starts from, or is distilled from, a model that is not there, or two have one name."""
        teachers = [train.teacher.partition(":")[0] for train in self.train.values() if train.teacher]
        teachers += [g.architecture for g in self.ghostify.values() if g.architecture]
        require_known("model", teachers, self.train)
        bases = [name for tune in self.tune.values() for name in (tune.base, tune.teacher or tune.base)]
        require_known("model", bases, [*self.train, *self.ghostify])  # `yolo train` cannot train a pruned model
        changed = [prune.teacher for prune in self.prune.values()] + [g.teacher for g in self.ghostify.values()]
        require_known("model to convert or to prune", changed, [*self.train, *self.trained_further])
        keys = Counter(key for section in (self.train, self.ghostify, self.tune, self.prune) for key in section)
        if repeated := [key for key, count in keys.items() if count > 1]:
            raise UserError(f"{', '.join(repeated)}: in two sections; give each model a name of its own")


def read_sections(config: Mapping[str, Any]) -> Sections:
    """Return the sections of a configuration that name models; an entry of `train` may be a YAML alone.

    Raises:
        UserError: If a setting or model name is unknown.
    """
    trained = {
        key: {"model": entry} if isinstance(entry, str) else entry for key, entry in (config["train"] or {}).items()
    }
    sections = Sections(
        read_section(Train, trained),
        read_section(Ghostify, config["ghostify"]),
        read_section(Tune, config["tune"]),
        read_section(Prune, config.get("prune", {})),
    )
    sections.require_known_models()
    return sections


def read_section(kind: type[Section], section: Mapping[str, Any] | None) -> dict[str, Section]:
    """Return the entries of a section; it, or an entry, may be null, and is left out then.

    Raises:
        UserError: If a setting is unknown, missing or of another type.
    """
    types = {field.name: str(field.type) for field in fields(kind)}
    result = {}
    for name, entry in (section or {}).items():
        if entry is None:
            continue
        require_known(f"setting of {name}", entry, types)
        try:
            result[name] = kind(**{key: converted(value, types[key]) for key, value in entry.items()})
        except (TypeError, UserError, ValueError) as error:
            raise UserError(f"{name}: {error}") from error
    return result


def converted(value: Any, kind: str) -> Any:
    """Return a setting in the type of its field: `snakemake --config` gives numbers within a section as text.

    Raises:
        UserError: If a switch is neither true nor false.
        ValueError: If a number is none.
    """
    if kind in ("int", "float"):
        return int(value) if kind == "int" else float(value)
    if kind == "bool":
        if str(value).lower() not in ("true", "false"):
            raise UserError(f"{value!r} is neither true nor false")
        return str(value).lower() == "true"
    if kind.startswith("tuple"):
        return tuple(int(item) if "int" in kind else str(item) for item in value)
    return value


def require_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise an error with the nearest names if a name is unknown."""
    known = list(known)
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"unknown {what}: {name}.{hint} Known: {', '.join(known)}.")

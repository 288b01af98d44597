"""The runs of an experiment, from its configuration: which models are trained, converted and fine-tuned on which data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from experiments.artifacts import DEPLOYMENTS, Artifact
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import SCALES

Section = TypeVar("Section", bound="Dataset | Ghostify | Tune")


@dataclass(frozen=True)
class Dataset:
    """A data set and how models are trained on it; `config.yaml` describes each setting."""

    data: str
    imgsz: int = 320
    epochs: int = 100
    tune_epochs: int = 10
    batch: int = 16
    scales: tuple[str, ...] = ("n",)
    line: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    models: tuple[str, ...] = ()
    deploy: tuple[str, ...] = ()


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
    architecture: str = ""

    @property
    def options(self) -> str:
        """The options of the command."""
        given = {"where": self.where, "block": self.block, "act": self.act, "width": self.width, "budget": self.budget}
        given |= {"reconstruct-steps": self.reconstruct_steps, "distill-steps": self.distill_steps}
        return " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)

    @property
    def description(self) -> str:
        """The setting as the table shows it."""
        swapped = f"budget {self.budget:g}" if self.budget else self.block
        changes = (self.where, swapped, self.act, self.width and f"width {self.width}")
        images = f"{self.images or 'all'} training images"
        steps = f"{self.reconstruct_steps} reconstruction steps per block, {self.distill_steps} distillation steps"
        return ", ".join([*filter(None, changes), images, steps])


@dataclass(frozen=True)
class Tune:
    """A fine-tuning with labels: the model that it starts from, and the teacher, if any."""

    base: str
    teacher: str = ""


@dataclass(frozen=True)
class Run:
    """One trained, converted or fine-tuned model.

    Attributes:
        kind: Section of the configuration: `train`, `ghostify` or `tune`.
        key: Its name in the configuration, the same for every data set, scale and seed.
        scale: Of the model.
        seed: Random seed.
        name: Its folder, below that of the data set.
        model: YAML of the model, for a converted one that of its teacher.
        how: How it came to its weights.
        epochs: Of training, those of its base included.
        timed_as: Which model of a bench has its architecture: a YAML, or a checkpoint below the folder of the data set.
        base: Name of the run that it starts from, "" from scratch.
        teacher: Name of the run that it is distilled from in fine-tuning.
    """

    kind: str
    key: str
    scale: str
    seed: int
    name: str
    model: str
    how: str
    epochs: int
    timed_as: str
    base: str = ""
    teacher: str = ""

    @property
    def label(self) -> str:
        """The model as tables and plots show it."""
        return self.model if not self.base else f"{self.key}-{self.scale}"

    @property
    def weights(self) -> str:
        """Its checkpoint, below the folder of the data set."""
        return f"{self.name}/{'light' if self.kind == 'ghostify' else 'best'}.pt"


@dataclass(frozen=True)
class Plan:
    """All that the configuration asks for.

    Attributes:
        datasets: By name.
        ghostify: Settings of the conversion by key.
        compare: Pairs of keys whose scores are compared besides those with `stock`.
        runs: Of each data set, by name.
    """

    datasets: dict[str, Dataset]
    ghostify: dict[str, Ghostify]
    compare: dict[str, str]
    runs: dict[str, dict[str, Run]]

    def artifacts(self, name: str) -> dict[str, Artifact]:
        """Return what is evaluated and timed of a data set, by name: checkpoints, or the files of `deploy`."""
        deployments = self.datasets[name].deploy or ("",)
        made = [Artifact(run, deployment) for run in self.runs[name].values() for deployment in deployments]
        return {artifact.name: artifact for artifact in made}


def read_plan(config: Mapping[str, Any]) -> Plan:
    """Return the plan of a configuration.

    Raises:
        UserError: If a setting, scale or model name is unknown.
    """
    train = {key: str(model) for key, model in config["train"].items() if model is not None}
    ghostify, tune = read_section(Ghostify, config["ghostify"]), read_section(Tune, config["tune"])
    require_known(
        "model", [name for g in ghostify.values() for name in (g.teacher, g.architecture or g.teacher)], train
    )
    require_known("model", [name for t in tune.values() for name in (t.base, t.teacher or t.base)], [*train, *ghostify])
    datasets = read_section(Dataset, config["datasets"])
    runs = {name: runs_of(dataset, train, ghostify, tune) for name, dataset in datasets.items()}
    return Plan(datasets, ghostify, dict(config["compare"]), runs)


def read_section(kind: type[Section], section: Mapping[str, Any]) -> dict[str, Section]:
    """Return the entries of a section; entries that are null are left out.

    Raises:
        UserError: If a setting is unknown, missing or of another type.
    """
    types = {field.name: str(field.type) for field in fields(kind)}
    result = {}
    for name, entry in section.items():
        if entry is None:
            continue
        require_known(f"setting of {name}", entry, types)
        try:
            result[name] = kind(**{key: converted(value, types[key]) for key, value in entry.items()})
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}: {error}") from error
    return result


def converted(value: Any, kind: str) -> Any:
    """Return a setting in the type of its field: `snakemake --config` gives numbers within a section as text."""
    if kind == "int":
        return int(value)
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


def runs_of(
    dataset: Dataset, train: Mapping[str, str], ghostify: Mapping[str, Ghostify], tune: Mapping[str, Tune]
) -> dict[str, Run]:
    """Return the runs of a data set by name, each after those that it needs."""
    require_known(f"scale for {dataset.data}", [*dataset.scales, *dataset.line], SCALES)
    require_known("deployment", dataset.deploy, DEPLOYMENTS)
    chosen = [name.partition(":")[::2] for name in dataset.models]  # "narrow:s": at scale s only
    require_known("model", [key for key, _ in chosen], [*train, *ghostify, *tune])
    require_known(f"scale for {dataset.data}", [scale for _, scale in chosen if scale], dataset.scales)
    runs: dict[str, Run] = {}
    for seed in dataset.seeds:
        for scale in dataset.scales:
            made = {key: train_run(dataset, key, model, scale, seed) for key, model in train.items()}
            made |= {key: ghostify_run(setting, key, made) for key, setting in ghostify.items()}
            made |= {key: tune_run(dataset, key, setting, made) for key, setting in tune.items()}
            wanted = needed(made, [key for key, only in chosen if only in ("", scale)] if chosen else made)
            runs |= {run.name: run for run in made.values() if run.name in wanted}
        line = [train_run(dataset, "stock", train["stock"], scale, seed) for scale in dataset.line]
        runs |= {run.name: run for run in line}
    return runs


def needed(made: Mapping[str, Run], keys: Iterable[str]) -> set[str]:
    """Return the names of runs and of all that they start from."""
    by_name = {run.name: run for run in made.values()}
    waiting, names = [made[key].name for key in keys], set[str]()
    while waiting:
        name = waiting.pop()
        names.add(name)
        waiting += [other for other in (by_name[name].base, by_name[name].teacher) if other]
    return names


def train_run(dataset: Dataset, key: str, model: str, scale: str, seed: int) -> Run:
    """Return a training from scratch."""
    yaml = model.format(scale=scale)
    return Run("train", key, scale, seed, f"{key}-{scale}-seed{seed}", yaml, "from scratch", dataset.epochs, yaml)


def ghostify_run(setting: Ghostify, key: str, made: Mapping[str, Run]) -> Run:
    """Return a conversion of a trained model."""
    teacher = made[setting.teacher]
    steps = f"reconstruct{setting.reconstruct_steps}-distill{setting.distill_steps}"
    name = f"{key}-{teacher.scale}-{steps}-seed{teacher.seed}"
    return Run(
        kind="ghostify",
        key=key,
        scale=teacher.scale,
        seed=teacher.seed,
        name=name,
        model=teacher.model,
        how=f"{teacher.model}, ghostify: {setting.description}",
        epochs=teacher.epochs,
        timed_as=made[setting.architecture].model if setting.architecture else f"{name}/light.pt",
        base=teacher.name,
    )


def tune_run(dataset: Dataset, key: str, setting: Tune, made: Mapping[str, Run]) -> Run:
    """Return a fine-tuning."""
    base = made[setting.base]
    teacher = made[setting.teacher].name if setting.teacher else ""
    name = f"{base.name}-{'distill' if teacher else 'tune'}{dataset.tune_epochs}"
    distilled = f" and distillation from {made[setting.teacher].model}" if teacher else ""
    return Run(
        kind="tune",
        key=key,
        scale=base.scale,
        seed=base.seed,
        name=name,
        model=base.model,
        how=f"{base.label}, then {dataset.tune_epochs} epochs with labels{distilled}",
        epochs=base.epochs + dataset.tune_epochs,
        timed_as=base.timed_as,
        base=base.name,
        teacher=teacher,
    )

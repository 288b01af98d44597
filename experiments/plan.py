"""The runs of an experiment, from its configuration: which models are trained, converted and fine-tuned on which data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.artifacts import DEPLOYMENTS, Artifact
from experiments.settings import (
    Dataset,
    Ghostify,
    Prune,
    Sections,
    Train,
    Tune,
    read_section,
    read_sections,
    require_known,
)
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import SCALES

MODELS = ("train", "ghostify", "tune", "prune")  # sections of the configuration that name models
SETTINGS = ("runs", "device", "threads", "mixed_precision", "resamples", "bench", "datasets", "compare", *MODELS)


@dataclass(frozen=True)
class Run:
    """One trained, converted, fine-tuned or pruned model.

    Attributes:
        kind: Section of the configuration: `train`, `ghostify`, `tune` or `prune`.
        key: Its name in the configuration, the same for every data set, scale and seed.
        scale: Of the model.
        seed: Random seed.
        name: Its folder, below that of the data set.
        model: YAML of the model, for a converted one that of its teacher.
        how: How it came to its weights.
        epochs: Of training, those of its base included.
        timed_as: Which model of a bench has its architecture: a YAML, or a checkpoint below the folder of the data set.
        base: Name of the run that it starts from, "" from scratch.
        teacher: Name of the run that it is distilled from in training.
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
        return f"{self.key}-{self.scale}" if self.base or self.teacher else self.model

    @property
    def source(self) -> str:
        """What a model made from it says it comes from."""
        return self.how if self.base else self.label

    @property
    def weights(self) -> str:
        """Its checkpoint, below the folder of the data set."""
        return f"{self.name}/{'light' if self.kind == 'ghostify' else 'best'}.pt"


@dataclass(frozen=True)
class Plan:
    """All that the configuration asks for.

    Attributes:
        datasets: By name.
        train: Model YAMLs by key.
        ghostify: Settings of the conversion by key.
        prune: Settings of the pruning by key.
        compare: Pairs of keys whose scores are compared besides those with `stock`.
        runs: Of each data set, by name.
    """

    datasets: dict[str, Dataset]
    train: dict[str, Train]
    ghostify: dict[str, Ghostify]
    prune: dict[str, Prune]
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
    require_known("setting", config, SETTINGS)
    sections, datasets = read_sections(config), read_section(Dataset, config["datasets"])
    runs = {name: runs_of(dataset, sections) for name, dataset in datasets.items()}
    pairs = {key: baseline for key, baseline in (config["compare"] or {}).items() if baseline is not None}
    if all(config.get(name) is not None for name in MODELS):  # pairs of a section that is left out stay in config.yaml
        keys = [key for name in MODELS for key in config[name]]  # also of an entry that is null
        require_known("model to compare", [*pairs, *pairs.values()], keys)
    return Plan(datasets, sections.train, sections.ghostify, sections.prune, pairs, runs)


def runs_of(dataset: Dataset, sections: Sections) -> dict[str, Run]:
    """Return the runs of a data set by name."""
    require_known(f"scale for {dataset.data}", [*dataset.scales, *dataset.line], SCALES)
    require_known("deployment", dataset.deploy, DEPLOYMENTS)
    chosen = [name.partition(":")[::2] for name in dataset.models]  # "narrow:s": at scale s only
    known = [*sections.train, *sections.ghostify, *sections.tune, *sections.prune]
    require_known("model", [key for key, _ in chosen], known)
    require_known(f"scale for {dataset.data}", [scale for _, scale in chosen if scale], dataset.scales)
    runs: dict[str, Run] = {}
    for seed in dataset.seeds:
        made = {
            scale: all_runs(sections, dataset, scale, seed) for scale in dict.fromkeys([*dataset.scales, *dataset.line])
        }
        wanted = [run for scale in dataset.scales for run in chosen_runs(made[scale], chosen, scale)]
        wanted += [made[scale]["stock"] for scale in dataset.line]
        planned = [run for of_scale in made.values() for run in of_scale.values()]
        require_own_folders(planned)
        every = {run.name: run for run in planned}
        names = needed(every, [run.name for run in wanted])
        runs |= {name: run for name, run in every.items() if name in names}
    return runs


def all_runs(sections: Sections, dataset: Dataset, scale: str, seed: int) -> dict[str, Run]:
    """Return the runs of a scale and seed by key, each after those of that scale that it needs."""
    made = {key: train_run(dataset, key, setting, scale, seed) for key, setting in sections.train.items()}
    made |= {key: tune_run(dataset, key, setting, made) for key, setting in sections.trained_further.items()}
    made |= {key: ghostify_run(setting, key, made) for key, setting in sections.ghostify.items()}
    made |= {key: prune_run(dataset, setting, key, made) for key, setting in sections.prune.items()}
    rest = {key: setting for key, setting in sections.tune.items() if key not in sections.trained_further}
    return made | {key: tune_run(dataset, key, setting, made) for key, setting in rest.items()}


def require_own_folders(runs: Sequence[Run]) -> None:
    """Raise an error if two runs would be made in one folder."""
    keys = dict[str, str]()
    for run in runs:
        if keys.setdefault(run.name, run.key) != run.key:
            raise UserError(f"{keys[run.name]} and {run.key} would share the folder {run.name}; leave one of them out")


def chosen_runs(made: Mapping[str, Run], chosen: Sequence[tuple[str, ...]], scale: str) -> list[Run]:
    """Return those runs of a scale that `models` chooses, all of them where it is empty."""
    return [made[key] for key, only in chosen if only in ("", scale)] if chosen else [*made.values()]


def needed(runs: Mapping[str, Run], names: Iterable[str]) -> set[str]:
    """Return the names of runs and of all that they start from.

    Raises:
        UserError: If a model that one is distilled from is of a scale that the data set does not have.
    """
    waiting, found = [*names], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in runs:
            raise UserError(f"{name} is the teacher of a model, and its scale is not among `scales` or `line`")
        found.add(name)
        waiting += [other for other in (runs[name].base, runs[name].teacher) if other]
    return found


def train_run(dataset: Dataset, key: str, setting: Train, scale: str, seed: int) -> Run:
    """Return a training from scratch."""
    yaml, (teacher, _, of_scale) = setting.model.format(scale=scale), setting.teacher.partition(":")
    name = f"{teacher}-{of_scale or scale}-seed{seed}" if teacher else ""
    how = f"from scratch, distilled from {teacher}-{of_scale or scale} by Ultralytics" if teacher else "from scratch"
    return Run(
        kind="train",
        key=key,
        scale=scale,
        seed=seed,
        name=f"{key}-{scale}-seed{seed}",
        model=yaml,
        how=how,
        epochs=dataset.epochs,
        timed_as=yaml,
        teacher=name,
    )


def prune_run(dataset: Dataset, setting: Prune, key: str, made: Mapping[str, Run]) -> Run:
    """Return a pruning of a trained model."""
    teacher, each = made[setting.teacher], dataset.prune_epochs
    name = f"{key}-{teacher.scale}-gflops{setting.gflops:g}-{setting.steps}x{each}-seed{teacher.seed}"
    steps = f"{setting.steps} step{'s' if setting.steps > 1 else ''} of {each} epochs with labels"
    how = f"{teacher.source}, pruned by Torch-Pruning to {100 * setting.gflops:g} % of its GFLOPs in {steps}"
    return run_from(
        teacher, kind="prune", key=key, name=name, how=how, epochs=setting.steps * each, timed_as=f"{name}/best.pt"
    )


def ghostify_run(setting: Ghostify, key: str, made: Mapping[str, Run]) -> Run:
    """Return a conversion of a trained model."""
    teacher = made[setting.teacher]
    steps = f"reconstruct{setting.reconstruct_steps}-distill{setting.distill_steps}"
    name = f"{key}-{teacher.scale}-{steps}-seed{teacher.seed}"
    how = f"{teacher.source}, ghostify: {setting.description}"
    timed_as = made[setting.architecture].model if setting.architecture else f"{name}/light.pt"
    return run_from(teacher, kind="ghostify", key=key, name=name, how=how, epochs=0, timed_as=timed_as)


def tune_run(dataset: Dataset, key: str, setting: Tune, made: Mapping[str, Run]) -> Run:
    """Return a fine-tuning."""
    base, epochs = made[setting.base], dataset.tune_epochs
    teacher = made[setting.teacher].name if setting.teacher else ""
    name = f"{base.name}-{'distill' if teacher else 'tune'}{epochs}"
    distilled = f" and distillation from {made[setting.teacher].model}" if teacher else ""
    how = f"{base.label}, then {epochs} epochs with labels{distilled}"
    run = run_from(base, kind="tune", key=key, name=name, how=how, epochs=epochs, timed_as=base.timed_as)
    return replace(run, teacher=teacher)


def conversion_of(run: Run, runs: Mapping[str, Run]) -> Run | None:
    """Return the conversion without labels that a run is, or that it fine-tunes; None if it has to do with none."""
    return next((it for it in (run, runs.get(run.base)) if it and it.kind == "ghostify"), None)


def run_from(base: Run, *, kind: str, key: str, name: str, how: str, epochs: int, timed_as: str) -> Run:
    """Return a run that starts from another one, and trains it for so many further epochs."""
    return Run(kind, key, base.scale, base.seed, name, base.model, how, base.epochs + epochs, timed_as, base.name)

"""Does the picture foretell the cost? The redundancy of each stage (`ghosts`) beside what swapping it gave (`ghostify`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ghost_yolo.errors import UserError
from ghost_yolo.redundancy.ranks import Sample, agreement
from ghost_yolo.registry import PREFIX

REDUNDANCY = {"share": "share of maps", "median": "median error of maps", "inner": "share of inner maps"}
COST = {"alone": "error alone", "in_order": "error in order", "harm": "harm alone"}


@dataclass(frozen=True)
class Stage:
    """One stage of one model, before and after; None for what was not measured."""

    model: str
    layer: int
    module: str
    word: str
    share: float | None
    median: float | None
    inner: float | None
    alone: float | None
    in_order: float | None
    harm: float | None


Content = dict[str, Any]


def read(given: Sequence[Path]) -> list[Content]:
    """Return the content of what `ghosts` and `ghostify` wrote, a `file` in each; of a folder its ghosts.json.

    Raises:
        UserError: If one is neither, or one kind is missing.
    """
    contents = told_apart([read_one(path / "ghosts.json" if path.is_dir() else path) for path in given])
    for kind, how in (("ghosts", "ghosts best.pt --image photos/"), ("ghostify", "ghostify best.pt --budget 0.9 ...")):
        if not any(content["kind"] == kind for content in contents):
            raise UserError(f"No result of {kind} is given; make one: ghost-yolo {how}")
    return contents


def told_apart(contents: list[Content]) -> list[Content]:
    """Name each model by its file, and by its weights too where several are called the same, as best.pt usually is."""
    named = [content for content in contents if content["weights"]]  # older results have a path alone
    names = [name for name, _ in {(Path(content["model"]).name, content["weights"]) for content in named}]
    for content in named:
        file = Path(content["model"])
        alone = names.count(file.name) == 1
        content["model"] = file.name if alone else f"{file.stem}-{content['weights'][:6]}{file.suffix}"
    return contents


def read_one(file: Path) -> Content:
    """Read one file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        kind = "ghosts" if "within" in content["settings"] else "ghostify"
        content |= {"kind": kind, "file": file, "model": content["settings"]["model"]}
        content["weights"] = content["settings"].get("weights")
        _ = rows_of(content) if kind == "ghosts" else [*costs_of(content)]  # all that is read of it must be there
        _ = content["settings"]["imgsz"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is not what ghosts or ghostify writes; give ghosts' folder or its ghosts.json, and the .json beside "
            f"ghostify's checkpoint ({type(error).__name__}: {error})"
        ) from error
    return content


def join(contents: Sequence[Content], block: str | None) -> list[Stage]:
    """Return the stages that both looked at, model by model as they were given.

    Args:
        contents: See `read`.
        block: The word whose swaps count, with or without the prefix; not needed where there is only one.

    Raises:
        UserError: If the files do not go together.
    """
    surveys = {content["model"]: content for content in contents if content["kind"] == "ghosts"}
    require_one_each(contents, surveys)
    require_same_steps([content for content in contents if in_order(content)])
    swaps: dict[tuple[str, int, str], dict[str, float]] = {}
    for content in (item for item in contents if item["kind"] == "ghostify"):
        require_alike(surveys, content)
        for layer, word, figures in costs_of(content):
            known = swaps.setdefault((content["model"], layer, word), {})
            if known.keys() & figures.keys():
                raise UserError(
                    f"{content['file']}: row {layer} of {content['model']} was given already; give one run of each kind."
                )
            known |= figures
    word = the_word((word for model, layer, word in swaps if layer in rows_of(surveys[model])), block)
    return [
        stage_of(surveys[model], model, layer, swapped, swaps[model, layer, swapped])
        for model in surveys
        for _, layer, swapped in sorted(key for key in swaps if key[0] == model)
        if swapped == word and layer in rows_of(surveys[model])
    ]


def costs_of(content: Content) -> Iterable[tuple[int, str, dict[str, float]]]:
    """Yield row, word and figures of what ghostify swapped, each by itself where it ran with a budget."""
    if "options" in content:
        for option in content["options"]:
            yield option["row"], option["word"], {"alone": option["error"], "harm": option["harm"]}
        return
    for row in content["rows"]:
        if row["layer"].isdigit():  # a head has levels, as 22.cv3.0
            yield int(row["layer"]), row["word"], {"in_order": row["error"]}


def rows_of(survey: Content) -> dict[int, Content]:
    """Return the layers of a survey by index, each with its shares and errors."""
    return {row["index"]: row for row in survey["rows"] if row["trained"].keys() >= {"share_d3", "median_d3"}}


def stage_of(survey: Content, model: str, layer: int, word: str, costs: dict[str, float]) -> Stage:
    """Return one stage."""
    row = rows_of(survey)[layer]
    inner = [item["trained"]["share_d3"] for item in survey.get("inner", []) if item["index"] == layer]
    known = [share for share in inner if share is not None]
    return Stage(
        model=model,
        layer=layer,
        module=row["module"],
        word=word,
        share=row["trained"]["share_d3"],
        median=row["trained"]["median_d3"],
        inner=sum(known) / len(known) if known else None,
        **{cost: costs.get(cost) for cost in COST},
    )


def require_one_each(contents: Sequence[Content], surveys: dict[str, Content]) -> None:
    """Raise an error for two surveys of one model, or a survey without a swap."""
    for content in contents:
        if content["kind"] == "ghosts" and surveys[content["model"]] is not content:
            raise UserError(
                f"{content['file']}: {content['model']} was surveyed in another file too; give one of them."
            )
    for model in surveys:
        if not any(content["kind"] == "ghostify" and content["model"] == model for content in contents):
            raise UserError(
                f"{surveys[model]['file']} is of {model}, and no result of ghostify is; both must be of one file."
            )


def bound(contents: Sequence[Content]) -> float:
    """Return the relative error within which the surveys count a map as reproduced.

    Raises:
        UserError: If they differ.
    """
    bounds = sorted({content["settings"]["within"] for content in contents if content["kind"] == "ghosts"})
    if len(bounds) > 1:
        raise UserError(f"--within differs between the surveys ({', '.join(map(str, bounds))}); shares need one bound.")
    return float(bounds[0])


def require_alike(surveys: dict[str, Content], content: Content) -> None:
    """Raise an error for a swap without a survey, or at another image size."""
    model, file = content["model"], content["file"]
    if model not in surveys:
        raise UserError(f"{file} is of {model}, and no result of ghosts is; make one: ghost-yolo ghosts {model}")
    sizes = [part["settings"]["imgsz"] for part in (surveys[model], content)]
    if sizes[0] != sizes[1]:
        raise UserError(f"{model}: surveyed at {sizes[0]} and swapped at {sizes[1]} ({file}); use one --imgsz.")


def in_order(content: Content) -> bool:
    """Whether it is of a run of ghostify without a budget."""
    return content["kind"] == "ghostify" and "options" not in content


def require_same_steps(swaps: Sequence[Content]) -> None:
    """Raise an error where the stages of one model were fitted longer than those of another: their errors would not be alike."""
    for content in swaps[1:]:
        steps = [part["settings"].get("steps") for part in (swaps[0], content)]
        if steps[0] != steps[1]:
            raise UserError(
                f"error in order: {swaps[0]['file']} was fitted with --steps {steps[0]} and {content['file']} with {steps[1]}; "
                "make both with one --steps."
            )


def photographs(contents: Sequence[Content]) -> dict[str, int]:
    """Return on how many photographs each model was fitted from stage to stage, where it says so: data sets differ in size."""
    return {item["model"]: item["photographs"] for item in contents if in_order(item) and "photographs" in item}


def the_word(words: Iterable[str], block: str | None) -> str:
    """Return the word whose swaps count.

    Raises:
        UserError: If there are several to choose from, or none.
    """
    known = sorted({word.removeprefix(PREFIX): word for word in words}.items())
    chosen = [word for bare, word in known if block is None or block in (bare, word)]
    if len(chosen) != 1:
        names = ", ".join(bare for bare, _ in known) or "none of the layers that ghosts measured"
        raise UserError(
            f"{'--block ' + block if block else 'Several blocks or none'}: ghostify swapped {names}; name one with --block"
        )
    return chosen[0]


def compare(stages: Sequence[Stage], seed: int = 0) -> list[dict[str, Any]]:
    """Return the rank correlations of each redundancy with each cost, over the stages that have both.

    Raises:
        UserError: If the seed is negative.
    """
    if seed < 0:
        raise UserError(f"--seed {seed}: give 0 or more")
    found = []
    for x in REDUNDANCY:
        for y in COST:
            both = [stage for stage in stages if getattr(stage, x) is not None and getattr(stage, y) is not None]
            models = dict.fromkeys(stage.model for stage in both)
            samples = [sample_of([stage for stage in both if stage.model == model], x, y) for model in models]
            if len(both) > 2:
                found.append({"redundancy": x, "cost": y} | asdict(agreement(samples, seed)))
    return found


def sample_of(stages: Sequence[Stage], x: str, y: str) -> Sample:
    """Return one model's stages with two of their figures."""
    return Sample(tuple(s.layer for s in stages), [getattr(s, x) for s in stages], [getattr(s, y) for s in stages])

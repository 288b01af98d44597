"""How accurate the models are on BCCD: train, ghostify, fine-tune, evaluate, and write table, records and plot.

    python experiments/bccd.py --jobs 2                     # trains, ghostifies, tunes, evaluates on val; Ctrl-C, then again: goes on
    python experiments/bccd.py --only stock,ghost --list    # what there is and what is missing; runs nothing
    python experiments/bccd.py --times bench.json --test    # once, at the end: the test split
    python experiments/bccd.py --device 0 --scale s --imgsz 640 --line n --seeds 0,1,2 --runs runs/bccd-gpu

Every run is a `yolo` or `ghost-yolo` command of its own; its output is in `log.txt` in the folder of the run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from page import write
from runs import TUNE_EPOCHS, Asked, Run, plan
from scores import RESAMPLES, evaluate, file_of, read
from work import ROOT, do, who_runs

from ghost_yolo.data.images import find_images
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import SCALES


def main(
    runs: Annotated[Path, typer.Option(help="Folder of the runs; those that are there and finished are taken.")] = Path("runs/bccd"),
    data: Annotated[str, typer.Option(help="Dataset YAML with train, val and test.")] = "datasets/bccd.yaml",
    scale: Annotated[str, typer.Option(help="Of all models: n, s, m, l or x.")] = Asked.scale,
    line: Annotated[str | None, typer.Option(help="Another scale of the stock model, for the line in the plot.")] = None,
    imgsz: Annotated[int, typer.Option(help="Image side in pixels.")] = Asked.imgsz,
    epochs: Annotated[int, typer.Option(help="Of training from scratch.")] = Asked.epochs,
    seeds: Annotated[str, typer.Option(help="One set of runs for each, as 0,1,2.")] = "0",
    only: Annotated[str, typer.Option(help="Some of the models, as stock,ghost,ghostify-all; what they need comes along.")] = "",
    steps: Annotated[int | None, typer.Option(help="Of ghostify for each block, instead of each setting's own.")] = None,
    polish: Annotated[int | None, typer.Option(help="Of ghostify for the whole, instead of each setting's own.")] = None,
    tune: Annotated[int, typer.Option(help="Epochs of fine-tuning.")] = TUNE_EPOCHS,
    resamples: Annotated[int, typer.Option(min=1, help="Of the images, for the intervals.")] = RESAMPLES,
    jobs: Annotated[int, typer.Option(min=1, help="Commands at once.")] = 1,
    device: Annotated[str, typer.Option(help="As in `yolo`.")] = "cpu",
    show: Annotated[bool, typer.Option("--list", help="Say what there is, and run nothing.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Evaluate on the test split: once, when nothing more is to be chosen.")] = False,
    times: Annotated[Path | None, typer.Option(help="JSON of `ghost-yolo bench` for these models.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Page to write; plot and records go beside it.")] = Path("results/accuracy.md"),
) -> None:  # fmt: skip
    """Train, ghostify, fine-tune and evaluate on BCCD; every part is done once, and Ctrl-C keeps what is done."""
    file = next((path.resolve() for path in (Path(data), ROOT / data) if path.is_file()), None)
    if file is None or {scale, line or scale} - set(SCALES):
        raise UserError(
            f"--data {data}, --scale {scale}, --line {line}: give a file, and scales of {', '.join(SCALES)}."
        )
    if not all(seed.isdigit() for seed in seeds.split(",")):
        raise UserError(f"--seeds {seeds}: give whole numbers with commas between them, as 0,1,2")
    photos = [Path("train")] if show else find_images([Path(folders(file)["train"])])
    asked = Asked(str(file), photos, runs.resolve(), scale, imgsz, epochs, device, steps, polish, tune)
    planned = plan(asked, [int(seed) for seed in seeds.split(",")], only.split(",") if only else (), line)
    if show:
        print("\n".join(f"{state(run):10} {run.name}" for run in planned))
        return
    try:
        finished, left = carry_out(planned, asked, jobs, test, resamples)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None
    if finished:
        write(out, finished, data, imgsz, conditions(asked, data), times)
        print(f"wrote {out} and {out.with_suffix('')}/; to time these models:\n{bench_command(asked, finished)}")
    if left:
        raise UserError(f"not all is done: {'; '.join(left)}")


def carry_out(planned: list[Run], asked: Asked, jobs: int, test: bool, resamples: int) -> tuple[list[Run], list[str]]:
    """Run what is missing and evaluate what is finished; return that, and what is left in words."""
    left = do(planned, jobs)
    finished = [run for run in planned if run.finished()]
    if test and len(finished) < len(planned):
        raise UserError(f"--test is for the end, and not all is done: {'; '.join(left)}. Leave out with --only.")
    for run in finished:
        for split in ["val", "test"] if test else ["val"]:
            evaluate(run, asked.data, split, asked.imgsz, asked.device, resamples)
    return finished, left


def folders(data: Path) -> dict[str, str]:
    """Return the folders of the splits, which the host prepares at first use."""
    from ultralytics.data.utils import check_det_dataset

    found = check_det_dataset(str(data))
    if not all(isinstance(found.get(name), str) for name in ("train", "val", "test")):
        raise UserError(f"--data {data}: it must name one folder each for train, val and test.")
    return {name: found[name] for name in ("train", "val", "test")}


def state(run: Run) -> str:
    """Say in a word how far a run is."""
    if not run.finished() and who_runs(run):
        return "running"
    if not run.finished():
        return "begun" if run.last.is_file() or run.file.with_name(f"{run.file.name}.part").is_file() else "missing"
    return "tested" if file_of(run, "test").is_file() else "evaluated" if file_of(run, "val").is_file() else "finished"


def conditions(asked: Asked, data: str) -> str:
    """Say what all runs share."""
    from ultralytics.utils.torch_utils import get_cpu_info, get_gpu_info

    from ghost_yolo.utils.system import versions

    first = asked.device.split(",")[0]
    machine = get_gpu_info(int(first)) if first.isdigit() else get_cpu_info()
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    return (
        f"{data}, {asked.imgsz} x {asked.imgsz}, {asked.epochs} epochs from scratch, batch 16, the host's defaults "
        f"otherwise (optimizer auto), best epoch by the host's fitness on val; {machine}; "
        f"evaluated with {used}"
    )


def bench_command(asked: Asked, finished: list[Run]) -> str:
    """Return the command that times the models."""
    names = " ".join(dict.fromkeys(run.timed_as for run in finished))
    words = f"--nc {read(finished[0], 'val').facts['nc']} --imgsz {asked.imgsz} --format json -o bench.json"
    words = words if asked.device == "cpu" else f"--device {asked.device} {words}"
    return f"cd {asked.folder} && ghost-yolo bench {names} {words}"


if __name__ == "__main__":
    try:
        typer.run(main)
    except (UserError, OSError) as error:
        sys.exit(f"bccd.py: {error}")

"""Write a bundle: models, runner, measured times and proof in one folder, whole or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ghost_yolo.accuracy import AgreementSet
from ghost_yolo.accuracy.counts import RESAMPLES
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.bundle.card import render_card
from ghost_yolo.bundle.description import describe, write_description
from ghost_yolo.bundle.plan import BundlePlan
from ghost_yolo.bundle.web import write_web
from ghost_yolo.data.images import MIN_HELD_OUT, find_images, hold_out, split_readable, spread
from ghost_yolo.errors import UserError
from ghost_yolo.export.any_file import verify_file
from ghost_yolo.export.files import NO_NCNN_INT8, export_file
from ghost_yolo.export.float32_parts import Variant, write_best
from ghost_yolo.export.int8 import MAX_CALIBRATION, Int8Exporter
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.files import atomic_folder, sha256
from ghost_yolo.utils.system import runtime_versions

HERE = Path(__file__).parent
SCRIPTS = ("run.py", "bench.py")
USUAL = 100  # calibration photographs, with fewer INT8 may suffer
VERIFIED = 4  # photographs on which every file's outputs are compared with PyTorch's
OPENCV = "opencv-python-headless<4.12"  # newer ones are 11 to 22 MB larger and give the same image
CHECKSUMS = "checksums.txt"
REWRITTEN = "times.json"  # by bench.py on the board, so that it has no checksum


@dataclass
class Bundle:
    """A bundle that was written.

    Attributes:
        folder: The folder.
        files: One entry for each model file: name, runtime, precision, agreement with its interval, times.
        outputs: Name of each file, and of the page's second model, to how its outputs differ from PyTorch's, one line for each
            input.
        warnings: What to know before it is used.
    """

    folder: Path
    files: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def bundle(plan: BundlePlan) -> Bundle:
    """Export a checkpoint for every runtime and precision, and put beside the files all that running them needs.

    Raises:
        OutputExistsError: If the folder exists.
        UserError: If a setting is wrong, no photograph can be read, an export fails, an INT8 file finds nothing, or the outputs
            of a float32 file are not PyTorch's. Nothing is written then.
    """
    plan.validate()
    opened = open_checkpoint(plan.checkpoint)
    opened.require_rgb()
    size = plan.size_for(opened)
    readable, skipped = split_readable(find_images(plan.images))
    fitted, held_out = hold_out(readable, plan.holdout)
    made = Bundle(plan.out, warnings=warnings_before(plan, fitted, held_out, skipped))
    fitted, licence = spread(fitted, MAX_CALIBRATION), licence_text()
    choosing, scored = divide(plan, held_out)
    with atomic_folder(plan.out) as work, ExitStack() as stack:
        truths = open_truths(plan, size, (choosing, scored), stack, made.warnings)
        chosen = write_models(plan, work, size, fitted, truths[0])
        write_description(work / "model.yaml", described(plan, work, size))
        for name in SCRIPTS:
            shutil.copy(HERE / name, work / name)
        (work / "requirements.txt").write_text(requirements(plan), encoding="utf-8")
        (work / "LICENSE").write_text(licence, encoding="utf-8")
        if plan.has_int8:
            (work / "calibration.txt").write_bytes(hash_lines(fitted).encode())  # lines end alike everywhere
        photos = spread(scored or readable, VERIFIED)
        files = {work / name: precision for name, (_, precision) in plan.files.items()}
        made.outputs = check_outputs(plan.checkpoint, files, photos, made.warnings)
        beside = write_web(plan, work, size, described(plan, work, size), fitted) if plan.web else None
        if plan.web and plan.web.beside and beside:
            own = check_outputs(plan.web.beside, {beside / "model.onnx": "fp32"}, photos, made.warnings)
            made.outputs |= {(beside / name).relative_to(work).as_posix(): lines for name, lines in own.items()}
        made.files = measure(plan, work, readable[0], truths[1], chosen)
        proof = {
            "outputs": made.outputs,
            "files": made.files,
            "warnings": made.warnings,
            "versions": runtime_versions(),
        }
        (work / "proof.json").write_text(json.dumps(proof, indent=1) + "\n", encoding="utf-8")
        used = [truth.images if truth else 0 for truth in truths]
        counts = {"fitted": len(fitted), "choosing": used[0], "scored": used[1], "shared": choosing == scored}
        card = render_card(work, made.files, made.outputs, warnings=made.warnings, counts=counts)
        (work / "README.md").write_text(card, encoding="utf-8")
        (work / CHECKSUMS).write_bytes(hash_folder(work).encode())
    return made


def warnings_before(
    plan: BundlePlan, fitted: Sequence[Path], held_out: Sequence[Path], skipped: Sequence[Path]
) -> list[str]:
    """Return what is already known to be less than it could be."""
    found = [f"{', '.join(plan.unavailable)}: not written; {NO_NCNN_INT8}"] if plan.unavailable else []
    if skipped:
        found.append(f"{len(skipped)} of {len(skipped) + len(fitted) + len(held_out)} photographs cannot be read, for example {skipped[0].name}")  # fmt: skip
    if plan.has_int8 and len(fitted) < USUAL:
        found.append(f"INT8 is calibrated on {len(fitted)} photographs; {USUAL} and more are usual")
    if not held_out:
        found.append(
            f"no agreement: --holdout {plan.holdout:g} of {len(fitted)} photographs is too few; "
            f"{MIN_HELD_OUT} must be held out, and as many stay"
        )
    elif divide(plan, held_out)[0] == held_out:
        found.append(
            f"the agreement of INT8 is measured on the {len(held_out)} photographs that chose what stays in float32: "
            f"too few to divide ({2 * MIN_HELD_OUT} and more)"
        )
    return found


def divide(plan: BundlePlan, held_out: Sequence[Path]) -> tuple[Sequence[Path], Sequence[Path]]:
    """Return the held-out photographs that choose what of INT8 stays in float32, and those that score all files.

    They are the same where they would be too few, and none choose where there is no INT8.
    """
    if not plan.has_int8:
        return [], held_out
    if len(held_out) < 2 * MIN_HELD_OUT:
        return held_out, held_out
    return held_out[::2], held_out[1::2]


def open_truths(
    plan: BundlePlan,
    size: tuple[int, int],
    parts: Sequence[Sequence[Path]],
    stack: ExitStack,
    warnings: list[str],
) -> list[AgreementSet | None]:
    """Return parts of the held-out photographs with what the checkpoint finds in them; None where it finds nothing, or of none."""
    known = dict[tuple[Path, ...], AgreementSet | None]()
    for part in map(tuple, parts):
        if part in known:
            continue
        try:
            known[part] = stack.enter_context(AgreementSet(plan.checkpoint, part, max(size))) if part else None
        except UserError as error:
            lacks = "no agreement" if part == tuple(parts[-1]) else "nothing chose what stays in float32"
            warnings.append(f"{lacks}: {error}")
            known[part] = None
    return [known[tuple(part)] for part in parts]


def write_models(
    plan: BundlePlan, work: Path, size: tuple[int, int], fitted: Sequence[Path], truth: AgreementSet | None
) -> dict[str, Variant]:
    """Export every file, and return of the INT8 files what stayed in float32 because that measured better."""
    chosen = {}
    for name, (runtime, precision) in progress([*plan.files.items()], "Exporting"):
        if precision == "int8" and truth:
            chosen[name] = write_int8(plan, work / name, size, runtime, fitted, truth)
        else:
            export_file(plan.checkpoint, work / name, fitted, size, runtime, precision)
    return chosen


def write_int8(
    plan: BundlePlan, out: Path, size: tuple[int, int], runtime: str, fitted: Sequence[Path], truth: AgreementSet
) -> Variant:
    """Write the INT8 file whose agreement is best, with head or first convolution in float32 where that measures better."""
    with Int8Exporter(plan.checkpoint, fitted, size, runtime) as exporter:
        return write_best(exporter, truth, out, plan.threads)


def described(plan: BundlePlan, work: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Return the content of `model.yaml`."""
    names = [*plan.files]
    source = {"name": plan.checkpoint.name, "sha256": sha256(plan.checkpoint)}
    return describe(work / names[0], names) | {"imgsz": list(size), "checkpoint": source}


def requirements(plan: BundlePlan) -> str:
    """Return requirements.txt: NumPy, OpenCV and one runtime, the others as comments."""
    versions, modules = runtime_versions(), [RUNTIMES[runtime].modules[0] for runtime in plan.runtimes]
    needed = [f"{module}  # measured with {versions.get(module, 'a build of another name')}" for module in modules]
    others = [f"# {line}, instead" for line in needed[1:]]
    opencv = f"{OPENCV}  # opencv-python does too; newer ones are larger"
    return "\n".join(["numpy", opencv, needed[0], *others]) + "\n"


def check_outputs(
    checkpoint: Path, files: Mapping[Path, str], photos: Sequence[Path], warnings: list[str]
) -> dict[str, list[str]]:
    """Compare the outputs of files, with their precisions, with PyTorch's on noise and photographs, as `ghost-yolo verify` does.

    Raises:
        UserError: If those of a float32 file differ by more than `verify` tolerates; of INT8 that is a warning.
    """
    opened = open_checkpoint(checkpoint)
    found = {}
    for file, precision in progress([*files.items()], "Verifying"):
        verified = verify_file(file, checkpoint, photos)
        found[file.name] = [*map(str, verified.checks), *([verified.first] if verified.first else [])]
        if not verified.compared:
            warnings.append(f"{file.name}: its outputs are not verified, since the images show no box to compare")
        if verified.passed or not verified.compared:
            continue
        worst = next(check for check in verified.checks if not check.passed)
        text = f"{worst}; {verified.first}"
        if precision == "fp32":
            raise UserError(f"{file.name} of {opened.name} does not compute what PyTorch computes: {text}")
        warnings.append(f"{file.name} differs from the checkpoint: {text}")
    return found


def measure(
    plan: BundlePlan, work: Path, photo: Path, truth: AgreementSet | None, chosen: dict[str, Variant]
) -> list[dict[str, Any]]:
    """Return what was measured of every file: agreement with the checkpoint, and times by the bundle's own bench.py."""
    scores = {}
    if truth:
        for name in progress([*plan.files], "Agreement"):
            scores[name] = asdict(truth.score(work / name, RESAMPLES)) | {"counts": None}
    run_script(work, "run.py", str(photo.resolve()), "--json")
    options = ("--threads", str(plan.threads), "--rounds", str(plan.rounds), "--photo", str(photo.resolve()))
    run_script(work, "bench.py", *options, "--out", "times.json")
    measured = json.loads((work / "times.json").read_text(encoding="utf-8"))
    if measured["failed"]:
        raise UserError(f"the bundle's bench.py cannot run {'; '.join(measured['failed'])}")
    times = {(row["model"], row["precision"]): row for row in measured["rows"]}
    return [
        {
            "name": name,
            "runtime": runtime,
            "precision": precision,
            "in_float32": list(chosen[name].exclude) if name in chosen else [],
            "agreement": scores.get(name),
            "times": {key: value for key, value in times[name, precision].items() if key.endswith("_ms")},
            "file_mb": times[name, precision]["file_mb"],
        }
        for name, (runtime, precision) in plan.files.items()
    ]


def run_script(work: Path, name: str, *arguments: str) -> None:
    """Run one of the bundle's scripts in it, which also shows that it works.

    Raises:
        UserError: If it fails.
    """
    done = subprocess.run(
        [sys.executable, "-B", name, *arguments], cwd=work, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"the bundle's {name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def licence_text() -> str:
    """Return the licence of the runner and of models made with Ultralytics, with a line on what it covers."""
    from importlib.metadata import PackageNotFoundError, files

    installed = list[Any]()
    with suppress(PackageNotFoundError):  # in a checkout that is only on the path
        installed = [file for file in files("ghost-yolo") or [] if file.name == "LICENSE"]
    places = [Path(str(file.locate())) for file in installed] + [HERE.parent.parent / "LICENSE"]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise UserError("the LICENSE file of ghost-yolo is missing: install it again")
    return place.read_text(encoding="utf-8")


def hash_lines(files: Sequence[Path]) -> str:
    """Return lines of SHA-256 and name, as `sha256sum` prints them."""
    return "".join(f"{sha256(file)}  {file.name}\n" for file in files)


def hash_folder(work: Path) -> str:
    """Return the lines of all files in a folder but those that are written anew where it is used."""
    files = sorted(file for file in work.rglob("*") if file.is_file() and file.name != REWRITTEN)
    return "".join(f"{sha256(file)}  {file.relative_to(work).as_posix()}\n" for file in files)

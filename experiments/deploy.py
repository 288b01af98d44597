"""The file that is deployed: a checkpoint exported for a runtime and a precision, without labels."""

from __future__ import annotations

import time
from pathlib import Path

from experiments.making import DEPLOYED
from experiments.records import write_json
from ghost_yolo.accuracy import AgreementSet
from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.data.images import find_images, hold_out
from ghost_yolo.export.files import export_file
from ghost_yolo.export.float32_parts import write_best
from ghost_yolo.export.int8 import Int8Exporter
from ghost_yolo.ghostify.config import Settings
from ghost_yolo.utils.files import atomic_folder


def deploy(
    weights: Path, deployment: str, imgsz: int, images: Path, teacher: Path, out: Path, threads: int = 0
) -> None:
    """Write the exported file into a new folder, whole or not at all, with the seconds that it took and what is in float32.

    Args:
        weights: The checkpoint.
        deployment: Runtime and precision, one of DEPLOYMENTS.
        imgsz: Image side in pixels.
        images: Folder of images for INT8, no labels.
        teacher: Trained model whose boxes decide what stays in float32; the checkpoint itself, or what it was converted from.
        out: The folder.
        threads: CPU threads with which variants in INT8 are timed; 0 for the number of physical cores.
    """
    start, (runtime, precision) = time.monotonic(), deployment.split("-")
    with atomic_folder(out) as work:
        file = work / f"model{RUNTIMES[runtime].suffix}"
        if precision == "int8":
            excluded = export_int8(weights, file, runtime, imgsz, images, teacher, threads)
        else:
            excluded = ()
            export_file(weights, file, [], imgsz, runtime, precision)
        write_json(work / DEPLOYED, {"seconds": time.monotonic() - start, "excluded": [*excluded]})


def export_int8(
    weights: Path, file: Path, runtime: str, imgsz: int, images: Path, teacher: Path, threads: int
) -> tuple[str, ...]:
    """Write an INT8 file as `ghost-yolo ghostify` does: held-out images decide which modules stay in float32; return those."""
    fitted, held_out = hold_out(find_images([images]), Settings().holdout)
    with Int8Exporter(weights, fitted, imgsz, runtime) as exporter:
        if not held_out:
            exporter.write(file)
            return ()
        with AgreementSet(teacher, held_out, imgsz) as truth:
            return write_best(exporter, truth, file, threads).exclude

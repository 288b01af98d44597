"""What `ghost-yolo bundle` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.bundle.run import MAX_THREADS
from ghost_yolo.bundle.web import WebPlan
from ghost_yolo.errors import OutputExistsError, UserError
from ghost_yolo.export.files import NO_NCNN_INT8, PRECISIONS, file_name, require_file
from ghost_yolo.export.int8 import QUANTIZE
from ghost_yolo.model.checkpoint import OpenedModel

STEM = "model"
TARGETS = tuple(name for name, row in RUNTIMES.items() if row.format)


@dataclass(frozen=True)
class BundlePlan:
    """What goes into a bundle.

    Attributes:
        checkpoint: The trained model.
        images: Photographs without labels, for INT8 and for the agreement.
        out: The folder to write; new.
        runtimes: Some of TARGETS; the runner prefers the first that is installed.
        precisions: fp32, int8 or both.
        size: Height and width of the network's image; the side of the training if None.
        holdout: Share of the photographs that nothing is fitted on; the agreement is measured on them.
        threads: CPU threads of the measured times; 0 for all CPUs that may be used.
        rounds: Rounds of the measured times.
        web: The page for browsers, which takes the ONNX files; none is written if None.
    """

    checkpoint: Path
    images: tuple[Path, ...]
    out: Path
    runtimes: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ("fp32",)
    size: tuple[int, int] | None = None
    holdout: float = 0.2
    threads: int = 0
    rounds: int = 20
    web: WebPlan | None = None

    def validate(self) -> None:
        """Check what can be checked before any work.

        Raises:
            OutputExistsError: If the folder holds something.
            UserError: If a setting is out of its range, or a runtime is not installed.
        """
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise OutputExistsError(f"--out {self.out} exists; name a new folder")
        for option, given, known in (("to", self.runtimes, TARGETS), ("precision", self.precisions, PRECISIONS)):
            if not given or set(given) - set(known) or len(set(given)) < len(given):
                page = ",web" if option == "to" else ""  # the command's name for the page
                raise UserError(f"--{option} {','.join(given)}: give some of {','.join(known)}{page}, each once")
        if not 0 < self.holdout < 1 or self.rounds < 1 or not 0 <= self.threads <= MAX_THREADS:
            raise UserError(f"--holdout must be between 0 and 1, --rounds 1 or more, --threads 0 to {MAX_THREADS}")
        if not self.files:
            targets = ",".join(self.runtimes)
            raise UserError(f"--to {targets} has no INT8 here: {NO_NCNN_INT8}; give {' or '.join(QUANTIZE)}, or fp32")
        for runtime, precision in self.files.values():
            require_file(runtime, precision)
        if self.web:
            if "onnx" not in self.runtimes:
                raise UserError(f"--to {','.join(self.runtimes)},web: the page needs onnx too")
            self.web.validate(self.checkpoint, self.size)

    @property
    def files(self) -> dict[str, tuple[str, str]]:
        """Name of each file to its runtime and precision."""
        pairs = [(runtime, precision) for runtime in self.runtimes for precision in self.precisions]
        return {file_name(STEM, *pair): pair for pair in pairs if pair[1] == "fp32" or pair[0] in QUANTIZE}

    @property
    def has_int8(self) -> bool:
        """Whether an INT8 file is among them."""
        return any(precision == "int8" for _, precision in self.files.values())

    @property
    def unavailable(self) -> list[str]:
        """Runtimes without the INT8 that was asked for, as printed."""
        wanted = "int8" in self.precisions
        return [f"{RUNTIMES[name].title} int8" for name in self.runtimes if wanted and name not in QUANTIZE]

    def size_for(self, opened: OpenedModel) -> tuple[int, int]:
        """Return height and width for a model.

        Raises:
            UserError: If the model does not take images of that size.
        """
        size = self.size or (opened.trained_imgsz, opened.trained_imgsz)
        for side in size:
            opened.require_stride(side)
        return size

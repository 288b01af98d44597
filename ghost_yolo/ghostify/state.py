"""State of a run: its inputs, and the resume file with the results so far."""

from __future__ import annotations

import copy
import hashlib
import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ghost_yolo.errors import UserError
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.config import RunConfig, resume_file
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.files import write_atomic
from ghost_yolo.utils.system import GIB

if TYPE_CHECKING:
    from ghost_yolo.accuracy import AgreementSet

DIGEST = hashlib.sha256().digest_size
# Of a student's weights: new blocks, model and the optimizer's moments, at most two, in the resume file, and the old file
# beside it, with some to spare, as for an option of a target that is being screened
COPIES = 10


class RunState:
    """Results of a run by name, written to the resume file as soon as they are known.

    Attributes:
        file: The resume file, `light.pt.part` beside the output `light.pt`.
        results: Results of this run and of the interrupted ones before it; plain values and tensors.
    """

    def __init__(self, out: Path, config: RunConfig, start: float | None = None) -> None:
        """Read the resume file if there is one.

        Args:
            out: The output checkpoint.
            config: Everything that the results depend on.
            start: Start of the run by `time.perf_counter`; now if None.

        Raises:
            UserError: If the file was written with another configuration, or cannot be read.
        """
        self.file = resume_file(out)
        self.config = config.to_dict()
        del self.config["model"]  # a moved checkpoint is the same one: its hash is compared
        del self.config["delivery"]  # what is fitted does not depend on it, but times do, and they serve every target
        delivery = config.delivery
        where = f"for {delivery.runtime} {delivery.precision}, baseline {' '.join(delivery.baseline)}"
        self.config["target"] = None if delivery.target is None else where
        self.results: dict[str, Any] = {}
        self._start = time.perf_counter() if start is None else start
        if self.file.exists():
            self._read()

    def _read(self) -> None:
        """Read the resume file and compare its configuration."""
        advice = f"Use the same settings, give another --out, or remove {self.file}."
        try:
            content = load_checked(self.file)
            before, self.results = content["config"], dict(content["results"])
        except Exception as error:  # a damaged or foreign file fails in many ways
            raise UserError(f"{self.file} is not a valid resume file ({type(error).__name__}). {advice}") from error
        names = dict.fromkeys([*self.config, *before])
        pairs = [(name, before.get(name), self.config.get(name)) for name in names]
        changed = [f"{name}={old}, not {new}" for name, old, new in pairs if old != new]
        if changed:
            raise UserError(f"{self.file} belongs to a run with {'; '.join(changed)}. {advice}")
        self._start -= self.results.get("seconds", 0.0)

    @property
    def seconds(self) -> float:
        """Duration of the run in seconds, including interrupted runs up to their last result."""
        return time.perf_counter() - self._start

    def add(self, name: str, result: Any) -> None:
        """Store a copy of a result: training goes on, and the next one writes all again."""
        self.results |= {name: copy.deepcopy(result), "seconds": self.seconds}
        save_checked({"config": self.config, "results": self.results}, self.file)

    def drop(self, prefix: str) -> None:
        """Forget the results whose names have a prefix; the file follows with the next result."""
        self.results = {name: result for name, result in self.results.items() if not name.startswith(prefix)}

    def remove(self) -> None:
        """Remove the resume file."""
        self.file.unlink(missing_ok=True)

    def require_space(self, model: HostModel, students: int = 1) -> None:
        """Check that the disk has room for the resume file of a model.

        Args:
            model: The trained model.
            students: How many students are distilled at most.

        Raises:
            UserError: If it has not.
        """
        folder = self.file.resolve().parent
        needed = students * COPIES * 4 * sum(tensor.numel() for tensor in model.state_dict().values())
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"--out: the resume file may need {needed / GIB:.2f} GiB and {folder} has {free / GIB:.2f} GiB free; "
                "give an output on another disk"
            )


def save_checked(content: dict[str, Any], file: Path) -> None:
    """Write plain values and tensors, followed by their SHA-256."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    write_atomic(file, data + hashlib.sha256(data).digest())


def load_checked(file: Path) -> Any:
    """Return the content of a file that `save_checked` wrote.

    Raises:
        ValueError: If the checksum is wrong.
    """
    data = file.read_bytes()
    if hashlib.sha256(data[:-DIGEST]).digest() != data[-DIGEST:]:
        raise ValueError("wrong checksum")
    return torch.load(io.BytesIO(data[:-DIGEST]), map_location="cpu", weights_only=True)


@dataclass(frozen=True)
class GhostifyRun:
    """The inputs of a run and its state.

    Attributes:
        config: The configuration.
        teacher: The trained model.
        images: Calibration images.
        state: Results so far.
        image_files: Files of the calibration images.
        held_out: Files of the images that nothing is fitted on.
        held_out_images: The same, in memory; None without any.
        truth: The same with what the trained model finds in them, None without any.
    """

    config: RunConfig
    teacher: HostModel
    images: CalibrationImages
    state: RunState
    image_files: Sequence[Path] = ()
    held_out: Sequence[Path] = ()
    held_out_images: CalibrationImages | None = None
    truth: AgreementSet | None = None

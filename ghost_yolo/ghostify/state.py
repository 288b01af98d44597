"""The part file: what has been fitted so far, so that an interrupted run goes on where it was."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch

from ghost_yolo.errors import UserError
from ghost_yolo.utils.files import write_whole


class RunState:
    """Results by name, each written as soon as it is there.

    Attributes:
        file: Beside the output, `light.pt.part`.
        done: Results of this run and of those before it.
        seconds: What the run has taken up to now, those before it as far as they came to a result.
    """

    def __init__(self, out: Path, settings: dict[str, Any], start: float | None = None) -> None:
        """Read the part file where there is one.

        Args:
            out: The checkpoint that is wanted.
            settings: All that the results depend on; plain values.
            start: When the run began, by `time.perf_counter`; now if not given.

        Raises:
            UserError: If the file was begun with other settings, or cannot be read.
        """
        self.file, self.settings, self.done = part_of(out), settings, {}
        self._start = time.perf_counter() if start is None else start
        if not self.file.exists():
            return
        remove = f"Give the same again, another --out, or remove {self.file}"
        try:
            content = torch.load(self.file, map_location="cpu", weights_only=True)
            before, self.done = content["settings"], content["done"]
        except Exception as error:  # a damaged or foreign file fails in many ways
            raise UserError(
                f"{self.file} is not what an interrupted run left ({type(error).__name__}). {remove}."
            ) from error
        other = [
            f"{key} {before.get(key)} and not {value}" for key, value in settings.items() if before.get(key) != value
        ]
        if other:
            raise UserError(f"{self.file} was begun with {', '.join(other)}. {remove}.")
        self._start -= self.done.get("seconds", 0.0)

    @property
    def seconds(self) -> float:
        """What the run has taken up to now."""
        return time.perf_counter() - self._start

    def add(self, name: str, result: Any) -> None:
        """Keep a result."""
        self.done |= {name: result, "seconds": self.seconds}
        buffer = io.BytesIO()
        torch.save({"settings": self.settings, "done": self.done}, buffer)
        write_whole(self.file, buffer.getvalue())

    def remove(self) -> None:
        """Remove the file: the output is there."""
        self.file.unlink(missing_ok=True)


def part_of(out: Path) -> Path:
    """Return where the part file of an output is."""
    return out.with_name(f"{out.name}.part")

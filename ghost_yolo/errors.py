"""Every error that this package raises for something a user can put right, in one hierarchy.

    UserError                 base; the commands print its message as one line, without a traceback
      UnsupportedHostError    (RuntimeError)       the installed Ultralytics is not supported
      UnknownBlockError       (KeyError)           a model YAML or option names an unknown module
      ModelNameError          (ValueError)         no such YAML or checkpoint, or its name has no scale letter
      ModelError              (ValueError)         a YAML or checkpoint from which no model can be built
      SwapError               (ValueError)         a row or YAML in which nothing can be swapped
      WeightsError            (ValueError)         pretrained weights that do not fit the network
      VOCError                (ValueError)         Pascal VOC annotations that cannot be converted
      DatasetError            (FileNotFoundError)  images of a data set that are missing
      OutputExistsError       (FileExistsError)    an output folder that already holds something
      SourceError                                  a JSON file of results that is not one
      WorkerError             (RuntimeError)       a call that failed in a benchmark's process

Blocks and networks raise a plain ValueError for arguments that they cannot take, as torch's modules do; the parser's
wrapper in `host.py` turns it into a ModelError that names the row.
"""

from __future__ import annotations

SHOWN = 10  # problems listed in an error; the others are counted


def shorten(lines: list[str]) -> list[str]:
    """Return at most SHOWN lines; a last one counts the others."""
    rest = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"... and {rest} more"] if rest > 0 else [])


class UserError(Exception):
    """Base of all errors that a user can put right; the commands print its message without a traceback."""


class UnknownBlockError(UserError, KeyError):
    """A module name that neither Ultralytics nor this package knows."""

    def __str__(self) -> str:
        """Return the message; KeyError would return its repr."""
        return str(self.args[0])


class UnsupportedHostError(UserError, RuntimeError):
    """The installed Ultralytics is outside the supported range, or was modified."""


class ModelError(UserError, ValueError):
    """A YAML or checkpoint from which no model can be built."""


class ModelNameError(UserError, ValueError):
    """A YAML or checkpoint that does not exist, or a name without its scale letter."""


class SwapError(UserError, ValueError):
    """A row or a YAML in which nothing can be swapped."""


class WeightsError(UserError, ValueError):
    """Pretrained weights that do not fit the network."""


class VOCError(UserError, ValueError):
    """Pascal VOC annotations that cannot be converted; the message counts the problems and lists the first."""

    def __init__(self, problems: list[str]) -> None:
        """Join the problems, at most SHOWN of them."""
        self.problems = problems
        self.count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n  ".join(shorten(problems))
        super().__init__(f"The annotations cannot be converted ({self.count}); nothing was written:\n  {lines}")


class SourceError(UserError):
    """A JSON file of times, accuracies or measurements that is of another kind, or damaged."""


class WorkerError(UserError, RuntimeError):
    """A call that failed in the other process, or the end of that process."""


class DatasetError(UserError, FileNotFoundError):
    """Images of a data set that are missing and cannot be downloaded."""


class OutputExistsError(UserError, FileExistsError):
    """An output folder that already holds something; it is never overwritten."""

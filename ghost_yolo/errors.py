"""Every error of this package, in one hierarchy."""

from __future__ import annotations

SHOWN = 10  # problems listed in an error before the rest is only counted


class UserError(Exception):
    """Something that the user can put right; our commands show its message without a traceback."""


class UnknownBlockError(UserError, KeyError):
    """A model YAML names a module that neither the host nor this package has."""

    def __str__(self) -> str:
        """Show the message as text; KeyError would show its repr."""
        return str(self.args[0])


class UnsupportedHostError(UserError, RuntimeError):
    """The installed Ultralytics is not one that this package was tested with."""


class ModelError(UserError, ValueError):
    """A YAML or checkpoint from which no model can be made."""


class ModelNameError(UserError, ValueError):
    """A YAML or checkpoint that cannot be found, or a name that says too little."""


class SwapError(UserError, ValueError):
    """A row or a YAML in which nothing can be swapped."""


class WeightsError(UserError, ValueError):
    """Weights that do not belong to the network."""


class VOCError(UserError, ValueError):
    """Annotations that cannot be converted, with every problem found."""

    def __init__(self, problems: list[str]) -> None:
        """Join the problems, the first few in full."""
        rest = len(problems) - SHOWN
        lines = problems[:SHOWN] + ([f"... and {rest} more"] if rest > 0 else [])
        super().__init__("The annotations cannot be converted; nothing was written:\n  " + "\n  ".join(lines))


class SourceError(UserError):
    """A file that is not what it should be."""


class WorkerError(UserError, RuntimeError):
    """A call that failed in the other process, or the end of that process."""

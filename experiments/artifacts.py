"""What of a run is evaluated and timed: its checkpoint, or a file that is exported from it for a runtime and a precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.model.catalog import SCALES

if TYPE_CHECKING:
    from experiments.plan import Run

DEPLOYMENTS = ("onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8", "ncnn-fp32")  # what `export_file` writes
STOCK = "stock"  # key of the model that all are compared with


@dataclass(frozen=True)
class Artifact:
    """A checkpoint or an exported file; paths are below the folder of the data set.

    Attributes:
        run: Where its weights come from.
        deployment: Runtime and precision, one of DEPLOYMENTS; "" for the checkpoint.
    """

    run: Run
    deployment: str = ""

    @property
    def name(self) -> str:
        """Folder of its scores."""
        return f"{self.run.name}/{self.deployment}" if self.deployment else self.run.name

    @property
    def label(self) -> str:
        """The artifact in words."""
        return f"{self.run.label} {self.deployment}".rstrip()

    @property
    def folder(self) -> str:
        """Folder that holds the exported file and says how it was made, "" for a checkpoint."""
        return f"{self.name}/exported" if self.deployment else ""

    @property
    def file(self) -> str:
        """What is evaluated; the host knows the runtime by the ending."""
        return f"{self.folder}/model{RUNTIMES[self.runtime].suffix}" if self.deployment else self.run.weights

    @property
    def timed_as(self) -> str:
        """What is timed: the file itself, or a model of the checkpoint's architecture."""
        return self.file if self.deployment else self.run.timed_as

    @property
    def runtime(self) -> str:
        """Key of RUNTIMES, "" for a checkpoint."""
        return self.deployment.partition("-")[0]

    @property
    def is_fp32(self) -> bool:
        """Whether it computes in float32: a checkpoint does."""
        return not self.deployment.endswith("int8")


def reference_deployment(deployments: Iterable[str]) -> str:
    """Return the deployment in which stock is the reference of all: the first in float32, without one the first."""
    known = list(deployments)
    return next((name for name in known if not name.endswith("int8")), known[0] if known else "")


def to_time(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Return what is timed, the baseline first, for exported files those of the first seed only.

    The baseline is the first checkpoint, and of exported files that of the largest stock model in the reference deployment.
    """
    known = list(artifacts)
    if not any(artifact.deployment for artifact in known):
        return known
    reference = reference_deployment(artifact.deployment for artifact in known)
    chosen = [artifact for artifact in known if artifact.run.seed == known[0].run.seed]

    def order(artifact: Artifact) -> tuple[bool, bool, int]:
        run = artifact.run
        return run.key != STOCK, artifact.deployment != reference, -SCALES.index(run.scale)

    return sorted(chosen, key=order)

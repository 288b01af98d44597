"""What `ghost-yolo bench` measures, and what it knows of each model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ghost_yolo.bench.runtimes import DEFAULT, PRECISIONS, RUNTIMES
from ghost_yolo.errors import UserError


@dataclass(frozen=True)
class BenchPlan:
    """Settings of a benchmark run.

    Attributes:
        models: YAMLs, checkpoints, or files that the host exported; ratios are to the first.
        runtimes: Keys of RUNTIMES; an exported file runs in its own runtime only.
        precisions: fp32, fp16, int8, and `default` for what OpenVINO chooses on this CPU; an exported file has its own.
        device: `cpu`, or the number of a GPU.
        nc: Number of classes of the YAMLs' models, each YAML's own if None.
        imgsz: Image side in pixels.
        batch: Images in one forward pass.
        threads: CPU threads; 0 for the number of physical cores.
        rounds: Number of rounds; every model is timed once in each round.
        passes: Forward passes of each model in a round; their median is the time of the round.
        data: Dataset YAML for INT8 calibration.
        profile: Whether to profile each model by operator type.
        keep: New or empty folder for the exported files; a temporary one where None.
        photo: Photograph of which letterbox and NMS are timed too; only the network, on noise, where None.
        mixed: Whether all rows are timed side by side, whatever their runtime and precision, with ratios to the first row.
    """

    models: tuple[str, ...]
    runtimes: tuple[str, ...] = ("pytorch",)
    precisions: tuple[str, ...] = ("fp32",)
    device: str = "cpu"
    nc: int | None = None
    imgsz: int = 640
    batch: int = 1
    threads: int = 0
    rounds: int = 20
    passes: int = 5
    data: str = "coco8.yaml"
    profile: bool = False
    keep: Path | None = None
    mixed: bool = False
    photo: Path | None = None

    @property
    def combinations(self) -> list[tuple[str, str]]:
        """Runtimes with the precisions that they offer, as far as requested."""
        return [pair for pair in self._requested() if RUNTIMES[pair[0]].offers(pair[1], self.device)]

    @property
    def unavailable(self) -> list[str]:
        """Requested runtimes with precisions that do not exist, as printed."""
        pairs = [pair for pair in self._requested() if pair not in self.combinations and pair[1] != DEFAULT]
        return [f"{RUNTIMES[runtime].title} {precision}" for runtime, precision in pairs]

    def _requested(self) -> list[tuple[str, str]]:
        """Return every requested runtime with every requested precision."""
        return [(runtime, precision) for runtime in self.runtimes for precision in self.precisions]

    def validate(self) -> None:
        """Validate the settings.

        Raises:
            UserError: If one of them is out of its range.
        """
        for name, known in (("runtimes", tuple(RUNTIMES)), ("precisions", (*PRECISIONS, DEFAULT))):
            given = getattr(self, name)
            if not given or set(given) - set(known) or len(set(given)) < len(given):
                raise UserError(f"--{name} {','.join(given)}: give some of {','.join(known)}, each once")
        if not self.models or len(set(self.models)) < len(self.models):
            raise UserError(f"models {' '.join(self.models)}: give one or more, each once")
        for name in ("nc", "imgsz", "batch", "rounds", "passes"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give 1 or more")
        if self.threads < 0:
            raise UserError(f"--threads {self.threads}: give 0 or more")
        if self.device != "cpu" and not self.device.isdecimal():
            raise UserError(f"--device {self.device}: give cpu, or the number of a GPU, such as 0")
        if self.photo is not None and (self.batch != 1 or self.device != "cpu" or not self.photo.is_file()):
            raise UserError(f"--end-to-end times one photograph on the CPU: --batch 1, and --image {self.photo} a file")
        if not self.combinations:
            wanted = ", ".join(f"{RUNTIMES[runtime].title} {precision}" for runtime, precision in self._requested())
            raise UserError(f"--device {self.device} does not support {wanted}")
        if self.keep is not None and self.keep.exists() and (not self.keep.is_dir() or any(self.keep.iterdir())):
            raise UserError(f"--keep {self.keep} is not an empty folder; name a new one")


@dataclass(frozen=True)
class ModelInfo:
    """What the worker process reports about a model after preparing it.

    Attributes:
        file: Checkpoint that was written, or the exported file as given.
        task: Task, such as `detect`.
        scale: Scale letter, "" where unknown.
        nc: Number of classes.
        channels: Channels of an image.
        gflops: GFLOPs of the fused model; None for an exported file.
        file_mb: Size of the checkpoint in 1024 x 1024 bytes; None for an exported file.
        imgsz: Image sides that an exported file takes; None for a checkpoint.
        batch: Batch size that an exported file takes; None for a checkpoint.
        dynamic: Whether an exported file takes any size.
        precision: Precision of an exported file.
        nms: Whether an exported file drops the boxes that are not confident itself.
        end2end: Whether an exported file has the boxes that an end-to-end head picked; None where its metadata do not say.
        kpt_shape: Number of keypoints, and numbers of each, of a pose model.
    """

    file: str
    task: str
    scale: str
    nc: int
    channels: int
    gflops: float | None = None
    file_mb: float | None = None
    imgsz: list[int] | None = None
    batch: int | None = None
    dynamic: bool = False
    precision: str = ""
    nms: bool = False
    end2end: bool | None = None
    kpt_shape: list[int] | None = None

    def mismatch(self, plan: BenchPlan) -> str:
        """Return why an exported file does not take the plan's images, "" where it does."""
        if self.dynamic or self.imgsz is None or (set(self.imgsz) == {plan.imgsz} and self.batch == plan.batch):
            return ""
        sides = ",".join(map(str, self.imgsz))
        return f"it was exported for imgsz={sides} and batch={self.batch}; give --imgsz and --batch to match"

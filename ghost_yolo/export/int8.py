"""INT8 files by static post-training quantization, calibrated on images without labels: OpenVINO by NNCF, and ONNX Runtime.

The host's own export asks for a data set YAML with labels, and its ONNX activations are signed, which was
slower than float32 on a CPU with AVX-512 VNNI. Here images are enough.
The result is what the host's `predict` and `val` open, of a fixed size, since INT8 of a dynamic size crashes OpenVINO on AMX.

The head's decode (boxes from distributions, sigmoids) always stays in float32, as in the host's exporter: one scale for boxes
in pixels and scores in 0..1 would round every score to 0. `exclude` leaves further modules in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics import YOLO

from ghost_yolo.bench.runtimes import RUNTIMES
from ghost_yolo.data.images import centre_crop, preprocess, read_image, spread
from ghost_yolo.errors import OutputExistsError, UserError
from ghost_yolo.export import quantizers
from ghost_yolo.export.files import export_fp32, publish
from ghost_yolo.export.verify import as_exported
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.utils.console import progress, quiet
from ghost_yolo.utils.files import temporary_folder

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_CALIBRATION = 300  # images, as many as NNCF takes by default; a thousand took a minute for every file
CHECKED = 16  # calibration images on which a file is compared with float32
QUANTIZE = {"openvino": quantizers.quantize_openvino, "onnx": quantizers.quantize_onnx}


class Int8Exporter:
    """A checkpoint's float32 export and calibration images, from which INT8 files are written inside the `with` statement.

        with Int8Exporter(Path("best.pt"), images, imgsz=320) as exporter:
            exporter.write(Path("best_int8_openvino_model"), exclude=["model.0"])

    Attributes:
        parts: What may be left in float32, each name with its modules: the first convolution and the head.
        skipped: Images that could not be read.
    """

    def __init__(
        self, checkpoint: Path, images: Sequence[Path], imgsz: int | tuple[int, int], runtime: str = "openvino"
    ) -> None:
        """Keep what is to be done; entering the context exports and reads the images.

        Args:
            checkpoint: The trained model.
            images: Calibration images, no labels; 100 and more are usual, of more than MAX_CALIBRATION so many are taken.
            imgsz: Image side in pixels, or height and width.
            runtime: `openvino` or `onnx`.

        Raises:
            UserError: If the checkpoint or the size is not right, or what the runtime needs is not installed.
        """
        if runtime not in QUANTIZE:
            raise UserError(f"runtime {runtime!r} has no INT8 files here; give one of {', '.join(QUANTIZE)}")
        RUNTIMES[runtime].require("int8")
        self.checkpoint, self.paths, self.runtime = checkpoint, spread(images, MAX_CALIBRATION), runtime
        self.size = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        opened = open_checkpoint(checkpoint)
        opened.require_rgb()
        for side in self.size:
            opened.require_stride(side)
        self.task = opened.task
        self.parts = {"first": "model.0", "head": f"model.{len(opened.model.model) - 1}"}
        self.skipped = list[Path]()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Read the images and export the checkpoint as float32.

        Raises:
            UserError: If no image can be read, or the export fails.
        """
        with ExitStack() as stack:
            self.folder = stack.enter_context(temporary_folder("ghost-yolo-int8-"))
            self.images = self._read_images()
            self.fp32 = export_fp32(self.checkpoint, self.folder, self.runtime, self.size)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the float32 export."""
        self._stack.close()

    def write(self, out: Path, exclude: Sequence[str] = (), *, untrained: bool = False) -> Path:
        """Write an INT8 file, whole or not at all.

        Args:
            out: For OpenVINO a folder whose name ends in `_openvino_model`, for ONNX a file that ends in `.onnx`; new.
            exclude: Names of modules that stay in float32 with all in them, such as `model.0` or `model.22.cv3`.
            untrained: Whether the weights are random, so that it does not matter what the file finds, only its time.

        Returns:
            `out`.

        Raises:
            OutputExistsError: If `out` exists.
            UserError: If its name does not end so, there is no such module, or the file gives the same result for every image
                or finds nothing where float32 finds something.
        """
        suffix = RUNTIMES[self.runtime].suffix
        if not out.name.endswith(suffix):
            raise UserError(f"{out}: the name of an INT8 file for {RUNTIMES[self.runtime].title} must end in {suffix}")
        if out.exists():
            raise OutputExistsError(f"{out} exists; move it away, or give another name")
        with temporary_folder("ghost-yolo-quantized-") as folder:
            made = folder / out.name
            QUANTIZE[self.runtime](self.fp32, made, self.images, exclude)
            if not untrained:
                self._require_sound(made)
            publish(made, out)
        return out

    def _read_images(self) -> list[torch.Tensor]:
        """Return the images that can be read as the model takes them, (3, h, w) in uint8."""
        images = []
        for path in progress(self.paths, "Reading images"):
            try:
                image = read_image(path, truncated_is_error=True)
            except UserError:
                self.skipped.append(path)
                continue
            images.append(preprocess(centre_crop(image, self.size) if self.task == "classify" else image, self.size))
        if not images:
            example = f", for example {self.paths[0]}" if self.paths else ""
            raise UserError(f"none of the {len(self.paths)} calibration images can be read{example}; give JPEG or PNG")
        return images

    def _require_sound(self, made: Path) -> None:
        """Compare what a file finds in some calibration images with what float32 finds.

        Raises:
            UserError: If it finds nothing, or the same in every image, where float32 does not.
        """
        paths = spread([path for path in self.paths if path not in self.skipped], CHECKED)
        expected, found = (find(file, paths, self.size, self.task) for file in (self.fp32, made))
        if any(map(len, expected)) and not any(map(len, found)):
            raise UserError(
                f"the INT8 file of {self.checkpoint} finds nothing in {len(paths)} images where float32 finds "
                f"{sum(map(len, expected))} objects; {self._first_difference(made)}; give more calibration images, or "
                f"exclude that layer or the head ({self.parts['head']})"
            )
        if is_constant(found) and not is_constant(expected):
            raise UserError(
                f"the INT8 file of {self.checkpoint} gives the same result for {len(paths)} images; "
                f"{self._first_difference(made)}; give other calibration "
                f"images, or exclude the first convolution and the head ({', '.join(self.parts.values())})"
            )

    def _first_difference(self, made: Path) -> str:
        """Return by which layer a file goes wrong, in words."""
        from ghost_yolo.export.any_file import LAYER_TOLERANCES, first_difference

        reference = as_exported(open_checkpoint(self.checkpoint).model)
        return first_difference(
            made, self.runtime, reference, quantizers.to_input(self.images[0]), LAYER_TOLERANCES["int8"]
        )


def export_int8(
    checkpoint: Path,
    images: Sequence[Path],
    out: Path,
    imgsz: int | tuple[int, int],
    runtime: str = "openvino",
    exclude: Sequence[str] = (),
) -> Path:
    """Write one INT8 file of a checkpoint; see `Int8Exporter`, which also raises the errors."""
    with Int8Exporter(checkpoint, images, imgsz, runtime) as exporter:
        return exporter.write(out, exclude)


def find(file: Path, paths: Sequence[Path], size: tuple[int, int], task: str) -> list[NDArray[np.float32]]:
    """Return what an exported file finds in each image by the host's prediction: (n, ...), or (1, nc) of a classifier."""
    with quiet():
        yolo = YOLO(str(file), task=task)
        results = [yolo.predict(str(path), imgsz=list(size), device="cpu", verbose=False)[0] for path in paths]
    parts = [next(part for part in (r.probs, r.obb, r.boxes) if part is not None).data for r in results]
    return [np.atleast_2d(part.cpu().numpy()) for part in parts]


def is_constant(found: Sequence[NDArray[np.float32]]) -> bool:
    """Return whether several images gave the very same result, and not only nothing."""
    return len(found) > 1 and any(map(len, found)) and all(np.array_equal(part, found[0]) for part in found)

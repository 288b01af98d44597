"""Calibration images: unlabelled images, kept in memory at the model's size and augmented for every batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from ghost_yolo.data.images import centre_crop, preprocess, read_image, require_readable, to_float
from ghost_yolo.errors import UserError
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.system import GIB

PADDING_VALUE = 114  # of the host's letterbox


class CalibrationImages:
    """Images of the model's size in memory as uint8, about 0.3 MB each at 320 x 320.

    Attributes:
        images: Tensor (n, 3, imgsz, imgsz), uint8, RGB.
        skipped: Files that could not be read.
        device: Device of the batches.
    """

    def __init__(
        self, paths: Sequence[Path], imgsz: int, device: torch.device | str = "cpu", *, crop: bool = False
    ) -> None:
        """Read the images under a progress bar.

        Args:
            paths: Image files.
            imgsz: Image side in pixels.
            device: Device of the batches; the images themselves stay on the CPU.
            crop: Take the square in the middle of each, as classifiers get it, and not the whole image with a margin.

        Raises:
            UserError: If no image can be read, or they do not fit into memory.
        """
        from torchvision.transforms import v2  # slow to import, and a wrong argument is told before

        needed, free = 2 * 3 * imgsz**2 * len(paths), psutil.virtual_memory().available  # a list, then a stack of it
        if needed > free:
            raise UserError(
                f"{len(paths)} images at imgsz={imgsz} need {needed / GIB:.1f} GiB of memory and {free / GIB:.1f} GiB are "
                "free; give fewer images or a smaller --imgsz"
            )
        self.skipped, images = [], []
        for path in progress(paths, "Reading images"):
            try:
                image = read_image(path, truncated_is_error=True)
            except UserError:
                self.skipped.append(path)
                continue
            size = (imgsz, imgsz)
            images.append(preprocess(centre_crop(image, size) if crop else image, size))
        require_readable(paths, self.skipped)
        self.images, self.device = torch.stack(images), device
        self._augment = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomAffine(
                    0, (0.1, 0.1), (0.7, 1.4), interpolation=v2.InterpolationMode.BILINEAR, fill=PADDING_VALUE
                ),
                v2.ColorJitter(brightness=0.3, saturation=0.4),
            ]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def batch(self, indices: Sequence[int], *, augment: bool = True) -> torch.Tensor:
        """Return images (b, 3, imgsz, imgsz), float32 in 0..1.

        Args:
            indices: Image indices; an index beyond the last image wraps around.
            augment: Apply random flips, translation, scale and colour, drawn from torch's global generator.
        """
        images = [self.images[i % len(self)] for i in indices]
        if augment:
            images = [self._augment(image) for image in images]
        return to_float(torch.stack(images).to(self.device))

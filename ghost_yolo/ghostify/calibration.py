"""Unlabelled photographs as batches: read once, shrunk to the size of the model, varied anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from torchvision.transforms import v2

from ghost_yolo.data.images import preprocess, read_image, to_float
from ghost_yolo.errors import UserError
from ghost_yolo.utils.console import progress
from ghost_yolo.utils.system import GIB

GREY = 114  # what the host pads with


class Pictures:
    """Photographs as uint8 squares in memory, about 0.3 MB each at 320.

    Attributes:
        images: Tensor (n, 3, imgsz, imgsz), uint8, RGB.
        skipped: Files that could not be read.
        device: Where batches are wanted.
    """

    def __init__(self, paths: Sequence[Path], imgsz: int, device: torch.device | str = "cpu") -> None:
        """Read the photographs under a progress bar.

        Args:
            paths: Image files.
            imgsz: Side of the squares in pixels.
            device: Where batches are wanted; the photographs themselves stay on the CPU.

        Raises:
            UserError: If none can be read, or the memory would not hold them.
        """
        needed, free = 3 * imgsz**2 * len(paths), psutil.virtual_memory().available
        if 2 * needed > free:  # the list and the stack that is made of it
            raise UserError(
                f"{len(paths)} images at {imgsz} need {2 * needed / GIB:.1f} GiB of memory and {free / GIB:.1f} are free; "
                "give fewer images or a smaller --imgsz."
            )
        self.skipped, images = [], []
        for path in progress(paths, "Reading photographs"):
            try:
                photo = read_image(path, truncated_is_error=True)
            except UserError:
                self.skipped.append(path)
                continue
            images.append(preprocess(photo, (imgsz, imgsz)))
        if not images:
            raise UserError(f"None of the {len(paths)} images can be read, {paths[0]} for one; give JPEG or PNG files.")
        self.images, self.device = torch.stack(images), device
        self._vary = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomAffine(0, (0.1, 0.1), (0.7, 1.4), interpolation=v2.InterpolationMode.BILINEAR, fill=GREY),
                v2.ColorJitter(brightness=0.3, saturation=0.4),
            ]
        )

    def __len__(self) -> int:
        """Return how many photographs there are."""
        return len(self.images)

    def batch(self, indices: Sequence[int], *, varied: bool = True) -> torch.Tensor:
        """Return photographs (b, 3, imgsz, imgsz), float32 in 0..1; varied by flip, shift, scale and colour.

        The variations come from torch's global generator, so a seed repeats them. Indices beyond the last photograph
        start again with the first.
        """
        images = [self.images[i % len(self)] for i in indices]
        if varied:
            images = [self._vary(image) for image in images]
        return to_float(torch.stack(images).to(self.device))

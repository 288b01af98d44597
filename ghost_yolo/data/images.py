"""Images as models take them: found, read, resized."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import IMG_FORMATS

from ghost_yolo.errors import UserError


def find_images(given: Sequence[Path]) -> list[Path]:
    """Return the image files named, those of a folder sorted by name.

    Raises:
        UserError: If nothing is given, a path does not exist, or a folder holds no image.
    """
    if not given:
        raise UserError("No image is given; name a file or a folder, and repeat the option for more.")
    images: list[Path] = []
    for path in given:
        found = sorted(p for p in path.iterdir() if p.suffix[1:].lower() in IMG_FORMATS) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            wanted = "holds no image" if path.is_dir() else "does not exist"
            below = " itself (folders in it are not searched)" if path.is_dir() else ""
            raise UserError(f"{path} {wanted}{below}; give a file or a folder of {', '.join(sorted(IMG_FORMATS))}.")
        images += found
    return images


def read_image(path: Path, truncated_is_error: bool = False) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) in BGR.

    Raises:
        UserError: If it cannot be read, or with `truncated_is_error` if it ends too early, for which it is decoded twice.
    """
    image = cv2.imread(str(path))
    if image is None or (truncated_is_error and is_truncated(path)):
        raise UserError(f"{path} cannot be read as an image; give a JPEG or PNG file.")
    return image  # type: ignore[return-value]


def is_truncated(path: Path) -> bool:
    """Return whether an image ends too early; OpenCV silently fills the rest with grey."""
    try:
        with Image.open(path) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):  # a kind or a size that is OpenCV's to judge
        return False
    except (OSError, SyntaxError):
        return True
    return False


def preprocess(image: NDArray[np.uint8], size: tuple[int, int], *, stretch: bool = False) -> torch.Tensor:
    """Letterbox an image as the host does, and return it as models take it.

    Args:
        image: (h, w, 3) in BGR.
        size: Height and width in pixels of what is returned.
        stretch: Fill the size without keeping the aspect ratio, and so without grey bars.

    Returns:
        Tensor (3, h, w), uint8, RGB; see `to_float`.
    """
    resized = LetterBox(size, auto=False, scale_fill=stretch)(image=image)[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images as float32 in 0..1."""
    return images.float() / 255


def resize_to_stride(image: NDArray[np.uint8], imgsz: int, stride: int) -> torch.Tensor:
    """Return (1, 3, h, w) in RGB and 0..1, each side at the nearest multiple of the stride, two strides at least.

    Without the letterbox's grey bars: their edges stand out in every map and would make all of them alike.
    """
    height, width = image.shape[:2]
    scale = imgsz / max(height, width) / stride
    size = (max(round(height * scale), 2) * stride, max(round(width * scale), 2) * stride)
    return to_float(preprocess(image, size, stretch=True))[None]

"""Photographs as models take them: found, read, resized."""

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


def find_photos(given: Sequence[Path]) -> list[Path]:
    """Return the images that are named, those of a folder sorted by name.

    Raises:
        UserError: If nothing is given, a path does not exist, or a folder holds no image.
    """
    if not given:
        raise UserError("No image is given; name a file or a folder, and repeat the option for more.")
    photos: list[Path] = []
    for path in given:
        found = sorted(p for p in path.iterdir() if p.suffix[1:].lower() in IMG_FORMATS) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            wanted = "holds no image" if path.is_dir() else "does not exist"
            below = " itself (folders in it are not searched)" if path.is_dir() else ""
            raise UserError(f"{path} {wanted}{below}; give a file or a folder of {', '.join(sorted(IMG_FORMATS))}.")
        photos += found
    return photos


def read_photo(path: Path, whole: bool = False) -> NDArray[np.uint8]:
    """Return a photograph (h, w, 3) in BGR.

    Raises:
        UserError: If it cannot be read, or with `whole` if it ends too early, for which it is decoded twice.
    """
    photo = cv2.imread(str(path))
    if photo is None or (whole and is_cut_off(path)):
        raise UserError(f"{path} cannot be read as an image; give another, a JPEG or PNG say.")
    return photo  # type: ignore[return-value]


def is_cut_off(path: Path) -> bool:
    """Return whether an image ends too early; OpenCV fills the rest with grey without a word."""
    try:
        with Image.open(path) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):  # a kind or a size that is OpenCV's to judge
        return False
    except (OSError, SyntaxError):
        return True
    return False


def fitted(photo: NDArray[np.uint8], imgsz: int, stride: int) -> torch.Tensor:
    """Return (1, 3, h, w) in RGB and 0..1, each side at the nearest multiple of the stride, two strides at least.

    Without the letterbox's grey bars: their edges stand out in every map and would make all of them alike.
    """
    height, width = photo.shape[:2]
    scale = imgsz / max(height, width) / stride
    size = (max(round(height * scale), 2) * stride, max(round(width * scale), 2) * stride)
    resized = LetterBox(size, auto=False, scale_fill=True)(image=photo)[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255))

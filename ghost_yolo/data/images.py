"""Images as models take them: found, read, resized."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
import ultralytics  # noqa: F401 (whole, before any part of it: another thread may be importing it just now)
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from ultralytics.data.augment import LetterBox
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import patches

from ghost_yolo.errors import UserError
from ghost_yolo.utils.console import progress

MIN_HELD_OUT = 8  # images; with fewer an interval says nothing
MAX_PIXELS = 100_000_000  # about 300 MB decoded; a header may announce any number


def find_images(given: Sequence[Path]) -> list[Path]:
    """Return the image files named, each once, those of a folder sorted by name; whatever else is in a folder is left out.

    Raises:
        UserError: If nothing is given, a path is no file, or a folder holds no image.
    """
    if not given:
        raise UserError("No image is given; name a file or a folder, and repeat the option for more.")
    images = dict[Path, Path]()
    for path in given:
        entries = sorted(p for p in path.iterdir() if p.suffix[1:].lower() in IMG_FORMATS) if path.is_dir() else [path]
        found = [entry for entry in entries if entry.is_file()]
        if not found:
            missing = "is not a regular file" if path.exists() else "does not exist"
            wrong = "holds no image itself (folders in it are not searched)" if path.is_dir() else missing
            raise UserError(f"{path} {wrong}; give a file or a folder of {', '.join(sorted(IMG_FORMATS))}.")
        for image in found:
            images.setdefault(image.resolve(), image)
    return [*images.values()]


def split_readable(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the images that can be read completely, and the files that cannot.

    Raises:
        UserError: If none can be read.
    """
    skipped = []
    for path in progress(paths, "Checking images"):
        try:
            read_image(path, truncated_is_error=True)
        except UserError:
            skipped.append(path)
    require_readable(paths, skipped)
    unreadable = {*skipped}
    return [path for path in paths if path not in unreadable], skipped


def hold_out(paths: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Divide images into those for fitting and those held out, evenly spaced; none are held out where they would be few.

    Args:
        paths: Images.
        share: Share to hold out.
    """
    count = round(share * len(paths))
    if count < MIN_HELD_OUT or len(paths) - count < MIN_HELD_OUT:
        return list(paths), []
    held = {round((index + 0.5) * len(paths) / count) for index in range(count)}
    return [p for i, p in enumerate(paths) if i not in held], [p for i, p in enumerate(paths) if i in held]


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return at most so many images, evenly spaced: the first ones of a sorted folder may all show one class."""
    count = min(count, len(paths))
    return [paths[number * len(paths) // count] for number in range(count)]


def require_readable(paths: Sequence[Path], skipped: Sequence[Path]) -> None:
    """Raise an error where all images were skipped."""
    if len(skipped) == len(paths):
        raise UserError(f"None of the {len(paths)} images can be read, for example {paths[0]}; give JPEG or PNG files")


def skipped_text(count: int) -> str:
    """Return how many files were skipped, to follow the number of images; "" for none."""
    return f" ({count} unreadable {'file' if count == 1 else 'files'} skipped)" if count else ""


def centre_crop(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the largest part around the centre that has the aspect ratio of a size, as classifiers take it."""
    (height, width), (rows, columns) = image.shape[:2], size
    scale = min(height / rows, width / columns)
    rows, columns = round(rows * scale), round(columns * scale)
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def read_image(path: Path, truncated_is_error: bool = False) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) in BGR.

    Raises:
        UserError: If it cannot be read or is larger than MAX_PIXELS, or with `truncated_is_error` if it ends too early,
            for which it is decoded twice.
    """
    if not path.is_file():  # a pipe would wait for ever
        raise UserError(f"{path} is not a regular file; give a JPEG or PNG file.")
    if _pixels(path) > MAX_PIXELS:
        raise UserError(f"{path} has more than {MAX_PIXELS / 1e6:.0f} million pixels; shrink it, or cut it into parts.")
    try:
        image = cv2.imread(str(path))
    except Exception as error:  # decoders, and what the host falls back to, fail in many ways
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        raise UserError(f"{path} cannot be read as an image ({reason}); give a JPEG or PNG file.") from error
    if image is None or image.dtype != np.uint8 or (truncated_is_error and is_truncated(path)):
        raise UserError(f"{path} cannot be read as an image; give a JPEG or PNG file.")
    return image  # type: ignore[return-value]


def open_with_pillow(path: Path) -> Image.Image:
    """Open an image by Pillow's own function.

    From 8.4 on ultralytics/utils/patches.py replaces `Image.open` by a function that runs pip for a format that Pillow does
    not know, and keeps Pillow's as `_image_open`.
    """
    opener = getattr(patches, "_image_open", Image.open)
    return cast("Image.Image", opener(path))


def _pixels(path: Path) -> int:
    """Return how many pixels an image's header announces, 0 for a format that only OpenCV knows."""
    try:
        with open_with_pillow(path) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        return MAX_PIXELS + 1
    except Exception:  # noqa: BLE001 (a header that Pillow does not understand is left to OpenCV)
        return 0


def is_truncated(path: Path) -> bool:
    """Return whether an image ends too early; OpenCV silently fills the rest with grey."""
    try:
        with open_with_pillow(path) as image:
            image.load()
    except UnidentifiedImageError:  # a format that only OpenCV knows
        return False
    except (OSError, SyntaxError, ValueError, EOFError):
        return True
    except Exception:  # noqa: BLE001 (what else a decoder raises does not say that the file is cut)
        return False
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

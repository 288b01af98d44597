"""A generated look-alike of blood-smear photographs: red cells, white cells and platelets on a stained slide.

Everything is integer arithmetic on a generator whose stream NumPy has frozen (`RandomState`), and images are PNG: the
same pixels and the same label bytes on every machine. Sizes and counts follow BCCD's, at half its resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ghost_yolo.utils.console import progress
from ghost_yolo.utils.files import atomic_folder

WIDTH, HEIGHT = 320, 240
SPLITS = {"train": 160, "val": 40}
PLATELET, RBC, WBC = 0, 1, 2
# Rotations with integer cosine, sine and hypotenuse: Pythagorean triples.
ROTATIONS = ((1, 0, 1), (12, 5, 13), (4, 3, 5), (3, 4, 5), (5, 12, 13), (0, 1, 1), (-5, 12, 13), (-4, 3, 5))

Image = NDArray[np.int32]  # (HEIGHT, WIDTH, 3) in BGR
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Ellipse:
    """An ellipse of half axes a and b, turned by one of ROTATIONS."""

    x: int
    y: int
    a: int
    b: int
    turn: int = 0

    def level(self) -> NDArray[np.int64]:
        """Return the squared relative radius of every pixel of the image, 1024 on the rim."""
        cos, sin, hypot = ROTATIONS[self.turn]
        rows = np.arange(-self.y, HEIGHT - self.y, dtype=np.int64)[
            :, None
        ]  # the default integer has 32 bits on some hosts
        cols = np.arange(-self.x, WIDTH - self.x, dtype=np.int64)[None]
        along, across = cols * cos + rows * sin, rows * cos - cols * sin
        scale = (self.a * self.b * hypot) ** 2
        return (1024 * ((along * self.b) ** 2 + (across * self.a) ** 2)) // scale


def paint(image: Image, where: NDArray[np.bool_], colour: Colour, opacity: int | NDArray[np.int64]) -> None:
    """Blend a colour into the chosen pixels, in place; opacity in 0..256, one or one a pixel."""
    share = np.broadcast_to(np.asarray(opacity), where.shape)[where][:, None]
    image[where] = (image[where] * (256 - share) + np.array(colour) * share) >> 8


def between(rng: np.random.RandomState, low: int, high: int) -> int:
    """Return an integer in low..high, both included."""
    return int(rng.randint(low, high + 1))


def tint(rng: np.random.RandomState, colour: Colour, spread: int) -> Colour:
    """Return the colour, each channel moved by up to `spread`."""
    blue, green, red = (c + between(rng, -spread, spread) for c in colour)
    return blue, green, red


def red_cell(rng: np.random.RandomState, image: Image, x: int, y: int) -> NDArray[np.bool_]:
    """Draw a red cell: a disc with a paler middle and a darker rim, sometimes faint."""
    radius = between(rng, 21, 30)
    level = Ellipse(x, y, radius, radius - between(rng, 0, 7), between(rng, 0, 7)).level()
    inside = level <= 1024
    strength = between(rng, 90, 215)
    opacity = strength * (640 + np.minimum(level, 900) * 384 // 900) // 1024 if between(rng, 0, 3) else strength
    paint(image, inside, tint(rng, (150, 140, 196), 14), opacity)
    paint(image, inside & (level > 900), (118, 104, 158), strength // 3)
    return inside


def white_cell(rng: np.random.RandomState, image: Image, x: int, y: int) -> NDArray[np.bool_]:
    """Draw a white cell: a pale lilac disc with two to four dark lobes of a nucleus."""
    radius = between(rng, 38, 54)
    inside = Ellipse(x, y, radius, radius - between(rng, 0, 8), between(rng, 0, 7)).level() <= 1024
    paint(image, inside, tint(rng, (205, 176, 188), 10), 200)
    nucleus = tint(rng, (178, 62, 110), 16)
    for _ in range(between(rng, 2, 4)):
        a = between(rng, radius // 4, radius // 2)
        dx, dy = between(rng, -radius // 3, radius // 3), between(rng, -radius // 3, radius // 3)
        lobe = Ellipse(x + dx, y + dy, a, max(6, a - between(rng, 0, 8)), between(rng, 0, 7)).level() <= 1024
        paint(image, lobe & inside, nucleus, 225)
    return inside


def platelet(rng: np.random.RandomState, image: Image, x: int, y: int) -> NDArray[np.bool_]:
    """Draw a platelet: a small violet grain with a soft rim."""
    radius = between(rng, 7, 13)
    level = Ellipse(x, y, radius, max(5, radius - between(rng, 0, 4)), between(rng, 0, 7)).level()
    inside = level <= 1024
    paint(image, inside, tint(rng, (172, 112, 138), 14), 225 - np.minimum(level, 1024) * 110 // 1024)
    return inside


def slide(rng: np.random.RandomState) -> Image:
    """Return an empty slide: a pale ground with uneven light, dust and bubbles that are nobody's label."""
    rows, cols = np.ogrid[:HEIGHT, :WIDTH]
    light = (rows * between(rng, -24, 24)) // HEIGHT + (cols * between(rng, -24, 24)) // WIDTH
    image = np.repeat(light[:, :, None], 3, axis=2) + np.array(tint(rng, (196, 208, 206), 10))
    for _ in range(between(rng, 4, 10)):
        radius = between(rng, 2, 5)
        level = Ellipse(between(rng, 0, WIDTH), between(rng, 0, HEIGHT), radius, radius).level()
        paint(image, (level > 350) & (level <= 1024), (142, 150, 148), 150)
    return image.astype(np.int32)


DRAW = {PLATELET: platelet, RBC: red_cell, WBC: white_cell}


def draw(rng: np.random.RandomState) -> tuple[NDArray[np.uint8], list[str]]:
    """Return one image (HEIGHT, WIDTH, 3) in BGR and its YOLO label lines."""
    image = slide(rng)
    plan = [RBC] * between(rng, 8, 15) + [WBC] * between(rng, 0, 2) + [PLATELET] * between(rng, 0, 4)
    drawn = [(kind, DRAW[kind](rng, image, between(rng, 0, WIDTH - 1), between(rng, 0, HEIGHT - 1))) for kind in plan]
    hidden, lines = np.zeros((HEIGHT, WIDTH), bool), []
    for kind, inside in reversed(drawn):  # from the top down: only white cells hide what lies under them
        if 3 * (inside & ~hidden).sum() >= inside.sum():
            lines.append(label(kind, inside))
        if kind == WBC:
            hidden |= inside
    grain = rng.randint(-11, 12, size=(HEIGHT, WIDTH, 3))
    return np.clip(image + grain, 0, 255).astype(np.uint8), lines


def label(kind: int, inside: NDArray[np.bool_]) -> str:
    """Return the YOLO label line of the drawn pixels' bounding box."""
    rows, cols = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
    box = ((left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT, (right - left) / WIDTH, (bottom - top) / HEIGHT)
    return " ".join([str(kind), *(f"{value:.6f}" for value in box)])


def prepare(root: str | Path, seed: int = 0) -> None:
    """Write the data set in YOLO layout: images/ and labels/, each with train/ and val/.

    Args:
        root: Folder to write, completely or not at all.
        seed: Random seed of the first image; each image has its own.
    """
    jobs = [(split, index) for split, count in SPLITS.items() for index in range(count)]
    with atomic_folder(Path(root), accept_equal=True) as work:
        for kind in ("images", "labels"):
            for split in SPLITS:
                (work / kind / split).mkdir(parents=True)
        for number, (split, index) in enumerate(progress(jobs, f"Drawing {Path(root).name}")):
            image, lines = draw(np.random.RandomState(seed + number))
            file = work / "images" / split / f"{index:04d}.png"
            if not cv2.imwrite(str(file), image):  # it returns False where others raise
                raise OSError(f"{file} could not be written: is the disk full?")
            (work / "labels" / split / f"{index:04d}.txt").write_bytes(("\n".join(lines) + "\n").encode())

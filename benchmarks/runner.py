"""Time the bundle's runner around a network, letterbox and NMS, beside Ultralytics' own prediction, interleaved.

    taskset -c 0 python benchmarks/runner.py

A 640 x 480 photograph at 640 pixels, and a raw output of 80 classes in which 120 boxes are sure enough.
"""

from __future__ import annotations

import time
from statistics import median

import cv2
import numpy as np
import torch
import torchvision  # noqa: F401 (Ultralytics takes its NMS where it is imported, as `predict` does)
from ultralytics.data.augment import LetterBox
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import scale_boxes

from ghost_yolo.bundle import run as runner

ROUNDS, SIZE, CLASSES, ANCHORS, SURE = 200, (640, 640), 80, 8400, 120
KNOWN = runner.Description("detect", [str(i) for i in range(CLASSES)], SIZE, 3, (), 0.25, 0.7, 300, [])


def raw_output(rng):
    """Return a detector's output (1, 84, 8400): clusters of sure boxes among unsure ones."""
    table = np.concatenate([rng.uniform(50, 590, (4, ANCHORS)), rng.uniform(0, 0.1, (CLASSES, ANCHORS))])
    table[2:4] = rng.uniform(20, 120, (2, ANCHORS))
    table[:2, :SURE] = rng.uniform(100, 540, (2, SURE // 6)).repeat(6, 1) + rng.normal(0, 3, (2, SURE))
    table[4 + np.arange(SURE) // 6 % CLASSES, np.arange(SURE)] = rng.uniform(0.3, 0.95, SURE)
    return table[None].astype(np.float32)


def main():
    """Print medians in milliseconds."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    photo, output = rng.integers(0, 255, (480, 640, 3), dtype=np.uint8), raw_output(rng)
    letterbox, hosts, geometry = (
        runner.Letterbox(SIZE),
        LetterBox(SIZE, auto=False),
        runner.Geometry.fit((480, 640), SIZE),
    )

    def host_letterbox():
        image = torch.from_numpy(hosts(image=photo))[None].permute(0, 3, 1, 2).contiguous().flip(1)
        return image.float().div_(255).numpy()

    def own_nms():
        rows, _ = runner.decode([output], KNOWN)
        return geometry.to_photo(rows[:, :4].reshape(-1, 2, 2)).reshape(-1, 4)

    def host_nms():
        rows = non_max_suppression(torch.from_numpy(output), 0.25, 0.7)[0]
        return scale_boxes(SIZE, rows[:, :4], photo.shape).numpy()

    parts = {
        "letterbox": (lambda: letterbox(photo)[0], host_letterbox),
        "NMS": (own_nms, host_nms),
    }
    for name, pair in parts.items():
        assert np.allclose(pair[0](), pair[1](), atol=1e-3)
        times = [[], []]
        for _ in range(ROUNDS):
            for one, function in zip(times, pair, strict=True):
                start = time.perf_counter()
                function()
                one.append((time.perf_counter() - start) * 1e3)
        own, host = map(median, times)
        print(f"{name:10} runner {own:.2f} ms, Ultralytics {host:.2f} ms, {len(pair[0]())} rows")


if __name__ == "__main__":
    main()

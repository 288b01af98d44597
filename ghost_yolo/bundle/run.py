"""Find objects with the model beside this file, without torch: photographs, folders, videos and cameras.

    python run.py street.jpg                    what is found, one line for each picture
    python run.py street.jpg --json             a list of boxes with name, score and pixel corners
    python run.py photos/ film.mp4 --save out/  drawn, in a new folder
    python run.py 0                             the first camera, until Ctrl-C

It needs NumPy, OpenCV and one of ONNX Runtime, OpenVINO and NCNN (requirements.txt). From Python:

    detector = Detector(Path("bundle"))
    for found in detector(cv2.imread("street.jpg")):
        print(found["name"], found["score"], found["box"])

Letterbox, thresholds and non-maximum suppression (NMS) are those of Ultralytics' own prediction with the same file. What this
file must know of the model stands in model.yaml, which is written in the part of YAML that JSON has too.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (this file is copied to other machines)
    sys.exit("Python 3.10 or newer is needed")

import argparse
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Image = NDArray[np.uint8]
Found = dict[str, Any]  # name, class, score, box, and what the task adds: polygons, keypoints, corners
Network = Callable[[Array], list[Array]]
RUNTIMES = {  # name: end of a model's name, and module
    "onnx": (".onnx", "onnxruntime"),
    "openvino": ("_openvino_model", "openvino"),
    "ncnn": ("_ncnn_model", "ncnn"),
}
IMAGES = {".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEOS = {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
HINTS = ("f32", "bf16", "f16", "default")  # precisions of OpenVINO; the last is what it chooses on this CPU
MAX_THREADS = 1024  # a hundred thousand take minutes to start
GREY = 114  # of the letterbox's bars
CLASS_OFFSET = 7680  # pixels between the boxes of two classes in NMS, so that only boxes of one class compete
MAX_CANDIDATES = 30000  # boxes that enter NMS
BLOCK = 256  # rotated boxes compared with all others at a time, which bounds the memory
TOP = 5  # classes that a classifier names
COLOURS = [(56, 56, 255), (49, 210, 207), (10, 249, 72), (255, 194, 0), (236, 24, 0), (133, 0, 82), (199, 55, 255)]


class RunError(Exception):
    """What the user can put right; printed as one line."""


# ---- The model ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Description:
    """What model.yaml says: `size` is (height, width), `keypoints` their number and the numbers of each, empty for none."""

    task: str
    names: list[str]
    size: tuple[int, int]
    channels: int
    keypoints: tuple[int, ...]
    conf: float
    iou: float
    max_det: int
    files: list[str]


def read_description(folder: Path) -> Description:
    """Read model.yaml in a folder."""
    file = folder / "model.yaml"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        names = [name for _, name in sorted(found["names"].items(), key=lambda item: int(item[0]))]
        rest = [found[name] for name in ("conf", "iou", "max_det", "files")]
        points, size = tuple(found.get("kpt_shape") or ()), tuple(found["imgsz"])
        return Description(found["task"], names, size, found["channels"], points, *rest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{file} is not a model.yaml of `ghost-yolo bundle`: {error!r}") from error


def check_sums(folder: Path, checked: str) -> None:
    """Refuse what checksums.txt does not list, or lists otherwise; without that file nothing is checked."""
    sums = folder / "checksums.txt"
    if not sums.is_file():
        return
    lines = [line.partition("  ") for line in sums.read_text(encoding="utf-8").splitlines()]
    listed = [(digest, name) for digest, _, name in lines if f"{name}/".startswith(f"{checked}/")]
    if not listed:
        raise RunError(f"{sums} does not list {checked}: name a model of the bundle, or copy the bundle again, whole")
    for digest, name in listed:
        if not (folder / name).is_file():
            raise RunError(f"{folder / name} is missing: copy the bundle again, whole")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise RunError(f"{folder / name} is not the file that checksums.txt lists: copy the bundle again")


def choose_file(folder: Path, files: Sequence[str]) -> str:
    """Return the first model whose runtime is installed."""
    for name in files:
        if find_spec(module_of(name)):
            return name
    needed = sorted({module_of(name) for name in files})
    raise RunError(f"no runtime for the models in {folder} is installed: pip install {' or '.join(needed)}")


def runtime_of(name: str) -> str:
    """Return the key in RUNTIMES of what runs a model file or folder."""
    found = [runtime for runtime, (suffix, _) in RUNTIMES.items() if name.rstrip("/").endswith(suffix)]
    if not found:
        known = ", ".join(suffix for suffix, _ in RUNTIMES.values())
        raise RunError(f"{name} is no model for this runner: its name must end in {known}")
    return found[0]


def module_of(name: str) -> str:
    """Return the module that runs a model file or folder."""
    return RUNTIMES[runtime_of(name)][1]


def open_network(file: Path, threads: int = 0, hint: str = "f32") -> Network:
    """Load a model file.

    Args:
        file: An ONNX file, or an OpenVINO or NCNN folder.
        threads: CPU threads; 0 leaves their number to the runtime.
        hint: OpenVINO's inference precision: f32, bf16, f16, or `default` for what it chooses on this CPU.
    """
    module = module_of(file.name)
    if not file.exists():
        raise RunError(f"{file} does not exist")
    if not find_spec(module):
        raise RunError(f"{file} needs {module}, which is not installed: pip install {module}")
    try:
        open_file = {"onnx": _open_onnx, "openvino": _open_openvino, "ncnn": _open_ncnn}[runtime_of(file.name)]
        return open_file(file, threads, hint)
    except RunError:
        raise
    except Exception as error:  # runtimes raise classes of their own
        raise RunError(f"{file} cannot be loaded by {module}: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return the line of a runtime's error that says what is wrong: OpenVINO's begin with places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    return (told or lines or [type(error).__name__])[0]


def _open_onnx(file: Path, threads: int, _: str) -> Network:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at the import; without it, it reports to Microsoft
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: list(session.run(None, {name: image}))


def _open_openvino(file: Path, threads: int, hint: str) -> Network:
    import openvino

    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    settings |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    settings |= {"INFERENCE_PRECISION_HINT": hint} if hint != "default" else {}
    request = openvino.Core().compile_model(str(next(file.glob("*.xml"))), "CPU", settings).create_infer_request()
    return lambda image: list(request.infer({0: image}).values())


def _open_ncnn(file: Path, threads: int, _: str) -> Network:
    import ncnn

    net, param = ncnn.Net(), next(file.glob("*.param"))
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.num_threads = threads or net.opt.num_threads
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise RunError(f"{param} is not a model that NCNN {ncnn.__version__} can load")
    first, outputs = net.input_names()[0], sorted(net.output_names())

    def run(image: Array) -> list[Array]:
        with net.create_extractor() as extractor:
            extractor.input(first, ncnn.Mat(image[0]))
            return [np.array(extractor.extract(name)[1])[None] for name in outputs]

    return run


# ---- From a photograph to the network's image and back --------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """How a photograph lies in the network's image; all sizes are (height, width) in pixels."""

    photo: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int

    @classmethod
    def fit(cls, photo: tuple[int, int], size: tuple[int, int]) -> Geometry:
        """Return the place of a photograph in an image of some size: as large as fits, in the middle."""
        gain = min(size[0] / photo[0], size[1] / photo[1])
        height, width = (max(round(side * gain), 1) for side in photo)
        return cls(photo, (height, width), round((size[0] - height) / 2 - 0.1), round((size[1] - width) / 2 - 0.1))

    @property
    def gain(self) -> Array:
        """Pixels of the network's image for one of the photograph, in x and y."""
        return np.array([self.resized[1] / self.photo[1], self.resized[0] / self.photo[0]], np.float32)

    def to_photo_rotated(self, rows: Array) -> Array:
        """Return rotated boxes (n, 5), the angle in the rows' last column, in pixels of the photograph."""
        centre = (rows[:, :2] - np.array([self.left, self.top], np.float32)) / self.gain
        return np.concatenate([centre, rows[:, 2:4] / self.gain, rows[:, -1:]], 1)

    def to_photo(self, points: Array) -> Array:
        """Return points (..., 2), x and y, in pixels of the photograph and inside it."""
        height, width = self.photo
        return np.clip(
            (points - np.array([self.left, self.top], np.float32)) / self.gain, 0, np.array([width, height], np.float32)
        )


class Letterbox:
    """Turns photographs into the network's image (1, c, h, w), RGB in 0..1; the array is filled anew by each."""

    def __init__(self, size: tuple[int, int], channels: int = 3) -> None:
        """Prepare the image's bars."""
        self.size = size
        self.blob = np.full((1, channels, *size), GREY, np.float32) / np.float32(255)
        self.geometry = Geometry(size, size, 0, 0)

    def __call__(self, photo: Image) -> tuple[Array, Geometry]:
        """Return the image, and how the photograph (h, w) or (h, w, 3) in BGR lies in it."""
        if self.blob.shape[1] == 1 and photo.ndim == 3:
            photo = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)  # type: ignore[assignment]
        geometry = Geometry.fit(photo.shape[:2], self.size)
        if geometry != self.geometry:
            self.blob[:] = np.float32(GREY) / np.float32(255)
            self.geometry = geometry
        height, width = geometry.resized
        if photo.shape[:2] != geometry.resized:
            photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        place = self.blob[0, :, geometry.top : geometry.top + height, geometry.left : geometry.left + width]
        for target, plane in zip(place[::-1], cv2.split(photo), strict=True):
            np.divide(plane, np.float32(255), out=target)
        return self.blob, geometry


def centre_crop(photo: Image, size: tuple[int, int]) -> Array:
    """Return a photograph as classifiers take it: (1, 3, h, w), the shorter side resized, the middle cut out."""
    (height, width), (rows, columns) = photo.shape[:2], size
    if rows != columns:
        height, width = size
    elif height <= width:
        height, width = rows, int(rows * width / height)
    else:
        height, width = int(rows * height / width), rows
    resized = _shrink(_shrink(photo, width, axis=1), height, axis=0)
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    middle = resized[top : top + rows, left : left + columns, ::-1].transpose(2, 0, 1)
    return np.ascontiguousarray(middle, np.float32)[None] / np.float32(255)


def _shrink(image: Image, length: int, axis: int) -> Image:
    """Resize one axis as Pillow's bilinear filter does, whose triangle widens where an image shrinks, in its integers."""
    given = image.shape[axis]
    if given == length:
        return image
    scale = given / length
    support = max(scale, 1.0)
    centres = (np.arange(length) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(int), 0)
    taps = first + np.arange(int(np.ceil(support)) * 2 + 1)[:, None]
    weights = np.maximum(1 - np.abs((taps - centres + 0.5) / support), 0)
    weights[taps >= np.minimum((centres + support + 0.5).astype(int), given)] = 0
    fixed = (weights / weights.sum(0) * (1 << 22) + 0.5).astype(np.int32)
    total = np.full(np.moveaxis(image, axis, 0)[:1].repeat(length, 0).shape, 1 << 21, np.int32)
    for tap, weight in zip(np.minimum(taps, given - 1), fixed, strict=True):
        total += np.moveaxis(image, axis, 0)[tap] * weight[:, None, None]
    return np.moveaxis(np.clip(total >> 22, 0, 255).astype(np.uint8), 0, axis)


# ---- From the network's outputs to boxes ----------------------------------------------------------------------------


def decode(outputs: Sequence[Array], known: Description) -> tuple[Array, Array | None]:
    """Return the boxes that are found, and the masks' prototypes where the model has masks.

    Returns:
        Rows (n, 6 + extra), the surest first: box, score, class, then coefficients, keypoints or an angle. A box is
        x1, y1, x2, y2, and of rotated boxes x, y, width, height, in pixels of the network's image.
    """
    masks = next((output[0] for output in outputs if output.ndim == 4), None)
    tables = [output[0] for output in outputs if output.ndim == 3]
    extra = {"segment": 0 if masks is None else len(masks), "obb": 1, "pose": int(np.prod(known.keypoints))}
    more = extra.get(known.task, 0)
    if len(tables) != 1 or (known.task == "segment") != (masks is not None):
        raise unknown_outputs(outputs, known)
    table = tables[0]
    if table.shape[1] == 6 + more:  # end to end: the network itself has dropped what overlaps
        return table[table[:, 4] > known.conf][: known.max_det], masks
    if table.shape[0] != 4 + len(known.names) + more:
        raise unknown_outputs(outputs, known)
    rows = candidates(table, len(known.names), known.conf, rotated=known.task == "obb")
    keep = suppress_rotated if known.task == "obb" else suppress
    return rows[keep(rows, known.iou)[: known.max_det]], masks


def unknown_outputs(outputs: Sequence[Array], known: Description) -> RunError:
    """Return the error for outputs of unknown shapes."""
    shapes = ", ".join(str(output.shape) for output in outputs)
    return RunError(
        f"outputs of shape {shapes} are not known for {known.task} with {len(known.names)} classes; "
        "this runner takes those of Ultralytics' YOLOv8, YOLO11 and end-to-end models"
    )


def candidates(table: Array, classes: int, conf: float, *, rotated: bool = False) -> Array:
    """Return the boxes of a raw output (4 + classes + extra, n) that are sure enough, the surest first; see `decode`."""
    table = table[:, table[4 : 4 + classes].max(0) > conf]
    scores = table[4 : 4 + classes]
    best = scores.argmax(0)
    score = scores[best, np.arange(len(best))]
    order = np.argsort(-score, kind="stable")[:MAX_CANDIDATES]
    centre, half = table[:2], table[2:4] / 2
    box = table[:4] if rotated else np.concatenate([centre - half, centre + half])
    return np.concatenate([box, score[None], best[None], table[4 + classes :]]).T[order].astype(np.float32)


def suppress(rows: Array, iou: float) -> NDArray[np.intp]:
    """Return which boxes stay: those that no surer box of their class overlaps by more than `iou`."""
    if not len(rows):
        return np.zeros(0, np.intp)
    boxes = rows[:, :4] + rows[:, 5:6] * CLASS_OFFSET
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)  # OpenCV lets boxes without area overlap all others
    return np.array(cv2.dnn.NMSBoxes(boxes, rows[:, 4], 0.0, iou), np.intp).reshape(-1)  # type: ignore[arg-type]


def suppress_rotated(rows: Array, iou: float) -> NDArray[np.intp]:
    """Return which rotated boxes stay: those that no surer box of their class overlaps by more than a probabilistic `iou`."""
    boxes = np.concatenate([rows[:, :2] + rows[:, 5:6] * CLASS_OFFSET, rows[:, 2:4], rows[:, -1:]], 1)
    dropped = np.zeros(len(rows), bool)
    for start in range(0, len(rows), BLOCK):
        over = probabilistic_iou(boxes[start : start + BLOCK], boxes[start:]) > iou
        dropped[start:] |= np.triu(over, 1).any(0)
    return np.flatnonzero(~dropped)


def probabilistic_iou(first: Array, second: Array, eps: float = 1e-7) -> Array:
    """Return the overlap (n, m) of rotated boxes (x, y, width, height, angle) as normal distributions (arXiv:2106.06072)."""
    (x1, y1, a1, b1, c1), (x2, y2, a2, b2, c2) = _normal(first[:, None]), _normal(second[None])
    a, b, c, x, y = a1 + a2, b1 + b2, c1 + c2, x2 - x1, y1 - y2
    size = a * b - c**2
    distance = (a * y**2 + b * x**2) / (size + eps) * 0.25 + c * x * y / (size + eps) * 0.5
    roots = np.sqrt(np.maximum(a1 * b1 - c1**2, 0) * np.maximum(a2 * b2 - c2**2, 0))
    distance = np.clip(distance + np.log(size / (4 * roots + eps) + eps) * 0.5, eps, 100)
    return 1 - np.sqrt(1 - np.exp(-distance) + eps)


def _normal(boxes: Array) -> tuple[Any, ...]:
    """Return centre and covariance of rotated boxes."""
    x, y, width, height, angle = (boxes[..., index] for index in range(5))
    a, b, cos, sin = width**2 / 12, height**2 / 12, np.cos(angle), np.sin(angle)
    return x, y, a * cos**2 + b * sin**2, a * sin**2 + b * cos**2, (a - b) * cos * sin


def cut_masks(prototypes: Array, rows: Array, size: tuple[int, int]) -> list[Image]:
    """Return the mask (h, w) of each box in the network's image, 0 outside the box."""
    masks = []
    for row, low in zip(rows, np.tensordot(rows[:, 6:], prototypes, 1), strict=True):
        x1, y1, x2, y2 = (max(int(np.ceil(value)), 0) for value in row[:4])
        mask = np.zeros(size, np.uint8)
        high = cv2.resize(low, size[::-1], interpolation=cv2.INTER_LINEAR)
        mask[y1:y2, x1:x2] = high[y1:y2, x1:x2] > 0
        masks.append(mask)
    return masks


def corners_of(rotated: Array) -> Array:
    """Return the corners (n, 4, 2) of rotated boxes (n, 5)."""
    centre, angle = rotated[:, None, :2], rotated[:, 4]
    along = (np.stack([np.cos(angle), np.sin(angle)], 1) * rotated[:, 2:3] / 2)[:, None]
    across = (np.stack([-np.sin(angle), np.cos(angle)], 1) * rotated[:, 3:4] / 2)[:, None]
    return np.concatenate([centre + along + across, centre + along - across, centre - along - across, centre - along + across], 1)  # fmt: skip


class Detector:
    """A model with all that turns a photograph into a list of what is found.

    Attributes:
        known: What model.yaml says.
        file: The model file.
        times: Milliseconds of the last photograph: `letterbox`, `network`, and `nms` with all that follows the network.
    """

    def __init__(self, folder: Path, model: str = "", threads: int = 0, hint: str = "f32", **thresholds: Any) -> None:
        """Load a bundle's model.

        Args:
            folder: The bundle.
            model: Name of the model in it; the first whose runtime is installed if none is given.
            threads: See `open_network`.
            hint: See `open_network`.
            thresholds: `conf` and `iou`, instead of those in model.yaml.
        """
        check_sums(folder, "model.yaml")
        self.known = replace(read_description(folder), **thresholds)
        if self.known.channels not in (1, 3):
            raise RunError(
                f"{folder} has a model for images of {self.known.channels} channels; this runner reads 1 or 3"
            )
        name = model.rstrip("/") or choose_file(folder, self.known.files)
        check_sums(folder, name)
        self.file = folder / name
        if threads:
            cv2.setNumThreads(threads)
        self.network = open_network(self.file, threads, hint)
        self.letterbox = Letterbox(self.known.size, self.known.channels)
        self.times: dict[str, float] = {}

    def __call__(self, photo: Image) -> list[Found]:
        """Return what is found in a photograph (h, w, 3) in BGR, the surest first; of a classifier the likeliest classes."""
        clock = [time.perf_counter()]
        classify = self.known.task == "classify"
        image, geometry = (centre_crop(photo, self.known.size), None) if classify else self.letterbox(photo)
        clock.append(time.perf_counter())
        outputs = self.network(image)
        clock.append(time.perf_counter())
        found = self._objects(outputs, geometry) if geometry else self._classes(outputs)
        clock.append(time.perf_counter())
        self.times = {name: 1e3 * (clock[i + 1] - clock[i]) for i, name in enumerate(("letterbox", "network", "nms"))}
        return found

    def _classes(self, outputs: Sequence[Array]) -> list[Found]:
        """Return a classifier's likeliest classes."""
        scores = outputs[0][0]
        if len(outputs) != 1 or scores.shape != (len(self.known.names),):
            raise unknown_outputs(outputs, self.known)
        likely = np.argsort(-scores, kind="stable")[:TOP]
        return self._named(likely, scores[likely])

    def _named(self, classes: Any, scores: Array) -> list[Found]:
        """Return classes with their scores."""
        pairs = zip(classes.astype(int).tolist(), np.round(scores.astype(np.float64), 6).tolist(), strict=True)
        return [{"name": self.known.names[index], "class": index, "score": score} for index, score in pairs]

    def _objects(self, outputs: Sequence[Array], geometry: Geometry) -> list[Found]:
        """Return the objects in outputs, in pixels of the photograph."""
        rows, prototypes = decode(outputs, self.known)
        found, more = self._named(rows[:, 5], rows[:, 4]), {}
        if self.known.task == "obb":
            more["corners"] = corners_of(geometry.to_photo_rotated(rows))
            more["box"] = np.concatenate([more["corners"].min(1), more["corners"].max(1)], 1)
        else:
            more["box"] = geometry.to_photo(rows[:, :4].reshape(-1, 2, 2)).reshape(-1, 4)
        if self.known.keypoints:
            more["keypoints"] = rows[:, 6:].reshape(len(rows), *self.known.keypoints)
            more["keypoints"][..., :2] = geometry.to_photo(more["keypoints"][..., :2])
        for key, values in more.items():
            for one, value in zip(found, numbers(values), strict=True):
                one[key] = value
        if prototypes is not None:
            for one, mask in zip(found, cut_masks(prototypes, rows, self.known.size), strict=True):
                lines = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
                one["polygons"] = [numbers(geometry.to_photo(line[:, 0].astype(np.float32))) for line in lines]
            found = [one for one in found if one["polygons"]]  # as Ultralytics leaves out what has no mask
        return found


def numbers(array: Any) -> list[Any]:
    """Return an array as lists of numbers of three decimals."""
    return np.round(np.asarray(array, np.float64), 3).tolist()


# ---- The command ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A photograph, or a frame of a film; `image` is None where it cannot be read, `frame` counts from 1."""

    name: str
    image: Image | None
    frame: int = 0
    rate: float = 0.0


def list_sources(given: Sequence[str]) -> list[str]:
    """Return the files named, those of folders by name, and numbers of cameras."""
    found: list[str] = []
    for source in given:
        path = Path(source)
        if path.is_dir():
            inside = [str(file) for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGES | VIDEOS]
            if not inside:
                raise RunError(f"{path} holds no photograph and no video")
            found += inside
        elif path.is_file() or source.isdecimal():
            found.append(source)
        else:
            raise RunError(f"{path} does not exist; give photographs, folders, videos or the number of a camera")
    return found


def read_photo(source: str, channels: int) -> Image | None:
    """Return a photograph, turned as its EXIF data say; None if it cannot be read, or is too large for OpenCV."""
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    try:
        content = np.fromfile(source, np.uint8)
        return cv2.imdecode(content, flag) if len(content) else None  # type: ignore[return-value]
    except (OSError, cv2.error):
        return None


def read_pictures(source: str, channels: int) -> Iterator[Picture]:
    """Yield a photograph, or the frames of a video or camera."""
    if not source.isdecimal() and Path(source).suffix.lower() not in VIDEOS:
        yield Picture(source, read_photo(source, channels))
        return
    camera = source.isdecimal()
    film = cv2.VideoCapture(int(source) if camera else source)
    name, frame, rate = f"camera {source}" if camera else source, 0, film.get(cv2.CAP_PROP_FPS) or 25.0
    while film.isOpened():
        there, image = film.read()
        if not there:
            break
        frame += 1
        yield Picture(name, image, frame, rate)  # type: ignore[arg-type]
    film.release()
    if camera and not frame:
        raise RunError(f"{name} cannot be opened, or gives no picture: is it connected, and used by no other program?")
    if camera:
        raise RunError(f"{name} gave no more pictures after {frame}: is it still connected?")
    if not frame:
        yield Picture(name, None)


def draw(image: Image, found: Sequence[Found]) -> Image:
    """Return a copy of a picture with what is found in it."""
    drawn = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image.copy()
    wide = max(round(sum(drawn.shape[:2]) / 600), 1)
    for one in reversed(found):  # the surest last, on top
        colour = COLOURS[one["class"] % len(COLOURS)]
        shapes = one.get("polygons") or ([one["corners"]] if "corners" in one else [])
        cv2.polylines(drawn, [np.round(shape).astype(np.int32) for shape in shapes], True, colour, wide)
        for x, y, *seen in one.get("keypoints", []):
            if not seen or seen[0] > 0.5:
                cv2.circle(drawn, (round(x), round(y)), 2 * wide, colour, -1)
        if "box" in one and "corners" not in one:
            x1, y1, x2, y2 = map(round, one["box"])
            cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, wide)
    for line, one in reversed([*enumerate(found)]):
        x, y, *_ = map(round, one.get("box", (0, (line + 1) * 16 * wide)))
        write_label(drawn, one, x, y, wide)
    return drawn  # type: ignore[return-value]


def write_label(drawn: Any, one: Found, x: int, y: int, wide: int) -> None:
    """Write name and score above a point, or inside where there is no room, on a ground of the class's colour."""
    text, font = f"{one['name']} {one['score']:.2f}", (cv2.FONT_HERSHEY_SIMPLEX, 0.4 * wide)
    width, height = cv2.getTextSize(text, *font, wide)[0][0] + 4 * wide, 14 * wide
    x, y = max(min(x, drawn.shape[1] - width), 0), max(y - height, 0)
    blue, green, red = colour = COLOURS[one["class"] % len(COLOURS)]
    cv2.rectangle(drawn, (x, y), (x + width, y + height), colour, -1)
    ink = (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else (255, 255, 255)
    cv2.putText(drawn, text, (x + 2 * wide, y + 10 * wide), *font, ink, max(wide // 2, 1), cv2.LINE_AA)


class Saver:
    """Writes drawn pictures into a new folder, the frames of a film as one video."""

    def __init__(self, folder: Path) -> None:
        """Refuse a folder that exists; it is made with the first picture, so that a camera that is not there leaves none."""
        if folder.exists():
            raise RunError(f"--save {folder} exists: name a new folder")
        self.folder = folder
        self.films: dict[str, tuple[cv2.VideoWriter, tuple[int, int]]] = {}  # with (width, height)

    def add(self, picture: Picture, drawn: Image) -> None:
        """Write a picture."""
        if picture.frame and picture.name not in self.films:
            file, size = self._new(Path(picture.name).stem + ".mp4"), drawn.shape[1::-1]
            writer = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*"mp4v"), picture.rate, size)  # type: ignore[attr-defined]
            if not writer.isOpened():
                raise RunError(f"--save {file}: OpenCV cannot write this film here")
            self.films[picture.name] = (writer, size)
        if picture.frame:
            writer, size = self.films[picture.name]
            writer.write(drawn if drawn.shape[1::-1] == size else cv2.resize(drawn, size))  # others would be dropped
        else:  # imwrite takes no other letters than ASCII on Windows
            done, data = cv2.imencode(".jpg", drawn)
            if not done:
                raise RunError(f"--save {self.folder}: {picture.name} cannot be written as JPEG")
            data.tofile(self._new(Path(picture.name).stem + ".jpg"))

    def _new(self, name: str) -> str:
        """Return the path of a name that is not taken yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, number = self.folder / name, 1
        while path.exists():
            path, number = self.folder / f"{Path(name).stem}-{number}{path.suffix}", number + 1
        return str(path)

    def close(self) -> None:
        """Finish the videos."""
        for film, _ in self.films.values():
            film.release()


def find_all(options: argparse.Namespace) -> int:
    """Do what the command line says, and return the exit status."""
    sources = list_sources(options.sources)
    given = {name: getattr(options, name) for name in ("conf", "iou") if getattr(options, name) is not None}
    detector = Detector(Path(__file__).resolve().parent, options.model, options.threads, options.hint, **given)
    saver, skipped, count, first = Saver(options.save) if options.save else None, list[str](), 0, True
    try:
        for picture in (picture for source in sources for picture in read_pictures(source, detector.known.channels)):
            count += 1
            if picture.image is None:
                skipped.append(picture.name)
                continue
            found = detector(picture.image)
            if saver:
                saver.add(picture, draw(picture.image, found))
            if options.json:
                place = {"image": picture.name} | ({"frame": picture.frame} if picture.frame else {})
                for one in found:
                    print(("[\n" if first else ",\n") + json.dumps(place | one), end="", flush=bool(picture.frame))
                    first = False
            else:
                print(describe(picture, found, detector.times), flush=True)
    except KeyboardInterrupt:  # the usual end of a camera
        pass
    finally:
        if options.json:
            print("[]" if first else "\n]")
        if saver:
            saver.close()
    if skipped:
        print(
            f"run.py: {len(skipped)} of {count} cannot be read and were skipped: {', '.join(skipped)}", file=sys.stderr
        )
    return int(len(skipped) == count)


def describe(picture: Picture, found: Sequence[Found], times: dict[str, float]) -> str:
    """Return one line on a picture."""
    what = ", ".join(f"{one['name']} {one['score']:.2f}" for one in found) if found and "box" not in found[0] else ""
    what = what or ", ".join(f"{number} {name}" for name, number in Counter(one["name"] for one in found).items())
    frame = f" frame {picture.frame}" if picture.frame else ""
    parts = ", ".join(f"{name} {value:.1f}" for name, value in times.items())
    return f"{picture.name}{frame}: {what or 'nothing'} ({sum(times.values()):.1f} ms: {parts})"


def prepare_streams() -> None:
    """Print what the terminal's encoding has no letters for as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def silence_opencv() -> None:
    """Keep back the lines of OpenCV on a missing camera, and of FFmpeg in it on a broken film.

    OpenCV 4 has the function in one place, 5 in another.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first film is opened
    for place in (cv2, getattr(cv2.utils, "logging", None)):
        set_level = getattr(place, "setLogLevel", None)
        if set_level:
            set_level(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status; errors are one line."""
    prepare_streams()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="photographs, folders, videos, or the number of a camera")
    parser.add_argument("--model", default="", help="a model in this folder, such as model_int8.onnx")
    parser.add_argument("--json", action="store_true", help="print a JSON list of what is found")
    parser.add_argument("--save", type=Path, help="a new folder for drawn pictures")
    parser.add_argument("--conf", type=float, help="least score of a box, instead of model.yaml's")
    parser.add_argument("--iou", type=float, help="overlap above which NMS drops a box, instead of model.yaml's")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: the runtime's own choice")
    parser.add_argument("--hint", choices=HINTS, default="f32", help="OpenVINO's precision; default: its own choice")
    options = parser.parse_args(arguments)
    if not 0 <= options.threads <= MAX_THREADS:
        parser.error(f"--threads {options.threads} must be between 0 and {MAX_THREADS}")
    if not all(0 <= value <= 1 for value in (options.conf or 0, options.iou or 0)):
        parser.error("--conf and --iou must be between 0 and 1")
    silence_opencv()
    try:
        return find_all(options)
    except (RunError, OSError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""Agreement: a score without labels, for which what a trained model finds in images counts as truth."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ghost_yolo.accuracy.counts import RESAMPLES, ClassifiedImages, Score, summarize
from ghost_yolo.accuracy.validate import count, device_of, open_file, shorten
from ghost_yolo.data.images import read_image
from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import open_checkpoint
from ghost_yolo.utils.console import progress, quiet
from ghost_yolo.utils.files import temporary_folder

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIDENCE = 0.25  # of a teacher's box that counts as truth: what `yolo predict` shows
JPEG = (".jpg", ".jpeg")
JPEG_END = b"\xff\xd9"


class AgreementSet:
    """Images with a teacher's predictions as labels, against which any number of models is scored.

    The images are linked into a temporary YOLO data set, the teacher's predictions are written as its labels in the host's
    own format, and the host's own validation scores a model on it. The data set is there inside the `with` statement:

        with AgreementSet(Path("best.pt"), images, imgsz=320) as truth:
            print(truth.score(Path("light.pt")), truth.score(Path("light_int8_openvino_model")))

    For detection and rotated boxes the score is the mAP50-95 of boxes, for segmentation of masks, for pose of keypoints;
    for classification it is the share of images to which both give the same class.

    The teacher itself scores less than 1, since validation lets many unsure boxes compete, and masks become polygons: a
    YOLOv8n trained on BCCD, on its 87 val images at 320 pixels, scores 0.990, 0.992 and 0.993 with 2315, 1684 and 1027 boxes
    at a confidence of 0.1, 0.25 and 0.5. Agreement says how alike two models are, not that one is better than its teacher.

    Attributes:
        images: Number of images.
        boxes: Number of the teacher's boxes; of images for a classifier.
        boxes_by_class: Of the teacher's boxes by name of their class, the rarest first; empty for a classifier. A class counts as
            much as any other if there is one box of it, and not at all if there is none.
        skipped: Images that could not be read.
    """

    def __init__(
        self, teacher: Path, images: Sequence[Path], imgsz: int, conf: float = CONFIDENCE, device: str = "cpu"
    ) -> None:
        """Keep what is to be done; entering the context does it.

        Args:
            teacher: The trained model's checkpoint.
            images: Image files that no model was fitted on.
            imgsz: Image side in pixels; images are letterboxed to squares for teacher and models.
            conf: Least confidence of a teacher's box that counts as truth, over 0 and under 1.
            device: As in `yolo`.

        Raises:
            UserError: If the confidence is out of range, or the teacher does not take images of that side.
        """
        if not 0 < conf < 1:
            raise UserError(f"a confidence of {conf:g} was given for the teacher's boxes; right is one between 0 and 1")
        self.teacher, self.paths, self.imgsz, self.conf, self.device = teacher, list(images), imgsz, conf, device
        opened = open_checkpoint(teacher)
        opened.require_stride(imgsz)
        opened.require_rgb()
        self.task, self.names, self._kpt_shape = opened.task, dict(opened.model.names), opened.kpt_shape
        self.images, self.boxes, self.boxes_by_class, self.skipped = 0, 0, dict[str, int](), list[Path]()
        self._classes: dict[str, list[int]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Write the data set.

        Raises:
            UserError: If no image can be read, or the teacher finds nothing in any of them.
        """
        with ExitStack() as stack:
            self.folder = stack.enter_context(temporary_folder("ghost-yolo-agreement-"))
            self._link_images()
            self._predict_labels()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the data set."""
        self._stack.close()

    @property
    def data(self) -> Path:
        """The data YAML, as `yolo val` takes it."""
        return self.folder / "data.yaml"

    def score(self, model: Path, resamples: int = RESAMPLES) -> Score:
        """Return a model's agreement with the teacher.

        Args:
            model: A checkpoint, an ONNX file, or an OpenVINO or NCNN folder, of any precision. A file of fixed size keeps
                its own instead of `imgsz`.
            resamples: Bootstrap resamples; 0 for no interval (NaN), which is faster.

        Raises:
            UserError: If the file cannot be read, or is of another task or other classes than the teacher.
        """
        task = open_file(model).task
        if task != self.task:
            raise UserError(f"{model} is a model for {task} and the teacher {self.teacher} for {self.task}")
        if self.task == "classify":
            return summarize(self._compare_classes(model), resamples)
        return summarize(count(model, str(self.data), "val", self.imgsz, self.device), resamples)

    def _link_images(self) -> None:
        """Place the readable images in the data set, under unique names."""
        place = self.folder / "images/val"
        place.mkdir(parents=True)
        for path in progress(self.paths, "Reading images"):
            try:
                read_image(path, truncated_is_error=True)
            except UserError:
                self.skipped.append(path)
                continue
            _link(path, place / f"{self.images:06}{path.suffix.lower()}")
            self.images += 1
        if not self.images:
            example = f", for example {self.paths[0]}" if self.paths else ""
            raise UserError(
                f"none of the {len(self.paths)} held-out images can be read{example}; give JPEG or PNG files"
            )

    def _predict_labels(self) -> None:
        """Write what the teacher finds as labels, and the data YAML."""
        if self.task == "classify":
            self._classes = self._predict_classes(self.teacher)
            self.boxes = self.images
            return
        labels = self.folder / "labels/val"
        labels.mkdir(parents=True)
        classes = Counter[str]()
        for result in self._predict(self.teacher, self.conf):
            file = labels / f"{Path(result.path).stem}.txt"
            result.save_txt(file)
            if file.is_file():
                self.boxes += _tidy(file, self._kpt_shape)
                classes.update(line.split()[0] for line in file.read_text(encoding="utf-8").splitlines())
        if not self.boxes:
            raise UserError(
                f"{self.teacher} finds nothing in any of the {self.images} held-out images at a confidence of "
                f"{self.conf:g}; give images like those it was trained on, or a model that was trained for longer"
            )
        by_class = {name: classes[str(index)] for index, name in self.names.items()}
        self.boxes_by_class = dict(sorted(by_class.items(), key=itemgetter(1)))
        content: dict[str, Any] = {"path": str(self.folder), "train": "images/val", "val": "images/val"}
        content |= {"kpt_shape": list(self._kpt_shape)} if self._kpt_shape else {}
        self.data.write_text(yaml.safe_dump(content | {"names": self.names}), encoding="utf-8")

    def _predict(self, model: Path, conf: float) -> Iterator[Any]:
        """Yield a model's results, one for each image."""
        yolo = open_file(model)
        options = {
            "imgsz": self.imgsz,
            "device": device_of(model, self.device),
            "conf": conf,
            "rect": False,
            "verbose": False,
        }
        with quiet():
            yield from yolo.predict(str(self.folder / "images/val"), stream=True, save=False, **options)

    def _predict_classes(self, model: Path) -> dict[str, list[int]]:
        """Return each image's classes, the likeliest first.

        Raises:
            UserError: If the model's classes are not the teacher's.
        """
        found: dict[str, list[int]] = {}
        for result in self._predict(model, self.conf):
            if list(result.names.values()) != list(self.names.values()):
                own, wanted = (shorten(list(names.values())) for names in (result.names, self.names))
                raise UserError(f"{model} has the classes {own} and the teacher {self.teacher} has {wanted}")
            found[Path(result.path).name] = list(result.probs.top5)
        return found

    def _compare_classes(self, model: Path) -> ClassifiedImages:
        """Return in which images a classifier says what the teacher says."""
        found = self._predict_classes(model)
        right = [[self._classes[name][0] in classes[:few] for few in (1, 5)] for name, classes in found.items()]
        return ClassifiedImages(tuple(found), np.array(right))


def _link(path: Path, target: Path) -> None:
    """Link an image into the data set; copy it where there are no links, or where the host would repair the file in place."""
    if path.suffix.lower() not in JPEG or path.read_bytes()[-2:] == JPEG_END:
        with suppress(OSError):
            target.symlink_to(path.resolve())
            return
    shutil.copyfile(path, target)


def _tidy(file: Path, kpt_shape: tuple[int, ...] | None) -> int:
    """Make a label file one that the host's loader takes, and return its number of boxes.

    Rotated boxes and keypoints may end outside the image, for which the loader would leave out the whole image; and it wants
    to know which keypoints are visible, where `save_txt` writes how sure they are.
    """
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        label, *numbers = line.split()
        values = [min(max(float(number), 0.0), 1.0) for number in numbers]
        if kpt_shape and kpt_shape[1] == 3:
            values[6::3] = [2.0 * (confidence >= 0.5) for confidence in values[6::3]]
        rows.append(" ".join([label, *(f"{value:g}" for value in values)]))
    file.write_text("\n".join(rows), encoding="utf-8")
    return len(rows)

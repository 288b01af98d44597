"""What must hold for each kind of generated input: every command that takes it, in this process."""

from __future__ import annotations

import functools
import io
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import ultralytics
from factories import GHOST
from outcomes import attempt, command
from strategies import ANNOTATION, change_weight

from ghost_yolo import compare as compare_module
from ghost_yolo.bench.exporting import prepare
from ghost_yolo.compare import BaselineKey, Comparison
from ghost_yolo.data import images
from ghost_yolo.data.voc import convert
from ghost_yolo.export import verify
from ghost_yolo.model.checkpoint import build_from_yaml, open_checkpoint
from ghost_yolo.report import collect, page
from ghost_yolo.report.sources import read_accuracy, read_bench

NAMES = {0: "Platelets", 1: "RBC", 2: "WBC"}
SPLITS = ("train", "val")
QUICKLY = ("--reconstruct-steps", "1", "--distill-steps", "1", "--threads", "1")  # the other cores may be busy
SMALL = ("--imgsz", "64")


def leave_out_what_is_not_odd() -> None:
    """Profile each stock model once, draw no figure of the packaged models, and export nothing."""
    build, profile = compare_module._build_stock, compare_module.profile_model
    of_stock = functools.cache(lambda key, imgsz: profile(build(key), imgsz))
    compare_module._build_stock = lambda key: key
    compare_module.profile_model = lambda item, imgsz: (
        of_stock(item, imgsz) if isinstance(item, BaselineKey) else profile(item, imgsz)
    )
    compare_module.families = lambda: ["yolov8-ghost"]
    collect.compare_deployed = functools.cache(packaged_models)
    collect.compare_published = lambda: Comparison(collect.compare_deployed("n", imgsz=32), "")
    page.scales_section = lambda _: page.Section("scales", "scales")
    verify.verify_outputs = lambda *_: []
    ultralytics.YOLO.export = lambda *_, **__: "model.onnx"


def packaged_models(scale: str, imgsz: int) -> list[compare_module.ComparedRow]:
    """Return a stock model and a light one."""
    return [entry for entry in compare_module.compare((), scale, 3, imgsz).entries if entry.row.fused != "none"]


@dataclass
class Checks:
    """The checks, one for each kind of input.

    Attributes:
        folder: A folder for files.
        saved: A checkpoint.
        layers: Number of its model's layers.
        weights: The weights of a classifier.
        photos: A photograph in each format.
    """

    folder: Path
    saved: bytes
    layers: int
    weights: dict[str, torch.Tensor]
    photos: dict[str, bytes]

    @contextmanager
    def place(self, name: str, data: bytes) -> Iterator[Path]:
        """Yield a file with this content, in a folder of its own."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            file = Path(folder, name)
            file.write_bytes(data)
            yield file

    def yaml(self, data: bytes) -> None:
        """Swap and compare a YAML: the swapped text builds, and the parameters are those of the host's own model."""
        with self.place("yolov8n-odd.yaml", data) as file:
            swapped = file.with_name("yolov8n-swapped.yaml")

            def swap() -> None:
                command("swap", file, "--where", "all", "--block", GHOST, "-o", swapped)
                assert "ghost_yolo." in swapped.read_text(encoding="utf-8")
                build_from_yaml(str(swapped), 3)

            def count() -> None:
                found = json.loads(command("compare", file, "--nc", "3", *SMALL, "--format", "json"))
                built = build_from_yaml(str(file), 3).model
                assert sum(p.numel() for p in built.parameters()) in {row["parameters"] for row in found["rows"]}

            attempt(swap)
            attempt(count)
            attempt(lambda: assert_(command("verify", file)))
            attempt(lambda: assert_(prepare(str(file), file.with_name("bench"), 3, 64)))

    def checkpoint(self, change: tuple[str, str, Any]) -> None:
        """Give a checkpoint to every command that opens one: what is written is finite and loads again."""
        with self.place("odd.pt", self.changed_checkpoint(change)) as file:
            out, photo = file.with_name("light.pt"), file.with_name("photo.png")
            photo.write_bytes(self.photos["png"])

            def ghostify() -> None:
                command("ghostify", file, "--images", photo, "--block", GHOST, *QUICKLY, "-o", out)
                rows = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["rows"]
                assert all(np.isfinite(row["error"]) for row in rows)
                assert len(open_checkpoint(out).model.model) == self.layers

            attempt(lambda: assert_(command("pairs", file, "-o", file.with_name("pairs"))))
            attempt(lambda: assert_(command("compare", file, *SMALL)))
            attempt(lambda: assert_(command("verify", file, "--image", photo)))
            attempt(lambda: assert_(prepare(str(file), file.with_name("bench"), None, 64)))
            attempt(ghostify)

    def ghosts(self, data: tuple[tuple[str, str, Any] | None, tuple[str, bytes]]) -> None:
        """Survey a checkpoint on a photograph: all shares are shares."""
        change, (suffix, photo) = data
        content = self.saved if change is None else self.changed_checkpoint(change)
        with self.place("odd.pt", content) as file:
            image, out = file.with_name(f"odd.{suffix}"), file.with_name("out")
            image.write_bytes(photo)

            def work() -> None:
                command("ghosts", file, "--image", image, *SMALL, "-o", out)
                rows = json.loads((out / "ghosts.json").read_text(encoding="utf-8"))["rows"]
                assert all(0 <= (row["trained"]["share_d3"] or 0) <= 1 for row in rows)

            attempt(work)

    def changed_checkpoint(self, change: tuple[str, str, Any]) -> bytes:
        """Return the checkpoint of the small model after one change."""
        kind, name, value = change
        if kind == "bytes":
            return damaged(self.saved, value)
        model = torch.load(io.BytesIO(self.saved), weights_only=False)["model"]
        content = {"model": model, "train_args": {"imgsz": 64, "task": "detect"}, "version": "8.4.0", "date": "2026"}
        if kind == "attribute":
            model.__dict__[name] = value
        elif kind == "without":
            model.__dict__.pop(name, None)
            model._modules.pop(name, None)
        elif kind in ("yaml", "names"):
            setattr(model, kind, value)
        elif kind == "weight":
            change_weight(model, name, value)
        elif kind == "args":
            content["train_args"][name] = value
        elif kind == "head":
            model._modules["model"][-1].__dict__[name] = value
        else:
            content[name] = value
        return saved(content)

    def pretrained(self, data: tuple[bytes, tuple[str, str, Any]]) -> None:
        """Put a classifier's weights into a backbone: the checkpoint loads."""
        text, (kind, name, value) = data
        content: Any = dict(self.weights)
        if kind == "whole":
            content = value
        elif kind == "without":
            del content[name]
        elif kind == "inside":
            content = {name: content}
        elif kind == "tensor":
            content[name] = value
        file_bytes = damaged(saved(content), value) if kind == "bytes" else saved(content)
        with self.place("weights.pth", file_bytes) as file:
            model, out = file.with_name("yolov8n-odd.yaml"), file.with_name("init.pt")
            model.write_bytes(text)

            def work() -> None:
                command("pretrained", "--model", model, "--weights", file, "-o", out)
                open_checkpoint(out)

            attempt(work)

    def voc(self, data: tuple[bytes, bytes, bytes]) -> None:
        """Convert a VOC folder: as many label lines as boxes, each inside its image, and each image readable."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            root, out = Path(folder, "voc"), Path(folder, "out")
            for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
                (root / name).mkdir(parents=True)
            for name, xml, photo in (("one", data[0], data[2]), ("two", ANNOTATION.encode(), self.photos["jpg"])):
                (root / f"Annotations/{name}.xml").write_bytes(xml)
                (root / f"JPEGImages/{name}.jpg").write_bytes(photo)
            (root / "ImageSets/Main/train.txt").write_bytes(data[1])
            (root / "ImageSets/Main/val.txt").write_text("two\n")

            def work() -> None:
                result = convert(root, out, NAMES, SPLITS)
                lines = [line.split() for file in out.glob("labels/*/*.txt") for line in file.read_text().splitlines()]
                copied = list(out.glob("images/*/*"))
                assert len(lines) == result.boxes.total() and len(copied) == sum(result.images.values())
                assert all(0 <= float(value) <= 1 for line in lines for value in line[1:])
                assert all(cv2.imread(str(file)) is not None for file in copied)

            attempt(work)

    def image(self, data: tuple[str, bytes]) -> None:
        """Read an image: three channels of bytes, and the model's input is finite."""
        with self.place(f"odd.{data[0]}", data[1]) as file:

            def work() -> None:
                image = images.read_image(file, truncated_is_error=True)
                assert image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size
                tensor = images.resize_to_stride(image, 64, 32)
                assert tensor.shape[:2] == (1, 3) and bool(tensor.isfinite().all())

            attempt(work)

    def json(self, data: Any) -> None:
        """Read a benchmark and an accuracy record: the figures that come out are finite."""
        with self.place("odd.json", as_bytes(data)) as file:
            attempt(lambda: assert_(read_bench(file).rows))
            attempt(lambda: assert_(read_accuracy(file)))

    def report(self, data: tuple[Any, Any]) -> None:
        """Draw the page of a benchmark and an accuracy record."""
        with self.place("bench.json", as_bytes(data[0])) as file:
            record, out = file.with_name("accuracy.json"), file.with_name("page.html")
            record.write_bytes(as_bytes(data[1]))
            given = ("--bench", file, "--accuracy", record, "--scales", "n", "--imgsz", "32")

            def work() -> None:
                command("report", *given, "-o", out)
                assert out.read_text(encoding="utf-8").rstrip().endswith("</html>")

            attempt(work)

    def correlate(self, data: tuple[Any, Any]) -> None:
        """Correlate a survey with a swap: each rho and p is one."""
        with self.place("ghosts.json", as_bytes(data[0])) as file:
            swaps, out = file.with_name("light.json"), file.with_name("out")
            swaps.write_bytes(as_bytes(data[1]))

            def work() -> None:
                command("correlate", file, swaps, "-o", out)
                rows = json.loads((out / "correlation.json").read_text(encoding="utf-8"))["correlations"]
                assert all(-1 <= (row["rho"] or 0) <= 1 and 0 <= (row["p"] or 0) <= 1 for row in rows)

            attempt(work)


def saved(content: Any) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def damaged(data: bytes, number: int) -> bytes:
    """Return a file with some bytes set, the rest cut, or both; the number is the random seed."""
    generator, changed = random.Random(number), bytearray(data)
    for _ in range(generator.randint(1, 8)):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    return bytes(changed[: generator.choice([len(changed), len(changed), generator.randrange(len(changed))])])


def as_bytes(data: Any) -> bytes:
    """Return a JSON file's content; some is given as bytes."""
    return data if isinstance(data, bytes) else json.dumps(data).encode()


def assert_(value: Any) -> None:
    """Check that there is a result."""
    assert value

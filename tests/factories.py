"""What several test files share: constants, small models, pictures, data sets, and records."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import ultralytics
import yaml
from torch import nn
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import ROOT as HOST
from ultralytics.utils import SETTINGS
from ultralytics.utils.checks import check_version

from ghost_yolo import BLOCKS, host
from ghost_yolo.bench import BenchRow
from ghost_yolo.ghostify import Settings
from ghost_yolo.model import swap
from ghost_yolo.model.catalog import packaged
from ghost_yolo.redundancy.maps import SurveyImages, reestimate_batchnorm
from ghost_yolo.registry import Block

ROOT = Path(__file__).parent.parent
MODELS = HOST / "cfg/models"
NEWEST = check_version(ultralytics.__version__, ">=8.4")
newest_only = pytest.mark.skipif(not NEWEST, reason="exact on the newest supported host; the oldest merges in float32")
Run = Callable[..., "subprocess.CompletedProcess[str]"]

GHOST = "C2f_GhostBottleneck"
QUALIFIED_GHOST = f"ghost_yolo.{GHOST}"
TINY: dict[str, Any] = {  # a detector with two C2f in its backbone and one in its neck
    "nc": 3,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 4]],
        [-1, 1, "C2f", [16, True]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C2f", [32, True]],
    ],
    "head": [[-1, 1, "C2f", [32]], [[1, 4], 1, "Detect", ["nc"]]],
}
NETWORK: dict[str, Any] = {  # a detector with a whole network as its backbone
    "nc": 3,
    "backbone": [[-1, 1, "ghost_yolo.Backbone", [2 ** min(i + 3, 7), "squeezenet1_1", i, 0.25]] for i in (3, 4, 5)],
    "head": [[[0, 1, 2], 1, "Detect", ["nc"]]],
}
LAYERS = (2, 4, 6, 8)
SURVEY: dict[str, Any] = {  # what `correlate` reads of ghosts and of ghostify
    "settings": {"model": "a.pt", "within": 0.1, "imgsz": 64},
    "rows": [{"index": i, "module": "C2f", "trained": {"share_d3": i / 10, "median_d3": 1 - i / 10}} for i in LAYERS],
    "inner": [{"index": i, "module": "m.0.cv1", "trained": {"share_d3": i % 5 / 5, "median_d3": 0.5}} for i in LAYERS],
}
SWAPS: dict[str, Any] = {
    "settings": {"model": "a.pt", "imgsz": 64, "reconstruct_steps": 100},
    "rows": [{"layer": str(i), "block": "ghost_yolo.C2f_Fire", "error": 1 / i} for i in LAYERS],
}
TASK_MODELS = ["11/yolo11-seg", "v8/yolov8-cls"] + ["26/yolo26", "v8/yolov8-pose", "v8/yolov8-obb"] * NEWEST
SIDE = 128  # pixels, at which boxes of `save_sure` are found
SURE = 8.0  # times the logits of classes, whose random ones are all alike
QUICK = Settings(reconstruct_steps=2, distill_steps=2)
SMALL_RUN = ("imgsz=64", "batch=4", "workers=0", "plots=False", "device=cpu", "exist_ok=True")
ACCURACY_RECORD = {
    "model": "yolov8n.yaml", "data": "d.yaml", "split": "test", "imgsz": 320, "epochs": 60, "seed": 0,
    "map50_95": 0.5, "map50": 0.8, "conditions": "one <i>machine</i>",
}  # fmt: skip

OUR_YAMLS = [item for item in packaged().values() if item.is_model and item.path.parent.name == "cfg"]
NETWORK_YAMLS = [item for item in OUR_YAMLS if "ghost_yolo.Backbone" in item.path.read_text(encoding="utf-8")]

# One map in, one out; heads are in test_swap.py, parts of networks in test_backbone.py
MAP_BLOCKS = [block for block in BLOCKS if block.like in ("C2f", "Conv") and block.name != "Backbone"]
OUR_BLOCKS = [block for block in MAP_BLOCKS if not block.name.startswith("Published")]
every_block = pytest.mark.parametrize("block", MAP_BLOCKS, ids=lambda block: block.name)
our_blocks = pytest.mark.parametrize("block", OUR_BLOCKS, ids=lambda block: block.name)
BLOOD_CELLS = {0: "Platelets", 1: "RBC", 2: "WBC"}
BOX = "<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>"


def annotation(*boxes: tuple[str, int, int, int, int]) -> str:
    """Return the VOC text of some boxes."""
    objects = "".join(f"<object><name>{name}</name>{BOX.format(*box)}</object>" for name, *box in boxes)
    return f"<annotation><size><width>64</width><height>48</height></size>{objects}</annotation>"


def stock(name: str) -> dict[str, Any]:
    """Return the content of a stock YAML at scale n with three classes."""
    return yaml.safe_load((MODELS / f"{name}.yaml").read_text(encoding="utf-8")) | {"nc": 3, "scale": "n"}


def small(*rows: list[Any]) -> dict[str, Any]:
    """Return a small detector whose backbone is one Conv and these rows."""
    return {
        "nc": 2,
        "scale": "n",
        "backbone": [[-1, 1, "Conv", [16, 3, 8]], *rows],
        "head": [[[0, 0, 0], 1, "Detect", ["nc"]]],
    }


def light(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Swap C2f_GhostBottleneck into a part of a model."""
    return swap.swap_rows(config, swap.plan_swap(config, where, None if where == "head" else GHOST))


def build(block: Block, c1: int = 16, c2: int = 24, **kwargs: Any) -> nn.Module:
    """Build a block with seeded weights and BN statistics that are not the neutral ones."""
    torch.manual_seed(0)
    module = block.cls(c1, c2, **({"n": 2, "shortcut": True} if block.like == "C2f" else {}) | kwargs)
    return randomise(module)


def randomise(module: nn.Module) -> nn.Module:
    """Give every BN statistics, weights and biases that a wrong merge would betray."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias)
    return module


class _Holder(BaseModel):
    """The least model that the host fuses."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.model = nn.Sequential(module)

    def info(self, *args: Any, **kwargs: Any) -> None:
        """Print nothing."""


def fuse(module: nn.Module) -> None:
    """Do what the host's `fuse()` does to the host's own convolutions."""
    _Holder(module).fuse(verbose=False)


def parameters(module: nn.Module) -> int:
    """Count all parameters."""
    return sum(p.numel() for p in module.parameters())


def macs(net: nn.Module, imgsz: int = 224) -> int:
    """Count the multiply-adds of convolutions and linear layers on one image, as papers do."""
    total = 0

    def count(layer: nn.Conv2d | nn.Linear, inputs: object, y: torch.Tensor) -> None:
        nonlocal total
        total += y.numel() * layer.weight[0].numel()

    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        net.eval()(torch.zeros(1, 3, imgsz, imgsz))
    for hook in hooks:
        hook.remove()
    return total


def outputs(y: Any) -> list[torch.Tensor]:
    """Return the tensors that a model gives, its predictions first."""
    if isinstance(y, torch.Tensor):
        return [y]
    return [tensor for part in (y.values() if isinstance(y, dict) else y) for tensor in outputs(part)]


def write_images(folder: Path) -> Path:
    """Write eight smooth pictures."""
    rng = np.random.default_rng(0)
    for number in range(8):
        noise = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(noise, (80, 64), interpolation=cv2.INTER_CUBIC))
    return folder


def calibrated(config: dict[str, Any], images: Path) -> Any:
    """Return a model of three classes with random weights and the BN statistics of these images."""
    torch.manual_seed(0)
    model = host.build(config)
    model.names = dict(enumerate("abc"))
    paths = sorted(images.iterdir())
    reestimate_batchnorm(model, SurveyImages(paths, 64, 32), range(len(paths)))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    return model.requires_grad_(requires_grad=False)


def save_sure(model: Any, file: Path, bias: float = -3.0, seed: int | None = None) -> Path:
    """Save a copy of a model with random weights that is sure of a few small boxes, or of none.

    Args:
        model: A model with random weights.
        file: The checkpoint.
        bias: Of the classes' logits.
        seed: Perturbs the copy's weights.
    """
    model = copy.deepcopy(model)
    if seed is not None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.data += 0.02 * parameter.abs().mean() * torch.randn_like(parameter)
    head = model.model[-1]
    for one in ("", "one2one_"):
        for box in getattr(head, f"{one}cv2", None) or ():  # half a stride to every side: inside the image
            bins = box[-1].bias.data.view(4, -1)
            bins[:, :2] = 12.0 if bins.shape[1] > 1 else 0.5
            box[-1].weight.data.zero_()
        *others, last = getattr(head, f"{one}cv3", None) or (None,)
        for classes in others:  # only the coarsest map's boxes, which are large enough for masks
            classes[-1].bias.data.fill_(-1000.0)
        if last is not None:
            last[-1].bias.data.fill_(bias)
            last[-1].weight.data.mul_(SURE)
        for extra in getattr(head, f"{one}cv4", None) or ():  # masks that fill the box, keypoints that are seen
            extra[-1].weight.data.zero_()
            extra[-1].bias.data.fill_(1.0)
    host.save(model, file, {"imgsz": 64, "task": host.task_of(model)})
    return file


@contextmanager
def refused(error: type[Exception], *names: object) -> Iterator[None]:
    """Expect an error of this class that names each of these values; its sentences are free to change."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value).lower()
    assert [name for name in names if str(name).lower() not in message] == [], message


def interrupt(*args: Any, **named: Any) -> None:
    """Stand for Ctrl-C at this point."""
    raise KeyboardInterrupt


def own_settings(folder: Path) -> Path:
    """Write settings under which the host keeps data sets, runs and weights in this folder, and return their folder."""
    config = folder / "config"
    file = config / SETTINGS.file.relative_to(os.environ["YOLO_CONFIG_DIR"])
    file.parent.mkdir(parents=True, exist_ok=True)
    places = {f"{kind}_dir": str(folder / kind) for kind in ("datasets", "runs", "weights")}
    file.write_text(json.dumps(dict(SETTINGS) | places), encoding="utf-8")
    return config


def run_folder(folder: Path, name: str) -> tuple[str, str]:
    """Return the options that say where a run is saved; a relative project would lie under the host's own folder."""
    return f"project={folder / 'runs'}", f"name={name}"


def write_data_yaml(folder: Path, **content: object) -> Path:
    """Write a data YAML with the usual splits."""
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", **content}))
    return file


def write_shapes(folder: Path, task: str) -> Path:
    """Write a few pictures of one ellipse each with the labels of a task, and return its data argument."""
    rng = np.random.RandomState(0)
    for split in ("train", "val"):
        for index in range(4):
            image = np.full((64, 64, 3), 200, np.uint8)
            x, y, a, b = rng.randint(24, 40, 2).tolist() + rng.randint(8, 16, 2).tolist()
            cv2.ellipse(image, (x, y), (a, b), 0, 0, 360, (40, 40, 160), -1)
            place = folder / (f"{split}/dark" if task == "classify" else f"images/{split}")
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"{index}.png"), image)
            if task == "classify":
                (folder / split / "light").mkdir(exist_ok=True)
                cv2.imwrite(str(folder / split / "light" / f"{index}.png"), 255 - image)
                continue
            labels = folder / "labels" / split
            labels.mkdir(parents=True, exist_ok=True)
            corners = [x - a, y - b, x + a, y - b, x + a, y + b, x - a, y + b]
            numbers = {"segment": corners, "obb": corners, "pose": [x, y, 2 * a, 2 * b, x, y]}[task]
            text = " ".join(str(n / 64) for n in numbers)
            (labels / f"{index}.txt").write_text(f"0 {text}{' 2' if task == 'pose' else ''}\n")
    if task == "classify":
        return folder
    more = {"kpt_shape": [1, 3]} if task == "pose" else {}
    return write_data_yaml(folder, path=str(folder), names=["cell"], **more)


def bench_row(model: str, runtime: str = "pytorch", **values: Any) -> BenchRow:
    """Return a row of a benchmark on two threads."""
    known = {"scale": "n", "nc": 80, "imgsz": 640, "batch": 1, "precision": "fp32", "device": "cpu", "threads": 2}
    return BenchRow(model=model, runtime=runtime, **known | values)

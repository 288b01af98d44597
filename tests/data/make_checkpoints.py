"""Write the checkpoints of an earlier version that test_old_checkpoints.py loads, and what they computed there.

    git worktree add ../before 499ef1b && cd ../before
    PYTHONPATH=. python ../ghost_yolo/tests/data/make_checkpoints.py ../ghost_yolo/tests/data

The models are tiny, and their weights are quantised, so that the compressed files stay small. Only names that the
project keeps stable are used, so the script also runs on a later commit.
"""

from __future__ import annotations

import json
import lzma
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO

from ghost_yolo import BLOCKS

Row = list[Any]
STEM: Row = [-1, 1, "Conv", [8, 3, 2]]
NETWORK = "ghost_yolo.Backbone"
FORMS = ("", "26")  # of heads: YOLOv8's and YOLO26's


def model_of(backbone: list[Row], head: list[Row]) -> dict[str, Any]:
    """Return the content of a model YAML with one class."""
    return {"nc": 1, "backbone": backbone, "head": head}


def detector(head: str, *arguments: Any) -> dict[str, Any]:
    """Return a model that ends in a head of ours."""
    return model_of([STEM], [[[0], 1, head, ["nc", *arguments]]])


def every_block() -> dict[str, Any]:
    """Return a detector with one row of every block that stands for a Conv or a C2f."""
    rows = [
        [-1, 1, f"ghost_yolo.{block.cls.__name__}", [8]]
        for block in BLOCKS
        if block.like in ("Conv", "C2f") and block.cls.__name__ != "Backbone"
    ]
    return model_of([STEM, *rows], [[[len(rows)], 1, "ghost_yolo.NarrowDetect", ["nc"]]])


def network(name: str, *channels: int, width: float) -> dict[str, Any]:
    """Return a detector on a whole network as its backbone."""
    rows = [[-1, 1, NETWORK, [c, name, level, width]] for level, c in enumerate(channels, 3)]
    return model_of(rows, [[[0, 1, 2], 1, "ghost_yolo.NarrowDetect", ["nc"]]])


MODELS = {
    "blocks": every_block(),
    "squeezenet": network("squeezenet1_1", 32, 64, 64, width=0.125),
    "ghostnet": network("ghostnet", 8, 16, 24, width=0.125),
    "detect": detector("ghost_yolo.LightDetect"),
    **{f"segment{form}": detector(f"ghost_yolo.LightSegment{form}", 4, 8, 1.0, 8) for form in FORMS},
    **{f"pose{form}": detector(f"ghost_yolo.LightPose{form}", "kpt_shape") | {"kpt_shape": [2, 3]} for form in FORMS},
    **{f"obb{form}": detector(f"ghost_yolo.LightOBB{form}", 1) for form in FORMS},
}


def initialise(model: nn.Module) -> None:
    """Draw weights of one magnitude a tensor, which compress to about a bit each, and estimate the BN statistics."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            gain = (2 / parameter[0].numel()) ** 0.5
            parameter.data = torch.randn_like(parameter).sign() * 2.0 ** round(math.log2(gain))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(8, 3, 64, 64))


def image() -> torch.Tensor:
    """Return the input of the stored outputs."""
    return torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64).sin().abs()


def tensors_of(y: Any) -> list[torch.Tensor]:
    """Return the tensors of a model's output, its predictions first."""
    if isinstance(y, torch.Tensor):
        return [y]
    return [tensor for part in (y.values() if isinstance(y, dict) else y) for tensor in tensors_of(part)]


def record_of(file: Path) -> dict[str, Any]:
    """Return the classes of ours in a checkpoint and a hundred values of its predictions, as it is loaded."""
    model = YOLO(file).model.float().eval()
    classes = {f"{type(m).__module__}.{type(m).__name__}" for m in model.modules()}
    with torch.inference_mode():
        predictions = tensors_of(model(image()))[0].flatten()
    return {
        "classes": sorted(name for name in classes if name.startswith("ghost_yolo.")),
        "output": [float(f"{value:.6g}") for value in predictions[:: -(-len(predictions) // 100)].tolist()],
    }


def main(folder: Path) -> None:
    """Write every checkpoint, compressed, and the record of all."""
    records = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in MODELS.items():
            config = Path(scratch) / f"{name}.yaml"
            config.write_text(json.dumps(content))  # JSON is YAML
            yolo, file = YOLO(str(config), verbose=False), config.with_suffix(".pt")
            initialise(yolo.model)
            yolo.save(file)
            records[name] = record_of(file)
            (folder / f"{name}.pt.xz").write_bytes(lzma.compress(file.read_bytes(), preset=9))
    (folder / "checkpoints.json").write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

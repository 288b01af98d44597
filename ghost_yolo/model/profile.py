"""Measure one model: build or load it, count, weigh. Raw numbers only; rendering is elsewhere."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from math import nan
from typing import Literal

import thop
import torch
from torch import nn
from ultralytics.utils.torch_utils import get_num_params, strip_optimizer

from ghost_yolo.model.checkpoint import OpenedModel
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.console import quiet
from ghost_yolo.utils.files import temporary_folder

Fused = Literal["none", "host", "all"]
CONVENTIONS = {
    "layers": "all modules, containers included: Ultralytics' count until 2025",
    "leaf_layers": "modules without children: Ultralytics' count today",
    "parameters": "all parameters; a fused BN becomes a bias, so fusing lowers the count",
    "gflops": "2 x MACs of one forward pass at the real size imgsz x imgsz, counted by Ultralytics' thop (its own "
    "summary extrapolates from tiny images and can differ in the third digit); BN, pooling and activations included",
    "checkpoint_kb": "size of the unfused checkpoint, written, stripped and in fp16, in units of 1024 bytes",
    "fused": "none: as trained; all: every BN merged; host: Ultralytics' fuse() merged what it knows, as in the published table",
}


@dataclass(frozen=True)
class ProfileRow:
    """The numbers of one model in one state; CONVENTIONS says how each is counted."""

    model: str
    task: str
    scale: str
    nc: int
    imgsz: int
    fused: Fused
    layers: int
    leaf_layers: int
    parameters: int
    gflops: float
    checkpoint_kb: float
    channels: int = 3
    kpt_shape: tuple[int, ...] | None = None


def profile_model(opened: OpenedModel, imgsz: int, states: tuple[bool, ...] = (False, True)) -> list[ProfileRow]:
    """Return one row for each state, unfused before fused; a model that came fused has only that one.

    Args:
        opened: What to measure; its model is used up.
        imgsz: Image side in pixels.
        states: Which of unfused (False) and fused (True) to count.

    Raises:
        UserError: If the model's stride does not divide the side.
    """
    opened.require_stride(imgsz)
    if not _norms(opened.model):
        states = (True,)
    kb = checkpoint_kb(opened.model)
    models = [*(copy.deepcopy(opened.model) for _ in states[1:]), opened.model]
    return [profile_state(replace(opened, model=m), imgsz, kb, fuse) for m, fuse in zip(models, states, strict=True)]


def _norms(model: HostModel) -> list[nn.Module]:
    """Return the BN that are left in a model."""
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def profile_state(opened: OpenedModel, imgsz: int, kb: float = nan, fuse: bool = True) -> ProfileRow:
    """Count the model in one state and use it up; the size on disk is not measured: building and counting take a tenth of the time."""
    model = opened.model
    fused: Fused = "none"
    if fuse:
        model.fuse(verbose=False)
        fused = "host" if _norms(model) else "all"
    modules = list(model.modules())
    return ProfileRow(
        model=opened.name,
        task=opened.task,
        scale=opened.scale,
        nc=opened.nc,
        imgsz=imgsz,
        fused=fused,
        layers=len(modules),
        leaf_layers=sum(not list(m.children()) for m in modules),
        parameters=get_num_params(model),
        gflops=count_gflops(model, imgsz),
        checkpoint_kb=kb,
        channels=opened.channels,
        kpt_shape=opened.kpt_shape,
    )


def count_gflops(model: HostModel, imgsz: int) -> float:
    """Return 2 x MACs / 1e9 of a forward pass at the real size; an error is an error here, never a 0.

    Counting needs shapes, not values: the meta device gives the same figure in a tenth of the time. The model is moved
    there and loses its weights: give a copy that nobody needs.
    """
    head = model.model[-1]
    stride = getattr(head, "stride", None)
    model.to("meta")
    if stride is not None:
        head.stride = stride  # the head reads these values
    for norm in _norms(model):
        norm.forward = torch.empty_like  # the same shape; on the meta device torch takes a BN apart in slow Python
    image = torch.empty(1, model.yaml.get("channels", 3), imgsz, imgsz, device="meta")
    return float(thop.profile(model, inputs=[image], verbose=False)[0]) * 2 / 1e9


def checkpoint_kb(model: HostModel) -> float:
    """Return the size of the model's stripped fp16 checkpoint, written by the host's own means, in 1024 bytes."""
    with temporary_folder("ghost-yolo-size-") as folder, quiet():
        file = folder / "model.pt"
        try:
            torch.save({"model": model, "train_args": {}}, file)
            strip_optimizer(file)
        except RuntimeError as error:  # what torch's writer raises on a full disk
            raise OSError(f"{folder} cannot hold a checkpoint of the model: is the disk full?") from error
        return file.stat().st_size / 1024

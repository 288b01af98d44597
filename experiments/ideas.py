"""Ideas of ghostify and what stands in their place in an ablation: names in the package, with their replacements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.hooks import RemovableHandle

from ghost_yolo.ghostify import distill, reconstruct
from ghost_yolo.ghostify.activations import BATCH_SIZE, cache_activations
from ghost_yolo.ghostify.calibration import CalibrationImages
from ghost_yolo.ghostify.pairs import Pair

CROP = 0.7  # of the image side
STRIDE = 32  # of the coarsest level, in pixels
EMA_DECAY = 0.99
ROUNDED_WEIGHTS: Any = FakeQuantize.with_args(  # type: ignore[no-untyped-call]
    observer=MovingAveragePerChannelMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8
)
plain_batch, plain_distill, plain_loss = CalibrationImages.batch, distill.distill, distill.distillation_loss


def distill_steps(factor: float) -> Any:
    """Return the distillation with a multiple of the steps."""

    def run(teacher: Any, student: Any, images: Any, steps: int, *rest: Any, **named: Any) -> None:
        plain_distill(teacher, student, images, round(steps * factor), *rest, **named)

    return run


def distill_maps_once(teacher: Any, student: Any, *rest: Any, **named: Any) -> None:
    """Distill with maps that count once, the default of their weight, which comes last."""
    plain_distill(teacher, student, *rest[:-1], **named)


def adam(rate: float) -> Any:
    """Return what makes Adam with one rate for all parameters."""

    def make(parameters: Iterable[torch.nn.Parameter], *_: float) -> torch.optim.Adam:
        optimizer = torch.optim.Adam(parameters, rate)
        optimizer.rates = [rate]  # type: ignore[attr-defined]
        return optimizer

    return make


def distill_average(teacher: Any, student: Any, *rest: Any, **named: Any) -> None:
    """Distill, and take the exponential moving average of the weights over the steps."""
    average = AveragedModel(student.model, avg_fn=get_ema_avg_fn(EMA_DECAY))  # type: ignore[no-untyped-call]
    handle = register_optimizer_step_post_hook(lambda *_: average.update_parameters(student.model))
    try:
        plain_distill(teacher, student, *rest, **named)
    finally:
        handle.remove()
    student.model.load_state_dict(average.module.state_dict())


def distill_falling(teacher: Any, student: Any, images: Any, steps: int, *rest: Any, **named: Any) -> None:
    """Distill with maps whose weight, which comes last, falls along a cosine until they count once."""
    weight, count = rest[-1], itertools.count()

    def loss(*args: Any, **named: Any) -> torch.Tensor:
        share = 0.5 * (1 + math.cos(math.pi * next(count) / steps))
        return plain_loss(*(*args[:-1], 1 + (weight - 1) * share), **named)

    with patch.object(distill, "distillation_loss", loss):
        plain_distill(teacher, student, images, steps, *rest, **named)


def distill_batch_statistics(teacher: Any, student: Any, *rest: Any, **named: Any) -> None:
    """Distill with BatchNorm that uses the statistics of the batch, and keeps their moving average."""
    norms = [module for module in student.model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
    plain_distill(teacher, student, *rest, **named)  # leaves all in evaluation mode


def distill_quantized(teacher: Any, student: Any, *rest: Any, **named: Any) -> None:
    """Distill with the rounding of INT8: of weights by output channel, of the inputs of convolutions by tensor."""
    decode = getattr(getattr(student.model.model[-1], "dfl", None), "conv", None)
    convs = [conv for conv in student.model.modules() if isinstance(conv, nn.Conv2d) and conv is not decode]
    weights, handles = [conv.weight for conv in convs], list[RemovableHandle]()
    for conv in convs:
        inputs: Any = FakeQuantize(MovingAverageMinMaxObserver, 0, 255)  # type: ignore[no-untyped-call]
        handles.append(conv.register_forward_pre_hook(lambda _, args, rounded=inputs: (rounded(args[0]),)))
        parametrize.register_parametrization(conv, "weight", ROUNDED_WEIGHTS())
    try:
        plain_distill(teacher, student, *rest, **named)
    finally:
        for handle in handles:
            handle.remove()
        for conv, weight in zip(convs, weights, strict=True):
            exact = weight.detach().clone()
            parametrize.remove_parametrizations(conv, "weight")
            conv.weight.data.copy_(exact)


def crop(self: CalibrationImages, indices: Sequence[int], *, augment: bool = True) -> torch.Tensor:
    """Return a square part of each image of a batch, the same for all, of CROP of its side in whole strides."""
    images = plain_batch(self, indices, augment=augment)
    if not augment:
        return images
    side = round(CROP * images.shape[2] / STRIDE) * STRIDE
    top, left = torch.randint(images.shape[2] - side + 1, (2,)).tolist()
    return images[:, :, top : top + side, left : left + side]


def mosaic(self: CalibrationImages, indices: Sequence[int], *, augment: bool = True) -> torch.Tensor:
    """Return a batch of which every second one, on average, shows parts of four images, at their scale."""
    images = plain_batch(self, indices, augment=augment)
    if not augment or torch.rand(()) < 0.5:
        return images
    side = images.shape[2]
    left, right = (torch.cat([images.roll(k, 0), images.roll(k + 1, 0)], 2) for k in (0, 2))
    y, x = torch.randint(side // 4, 3 * side // 4, (2,)).tolist()
    return torch.cat([left, right], 3)[:, :, y : y + side, x : x + side].contiguous()


def correlation_error(maps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return the share of the variance of each channel that the other's does not explain, averaged over the channels."""
    weight = torch.ones_like(maps[:, :1]) if weight is None else weight
    weight, over = weight / weight.sum(), (0, 2, 3)
    maps, target = (y - (y * weight).sum(over, keepdim=True) for y in (maps, target))
    both = (weight * maps * target).sum(over)
    alone = (weight * maps.square()).sum(over) * (weight * target.square()).sum(over)
    return (1 - both.square() / (alone + reconstruct.EPS)).mean()


def most_varied(maps: torch.Tensor, count: int, _: torch.Tensor | None = None) -> torch.Tensor:
    """Return the indices, ascending, of the channels of most variance."""
    return maps.var((0, 2, 3)).topk(count).indices.sort().values


def no_maps(maps: torch.Tensor, *_: Any) -> torch.Tensor:
    """Return a loss of 0."""
    return (maps * 0).mean()


IDEAS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "augmented images: as they are": {
        "calibration.CalibrationImages.batch": lambda self, indices, **_: plain_batch(self, indices, augment=False)
    },
}
BLOCK_IDEAS: dict[str, dict[str, Any]] = {
    "closed-form initialisation: random weights": {"training.init_from_teacher": lambda *_: False},
    "inputs from the new model: inputs from the trained model": {
        "training.cache_activations": lambda teacher, _, *rest: cache_activations(teacher, teacher, *rest)
    },
    "plain squared error: relative error by channel": {"reconstruct.mse_loss": reconstruct.relative_error},
    "BatchNorm re-estimation: running statistics": {"reconstruct.update_bn": lambda *_: None},
}
SHAPE_IDEAS: dict[str, dict[str, Any]] = {  # with --act or --width
    "positions count where objects are: all alike": {
        "fitting.weigh_images": lambda *_: None,
        "heads.weigh_branches": lambda *_: {},
        "distill.weigh_positions": lambda *_: None,
    },
    "inputs of rows from the new model: from the trained model": {
        "fitting.Pair": lambda maps, _, keep, weight: Pair(maps, maps[:, keep], keep, weight)
    },
    "channels from which the others follow: those of most variance": {"handlers.choose_channels": most_varied},
    "positions of the maps before the head: all alike": {"fitting.weigh_images": lambda *_: None},
    "shift and scale of each channel: none": {
        "handlers.match_activation": lambda _, before, __: (
            torch.ones_like(before[:1, :, :1, :1]),
            torch.zeros_like(before[:1, :, :1, :1]),
        )
    },
}
STEP_IDEAS: dict[str, dict[str, Any]] = {  # with --distill-steps
    "last pass, steps of Muon: Adam alone at 1e-3": {"distill.Muon": adam(1e-3)},
    "last pass, steps of Muon: Adam alone at 1e-4": {"distill.Muon": adam(1e-4)},
}
PASS_IDEAS: dict[str, dict[str, Any]] = {  # with --act or --width and --distill-steps
    "last pass, maps where objects are: everywhere": {"distill.weigh_positions": lambda *_: None},
    "last pass, maps ten times the predictions: as much": {"training.distill": distill_maps_once},
    "last pass, maps ten times the predictions: falling until they count once": {"training.distill": distill_falling},
    "last pass, BatchNorm statistics of the closed form: of each batch": {"training.distill": distill_batch_statistics},
    "last pass, float32: with the rounding of INT8": {"training.distill": distill_quantized},
    "last pass, maps: none": {"distill.relative_error": no_maps},
    "last pass, error of the maps: 1 - correlation": {"distill.relative_error": correlation_error},
    "last pass, gentle for an activation alone: rate of other changes": {"distill.NEAR_RATE": distill.LEARNING_RATE},
    "last pass, rates: twice": {
        "distill.NEAR_RATE": 2 * distill.NEAR_RATE,
        "distill.LEARNING_RATE": 2 * distill.LEARNING_RATE,
    },
    "last pass, last weights: moving average": {"training.distill": distill_average},
    "last pass, batches of 8: of 4, twice the steps": {
        "distill.BATCH_SIZE": BATCH_SIZE // 2,
        "training.distill": distill_steps(2),
    },
    "last pass, whole images: parts of 0.7 of the side, twice the steps": {
        "calibration.CalibrationImages.batch": crop,
        "training.distill": distill_steps(2),
    },
    "last pass, single images: half of the batches of parts of four": {"calibration.CalibrationImages.batch": mosaic},
}

"""Measure, layer by layer, the share of feature maps that a depthwise kernel reproduces from another map.

Each layer is compared with two baselines: its own maps shuffled in space, and an untrained network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import OpenedModel
from ghost_yolo.model.rebuild import rebuild_untrained
from ghost_yolo.redundancy.kernels import PartnerSearch
from ghost_yolo.redundancy.maps import (
    MapSource,
    SourceKey,
    SurveyImages,
    capture_maps,
    find_sources,
    first_stage,
    reestimate_batchnorm,
    select_layer,
)
from ghost_yolo.redundancy.two_pass import (
    RedundancyStats,
    Transform,
    TwoPassAccumulator,
    fit_indices,
    identity,
    make_shuffle,
    summarize,
)
from ghost_yolo.typing import HostModel
from ghost_yolo.utils.console import progress


@dataclass(frozen=True)
class LayerRedundancy:
    """One layer or convolution in the trained network, with its maps shuffled, and in an untrained network."""

    source: MapSource
    trained: RedundancyStats
    shuffled: RedundancyStats
    untrained: RedundancyStats


@dataclass(frozen=True)
class SurveySettings:
    """Settings of a survey.

    Attributes:
        within: Largest relative error at which a map counts as reproduced.
        seed: Random seed.
        imgsz: Longer side of the images in pixels.
        inner: Measure the spatial convolutions in C2f and C3k2 rows too.
    """

    within: float = 0.1
    seed: int = 0
    imgsz: int = 640
    inner: bool = False

    def validate(self, stride: int) -> None:
        """Validate the settings.

        Raises:
            UserError: If one is invalid.
        """
        if not 0 < self.within < 1:
            raise UserError(f"--within {self.within}: must be between 0 (an exact copy) and 1 (a constant)")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must be 0 or more")
        if self.imgsz < 2 * stride or self.imgsz % stride:
            raise UserError(
                f"--imgsz {self.imgsz}: must be a multiple of the model's stride {stride}, at least twice it"
            )


@dataclass(frozen=True)
class SurveyResult:
    """Result of a survey.

    Attributes:
        layers: Top-level layers.
        inner: Convolutions in C2f and C3k2 rows; empty without `SurveySettings.inner`.
        plotted: The layer whose maps are plotted, one of `layers`.
        maps: Its maps (c, h, w) on one image.
        image_index: Index of that image, one to test on if there are several.
    """

    layers: list[LayerRedundancy]
    inner: list[LayerRedundancy]
    plotted: LayerRedundancy
    maps: torch.Tensor
    image_index: int


def survey(
    opened: OpenedModel,
    paths: Sequence[Path],
    settings: SurveySettings,
    layer: int | None = None,
    *,
    all_layers: bool = True,
) -> SurveyResult:
    """Measure the redundancy of a model's layers on images.

    Args:
        opened: The model, on the device to use.
        paths: Images; sizes of maps are those of the first.
        settings: See `SurveySettings`.
        layer: Index of the layer to plot; the first stage if None.
        all_layers: Measure all layers, or only the one to plot.

    Raises:
        UserError: If a setting is invalid, an image cannot be read, or a layer has no maps.
    """
    model = opened.model
    stride = int(max(model.stride))
    settings.validate(stride)
    opened.require_rgb()
    images = SurveyImages(paths, settings.imgsz, stride)
    found = find_sources(model, images.load(0))
    layers = [source for source in found if not source.conv]
    plotted = first_stage(model, layers) if layer is None else select_layer(layers, layer)
    candidates = [source for source in found if all_layers or source.index == plotted.index]
    wanted = [source for source in candidates if settings.inner or not source.conv]
    measured = measure_sources(model, images, wanted, settings)
    image_index = min(1, len(images) - 1)
    return SurveyResult(
        layers=[item for item in measured if not item.source.conv],
        inner=[item for item in measured if item.source.conv],
        plotted=next(item for item in measured if item.source == plotted),
        maps=feature_maps(model, images.load(image_index), plotted),
        image_index=image_index,
    )


def measure_sources(
    model: HostModel, images: SurveyImages, sources: Sequence[MapSource], settings: SurveySettings
) -> list[LayerRedundancy]:
    """Measure sources in the trained network, with shuffled maps, and in an untrained network of the same YAML."""
    untrained = rebuild_untrained(model, settings.seed)
    reestimate_batchnorm(untrained, images, fit_indices(len(images)))
    networks = (
        ("Trained network", model, identity),
        ("Shuffled maps", model, make_shuffle(settings.seed)),
        ("Untrained network", untrained, identity),
    )
    results = [measure_network(net, images, sources, change, settings, text) for text, net, change in networks]
    return [LayerRedundancy(source, *(result[source.key] for result in results)) for source in sources]


def measure_network(
    model: HostModel,
    images: SurveyImages,
    sources: Sequence[MapSource],
    transform: Transform,
    settings: SurveySettings,
    text: str,
) -> dict[SourceKey, RedundancyStats]:
    """Run every image twice: once to find each map's partner, once to fit and test the kernels."""
    searches = {source.key: PartnerSearch(source.channels) for source in sources}
    accumulator = TwoPassAccumulator(searches, transform, settings.seed, len(images))
    for second, index in progress([(second, i) for second in (False, True) for i in range(len(images))], text):
        if second:
            accumulator.start_second_pass()
        capture_maps(model, images.load(index), partial(accumulator.add, index))
    return {key: summarize(search, accumulator.moments[key], settings.within) for key, search in searches.items()}


def feature_maps(model: HostModel, image: torch.Tensor, source: MapSource) -> torch.Tensor:
    """Return the maps (c, h, w) of one source on an image (1, 3, h, w)."""
    captured: list[torch.Tensor] = []
    capture_maps(model, image, lambda key, maps: captured.append(maps.clone()) if key == source.key else None)
    return captured[0]

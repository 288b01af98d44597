"""Layer by layer, the share of maps that a cheap kernel makes from another map, beside two baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ghost_yolo import host
from ghost_yolo.errors import UserError
from ghost_yolo.model.checkpoint import OpenedModel
from ghost_yolo.redundancy.kernels import SIZES, TAPS, Moments, Partners, best_pairs, removable
from ghost_yolo.redundancy.maps import Key, Layer, Photos, calibrate, first_stage, layers_of, look, pick
from ghost_yolo.utils.console import progress

MAPS = 256  # targets a layer
POSITIONS = 4096  # a map and image
GHOST = 3  # the cheap kernel of GhostNet itself
SAMPLE = 0  # words that keep the random streams apart
SHUFFLE = 1
TARGETS = 2

Change = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


@dataclass(frozen=True)
class Pair:
    """Two similar maps of a layer and how well a kernel makes the one from the other, by kernel size."""

    map: int
    partner: int
    correlation: float
    mse: dict[int, float]
    error: dict[int, float]
    kernel: torch.Tensor  # (3, 3), of GHOST's size
    bias: float


@dataclass(frozen=True)
class Shares:
    """What one network's layer gave.

    Attributes:
        dead: Constant maps, counted apart.
        sampled: Living maps that were tried.
        share: By kernel size, the share of these within the error; None where there are too few positions to tell.
        median: By kernel size, the median relative error; None likewise.
        removable: As the share for 3x3, but counting only maps whose partner stays.
        positions: Values a map to fit on, and to test on.
        pairs: The most similar pairs.
    """

    dead: int
    sampled: int
    share: dict[int, float | None]
    median: dict[int, float | None]
    removable: float | None
    positions: tuple[int, int]
    pairs: list[Pair]


@dataclass(frozen=True)
class Row:
    """One layer: the network as it is, its maps shuffled, and an untrained network of the same YAML."""

    layer: Layer
    trained: Shares
    shuffled: Shares
    untrained: Shares


@dataclass(frozen=True)
class Settings:
    """What was asked for: relative error that counts as reproduced, seed, image side in pixels, convolutions inside too."""

    within: float = 0.1
    seed: int = 0
    imgsz: int = 640
    inner: bool = False

    def check(self, stride: int) -> None:
        """Raise an error for what cannot be."""
        if not 0 < self.within < 1:
            raise UserError(f"--within {self.within}: give a relative error between 0 (a copy) and 1 (a constant)")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: give 0 or more")
        if self.imgsz < 2 * stride or self.imgsz % stride:
            raise UserError(f"--imgsz {self.imgsz}: give a multiple of the model's stride {stride}, at least twice it")


@dataclass(frozen=True)
class Survey:
    """All rows, the layer to draw, its maps (c, h, w) on one image, that image's number, and the rows of inner convolutions."""

    rows: list[Row]
    drawn: Row
    maps: torch.Tensor
    number: int
    inner: list[Row]


def survey(
    opened: OpenedModel, paths: Sequence[Path], layer: int | None, everything: bool, settings: Settings
) -> Survey:
    """Measure a model's layers on photographs.

    Args:
        opened: The model, on the device to use.
        paths: Images; the first says which layers have maps.
        layer: Which layer to draw; the first stage where None.
        everything: Measure all layers, or only the one to draw.
        settings: See there.

    Raises:
        UserError: If an argument cannot be, an image cannot be read, or a layer has no maps.
    """
    model = opened.model
    stride = int(max(model.stride))
    settings.check(stride)
    photos = Photos(paths, settings.imgsz, stride)
    opened.require_rgb()
    found = layers_of(model, photos.open(0))
    layers = [item for item in found if not item.part]
    drawn = first_stage(model, layers) if layer is None else pick(layers, layer)
    shown = found if settings.inner else layers
    wanted = shown if everything else [item for item in shown if item.index == drawn.index]
    plain = host.untrained(model, settings.seed)
    calibrate(plain, photos, fit_numbers(len(photos)))
    networks = (
        ("Trained network", model, keep),
        ("Maps shuffled in space", model, shuffler(settings.seed)),
        ("Untrained network", plain, keep),
    )
    results = [measure(net, photos, wanted, change, settings, text) for text, net, change in networks]
    rows = [Row(item, *(result[item.key] for result in results)) for item in wanted]
    inner = [row for row in rows if row.layer.part]
    rows = rows[: len(rows) - len(inner)]
    number = min(1, len(photos) - 1)  # one to test on, where there is one
    maps = maps_of(model, photos.open(number), drawn)
    return Survey(rows, next(row for row in rows if row.layer == drawn), maps, number, inner)


def measure(
    model: Any, photos: Photos, layers: Sequence[Layer], change: Change, settings: Settings, text: str
) -> dict[Key, Shares]:
    """Look at every image twice: once to find each map's partner, once to learn and test the kernels."""
    sweeps = Sweeps({layer.key: Partners(layer.channels) for layer in layers}, change, settings.seed, len(photos))
    for sweep, number in progress([(sweep, n) for sweep in (1, 2) for n in range(len(photos))], text):
        if sweep == 2:
            sweeps.turn()
        look(model, photos.open(number), partial(sweeps.see, number))
    return {key: shares(found, sweeps.moments[key], settings.within) for key, found in sweeps.partners.items()}


@dataclass
class Sweeps:
    """What two sweeps over the images add up, by place; the maps themselves are not kept."""

    partners: dict[Key, Partners]
    change: Change
    seed: int
    count: int
    moments: dict[Key, Moments] = field(default_factory=dict)

    def see(self, number: int, key: Key, maps: torch.Tensor) -> None:
        """See the maps (c, h, w) that a place makes of an image."""
        if key not in self.partners:
            return
        index, *part = key
        fit, test = positions(maps.shape, number, self.count, (self.seed, SAMPLE, index, number, *part))
        maps = self.change(maps, (index, number, *part))
        if self.moments:
            self.moments[key].add(maps, fit, test)
        else:
            self.partners[key].add(maps, fit)

    def turn(self) -> None:
        """End the first sweep, once."""
        if not self.moments:
            self.moments = {key: chosen(found, key, self.seed) for key, found in self.partners.items()}


def fit_numbers(count: int) -> range:
    """Return the images to fit on: every second one, or the only one."""
    return range(0, count, 2)


def positions(shape: torch.Size, number: int, count: int, stream: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return places in the flattened plane to fit on and to test on, POSITIONS at most in all.

    With several images the kernels are learned on every second and tested on the others; with one, on its left half
    and on its right half.
    """
    _, height, width = shape
    drawn = np.random.default_rng(stream).choice(height * width, min(POSITIONS, height * width), replace=False)
    places, none = torch.from_numpy(np.sort(drawn)), torch.empty(0, dtype=torch.long)
    if count > 1:
        return (places, none) if number in fit_numbers(count) else (none, places)
    left = places % width < width // 2
    return places[left], places[~left]


def keep(maps: torch.Tensor, _: Sequence[int]) -> torch.Tensor:
    """Leave the maps as they are."""
    return maps


def shuffler(seed: int) -> Change:
    """Return what shuffles each map in space by itself: the values stay, and no kernel can help."""

    def shuffle(maps: torch.Tensor, stream: Sequence[int]) -> torch.Tensor:
        rng = np.random.default_rng((seed, SHUFFLE, *stream))
        return torch.from_numpy(rng.permuted(maps.flatten(1).numpy(), axis=1)).view(maps.shape)

    return shuffle


def chosen(found: Partners, key: Key, seed: int) -> Moments:
    """Return the accumulator for a place's living maps, MAPS of them at most."""
    partner, _, dead = found.find()
    living = (~dead).nonzero()[:, 0].numpy()
    living = living if len(living) > 1 else living[:0]  # a single one has nothing to be made from
    rng = np.random.default_rng((seed, TARGETS, *key))
    targets = torch.from_numpy(np.sort(rng.choice(living, min(MAPS, len(living)), replace=False)))
    return Moments(targets, partner[targets])


def shares(found: Partners, moments: Moments, within: float) -> Shares:
    """Return what a layer's accumulators say."""
    _, correlation, dead = found.find()
    solved = {d: moments.errors(d) for d in SIZES if moments.enough(d)}
    gone = removable(solved[GHOST][1], moments.targets, moments.partners, within) if GHOST in solved else None
    counts = [int(part[0, TAPS, TAPS]) if len(part) else 0 for part in (moments.fit, moments.test)]
    return Shares(
        dead=int(dead.sum()),
        sampled=len(moments.targets),
        share={d: float((solved[d][1] <= within).double().mean()) if d in solved else None for d in SIZES},
        median={d: float(solved[d][1].median()) if d in solved else None for d in SIZES},
        removable=None if gone is None else gone / len(moments.targets),
        positions=(counts[0], counts[1]),
        pairs=list(pairs_of(moments, correlation, solved)) if GHOST in solved else [],
    )


def pairs_of(
    moments: Moments, correlation: torch.Tensor, solved: dict[int, tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[Pair]:
    """Yield the most similar pairs with their errors and 3x3 kernels."""
    kernels = moments.kernels(GHOST)
    for number in best_pairs(correlation, moments.targets, moments.partners):
        target = int(moments.targets[number])
        yield Pair(
            map=target,
            partner=int(moments.partners[number]),
            correlation=float(correlation[target]),
            mse={d: float(mse[number]) for d, (mse, _) in solved.items()},
            error={d: float(error[number]) for d, (_, error) in solved.items()},
            kernel=kernels[number, :-1].view(GHOST, GHOST),
            bias=float(kernels[number, -1]),
        )


def maps_of(model: Any, image: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Return one layer's maps (c, h, w) on an image (1, 3, h, w)."""
    kept: list[torch.Tensor] = []
    look(model, image, lambda key, maps: kept.append(maps.clone()) if key == layer.key else None)
    return kept[0]

"""Rank correlation (Spearman) of few stages of several models, with permutation p values that are counted, not approximated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

EXACT = 9  # stages a model of which all orders (362880) are counted
DRAWS = 100_000  # orders that are drawn where there are more
Integers = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The stages of one model: what they are called, and two figures of each."""

    stages: tuple[int, ...]
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Agreement:
    """How two figures of stages go together; None where one of them is the same for all.

    Attributes:
        n: Stages of all models.
        models: Models.
        rho: Spearman's, all stages ranked together.
        within: The same of ranks within each model: what differs between models cannot make or hide it.
        p: Two-sided, of `within`: each model's stages put into any order, models apart.
        p_alike: The same, but models with exactly the same stages put into the same order: as though they were one network
            measured several times, which is the careful reading for one architecture trained on one data set. None where
            no two models have the same stages.
        exact: Whether all orders were counted; else DRAWS of them a model, and the one that was observed.
    """

    n: int
    models: int
    rho: float | None
    within: float | None
    p: float | None
    p_alike: float | None
    exact: bool


def agreement(samples: Sequence[Sample], seed: int = 0) -> Agreement:
    """Return how x and y go together over the stages of one or several models."""
    ranks = [(twice_centred_ranks(sample.x), twice_centred_ranks(sample.y)) for sample in samples]
    products = [np.outer(x, y) for x, y in ranks]
    length = np.sqrt(sum(int(x @ x) for x, _ in ranks) * sum(int(y @ y) for _, y in ranks))
    together: dict[tuple[int, ...], Integers] = {}
    for sample, product in zip(samples, products, strict=True):
        together[sample.stages] = together.get(sample.stages, np.zeros_like(product)) + product
    x, y = (twice_centred_ranks([value for sample in samples for value in getattr(sample, axis)]) for axis in "xy")
    whole = np.sqrt(int(x @ x) * int(y @ y))
    return Agreement(
        n=len(x),
        models=len(samples),
        rho=float(x @ y / whole) if whole else None,
        within=float(sum(int(product.trace()) for product in products) / length) if length else None,
        p=p_value(products, seed) if length else None,
        p_alike=p_value(together.values(), seed) if length and len(together) < len(samples) else None,
        exact=all(len(sample.stages) <= EXACT for sample in samples),
    )


def twice_centred_ranks(values: Sequence[float]) -> Integers:
    """Return twice the ranks less their mean, equal values sharing the mean of theirs: whole numbers that add up to 0."""
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    doubled = 2 * np.cumsum(counts) - counts + 1  # twice the mean rank of each value
    return (doubled[place.ravel()] - (len(place.ravel()) + 1)).astype(np.int64)


def p_value(products: Iterable[Integers], seed: int) -> float:
    """Return the share of all orders whose sum of products is at least as far from 0 as the one observed.

    Args:
        products: For each group (n, n) what stage i gives beside the other figure of stage j; each group has orders of its own.
        seed: Of the draws for groups with too many orders.
    """
    products = list(products)
    observed = abs(sum(int(product.trace()) for product in products))
    rng = np.random.default_rng(seed)
    chances = reduce(np.convolve, [distribution(product, rng) for product in products])
    sums = np.arange(len(chances)) - len(chances) // 2
    return float(chances[np.abs(sums) >= observed].sum())


def distribution(product: Integers, rng: np.random.Generator) -> Values:
    """Return the chance of each sum over the orders of a group, from the least possible, -m, to m."""
    n = len(product)
    if n <= EXACT:
        orders = np.array(list(permutations(range(n))))
    else:
        orders = rng.permuted(np.tile(np.arange(n), (DRAWS + 1, 1)), axis=1)
        orders[0] = np.arange(n)  # the observed one
    sums = product[np.arange(n), orders].sum(1)
    most = int(np.abs(sums).max())
    return np.bincount(sums + most, minlength=2 * most + 1) / len(orders)

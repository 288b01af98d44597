"""Compute Spearman's rank correlation over the stages of several models, with exact permutation p values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata, spearmanr

MAX_EXACT_STAGES = 9  # 9! = 362880 orders of a model's stages are enumerated
NUM_RESAMPLES = 100_000  # orders drawn where there are more
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Two measures of the stages of one model; `stages` are layer indices."""

    stages: tuple[int, ...]
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlation of two measures of stages; None where one measure is constant.

    Attributes:
        n: Number of stages of all models.
        models: Number of models.
        rho: Spearman's rho of all stages ranked together.
        rho_within: The same of ranks within each model, so that differences between models have no influence.
        p: Two-sided permutation p value of `rho_within`; the stages of each model are permuted independently.
        p_joint: The same, but models with exactly the same stages share one permutation, as if they were one network
            measured several times: the conservative choice for one architecture trained on one data set. None where no
            two models have the same stages.
        exact: True if all permutations were enumerated; False if NUM_RESAMPLES were drawn.
    """

    n: int
    models: int
    rho: float | None
    rho_within: float | None
    p: float | None
    p_joint: float | None
    exact: bool


def rank_correlation(samples: Sequence[Sample], seed: int = 0) -> RankCorrelation:
    """Return the rank correlation of x and y over the stages of one or several models."""
    products = [np.outer(doubled_centred_ranks(sample.x), doubled_centred_ranks(sample.y)) for sample in samples]
    within = rho_within(samples)
    joint: dict[tuple[int, ...], Integers] = {}
    for sample, product in zip(samples, products, strict=True):
        joint[sample.stages] = joint.get(sample.stages, np.zeros_like(product)) + product
    x, y = (np.concatenate([getattr(sample, axis) for sample in samples]) for axis in "xy")
    return RankCorrelation(
        n=len(x),
        models=len(samples),
        rho=float(spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else None,
        rho_within=within,
        p=None if within is None else p_value(products, seed),
        p_joint=None if within is None or len(joint) == len(samples) else p_value(joint.values(), seed),
        exact=all(len(sample.stages) <= MAX_EXACT_STAGES for sample in samples),
    )


def rho_within(samples: Sequence[Sample]) -> float | None:
    """Return the rank correlation of ranks within each model; None where one measure is constant in all of them."""
    ranks = [(doubled_centred_ranks(sample.x), doubled_centred_ranks(sample.y)) for sample in samples]
    norm = np.sqrt(sum(int(x @ x) for x, _ in ranks) * sum(int(y @ y) for _, y in ranks))
    return float(sum(int(x @ y) for x, y in ranks) / norm) if norm else None


def doubled_centred_ranks(values: Sequence[float]) -> Integers:
    """Return twice the ranks minus twice their mean; ties share their mean rank, and all results are integers."""
    return (2 * rankdata(values) - (len(values) + 1)).astype(np.int64)


def p_value(products: Iterable[Integers], seed: int) -> float:
    """Return the two-sided p value of the sum of several groups' statistics, each group permuted independently.

    `scipy.stats.permutation_test` gives the null distribution of one group. It cannot give that of the sum: it needs
    samples of equal length, and would enumerate the product of all groups' permutations (9e11 for two models of eight
    stages and two of four). The groups are independent, so the distribution of the sum is the convolution of theirs.

    Args:
        products: For each group (n, n), the product of stage i's rank of x and stage j's rank of y.
        seed: Seed of the resamples of groups with more than MAX_EXACT_STAGES stages.
    """
    products = list(products)
    observed = abs(sum(int(product.trace()) for product in products))
    rng = np.random.default_rng(seed)
    probabilities = reduce(np.convolve, [null_distribution(product, rng) for product in products])
    sums = np.arange(len(probabilities)) - len(probabilities) // 2
    return float(probabilities[np.abs(sums) >= observed].sum())


def null_distribution(product: Integers, rng: np.random.Generator) -> Floats:
    """Return the probability of each statistic from -m to m over the permutations of one group; m is the largest."""
    if len(product) == 1:  # there is nothing to permute
        return np.ones(1)
    stages = np.arange(len(product))

    def statistic(order: NDArray[Any], axis: int = -1) -> Integers:
        return product[stages, np.moveaxis(order, axis, -1).astype(np.intp)].sum(-1)

    exact = len(product) <= MAX_EXACT_STAGES
    sums = permutation_test(
        (stages,),
        statistic,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=np.inf if exact else NUM_RESAMPLES,
        random_state=rng,
    ).null_distribution
    sums = sums if exact else np.append(sums, product.trace())  # the observed order, so that p is never 0
    largest = int(np.abs(sums).max())
    return np.bincount(sums.astype(np.int64) + largest, minlength=2 * largest + 1) / len(sums)

"""Rank correlations: ties, exact p values, known ones, and the power that the documentation states."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ghost_yolo.redundancy import ranks
from ghost_yolo.redundancy.ranks import Sample, doubled_centred_ranks, rank_correlation


def test_ties_share_their_mean_rank() -> None:
    """Ties get their mean rank, and centred ranks add up to zero."""
    assert doubled_centred_ranks([3.0, 1.0, 1.0, 7.0]).tolist() == [1, -2, -2, 3]
    assert doubled_centred_ranks([5.0]).tolist() == [0]


@pytest.mark.parametrize("tied", [False, True])
def test_p_is_exact(tied: bool) -> None:
    """For two models it is that of enumerating every pair of permutations, independent and joint."""
    rng = np.random.default_rng(3)
    draw = rng.integers(0, 3, (2, 2, 4)) if tied else rng.random((2, 2, 4))
    samples = [Sample((2, 4, 6, 8), *map(list, part)) for part in draw]
    found = rank_correlation(samples)
    (x1, y1), (x2, y2) = ((doubled_centred_ranks(s.x), doubled_centred_ranks(s.y)) for s in samples)
    seen = abs(int(x1 @ y1 + x2 @ y2))
    orders = [list(order) for order in itertools.permutations(range(4))]
    independent = [abs(int(x1 @ y1[a] + x2 @ y2[b])) >= seen for a in orders for b in orders]
    joint = [abs(int(x1 @ y1[a] + x2 @ y2[a])) >= seen for a in orders]

    assert found.p == pytest.approx(np.mean(independent)) and found.p_joint == pytest.approx(np.mean(joint))
    assert found.exact and (found.n, found.models) == (8, 2)


def test_a_model_of_one_stage() -> None:
    """Changes neither the correlation within models nor its p value."""
    three = Sample((0, 1, 2), [1, 2, 3], [1, 3, 2])
    alone, beside = rank_correlation([three]), rank_correlation([three, Sample((4,), [5], [6])])
    assert (beside.rho_within, beside.p, beside.n) == (alone.rho_within, alone.p, 4)


def test_known_values() -> None:
    """For four stages in opposite order rho is -1 and p is 2 of 24 permutations; a constant has no rank correlation."""
    found = rank_correlation([Sample((0, 1, 2, 3), [1, 2, 3, 4], [9, 7, 5, 3])])
    flat = rank_correlation([Sample((0, 1, 2), [1, 1, 1], [1, 2, 3])])

    assert found.rho == pytest.approx(-1) and found.rho_within == -1 and found.p == pytest.approx(2 / 24)
    assert (flat.rho, flat.rho_within, flat.p, flat.p_joint) == (None, None, None, None)


def test_the_power_of_eight_stages() -> None:
    """With one model of 8 stages rho must reach 0.74 for a p of 0.05, as stated on the page on redundancy."""
    doubled = doubled_centred_ranks(range(8))
    probabilities = ranks.null_distribution(np.outer(doubled, doubled), np.random.default_rng(0))
    rho = (np.arange(len(probabilities)) - len(probabilities) // 2) / int(doubled @ doubled)
    passing = [r for r in rho[(rho > 0) & (probabilities > 0)] if probabilities[np.abs(rho) >= r - 1e-9].sum() <= 0.05]

    assert min(passing) == pytest.approx(0.74, abs=0.005)

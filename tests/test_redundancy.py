"""Redundancy measured: what is known by construction is found, baselines are chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ghost_yolo.redundancy import kernels, survey
from ghost_yolo.redundancy.filters import opposites, pairs
from ghost_yolo.redundancy.report import drawn_summary
from ghost_yolo.redundancy.survey import fit_numbers, positions, shuffler


def known_maps(seed: int) -> torch.Tensor:
    """Return maps (6, 40, 40): noise, the same filtered 3x3 and moved, another noise, a third, a copy negated, a constant."""
    torch.manual_seed(seed)
    noise = torch.randn(3, 40, 40)
    kernel = torch.tensor([[[[0.1, -0.2, 0.1], [0.0, 1.0, 0.3], [-0.1, 0.2, 0.1]]]])
    filtered = F.conv2d(noise[:1, None], kernel, padding=1)[0] + 5
    return torch.cat((noise[:1], filtered, noise[1:], -2 * noise[1:2] + 1, torch.full((1, 40, 40), 3.0)))


def learned(change: Any = survey.keep) -> tuple[kernels.Partners, kernels.Moments]:
    """Return the accumulators after two sweeps over four images of known maps."""
    found = kernels.Partners(6)
    moments = None
    for sweep in (1, 2):
        for number in range(4):
            maps = change(known_maps(number), (0, number))
            fit, test = positions(maps.shape, number, 4, (0, number))
            if sweep == 1:
                found.add(maps, fit)
            else:
                moments = moments or survey.chosen(found, (0,), 0)
                moments.add(maps, fit, test)
    assert moments is not None
    return found, moments


def test_a_filtered_copy_is_found_with_its_kernel() -> None:
    """The filtered map's partner is its source, the error is zero from 3x3 on, and the kernel is the one that made it."""
    found, moments = learned()
    partner, _, dead = found.find()
    bias, taps = moments.kernels(3)[1, -1], moments.kernels(3)[1, :-1]

    assert partner[:2].tolist() == [1, 0] and dead.tolist() == [False] * 5 + [True]
    assert moments.targets.tolist() == [0, 1, 2, 3, 4]
    assert taps.tolist() == pytest.approx([0.1, -0.2, 0.1, 0.0, 1.0, 0.3, -0.1, 0.2, 0.1], abs=1e-5)
    assert float(bias) == pytest.approx(5, abs=1e-5)
    assert all(float(moments.errors(d)[1][1]) < 1e-9 for d in (3, 5, 7))
    assert float(moments.errors(1)[1][1]) > 0.05


def test_shares_count_copies_and_not_noise() -> None:
    """Two exact pairs, one of them needing 3x3 one way only, and a lone noise map give the shares by hand."""
    found, moments = learned()
    shares = survey.shares(found, moments, 0.01)

    assert shares.dead == 1 and shares.sampled == 5
    assert shares.share[1] == pytest.approx(2 / 5)  # the negated copy, both ways
    assert shares.share[3] == pytest.approx(3 / 5)  # and the filtered one
    assert shares.removable == pytest.approx(2 / 5)  # of two negated copies one must stay
    assert float(moments.errors(7)[1][3]) > 0.9


def test_one_tap_gives_one_minus_the_squared_correlation() -> None:
    """On the positions that it is learned from, a 1x1 kernel with a bias leaves what correlation does not explain."""
    found, moments = learned()
    moments.test = moments.fit
    _, correlation, _ = found.find()

    assert moments.errors(1)[1].tolist() == pytest.approx((1 - correlation[moments.targets] ** 2).tolist(), abs=1e-9)


def test_least_squares_are_torchs() -> None:
    """Moments and sub-matrices give what an explicit least-squares problem gives."""
    maps = known_maps(0)[[0, 2]].double()
    every = torch.arange(1600)
    moments = kernels.Moments(torch.tensor([1]), torch.tensor([0]))
    moments.add(maps, every, every)
    taps = F.unfold(maps[None, :1], 5, padding=2)[0].T
    wanted = torch.linalg.lstsq(F.pad(taps, (0, 1), value=1.0), maps[1].reshape(-1, 1)).solution[:, 0]
    residual = F.pad(taps, (0, 1), value=1.0) @ wanted - maps[1].flatten()

    assert moments.kernels(5)[0].tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
    assert float(moments.errors(5)[0][0]) == pytest.approx(float(residual.square().mean()), rel=1e-6)


def test_shuffled_maps_cannot_be_made() -> None:
    """The same maps shuffled in space keep their values, and no kernel makes one from another."""
    maps = known_maps(0)
    mixed = shuffler(0)(maps, (0, 0))
    shares = survey.shares(*learned(shuffler(0)), 0.5)

    assert torch.equal(mixed.flatten(1).sort().values, maps.flatten(1).sort().values)
    assert torch.equal(mixed, shuffler(0)(maps, (0, 0))) and not torch.equal(mixed[:5], shuffler(1)(maps, (0, 0))[:5])
    assert shares.share == {1: 0.0, 3: 0.0, 5: 0.0, 7: 0.0}
    assert all(value is not None and value > 0.95 for value in shares.median.values())


def test_held_out() -> None:
    """One image is cut in two halves; of several, each is learned from or tested on; few positions are enough for few taps."""
    shape = torch.Size((3, 8, 10))
    fit, test = positions(shape, 0, 1, (0,))
    moments = kernels.Moments(torch.tensor([1]), torch.tensor([0]))
    moments.add(torch.randn(shape), fit, test)

    assert (fit % 10 < 5).all() and (test % 10 >= 5).all() and len(fit) == len(test) == 40
    assert [len(part) for part in positions(shape, 0, 3, (0,))] == [80, 0]
    assert [len(part) for part in positions(shape, 1, 3, (0,))] == [0, 80]
    assert list(fit_numbers(3)) == [0, 2]
    assert [moments.enough(d) for d in kernels.SIZES] == [
        True,
        False,
        False,
        False,
    ]  # 40 positions for 2, 10, 26, 50 unknowns
    assert len(positions(torch.Size((1, 200, 200)), 0, 2, (0,))[0]) == survey.POSITIONS


def test_opposite_filters_by_hand() -> None:
    """A filter and its negation are at -1, others at their cosine, and one without direction is left out."""
    weight = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0], [1.0, 1.0]])[:, :, None, None]
    filters, partner, cosine = opposites(weight)

    assert filters.tolist() == [0, 1, 3] and partner.tolist() == [1, 0, 1]
    assert cosine.tolist() == pytest.approx([-1, -1, -(0.5**0.5)])
    assert len(opposites(weight[2:])[0]) == 0


def test_random_filters_are_what_chance_says() -> None:
    """Two Gaussian filters of D weights have a cosine of mean 0 and variance 1 / D; more filters are more opposite."""
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3) for _ in range(400)), nn.Conv2d(2, 64, 3))
    found = pairs(model, 0)
    cosines = np.array([item.random[:, 0] for item in found[:-1]])

    assert abs(cosines.mean()) < 4 / (18 * cosines.size) ** 0.5
    assert cosines.var() == pytest.approx(1 / 18, rel=0.06)
    assert found[-1].random.mean() < -0.4
    assert [item.random.tolist() for item in pairs(model, 0)] == [item.random.tolist() for item in found]
    assert found[0].random.tolist() != pairs(model, 1)[0].random.tolist()


def test_random_draws_are_summed_up() -> None:
    """Of two draws by hand: mean of all, the sd of their means, the mean of their least values."""
    told = drawn_summary(np.array([[-0.5, -0.3], [-0.3, -0.1]]))

    assert [told[key] for key in ("mean", "sd", "least")] == pytest.approx([-0.3, 0.02**0.5, -0.4])
    assert set(drawn_summary(np.empty((20, 0))).values()) == {None}

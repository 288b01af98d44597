"""Redundancy of maps and filters: known values by construction, and baselines at chance level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ghost_yolo.redundancy import kernels, two_pass
from ghost_yolo.redundancy.filters import analyze_filters, most_opposite_filters
from ghost_yolo.redundancy.report import summarize_draws
from ghost_yolo.redundancy.two_pass import fit_indices, make_shuffle, sample_positions, summarize


def known_maps(seed: int) -> torch.Tensor:
    """Return maps (6, 40, 40): noise, its 3x3 filtered copy, two more noises, a negated copy, a constant."""
    torch.manual_seed(seed)
    noise = torch.randn(3, 40, 40)
    kernel = torch.tensor([[[[0.1, -0.2, 0.1], [0.0, 1.0, 0.3], [-0.1, 0.2, 0.1]]]])
    filtered = F.conv2d(noise[:1, None], kernel, padding=1)[0] + 5
    return torch.cat((noise[:1], filtered, noise[1:], -2 * noise[1:2] + 1, torch.full((1, 40, 40), 3.0)))


def accumulate(transform: Any = two_pass.identity) -> tuple[kernels.PartnerSearch, kernels.KernelMoments]:
    """Return the accumulators after two passes over four images of known maps."""
    found = kernels.PartnerSearch(6)
    moments = None
    for second in (False, True):
        for number in range(4):
            maps = transform(known_maps(number), (0, number))
            fit, test = sample_positions(maps.shape, number, 4, (0, number))
            if not second:
                found.add(maps, fit)
            else:
                moments = moments or two_pass.sample_targets(found, (0,), 0)
                moments.add(maps, fit, test)
    assert moments is not None
    return found, moments


def test_a_filtered_copy_is_found_with_its_kernel() -> None:
    """The filtered map's partner is its source, the error is zero from 3x3 on, and the kernel is the one applied."""
    found, moments = accumulate()
    partner, _, dead = found.find()
    bias, taps = moments.solve(3)[1, -1], moments.solve(3)[1, :-1]

    assert partner[:2].tolist() == [1, 0] and dead.tolist() == [False] * 5 + [True]
    assert moments.targets.tolist() == [0, 1, 2, 3, 4]
    assert taps.tolist() == pytest.approx([0.1, -0.2, 0.1, 0.0, 1.0, 0.3, -0.1, 0.2, 0.1], abs=1e-5)
    assert float(bias) == pytest.approx(5, abs=1e-5)
    assert all(float(moments.errors(d)[1][1]) < 1e-9 for d in (3, 5, 7))
    assert float(moments.errors(1)[1][1]) > 0.05


def test_shares_count_copies_and_not_noise() -> None:
    """Two exact pairs, one of which needs 3x3 in one direction, and a lone noise map give the shares by hand."""
    found, moments = accumulate()
    shares = summarize(found, moments, 0.01)

    assert shares.dead == 1 and shares.sampled == 5
    assert shares.share[1] == pytest.approx(2 / 5)  # the negated copy, both ways
    assert shares.share[3] == pytest.approx(3 / 5)  # and the filtered one
    assert shares.removable == pytest.approx(2 / 5)  # of two negated copies one must stay
    assert float(moments.errors(7)[1][3]) > 0.9


def test_one_tap_gives_one_minus_the_squared_correlation() -> None:
    """On its fit positions, the relative error of a 1x1 kernel with a bias is one minus the squared correlation."""
    found, moments = accumulate()
    moments.test = moments.fit
    _, correlation, _ = found.find()

    assert moments.errors(1)[1].tolist() == pytest.approx((1 - correlation[moments.targets] ** 2).tolist(), abs=1e-9)


def test_least_squares_agree_with_torch() -> None:
    """Moments and sub-matrices give the solution of the explicit least-squares problem."""
    maps = known_maps(0)[[0, 2]].double()
    every = torch.arange(1600)
    moments = kernels.KernelMoments(torch.tensor([1]), torch.tensor([0]))
    moments.add(maps, every, every)
    taps = F.unfold(maps[None, :1], 5, padding=2)[0].T
    wanted = torch.linalg.lstsq(F.pad(taps, (0, 1), value=1.0), maps[1].reshape(-1, 1)).solution[:, 0]
    residual = F.pad(taps, (0, 1), value=1.0) @ wanted - maps[1].flatten()

    assert moments.solve(5)[0].tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
    assert float(moments.errors(5)[0][0]) == pytest.approx(float(residual.square().mean()), rel=1e-6)


def test_shuffled_maps_cannot_be_reproduced() -> None:
    """Shuffled maps keep their values, and no kernel reproduces one from another."""
    maps = known_maps(0)
    mixed = make_shuffle(0)(maps, (0, 0))
    shares = summarize(*accumulate(make_shuffle(0)), 0.5)

    assert torch.equal(mixed.flatten(1).sort().values, maps.flatten(1).sort().values)
    assert torch.equal(mixed, make_shuffle(0)(maps, (0, 0))) and not torch.equal(
        mixed[:5], make_shuffle(1)(maps, (0, 0))[:5]
    )
    assert shares.share == {1: 0.0, 3: 0.0, 5: 0.0, 7: 0.0}
    assert all(value is not None and value > 0.95 for value in shares.median.values())


def test_held_out_positions() -> None:
    """One image is split into halves; of several, each is for fitting or testing; small kernels need fewer positions."""
    shape = torch.Size((3, 8, 10))
    fit, test = sample_positions(shape, 0, 1, (0,))
    moments = kernels.KernelMoments(torch.tensor([1]), torch.tensor([0]))
    moments.add(torch.randn(shape), fit, test)

    assert (fit % 10 < 5).all() and (test % 10 >= 5).all() and len(fit) == len(test) == 40
    assert [len(part) for part in sample_positions(shape, 0, 3, (0,))] == [80, 0]
    assert [len(part) for part in sample_positions(shape, 1, 3, (0,))] == [0, 80]
    assert list(fit_indices(3)) == [0, 2]
    # 40 positions for 2, 10, 26, 50 unknowns
    assert [moments.has_enough_positions(d) for d in kernels.KERNEL_SIZES] == [True, False, False, False]
    assert len(sample_positions(torch.Size((1, 200, 200)), 0, 2, (0,))[0]) == two_pass.MAX_POSITIONS


def test_opposite_filters_by_hand() -> None:
    """A filter and its negation have cosine -1, others their own, and a zero filter is left out."""
    weight = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0], [1.0, 1.0]])[:, :, None, None]
    filters, partner, cosine = most_opposite_filters(weight)

    assert filters.tolist() == [0, 1, 3] and partner.tolist() == [1, 0, 1]
    assert cosine.tolist() == pytest.approx([-1, -1, -(0.5**0.5)])
    assert len(most_opposite_filters(weight[2:])[0]) == 0


def test_random_filters_are_at_chance_level() -> None:
    """Two Gaussian filters of D weights have a cosine of mean 0 and variance 1 / D; more filters are more opposite."""
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3) for _ in range(400)), nn.Conv2d(2, 64, 3))
    found = analyze_filters(model, 0)
    cosines = np.array([item.random[:, 0] for item in found[:-1]])

    assert abs(cosines.mean()) < 4 / (18 * cosines.size) ** 0.5
    assert cosines.var() == pytest.approx(1 / 18, rel=0.06)
    assert found[-1].random.mean() < -0.4
    assert [item.random.tolist() for item in analyze_filters(model, 0)] == [item.random.tolist() for item in found]
    assert found[0].random.tolist() != analyze_filters(model, 1)[0].random.tolist()


def test_random_draws_are_summarized() -> None:
    """Of two draws: the mean of all, the standard deviation of their means, the mean of their minima."""
    summary = summarize_draws(np.array([[-0.5, -0.3], [-0.3, -0.1]]))

    assert [summary[key] for key in ("mean", "std", "min")] == pytest.approx([-0.3, 0.02**0.5, -0.4])
    assert set(summarize_draws(np.empty((20, 0))).values()) == {None}

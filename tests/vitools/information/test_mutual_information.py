"""Mutual information of tables and normals, and between bounds."""

import math

import pytest
import torch
from seeds import assert_bound, assert_within_errors
from torch.distributions import Normal

from vitools.errors import DataError, OptionError
from vitools.information import (
    barber_agakov,
    conditional_entropy_of_table,
    entropy_of_table,
    info_nce,
    leave_one_out,
    marginal_bound,
    mutual_information_of_normal,
    mutual_information_of_table,
)
from vitools.posterior import Estimate


def T(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def draws(seed, count, noise):
    generator = torch.Generator().manual_seed(seed)
    x, e = torch.randn(2, count, generator=generator, dtype=torch.float64)
    return x, x + noise * e


def exact(noise):
    return 0.5 * math.log(1 + 1 / noise**2)


def test_an_erasure_channel():
    """A bit that is lost with probability e tells (1 - e) log 2; a pair of uses twice that."""
    e = 0.3
    table = T([[0.5 * (1 - e), 0.0, 0.5 * e], [0.0, 0.5 * (1 - e), 0.5 * e]])
    assert mutual_information_of_table(table).value == pytest.approx((1 - e) * math.log(2))
    twice = torch.einsum("ab,cd->acbd", table, table)
    found = mutual_information_of_table(twice, of=(0, 1), given=(2, 3))
    assert found.value == pytest.approx(2 * (1 - e) * math.log(2))
    assert mutual_information_of_table(twice, 0, 3).value == pytest.approx(0, abs=1e-15)


def test_it_is_what_is_left_of_entropy():
    table = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = table / table.sum()
    left = entropy_of_table(table.sum(1)).value - conditional_entropy_of_table(table).value
    assert mutual_information_of_table(table).value == pytest.approx(left)


def test_of_normals():
    covariance = T([[1.0, 1.0, 0.0], [1.0, 1.25, 0.5], [0.0, 0.5, 2.0]])
    found = mutual_information_of_normal(covariance, 0, 1)
    assert found.is_exact
    assert found.value == pytest.approx(exact(0.5))
    pair = mutual_information_of_normal(covariance, 0, (1, 2)).value
    assert pair > found.value  # what tells of y's noise tells of x


def test_bounds_hold_on_their_sides_and_meet_where_q_is_right():
    noise, truth = 0.7, exact(0.7)
    kinds = {
        "barber": [],
        "loose barber": [],
        "marginal": [],
        "loose marginal": [],
        "above": [],
        "below": [],
    }
    for seed in range(40):
        x, y = draws(seed, 200, noise)
        variance = noise**2 / (1 + noise**2)
        mean = y / (1 + noise**2)
        prior = Normal(0.0, 1.0).log_prob(x)
        likelihood = Normal(x, noise).log_prob(y)
        kinds["barber"].append(barber_agakov(Normal(mean, variance**0.5).log_prob(x), prior))
        kinds["loose barber"].append(
            barber_agakov(Normal(0.8 * mean, 1.2 * variance**0.5).log_prob(x), prior)
        )
        kinds["marginal"].append(
            marginal_bound(likelihood, Normal(0.0, (1 + noise**2) ** 0.5).log_prob(y))
        )
        kinds["loose marginal"].append(marginal_bound(likelihood, Normal(0.3, 1.5).log_prob(y)))
        table = Normal(x, noise).log_prob(y.unsqueeze(1))
        kinds["above"].append(leave_one_out(table))
        kinds["below"].append(info_nce(table))
    for name in ("barber", "marginal"):
        assert_within_errors(kinds[name], truth)
    for name, found in kinds.items():
        assert_bound(
            found, truth, "upper" if name in ("above", "marginal", "loose marginal") else "lower"
        )
    for name, sign in (("loose barber", -1), ("loose marginal", 1)):
        mean = sum(e.value for e in kinds[name]) / 40
        assert sign * (mean - truth) > 0.01


@pytest.mark.parametrize("kind", [leave_one_out, info_nce])
def test_errors_of_contrasts_are_those_of_repetitions(kind):
    """Their terms share draws: the spread of the terms alone would be another number."""
    found = [
        kind(Normal(x, 0.3).log_prob(y.unsqueeze(1)))
        for x, y in (draws(s, 300, 0.3) for s in range(60))
    ]
    values, errors = T([e.value for e in found]), T([e.standard_error for e in found])
    assert float(errors.square().mean().sqrt() / values.std()) == pytest.approx(1, abs=0.3)


def test_what_a_contrast_can_tell_ends_at_the_number_of_draws():
    x, y = draws(0, 50, 1e-4)
    table = Normal(x, 1e-4).log_prob(y.unsqueeze(1))
    assert info_nce(table).value == pytest.approx(math.log(50))
    assert leave_one_out(table).value > exact(1e-4)


def test_a_draw_that_none_of_the_others_explains():
    table = torch.where(torch.eye(3, dtype=torch.bool), 0.0, -math.inf)
    assert leave_one_out(table).value == math.inf
    assert info_nce(table).value == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: info_nce(torch.ones(3)), OptionError, r"scores: expected a tensor of shape \[n, n\], n ≥ 2, got \[3\]"),
        (lambda: leave_one_out(torch.ones(1, 1)), OptionError, r"log_p: expected .* got \[1, 1\]"),
        (lambda: leave_one_out(T([[math.nan, 0], [0, 0]])), DataError, "got NaN in 1 places"),
        (lambda: barber_agakov(torch.ones(1), torch.ones(1)), OptionError, r"log_q: expected a tensor of shape \[n\]"),
        (lambda: marginal_bound([0.0, 1.0], torch.ones(2)), OptionError, "log_p: .* got list"),
        (lambda: mutual_information_of_table(torch.ones(2, 2)), DataError, "sum to 1, got a sum of 4"),
        (lambda: mutual_information_of_normal(torch.eye(2), 0, 0), OptionError, "different dims, got 0 in both"),
    ],
)  # fmt: skip
def test_what_is_refused(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_an_estimate_says_which_side_it_bounds():
    assert str(Estimate(0.5, 0.01, "upper")) == "0.50 ± 0.01 (upper bound)"
    assert str(Estimate(0.5, 0.0, "lower")) == "0.50 (lower bound)"
    assert str(Estimate(0.5)) == "0.50 (exact)"

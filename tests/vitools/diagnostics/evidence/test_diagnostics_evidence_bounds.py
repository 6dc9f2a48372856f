"""Bounds on both sides of an evidence that is known."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import Beta

from vitools import Problem
from vitools.diagnostics import evidence
from vitools.diagnostics.evidence.evidence_bounds import evidence_of, jackknife, upper_bound
from vitools.diagnostics.evidence.wasserstein_bounds import error_bounds
from vitools.errors import NotSupportedError, OptionError
from vitools.models import coin
from vitools.posterior import FactorisedPosterior, Status

FLIPS = coin.simulate(20)
HEADS = float(FLIPS.sum())


def fit(a: float, b: float, model=coin.model) -> FactorisedPosterior:
    q = Beta(torch.tensor(a), torch.tensor(b))
    problem = Problem(model, FLIPS)
    return FactorisedPosterior(problem, {"p": q}, 0.0, engine="test", status=Status.CONVERGED)


def wide_gaussian(sd: float, n: int, seed: int):
    """q = N(0, sd²) for p = N(0, 1): draws and log weights; the evidence is 1."""
    x = sd * torch.randn(n, generator=torch.Generator().manual_seed(seed))
    return x, 0.5 * x**2 * (1 / sd**2 - 1) + math.log(sd)


def test_bounds_rise_to_the_evidence_from_below_and_lie_above_it():
    found = evidence(fit(8.0, 6.0), num_samples=10_000)
    truth = coin.exact_log_evidence(FLIPS)
    lower = [found.lower[k] for k in (1, 10, 100, 1000)]
    for one, next_one in itertools.pairwise(lower):
        assert one.value < next_one.value + 4 * next_one.standard_error
    for each in lower:
        assert 0 < each.standard_error < 0.1
        assert each.value < truth + 4 * each.standard_error
    assert abs(lower[-1].value - truth) < 4 * lower[-1].standard_error + 0.01
    for each in found.jackknife.values():
        assert abs(each.value - truth) < 4 * each.standard_error + 0.01
    assert found.upper.value > truth - 4 * found.upper.standard_error
    assert found.exact.value == truth


def test_jackknife_removes_the_first_order_of_the_bias():
    """Weights of N(0, 1/2): E log mean of K has bias -Var w / 2K + O(1/K²) (Nowozin 2018)."""
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    log_weights = 0.5 * x - 0.125  # E w = 1
    plain = evidence_of(log_weights, ks=(10,)).lower[10]
    corrected = jackknife(log_weights, 10)
    variance = math.expm1(0.25)
    assert plain.value == pytest.approx(-variance / 20, rel=0.1)
    assert abs(corrected.value) < 4 * corrected.standard_error < variance / 40


def test_jackknife_by_hand():
    log_weights = torch.tensor([0.3, -1.2, 2.0])
    w = log_weights.exp().numpy()
    pairs = [np.log((w[i] + w[j]) / 2) for i, j in [(0, 1), (0, 2), (1, 2)]]
    assert jackknife(log_weights, 3).value == pytest.approx(
        3 * np.log(w.mean()) - 2 * np.mean(pairs)
    )
    # one weight that drowns the others must not drown them in rounding
    drowned = torch.tensor([0.0, 60.0])
    assert jackknife(drowned, 2).value == pytest.approx(2 * (60 - math.log(2)) - 30)
    with pytest.raises(OptionError, match="between 2 and"):
        jackknife(log_weights, 4)


def test_upper_bound_against_its_closed_form_and_only_where_it_exists():
    """E w² for q = N(0, s²): s / √(2 - 1/s²), finite for s² > 1/2."""
    _, log_weights = wide_gaussian(1.3, 50_000, 0)
    truth = 0.5 * math.log(1.3 / math.sqrt(2 - 1 / 1.3**2))
    found = upper_bound(log_weights)
    assert abs(found.value - truth) < 4 * found.standard_error < 0.02
    _, log_weights = wide_gaussian(0.6, 50_000, 0)  # k = 0.64
    assert upper_bound(log_weights) is None
    assert upper_bound(torch.zeros(50)).is_exact


def test_a_model_may_carry_its_evidence():
    def model(flips):
        return coin.model(flips)

    model.exact_log_evidence = coin.exact_log_evidence
    found = evidence(fit(1 + HEADS, 21 - HEADS, model), num_samples=10_000)
    assert found.exact.value == coin.exact_log_evidence(FLIPS)
    assert found.lower[1000].value == pytest.approx(found.exact.value, abs=1e-10)
    assert found.upper.value == pytest.approx(found.exact.value, abs=1e-10)

    def too_large(flips):
        raise NotSupportedError("too many rows")

    model.exact_log_evidence = too_large
    assert evidence(fit(8.0, 6.0, model)).exact is None


def test_too_few_draws_for_k():
    with pytest.raises(OptionError, match=r"K = 1000 needs 10 groups .* got 5000"):
        evidence(fit(8.0, 6.0), num_samples=5000)
    assert list(evidence_of(torch.zeros(1000)).lower) == [1, 10, 100]


def test_error_bounds_hold_for_gaussians():
    """q = N(.1, 1.1²) for p = N(0, 1): the errors are .1 and .1."""
    x = 0.1 + 1.1 * torch.randn(5000, generator=torch.Generator().manual_seed(0))
    log_weights = -0.5 * x**2 + 0.5 * ((x - 0.1) / 1.1) ** 2 + math.log(1.1)
    found = error_bounds({"x": x}, log_weights)
    assert 0.1 < found.mean_error < 2.0
    assert 0.1 < found.sd_error < 4.0
    # D₂ = log E_q w², by quadrature
    grid = np.linspace(-12, 12, 20_001)
    p = np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi)
    q = np.exp(-0.5 * ((grid - 0.1) / 1.1) ** 2) / (1.1 * math.sqrt(2 * math.pi))
    truth = math.log(np.trapezoid(p**2 / q, grid))
    assert found.divergence > truth - 0.01
    _, heavy = wide_gaussian(0.6, 5000, 0)
    assert error_bounds({"x": x}, heavy) is None

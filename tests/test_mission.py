"""The whole mission once through: model → CAVI, SVI, NUTS → comparison, against outside truths."""

import math

import pytest
import torch

from vitools import Problem, cavi, compare, nuts, svi
from vitools.diagnostics import marginal_bound
from vitools.engines import hand_derived
from vitools.guides import AutoDirichlet, AutoKumaraswamy, AutoLogisticNormal, AutoMultivariate
from vitools.models import bayesian_regression, two_dice

COUNTS = ((3, 0), (2, 1), (3, 0), (0, 3), (0, 3), (1, 2), (3, 0))
PRIOR = ((1.2, 0.8), (0.7, 1.5), ((1.0, 0.5), (0.6, 1.4), (2.0, 0.9)))
LOG_EVIDENCE = -12.79031163306505  # enumerated elsewhere


@pytest.fixture(scope="module")
def tiny():
    rolls = torch.tensor([[0] * a + [1] * b for a, b in COUNTS])
    alpha1, alpha2, beta = (torch.tensor(x, dtype=torch.float64) for x in PRIOR)
    return Problem(two_dice.model, rolls, 2, 2, 2, alpha1, alpha2, beta)


@pytest.mark.parametrize("factorisation", ["factorised", "joint"])
def test_evidence_bounds_the_marginal_bound_bounds_the_coordinate_bound(tiny, factorisation):
    joint = [("z1", "z2")] if factorisation == "joint" else []
    derived = cavi(tiny, joint=joint, restarts=20)
    fit = hand_derived(tiny, factorisation=factorisation, restarts=20)
    assert derived.bound == pytest.approx(fit.bound, abs=1e-5)  # the same best optimum
    summed_out = marginal_bound(fit, 4000, seed=1)
    assert fit.bound <= summed_out.value + 3 * summed_out.standard_error
    assert summed_out.value <= LOG_EVIDENCE + 3 * summed_out.standard_error


@pytest.mark.parametrize("guide", [AutoKumaraswamy, AutoLogisticNormal, AutoDirichlet])
def test_evidence_is_above_every_guide_and_the_guides_above_coordinate_ascent(tiny, guide):
    ascent = hand_derived(tiny, factorisation="joint", restarts=20)
    fit = svi(tiny, guide, start=ascent, seed=0)
    bound = marginal_bound(fit, 4000, seed=1)
    assert bound.value <= LOG_EVIDENCE + 3 * bound.standard_error
    # coordinate ascent pays for q(z) as well; the guides have it summed out exactly
    assert bound.value >= ascent.bound - 3 * bound.standard_error


def test_nuts_and_importance_sampling_agree_on_the_tiny_posterior(tiny):
    proposal = svi(tiny, AutoMultivariate, seed=0)
    values, log_q = proposal.sample_with_log_prob(20_000, seed=3)
    weights = (tiny.log_joint(values) - log_q).softmax(0)
    ess = float(1 / weights.square().sum())
    log_evidence = float((tiny.log_joint(values) - log_q).logsumexp(0)) - math.log(20_000)
    assert log_evidence == pytest.approx(LOG_EVIDENCE, abs=4 / math.sqrt(ess))
    reference = nuts(tiny, num_samples=500, num_warmup=200, num_chains=2, seed=0)
    expected = two_dice.invariants(values)["roll_probability"]
    mean = (weights[:, None] * expected).sum(0)
    drawn = two_dice.invariants(reference.pooled())["roll_probability"]
    error = drawn.std(0) * math.sqrt(1 / reference.ess["roll_probability"] + 1 / ess)
    assert bool(((drawn.mean(0) - mean).abs() < 4 * error).all())


@pytest.fixture(scope="module")
def regression():
    data = bayesian_regression.simulate(60, 3, seed=2)
    return Problem(bayesian_regression.model, data.features, data.target)


def test_nuts_has_the_moments_of_quadrature_on_the_regression(regression):
    exact = bayesian_regression.exact_posterior(*regression.args)
    chains = nuts(regression, num_samples=600, num_warmup=300, num_chains=2, seed=0)
    truth = {
        "weights": (exact.mean[:3], exact.sd[:3]),
        "intercept": (exact.mean[3], exact.sd[3]),
        "precision": (torch.tensor(exact.precision_mean), torch.tensor(exact.precision_sd)),
    }
    for name, (mean, sd) in truth.items():
        draws, ess = chains.pooled()[name], chains.ess[name]
        standard = (draws - draws.mean(0)) / draws.std(0)
        assert bool(((draws.mean(0) - mean).abs() < 4 * sd / math.sqrt(ess)).all())
        # the delta method: sd of a sample sd is sd √((kurtosis - 1) / 4n)
        noise = ((standard.pow(4).mean(0) - 1) / (4 * ess)).sqrt()
        assert bool(((draws.std(0) / sd - 1).abs() < 4 * noise).all())


def test_regression_by_hand_narrows_as_theory_says(regression):
    exact = bayesian_regression.exact_posterior(*regression.args)
    # √(1 - 1/a*) with a* ≈ N/2 for the sd of a coefficient beside an unknown precision
    ratio = hand_derived(regression).sd()["weights"] / exact.sd[:3]
    assert bool((ratio < 1).all())
    assert bool((ratio > 0.97).all())


def test_the_comparison_tells_a_good_fit_from_a_bad_one(regression):
    good = hand_derived(regression)
    bad = hand_derived(regression, factorisation="elementwise", max_sweeps=1)
    truth = nuts(regression, num_samples=500, num_warmup=300, num_chains=2, start=good)
    table = compare({"good": good, "bad": bad, "NUTS": truth}).table
    assert table.loc["good", "verdict"] == "trust"
    assert table.loc["bad", "verdict"] == "do not use"
    assert table.loc["NUTS", "verdict"] == "reference"
    assert table.loc["good", "bound"] > table.loc["bad", "bound"]

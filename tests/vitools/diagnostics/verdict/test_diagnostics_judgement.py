"""The judge on fits whose errors are known, without a reference to help."""

import math
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem
from vitools.diagnostics import Grade, Moments, judge
from vitools.models import coin
from vitools.posterior import DrawsPosterior, Estimate, FactorisedPosterior, Status

RHO = 0.9
COVARIANCE = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64)


def pair(x):
    """A posterior N(0, Σ) for (a, b), whatever the datum."""
    a = pyro.sample("a", dist.Normal(torch.tensor(0.0), 1.0))
    b = pyro.sample("b", dist.Normal(RHO * a, math.sqrt(1 - RHO**2)))
    pyro.sample("x", dist.Normal(torch.zeros_like(b), 1.0), obs=x)


def factorised(a, b):
    problem = Problem(pair, torch.tensor(0.0))
    factors = {"a": td.Normal(*map(torch.tensor, a)), "b": td.Normal(*map(torch.tensor, b))}
    return FactorisedPosterior(problem, factors, 0.0, engine="cavi", status=Status.CONVERGED)


def joint(mean, covariance):
    q = td.MultivariateNormal(torch.tensor(mean), covariance)
    return FactorisedPosterior(
        Problem(pair, torch.tensor(0.0)),
        {("a", "b"): q},
        0.0,
        engine="cavi",
        status=Status.CONVERGED,
    )


def test_the_posterior_is_trusted():
    found = judge(joint([0.0, 0.0], COVARIANCE))
    assert found.verdict.grade is Grade.TRUST
    assert found.khat == Estimate(0.0)
    assert found.correction.mean_error.value < 1e-10
    assert found.psis_moments["a"].sd == pytest.approx(1.0, abs=0.1)
    assert found.evidence.lower[1].value == pytest.approx(-0.5 * math.log(2 * math.pi))
    assert [k.value for k in found.site_khats.values()] == [0.0, 0.0]


def test_a_shrunk_mean_field_is_not_trusted_and_blocks_are_advised():
    sd = math.sqrt(1 - RHO**2)
    found = judge(factorised((0.0, sd), (0.0, sd)), num_samples=4000)
    assert found.verdict.grade is not Grade.TRUST
    assert "joint=[('a', 'b')]" in found.verdict.advice or (
        "joint=[('b', 'a')]" in found.verdict.advice
    )


@pytest.mark.parametrize("seed", range(5))
def test_errors_above_the_limits_are_seen_without_a_reference(seed):
    assert judge(joint([0.3, 0.0], COVARIANCE), seed=seed).verdict.grade is not Grade.TRUST
    assert judge(joint([0.0, 0.0], 0.5 * COVARIANCE), seed=seed).verdict.grade is not Grade.TRUST
    assert judge(joint([0.0, 0.0], 2.0 * COVARIANCE), seed=seed).verdict.grade is not Grade.TRUST
    assert judge(joint([0.05, 0.05], 0.95 * COVARIANCE), seed=seed).verdict.grade is Grade.TRUST


def test_a_mean_that_has_not_arrived_is_named():
    found = judge(joint([0.6, 0.6 * RHO], COVARIANCE))
    assert found.verdict.grade is Grade.CARE
    assert "sd from where its weights put it" in found.verdict.reason
    assert abs(found.correction.mean_error.value - 0.6) < 0.1


def funnel(x):
    tau = pyro.sample("tau", dist.LogNormal(torch.tensor(0.0), 1.0))
    with pyro.plate("groups", 8):
        theta = pyro.sample("theta", dist.Normal(torch.tensor(0.0), tau))
        pyro.sample("x", dist.Normal(theta, 10.0), obs=x)


def test_a_funnel_is_named_with_its_cure():
    problem = Problem(funnel, torch.zeros(8))
    factors = {
        "tau": dist.LogNormal(torch.tensor(0.0), 0.5),
        "theta": td.Normal(torch.zeros(8), 1.0),
    }
    fit = FactorisedPosterior(problem, factors, 0.0, engine="cavi", status=Status.CONVERGED)
    found = judge(fit, num_samples=4000)
    assert found.verdict.grade is Grade.REJECT
    assert found.verdict.reason.endswith(
        f"on account of {found.site_khats['tau'].at} ({found.site_khats['tau'].value:.2f})"
    )
    assert "the spread of theta follows tau: a funnel" in found.verdict.advice
    assert "LocScaleReparam" in found.verdict.advice


def two_modes(x):
    """p(μ | x) has equal modes at ±3."""
    mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 10.0))
    pyro.sample("x", dist.Normal(mu**2, 1.0), obs=x)


def test_evidence_from_elsewhere_betrays_a_missed_mode():
    problem = Problem(two_modes, torch.tensor(9.0))
    q = td.StudentT(torch.tensor(12.0), 2.99, 0.157)
    fit = FactorisedPosterior(problem, {"mu": q}, 0.0, engine="svi", status=Status.CONVERGED)
    alone = judge(fit)
    assert alone.correction.mean_error.value < 0.05  # its own draws know of no other mode
    assert "near mu = -3; about 0.5 of the mass" in alone.verdict.reason  # the scan does
    grid = torch.linspace(-5, 5, 20_001)
    log_joint = problem.log_joint({"mu": grid})
    evidence = float(log_joint.logsumexp(0) + math.log(10 / 20_000))
    found = judge(fit, least_evidence=Estimate(evidence))
    assert found.verdict.grade is Grade.REJECT
    assert "0.5 of the evidence" in found.verdict.reason


def test_draws_have_no_weights():
    draws = torch.rand(2, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = Problem(coin.model, coin.simulate(20))
    found = judge(DrawsPosterior(problem, {"p": draws}, engine="nuts", status=Status.SAMPLED))
    assert found.weights is found.correction is found.evidence is None
    assert found.site_khats == found.psis_moments == {}


def test_reference_draws_give_distances():
    fit = joint([0.5, 0.0], COVARIANCE)
    truth = judge(joint([0.0, 0.0], COVARIANCE), seed=7)
    found = judge(fit, truth.moments, reference_draws=truth.draws)
    assert found.distance.quantile_error_at.startswith("a ")
    assert abs(found.distance.quantile_error.value - 0.5) < 0.2
    assert truth.distance is None
    assert truth.error_bounds.mean_error == pytest.approx(0.0, abs=1e-6)
    assert truth.trend.rhat is None


def heavy(x):
    """A posterior with the tails of Student's t at 3 degrees of freedom, whatever the datum."""
    tau = pyro.sample("tau", dist.StudentT(torch.tensor(3.0), 0.0, 1.0))
    pyro.sample("x", dist.Normal(torch.zeros_like(tau), 1.0), obs=x)


def without_its_tail(scale):
    problem = Problem(heavy, torch.tensor(0.0))
    factors = {"tau": td.StudentT(torch.tensor(9.0), 0.0, scale)}
    return FactorisedPosterior(problem, factors, 0.0, engine="svi", status=Status.CONVERGED)


@pytest.mark.parametrize("seed", [5, 14, 28])
def test_trust_by_weights_alone_takes_a_second_look(seed):
    """The fit's sd is 0.59 of the posterior's; a thousand draws happen to show less of it."""
    fit = without_its_tail(0.9)
    found = judge(fit, seed=seed)
    assert found.verdict.grade is Grade.CARE
    assert re.match(r"at (4|16|64)000 draws, ", found.verdict.reason)
    assert found.verdict.advice
    assert len(found.draws["tau"]) == 1000  # all else is of the first draws
    assert abs(found.correction.sd_ratio.value - 1) <= 0.2
    truth = {"tau": Moments.exact(torch.tensor(0.0), torch.tensor(3.0).sqrt())}
    assert "the sd of tau is too narrow: 0.5" in judge(fit, truth, seed=seed).verdict.reason


def test_a_second_look_bears_out_a_fit_that_is_nearly_right():
    found = judge(joint([0.12, 0.0], COVARIANCE))
    assert found.weights.effective_size < 950
    assert found.verdict.grade is Grade.TRUST
    assert found.verdict.reason.startswith("k̂ ")

"""An exact fit whose draws round to the edge of their support is judged as an exact fit."""

import math

import pyro.distributions as dist
import pytest
import torch
from pyro import param, plate, sample
from torch import distributions as td

from vitools import Problem, cavi
from vitools.diagnostics import Grade, judge
from vitools.posterior import FactorisedPosterior, GuidePosterior, Status

DTYPES = (torch.float32, torch.float64)


def coin(flips, prior):
    p = sample("p", dist.Beta(prior[0], prior[1]))
    with plate("flips", len(flips)):
        sample("heads", dist.Bernoulli(p), obs=flips)


def evidence_of_coin(flips, prior):
    """log B(a + n, b) / B(a, b) of n heads."""
    after, before = prior[0] + len(flips), prior.sum()
    terms = torch.lgamma(torch.stack([after, before, before + len(flips), prior[0]]).double())
    return float(terms[0] + terms[1] - terms[2] - terms[3])


def counts(y, prior):
    rate = sample("rate", dist.Gamma(prior[0], prior[1]))
    with plate("days", len(y)):
        sample("y", dist.Poisson(rate), obs=y)


def evidence_of_zeros(y, prior):
    """log (b / (b + n))^a of n zeros."""
    a, b = prior.double()
    return float(a * torch.log(b / (b + len(y))))


def kinds(z, prior):
    shares = sample("shares", dist.Dirichlet(prior))
    with plate("rows", len(z)):
        sample("z", dist.Categorical(shares), obs=z)


def evidence_of_first_kind(z, prior):
    prior, total = prior.double(), prior.double().sum()
    n = len(z)
    up = torch.lgamma(prior[0] + n) - torch.lgamma(prior[0])
    return float(up - torch.lgamma(total + n) + torch.lgamma(total))


def variances(prior):
    # an observation that says nothing of a variance at infinity: its density there is a constant
    variance = sample("variance", dist.InverseGamma(prior[0], prior[1]))
    sample("y", dist.Normal(0.0 * variance.clamp(max=1.0), 1.0), obs=torch.zeros_like(prior[0]))


CASES = {
    "one": (coin, torch.ones(9), (1.0, 0.1), evidence_of_coin),
    "far": (coin, torch.ones(9), (1.0, 0.01), evidence_of_coin),
    "zero": (counts, torch.zeros(3), (0.01, 1.0), evidence_of_zeros),
    "vertices": (kinds, torch.zeros(4), (0.3, 0.01, 0.003, 0.1), evidence_of_first_kind),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_the_judged_bound_is_the_evidence(case, dtype):
    model, data, prior, evidence = CASES[case]
    prior = torch.tensor(prior, dtype=dtype)
    data = data.long() if model is kinds else data.to(dtype)
    fit = cavi(Problem(model, data, prior))
    found = judge(fit)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-10
    assert found.bound.value == pytest.approx(evidence(data, prior), abs=tolerance)
    assert found.khat.value == 0.0
    assert found.verdict.grade is Grade.TRUST
    (draws,) = fit.sample(1000).values()
    assert bool((draws > 0).all())
    assert model is kinds or bool((draws < (1 if model is coin else math.inf)).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_variances_beyond_the_largest_number(dtype):
    prior = torch.tensor([0.002, 1.0], dtype=dtype)
    problem = Problem(variances, prior)
    factor = dist.InverseGamma(*prior.double())
    fit = FactorisedPosterior(
        problem, {"variance": factor}, 0.0, engine="cavi", status=Status.CONVERGED
    )
    found = judge(fit)
    assert found.bound.value == pytest.approx(-0.5 * math.log(2 * math.pi), abs=1e-4)
    assert found.khat.value == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fit_with_another_tail_has_its_own_bound(dtype):
    flips, prior = torch.ones(9, dtype=dtype), torch.tensor([1.0, 0.01], dtype=dtype)
    a, b = (prior.double() + torch.tensor([9.0, 0.0])).unbind()
    q, posterior = td.Beta(a, 2 * b), td.Beta(a, b)
    fit = FactorisedPosterior(
        Problem(coin, flips, prior), {"p": q}, 0.0, engine="cavi", status=Status.CONVERGED
    )
    # 85 of 100 draws are 1 in float32; without what lies beyond, their weights would be all alike
    expected = evidence_of_coin(flips, prior) - float(td.kl_divergence(q, posterior))
    bound = judge(fit, num_samples=20_000).bound
    assert abs(bound.value - expected) <= 4.5 * bound.standard_error
    assert bound.standard_error < 0.02


def split(probabilities, prior):
    kind = sample("kind", dist.Categorical(probabilities))
    p = sample("p", dist.Beta(prior[kind], 1.0))
    sample("heads", dist.Bernoulli(p), obs=torch.zeros_like(prior[0]))


def test_a_prior_that_depends_on_a_discrete_latent():
    # p(p, heads = 0) = Σ_k π_k a_k p^(a_k - 1) (1 - p), and q ∝ p^(c - 1)
    weights, prior = torch.tensor([0.3, 0.7]), torch.tensor([0.01, 0.02])
    problem = Problem(split, weights, prior)
    values = {"p": torch.full((3,), torch.finfo(torch.float32).tiny)}
    shift = torch.tensor([0.0, -50.0, -500.0])
    found = problem.log_joint(values, {"p": {"log": shift, "log1m": torch.zeros(3)}})
    log_p = values["p"].double().log() + shift
    terms = (weights * prior).double().log() + (prior.double() - 1) * log_p[:, None]
    torch.testing.assert_close(found.double(), terms.logsumexp(-1), rtol=1e-5, atol=1e-5)


def edge_guide(flips, prior):
    after = param("after", prior + torch.tensor([9.0, 0.0], dtype=prior.dtype))
    sample("p", dist.Beta(after[0], after[1]))


def test_a_guide_s_draws_stay_inside():
    flips, prior = torch.ones(9), torch.tensor([1.0, 0.1])
    problem = Problem(coin, flips, prior)
    after = torch.nn.Parameter(prior + torch.tensor([9.0, 0.0]))
    params = {"params": {"after": after}, "constraints": {"after": td.constraints.real}}
    fit = GuidePosterior(problem, edge_guide, params, engine="svi", status=Status.CONVERGED)
    found = judge(fit)
    assert found.bound.value == pytest.approx(evidence_of_coin(flips, prior), abs=1e-4)
    assert found.verdict.grade is Grade.TRUST

"""Flat priors: every engine takes them, only draws from the prior itself are refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from vitools import Problem, nuts, svi
from vitools.errors import NotSupportedError
from vitools.guides import AutoMultivariate

NOISE = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def model(y):
    level = pyro.sample("level", dist.ImproperUniform(constraints.real, (), ()))
    scale = pyro.sample("scale", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("n", len(y)):
        pyro.sample("y", dist.Normal(level, scale), obs=y)


@pytest.fixture(scope="module")
def problem():
    return Problem(model, 3.0 + 2.0 * NOISE)


def exact_moments(y):
    """level - mean ~ s/√n · t_{n-2}, and scale² ~ InverseGamma((n-2)/2, S/2): p(θ|y) ∝ p(y|θ)."""
    n, square = len(y), float(((y - y.mean()) ** 2).sum())
    variance = square / (n - 4) / n
    shape = (n - 2) / 2
    mean_scale = torch.exp(
        torch.lgamma(torch.tensor(shape - 0.5)) - torch.lgamma(torch.tensor(shape))
    )
    return float(y.mean()), variance**0.5, float(mean_scale * (square / 2) ** 0.5)


def test_the_density_is_the_likelihood_in_the_dtype_of_the_data(problem):
    assert problem.latents["level"].dtype == torch.float64
    values = {"level": torch.tensor([1.0, 3.0]), "scale": torch.tensor([2.0, 0.5])}
    values = {name: value.double() for name, value in values.items()}
    expected = dist.Normal(values["level"][:, None], values["scale"][:, None])
    torch.testing.assert_close(
        problem.log_joint(values), expected.log_prob(problem.args[0]).sum(-1), rtol=1e-12, atol=0.0
    )


def test_draws_from_the_prior_are_refused_by_name(problem):
    with pytest.raises(NotSupportedError, match=r"site 'level' has an improper prior"):
        problem.prior(3)
    start = problem.starting_draws(50, seed=1)
    assert bool((start["scale"] > 0).all())
    replicated = problem.predictive(start, seed=2)["y"]
    assert replicated.shape == (50, 40)


def test_nuts_and_a_guide_have_the_exact_moments(problem):
    mean, sd, mean_scale = exact_moments(problem.args[0])
    chains = nuts(problem, num_samples=400, num_warmup=200, num_chains=2, seed=0)
    assert chains.status.label == "sampled"
    error = sd / chains.ess["level"] ** 0.5
    assert float(chains.mean()["level"]) == pytest.approx(mean, abs=4 * error)
    error = float(chains.sd()["scale"]) / chains.ess["scale"] ** 0.5
    assert float(chains.mean()["scale"]) == pytest.approx(mean_scale, abs=4 * error)
    fit = svi(problem, AutoMultivariate, seed=0)
    assert float(fit.mean()["level"]) == pytest.approx(mean, abs=0.1 * sd)
    assert float(fit.sd()["level"]) == pytest.approx(sd, rel=0.1)

"""Information gain of fits by every engine against closed forms and enumeration."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from seeds import assert_within_errors
from torch.distributions import Beta, Categorical, Normal
from torch.distributions.kl import kl_divergence

from vitools import Problem, cavi, exact, laplace
from vitools.errors import NotSupportedError, OptionError
from vitools.information import information_gain
from vitools.information.information_gain import bridge_log_evidence
from vitools.models import coin
from vitools.posterior import DrawsPosterior, Posterior, Status


def T(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


FLIPS = T([1, 1, 0, 1, 0, 1, 1, 1.0])
COIN_GAIN = float(kl_divergence(Beta(T(7.0), T(3.0)), Beta(T(1.0), T(1.0))))
Y = T([0.3, 1.4, -0.2, 0.8])


def line(y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), 2.0).to_event(1))
    x = torch.arange(len(y)).double()
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(w[0] + w[1] * x, 1.0), obs=y)


def line_posterior():
    design = torch.stack([torch.ones(4), torch.arange(4.0)], 1).double()
    covariance = torch.linalg.inv(design.mT @ design + torch.eye(2) / 4)
    return torch.distributions.MultivariateNormal(covariance @ design.mT @ Y, covariance)


def line_gain():
    prior = torch.distributions.MultivariateNormal(torch.zeros(2), 4 * torch.eye(2))
    return float(kl_divergence(line_posterior(), prior))


def test_on_a_grid_it_is_exact():
    found = information_gain(exact(Problem(coin.model, FLIPS)))
    assert found.standard_error < 1e-7
    assert found.value == pytest.approx(COIN_GAIN, abs=1e-7)


@pytest.mark.parametrize("engine", [cavi, laplace])
def test_of_fits_with_a_density(engine):
    """Both are exact here, for the posterior is normal."""
    fit = engine(Problem(line, Y))
    found = [information_gain(fit, num_samples=500, seed=s) for s in range(25)]
    assert_within_errors(found, line_gain())


def test_an_approximation_is_taken_at_its_word():
    fit = Posterior.from_gaussian(Problem(line, Y), T([0.5, 0.2]), T([0.1, 0.1]))
    q = torch.distributions.MultivariateNormal(T([0.5, 0.2]), 0.1 * torch.eye(2))
    prior = torch.distributions.MultivariateNormal(torch.zeros(2), 4 * torch.eye(2))
    found = [information_gain(fit, num_samples=500, seed=s) for s in range(20)]
    assert_within_errors(found, float(kl_divergence(q, prior)))


def chains(problem, site, draws):
    return DrawsPosterior(
        problem, {site: draws}, ess={site: float(draws[..., 0].numel() if draws.dim() > 2 else draws.numel())},
        engine="nuts", status=Status.SAMPLED,
    )  # fmt: skip


def test_of_chains_by_bridge_sampling():
    posterior = line_posterior()
    problem = Problem(line, Y)
    found, evidences = [], []
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(4, 100, 2, generator=generator, dtype=torch.float64)
        fit = chains(problem, "w", posterior.loc + noise @ posterior.scale_tril.mT)
        found.append(information_gain(fit, seed=seed))
        evidences.append(bridge_log_evidence(fit, seed))
    assert_within_errors(evidences, exact(problem).log_evidence.value)
    assert_within_errors(found, line_gain())


def test_of_chains_of_a_bounded_site():
    problem = Problem(coin.model, FLIPS)
    found = []
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(4, 100, 12, generator=generator, dtype=torch.float64)
        logs = -uniform.log()
        p = logs[..., :7].sum(-1) / logs[..., :10].sum(-1)  # Beta(7, 3) from exponentials
        found.append(information_gain(chains(problem, "p", p), seed=seed))
    assert_within_errors(found, COIN_GAIN)


def two_coins(flips):
    which = pyro.sample("which", dist.Categorical(T([0.7, 0.3])))
    with pyro.plate("flips", len(flips)):
        pyro.sample("heads", dist.Bernoulli(T([0.5, 0.9])[which]), obs=flips)


def test_of_discrete_latents_alone():
    likelihood = torch.stack([dist.Bernoulli(p).log_prob(FLIPS).sum() for p in (T(0.5), T(0.9))])
    prior = Categorical(T([0.7, 0.3]))
    posterior = Categorical(logits=likelihood + prior.logits)
    truth = float(kl_divergence(posterior, prior))
    fit = exact(Problem(two_coins, FLIPS))
    found = [information_gain(fit, num_samples=500, seed=s) for s in range(20)]
    assert_within_errors(found, truth)


def switch(y):
    mu = pyro.sample("mu", dist.Normal(T(0.0), 1.0))
    z = pyro.sample("z", dist.Bernoulli(T(0.5)))
    pyro.sample("y", dist.Normal(mu + 3 * z, 1.0), obs=y)


def test_discrete_latents_count_where_they_are_asked_for():
    """The posterior of mu is a mixture of two normals; that of the pair has a closed form."""
    y = T(1.0)
    weight = torch.softmax(torch.stack([Normal(3.0 * k, 2**0.5).log_prob(y) for k in range(2)]), 0)
    parts = [Normal((y - 3 * k) / 2, 0.5**0.5) for k in range(2)]
    both = sum(
        w * (kl_divergence(p, Normal(0.0, 1.0)) + w.log() + math.log(2))
        for w, p in zip(weight, parts, strict=True)
    )
    mu = torch.linspace(-10, 10, 20001)
    density = sum(w * p.log_prob(mu).exp() for w, p in zip(weight, parts, strict=True))
    ratio = density.log() - Normal(0.0, 1.0).log_prob(mu)
    alone = float(torch.trapezoid(torch.where(density > 0, density * ratio, 0.0), mu))
    fit = exact(Problem(switch, y))
    assert information_gain(fit).value == pytest.approx(alone, abs=1e-6)
    found = [information_gain(fit, discrete=True, num_samples=1000, seed=s) for s in range(20)]
    assert_within_errors(found, float(both))


def with_factor(y):
    mu = pyro.sample("mu", dist.Normal(T(0.0), 1.0))
    pyro.factor("extra", -(mu**2))
    pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def test_what_is_refused():
    with pytest.raises(OptionError, match="expects a fit, got Problem"):
        information_gain(Problem(line, Y))
    fit = laplace(Problem(with_factor, T(0.3)))
    with pytest.raises(NotSupportedError, match=r"pyro.factor statement \('extra'\)"):
        information_gain(fit)
    with pytest.raises(OptionError, match="num_samples"):
        information_gain(laplace(Problem(line, Y)), num_samples=0)
    few = chains(Problem(line, Y), "w", torch.zeros(1, 6, 2))
    with pytest.raises(NotSupportedError, match="6 draws are too few"):
        information_gain(few)

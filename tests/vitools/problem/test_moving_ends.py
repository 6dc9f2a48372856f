"""Observations whose support moves with a latent: density 0 outside, against scipy and quadrature."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from scipy import integrate, stats

from vitools import Problem, dadvi, exact, laplace, nuts, svi
from vitools.errors import DataError, NotSupportedError, NumericalError
from vitools.guides import AutoNormal
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace


def one(value=1.0):
    return torch.tensor(value).double()


def pareto(y):
    least = pyro.sample("least", dist.LogNormal(one(0.0), one()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Pareto(least, one(3.0)), obs=y)


def shifted(y):
    least = pyro.sample("least", dist.Normal(one(0.0), one(3.0)))
    with pyro.plate("rows", len(y)):
        shift = transforms.AffineTransform(least, one())
        pyro.sample("y", dist.TransformedDistribution(dist.Exponential(one()), [shift]), obs=y)


def shifted_logs(y):
    """log of a negative number is NaN below the shift, in the density and in its gradient."""
    least = pyro.sample("least", dist.Normal(one(0.0), one(3.0)))
    with pyro.plate("rows", len(y)):
        shift = transforms.AffineTransform(least, one())
        pyro.sample(
            "y", dist.TransformedDistribution(dist.LogNormal(one(0.0), one()), [shift]), obs=y
        )


def one_event(y):
    least = pyro.sample("least", dist.LogNormal(one(0.0), one()))
    pyro.sample("y", dist.Pareto(least, one(3.0)).expand([len(y)]).to_event(1), obs=y)


def uniform(y):
    most = pyro.sample("most", dist.Gamma(one(2.0), one(0.5)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Uniform(one(0.0), most), obs=y)


NOISE = torch.rand(15, generator=torch.Generator().manual_seed(0)).double()
ABOVE, BELOW = 1.5 * NOISE.pow(-1 / 3), 4.0 * NOISE
LOWEST, HIGHEST = float(ABOVE.min()), float(BELOW.max())
CASES = {
    "pareto": (
        pareto,
        ABOVE,
        (0.5, LOWEST),
        lambda m: stats.lognorm(1).logpdf(m) + stats.pareto(3, scale=m).logpdf(ABOVE).sum(),
    ),
    "one event": (
        one_event,
        ABOVE,
        (0.5, LOWEST),
        lambda m: stats.lognorm(1).logpdf(m) + stats.pareto(3, scale=m).logpdf(ABOVE).sum(),
    ),
    "shifted": (
        shifted,
        ABOVE,
        (LOWEST - 5, LOWEST),
        lambda m: stats.norm(0, 3).logpdf(m) + stats.expon(m).logpdf(ABOVE).sum(),
    ),
    "shifted logs": (
        shifted_logs,
        ABOVE,
        (LOWEST - 8, LOWEST),
        lambda m: stats.norm(0, 3).logpdf(m) + stats.lognorm(1, m).logpdf(ABOVE).sum(),
    ),
    "uniform": (
        uniform,
        BELOW,
        (HIGHEST, 14.0),
        lambda m: stats.gamma(2, scale=2).logpdf(m) + stats.uniform(0, m).logpdf(BELOW).sum(),
    ),
}


def of_case(name):
    model, y, (low, high), density = CASES[name]
    return Problem(model, y), low, high, density


@pytest.mark.parametrize("name", CASES)
def test_the_density_is_zero_where_data_are_outside(name):
    problem, low, high, density = of_case(name)
    (site,) = problem.latents
    points = np.linspace(low, high, 9)[1:-1].tolist()
    beyond = [HIGHEST - 0.1] if name == "uniform" else [LOWEST + 0.1, LOWEST + 3]
    found = problem.log_joint({site: torch.tensor(points + beyond).double()})
    expected = [float(density(m)) for m in points] + [-math.inf] * len(beyond)
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_gradients_beyond_the_edge_are_zero_and_not_nan(name):
    problem, *_ = of_case(name)
    space = UnconstrainedSpace(problem)
    (site,) = problem.latents
    beyond = one(HIGHEST - 0.1 if name == "uniform" else LOWEST + 0.1)
    point = space.from_values({site: beyond.reshape(1)})[0].requires_grad_()
    with pyro.validation_enabled(False):
        density = space.problem.factors(space.to_values(point)).log_density()
    (slope,) = torch.autograd.grad(density, point)
    assert density == -math.inf
    assert bool(slope.isfinite().all())


@pytest.mark.parametrize("name", ["pareto", "shifted logs", "uniform"])
def test_exact_agrees_with_quadrature_up_to_the_edge(name):
    problem, low, high, density = of_case(name)
    (site,) = problem.latents
    top = max(float(density(m)) for m in np.linspace(low, high, 99)[1:-1])

    def integral(power):
        return integrate.quad(
            lambda m: m**power * math.exp(density(m) - top), low, high, epsrel=1e-10, limit=200
        )[0]

    evidence, mean = top + math.log(integral(0)), integral(1) / integral(0)
    fit = exact(problem)
    error = fit.log_evidence.standard_error
    assert 0.0 <= error <= 1e-3
    assert fit.log_evidence.value == pytest.approx(evidence, abs=max(error, 1e-7))
    assert float(fit.mean()[site]) == pytest.approx(mean, abs=1e-3 * float(fit.sd()[site]) + 1e-7)
    draws = fit.sample(2000, seed=1)
    assert bool(problem.log_joint(draws).isfinite().all())


def test_nuts_stays_inside_and_says_why_steps_diverge():
    problem, low, high, density = of_case("uniform")
    fit = nuts(problem, num_chains=2)
    draws = fit.sample(2000)["most"]
    assert float(draws.min()) >= HIGHEST
    top = max(float(density(m)) for m in np.linspace(low, high, 99)[1:-1])
    total, moment = (
        integrate.quad(lambda m: m**p * math.exp(density(m) - top), low, high)[0]  # noqa: B023
        for p in (0, 1)
    )
    error = float(fit.sd()["most"]) / math.sqrt(float(min(fit.ess.values())))
    assert float(fit.mean()["most"]) == pytest.approx(moment / total, abs=4 * error)
    assert "the support of site 'y' may move with the latents" in fit.detail


@pytest.mark.parametrize("engine", [laplace, dadvi])
def test_gaussians_that_reach_beyond_the_edge_are_refused_by_name(engine):
    with pytest.raises(NotSupportedError, match=r"site 'y' may move with the latents.*nuts"):
        engine(of_case("shifted")[0])


def test_svi_names_the_edge_that_a_guide_crosses():
    with pytest.raises(
        NumericalError, match=r"site 'y' may move with the latents.*that draws them"
    ):
        svi(of_case("uniform")[0], AutoNormal)


def test_svi_fits_a_guide_that_stays_inside():
    """q(θ) = max(y) + Gamma has a bound, and it is below the evidence by quadrature."""
    problem, low, high, density = of_case("uniform")

    def guide(y):
        shape = pyro.param("shape", one(), constraint=dist.constraints.positive)
        rate = pyro.param("rate", one(4.0), constraint=dist.constraints.positive)
        above = [transforms.AffineTransform(y.max(), one())]
        pyro.sample("most", dist.TransformedDistribution(dist.Gamma(shape, rate), above))

    top = max(float(density(m)) for m in np.linspace(low, high, 99)[1:-1])
    integral = integrate.quad(lambda m: math.exp(density(m) - top), low, high, limit=200)[0]
    with pytest.warns(UserWarning, match="part of its support only"):
        fit = svi(problem, guide)
    bound = fit.elbo()
    evidence = top + math.log(integral)
    assert evidence - 0.1 < bound.value < evidence + 4 * bound.standard_error


def counts(y, most):
    n = pyro.sample("n", dist.Categorical(torch.ones(most).double()))
    p = pyro.sample("p", dist.Beta(one(2.0), one(2.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Binomial(n.double(), p), obs=y)


@pytest.mark.parametrize("y", [[3.0, 4.0, 5.0], [11.0, 11.0, 11.0]])
def test_totals_that_are_discrete_latents_are_summed_out(y):
    """log Σ_n ∫ p(y | n, p) p(p) dp / 12, impossible totals with probability 0."""
    total = 0.0
    for n in range(12):
        if n >= max(y):
            choose = math.prod(math.comb(n, int(k)) for k in y)
            a, b = 2 + sum(y), 2 + sum(n - k for k in y)
            log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b) + math.log(6.0)
            total += choose * math.exp(log_beta) / 12
    fit = exact(Problem(counts, torch.tensor(y).double(), 12))
    assert fit.log_evidence.value == pytest.approx(math.log(total), abs=1e-7)


def test_ends_that_two_runs_happen_to_share_are_not_taken_for_fixed():
    """Of two values of the latent both runs may draw the one that leaves the data outside."""

    def model(y, odds):
        n = pyro.sample("n", dist.Categorical(torch.tensor([1.0, odds]).double()))
        pyro.sample("y", dist.Binomial(torch.tensor([2.0, 4.0]).double()[n], one(0.5)), obs=y)

    found = [Problem(model, one(3.0), odds).log_joint({}).item() for odds in (0.2, 1.0, 5.0)]
    expected = [math.log(odds / (1 + odds) * math.comb(4, 3) / 16) for odds in (0.2, 1.0, 5.0)]
    assert found == pytest.approx(expected, abs=1e-9)


def test_data_outside_fixed_ends_are_refused_beside_a_discrete_latent():
    def model(y):
        pyro.sample("z", dist.Bernoulli(one(0.5)))
        pyro.sample("y", dist.Uniform(one(0.0), one(1.0)), obs=y)

    with pytest.raises(DataError, match=r"site 'y'.*0 to 1"):
        Problem(model, one(2.0))


def test_masked_rows_may_be_outside():
    def model(y, seen):
        most = pyro.sample("most", dist.Gamma(one(2.0), one(0.5)))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Uniform(one(0.0), most).mask(seen), obs=y)

    y = torch.tensor([1.0, 2.0, 50.0]).double()
    found = Problem(model, y, y < 9).log_joint({"most": one(4.0)})
    assert float(found) == pytest.approx(
        stats.gamma(2, scale=2).logpdf(4) - 2 * math.log(4), abs=1e-9
    )

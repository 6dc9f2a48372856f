"""nuts(): against closed forms; mixing judged by R-hat and effective sample size."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, Status, exact, nuts
from vitools.engines.nuts import nutpie_chains, pyro_chains
from vitools.engines.nuts.chains import Chains, WhitenedSpace
from vitools.engines.nuts.nutpie_chains import is_installed
from vitools.errors import NotSupportedError, OptionError
from vitools.models import coin

SAMPLERS = [
    pytest.param("nutpie", marks=pytest.mark.skipif(not is_installed(), reason="no nutpie")),
    "pyro",
]


@pytest.mark.parametrize("sampler", [SAMPLERS[0], pytest.param("pyro", marks=pytest.mark.slow)])
def test_beta_bernoulli_moments(sampler):
    flips = coin.simulate(20, seed=1)
    options = {"num_samples": 400, "num_warmup": 200, "num_chains": 2, "sampler": sampler}
    fit = nuts(Problem(coin.model, flips), **options, seed=0)
    heads = float(flips.sum())
    posterior = torch.distributions.Beta(1 + heads, 21 - heads)
    error = float(posterior.stddev) / math.sqrt(fit.ess["p"])
    assert fit.status is Status.SAMPLED
    assert float(fit.mean()["p"]) == pytest.approx(float(posterior.mean), abs=4 * error)
    assert fit.draws["p"].shape == (2, 400)
    options |= {"num_samples": 20, "num_warmup": 20}
    first, again, other = (nuts(Problem(coin.model, flips), **options, seed=s) for s in (0, 0, 1))
    assert torch.equal(again.draws["p"], first.draws["p"])
    assert not torch.equal(other.draws["p"], first.draws["p"])


@pytest.mark.skipif(not is_installed(), reason="no nutpie")
def test_a_line_through_calendar_years_is_sampled_along_its_ridge():
    """Intercept and slope have correlation -0.9999: a diagonal mass matrix would take minutes."""
    years = torch.arange(1952.0, 2014.0, dtype=torch.float64)
    temperature = 0.02 * (years - 1980) + torch.sin(7 * years)

    def line(x, y):
        alpha = pyro.sample("alpha", dist.Normal(x.new_tensor(0.0), 10.0))
        beta = pyro.sample("beta", dist.Normal(x.new_tensor(0.0), 0.1))
        with pyro.plate("years", len(x)):
            pyro.sample("y", dist.Normal(alpha + beta * x, 1.0), obs=y)

    problem = Problem(line, years, temperature)
    fit = nuts(problem, num_samples=300, num_warmup=400, num_chains=2, sampler="nutpie")
    design = torch.stack([torch.ones_like(years), years], -1)
    precision = design.T @ design + torch.tensor([1e-2, 1e2]).double().diag()
    mean = torch.linalg.solve(precision, design.T @ temperature)
    sd = torch.linalg.inv(precision).diagonal().sqrt()
    assert fit.status is Status.SAMPLED
    for i, name in enumerate(("alpha", "beta")):
        error = float(sd[i]) / math.sqrt(fit.ess[name])
        assert float(fit.mean()[name]) == pytest.approx(float(mean[i]), abs=4 * error)
        assert float(fit.sd()[name]) == pytest.approx(float(sd[i]), rel=0.2)


def test_an_adaptation_that_fails_is_done_again_with_a_diagonal(monkeypatch):
    tried = []

    def run(density, starts, plan, *, low_rank):
        tried.append(low_rank)
        return Chains(torch.zeros(2, 50, 1), divergences=11 if low_rank else 3)

    monkeypatch.setattr(nutpie_chains, "_run", run)
    assert nutpie_chains.sample(None, [], None).divergences == 3
    assert tried == [True, False]
    monkeypatch.setattr(nutpie_chains, "MOST_DIVERGENT", 0.11)
    assert nutpie_chains.sample(None, [], None).divergences == 11


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_interrupted_chains_are_kept_even_the_first(sampler):
    def interrupt(progress):
        if progress.step > 40:
            raise KeyboardInterrupt

    problem = Problem(coin.model, coin.simulate(20, seed=1))
    options = {"num_warmup": 30, "num_chains": 2, "sampler": sampler, "progress": interrupt}
    fit = nuts(problem, num_samples=1_000_000, **options)
    assert fit.status is Status.INTERRUPTED
    assert fit.draws["p"].shape[0] == 1
    assert fit.draws["p"].shape[1] >= 4
    with pytest.raises(KeyboardInterrupt):  # interrupted in warm-up: there is nothing to keep
        nuts(problem, num_samples=100, **options | {"num_warmup": 1_000_000})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_error_in_the_model_reaches_the_caller(sampler, monkeypatch):
    problem = Problem(coin.model, torch.tensor([1.0, 0.0]))

    def broken(self, option, calls):
        def density(point):
            raise NotSupportedError("no density here")

        return density

    monkeypatch.setattr(WhitenedSpace, "log_density_and_gradient", broken)
    with pytest.raises(NotSupportedError, match="no density here"):
        nuts(problem, num_samples=20, num_warmup=20, num_chains=1, sampler=sampler)


def test_discrete_latents_are_summed_out():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(x + 3 * z, 1.0), obs=torch.tensor(1.0))

    problem = Problem(model)
    truth = exact(problem)
    fit = nuts(problem, num_samples=400, num_warmup=200, num_chains=2, seed=0)
    error = float(truth.sd()["x"]) / math.sqrt(fit.ess["x"])
    assert float(fit.mean()["x"]) == pytest.approx(float(truth.mean()["x"]), abs=4 * error)


@pytest.mark.parametrize("start", ["cavi", {"p": 0.5}])
def test_what_is_no_fit_is_no_start(start):
    problem = Problem(coin.model, coin.simulate(20, seed=1))
    with pytest.raises(OptionError, match="start: expected a fit"):
        nuts(problem, start=start)


def test_starting_from_a_fit_gives_the_same_posterior():
    flips = coin.simulate(20, seed=1)
    problem = Problem(coin.model, flips)
    first = exact(problem)
    fit = nuts(problem, num_samples=400, num_warmup=100, num_chains=2, start=first, seed=3)
    error = float(first.sd()["p"]) / math.sqrt(fit.ess["p"])
    assert float(fit.mean()["p"]) == pytest.approx(float(first.mean()["p"]), abs=4 * error)
    assert fit.status is Status.SAMPLED


def test_chains_in_different_modes_are_not_called_mixed():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 10.0))
        pyro.sample("y", dist.Normal(x.abs(), 0.1), obs=torch.tensor(8.0))

    fit = nuts(Problem(model), num_samples=100, num_warmup=100, num_chains=4, seed=1)
    assert fit.status is Status.NOT_MIXED
    assert fit.rhat["x"] > 1.5


def test_refusals():
    def model():
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    with pytest.raises(NotSupportedError, match="only discrete latents"):
        nuts(Problem(model))
    with pytest.raises(OptionError, match="at least 1"):
        nuts(Problem(coin.model, torch.tensor([1.0])), num_chains=0)
    with pytest.raises(OptionError, match=r"one of auto, nutpie, pyro, got 'nutpi'.*'nutpie'"):
        nuts(Problem(coin.model, torch.tensor([1.0])), sampler="nutpi")
    with pytest.raises(
        OptionError, match="num_samples: expected a whole number of at least 4, got 3"
    ):
        nuts(Problem(coin.model, torch.tensor([1.0])), num_samples=3)


@pytest.mark.parametrize("value", [0.3, math.nan])
def test_chains_that_do_not_move_or_leave_the_numbers_are_not_mixed(monkeypatch, value):
    def stuck(density, starts, plan):
        return Chains(torch.full((len(starts), plan.num_samples, 1), value), 0)

    monkeypatch.setattr(pyro_chains, "sample", stuck)
    problem = Problem(coin.model, torch.tensor([1.0, 0.0]))
    fit = nuts(problem, num_samples=20, num_chains=2, sampler="pyro")
    assert fit.status is Status.NOT_MIXED


def test_draws_have_no_density():
    flips = torch.tensor([1.0, 0.0])
    fit = nuts(Problem(coin.model, flips), num_samples=20, num_warmup=20, num_chains=1)
    for call in (lambda: fit.elbo(), lambda: fit.log_prob(fit.sample(2))):
        with pytest.raises(NotSupportedError):
            call()


def test_pyro_learns_the_direction_of_a_ridge(monkeypatch):
    """Intercept and slope at correlation -0.98: a diagonal mass matrix takes 16 steps a draw."""
    x = torch.linspace(4.0, 6.0, 50)
    calls = []
    whole = WhitenedSpace.log_density_and_gradient

    def counted(self, option, number):
        density = whole(self, option, number)
        return lambda point: calls.append(1) or density(point)

    def line(x, y):
        alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
        beta = pyro.sample("beta", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(alpha + beta * x, 1.0), obs=y)

    monkeypatch.setattr(WhitenedSpace, "log_density_and_gradient", counted)
    marks = {}

    def mark(progress):
        marks[progress.step] = len(calls)

    options = {"num_chains": 1, "sampler": "pyro", "compile": True, "progress": mark}
    nuts(Problem(line, x, 1 + x), num_samples=40, num_warmup=120, **options)
    assert marks[160] - marks[120] < 10 * 40

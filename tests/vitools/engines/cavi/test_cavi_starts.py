"""Where coordinate ascent begins: a fit, values by site, a word; and what is wrong with others."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem, cavi, nuts, svi
from vitools.errors import VitoolsError
from vitools.guides import AutoMeanField

ROWS = torch.cat([torch.linspace(-4, -2, 8), torch.linspace(2.5, 4, 7)]).double()
PRIOR = torch.tensor([-3.0, 3.0]).double()


def mixture(y):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2).double()))
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2).double(), 5.0).to_event(1))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(mu[z], tau.rsqrt()), obs=y)


def every_family(y):
    p = pyro.sample("p", dist.Beta(2.0, 3.0))
    v = pyro.sample("v", dist.InverseGamma(3.0, 2.0))
    shift = pyro.sample("shift", dist.Bernoulli(p))
    with pyro.plate("n", len(y)):
        pyro.sample("y", dist.Normal(shift, v.sqrt()), obs=y)
    precision = pyro.sample("precision", dist.Wishart(torch.tensor(4.0), torch.eye(2)))
    mean = pyro.sample("mean", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    pyro.sample(
        "pair",
        dist.MultivariateNormal(mean, precision_matrix=precision),
        obs=torch.tensor([0.5, -0.3]),
    )


@pytest.mark.parametrize("model", [mixture, every_family])
def test_a_fit_goes_on_where_it_was(model):
    problem = Problem(model, ROWS.float() if model is every_family else ROWS)
    fit = cavi(problem, tol=1e-9)
    again = cavi(problem, start=fit, max_sweeps=1)
    assert again.bound == pytest.approx(fit.bound, abs=1e-6)
    short = cavi(problem, max_sweeps=2)
    assert cavi(problem, start=short, max_sweeps=1).bound >= short.bound - 1e-6


def test_values_of_some_sites_lead_the_others():
    problem = Problem(mixture, ROWS)
    one, other = (
        cavi(problem, start={"mu": sign * PRIOR, "tau": 4.0}, max_sweeps=60) for sign in (1, -1)
    )
    assert one.bound == pytest.approx(other.bound, abs=1e-6)
    assert (one.mean()["mu"] * torch.tensor([-1, 1]) > 2).all()
    assert torch.allclose(one.mean()["mu"], other.mean()["mu"].flip(0), atol=1e-4)


def test_a_local_discrete_site_leads_as_well():
    """The labels of rows, which are streamed without a start, name the components."""
    problem = Problem(mixture, ROWS)
    labels = (ROWS > 0).long()
    for start, sign in (({"z": labels}, 1), ({"z": 1 - labels}, -1)):
        mean = cavi(problem, start=start, max_sweeps=60).mean()["mu"]
        assert (sign * mean * torch.tensor([-1, 1]) > 2).all()
    soft = td.Categorical(probs=torch.stack([labels, 1 - labels], -1) * 0.8 + 0.1)
    mean = cavi(problem, start={"z": soft}, max_sweeps=60).mean()["mu"]
    assert (mean * torch.tensor([1, -1]) > 2).all()


def test_sites_of_joint_blocks():
    """Some states of a chain in one factor, one of two coefficients in one factor."""

    def chain(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        z = 0
        for t in range(4):
            z = pyro.sample(f"z{t}", dist.Categorical(torch.tensor([[0.8, 0.2], [0.2, 0.8]])[z]))
            pyro.sample(f"y{t}", dist.Normal(mu[z], 0.5), obs=y[4 * t - t])

    states = tuple(f"z{t}" for t in range(4))
    for low, high in ((0, 1), (1, 0)):
        start = {"z0": low, "z3": high}
        mean = cavi(Problem(chain, ROWS), joint=[states], start=start).mean()["mu"]
        assert mean[low] < -1
        assert mean[high] > 1

    def line(y):
        a = pyro.sample("a", dist.Normal(0.0, 3.0))
        b = pyro.sample("b", dist.Normal(0.0, 3.0))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(a + b * torch.arange(15.0), 1.0), obs=y)

    problem = Problem(line, ROWS.float())
    best = cavi(problem, joint=[("a", "b")])
    fit = cavi(problem, joint=[("a", "b")], start={"b": td.Normal(1.0, 0.1)})
    assert fit.bound == pytest.approx(best.bound, abs=1e-6)
    assert cavi(problem, start=best, factorised=["a"]).bound < best.bound


def test_distributions_and_words():
    problem = Problem(mixture, ROWS)
    best = cavi(problem).bound
    far = {"mu": td.Normal(PRIOR, torch.ones(2)), "weights": td.Dirichlet(torch.ones(2) * 9)}
    for start in (far, "prior", "data"):
        assert cavi(problem, start=start, restarts=2).bound == pytest.approx(best, abs=1e-5)


def test_fits_of_other_engines():
    """Their marginals of the labels tell the components apart."""

    def ordered(y):
        mu = pyro.sample("mu", dist.Normal(PRIOR, 1.0).to_event(1))
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5]).double()))
            pyro.sample("y", dist.Normal(mu[z], 0.7), obs=y)

    problem = Problem(ordered, ROWS)
    best = cavi(problem)
    chains = nuts(
        problem, num_samples=20, num_warmup=20, num_chains=1, sampler="pyro", compile=False
    )
    ascent = svi(problem, AutoMeanField, max_steps=100, compile=False)
    for start in (chains, ascent):
        fit = cavi(problem, start=start, max_sweeps=30)
        assert fit.bound == pytest.approx(best.bound, abs=1e-6)


def _other(y):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(3).double(), 5.0).to_event(1))
    pyro.sample("y", dist.Normal(mu.sum(-1), 1.0), obs=y[0])


WRONG = {
    "word": (
        "priro",  # codespell:ignore priro
        "has 'prior' and 'data', got 'priro'. Did you mean 'prior'",  # codespell:ignore priro
    ),
    "another_engines_word": ("search", "cavi\\(\\) has 'prior' and 'data', got 'search'"),
    "kind": (3.5, "expected a fit, .* got float"),
    "empty": ({}, "are empty"),
    "unknown_site": ({"mo": 1.0}, "no latent site 'mo' .* named in start .*Did you mean 'mu'"),
    "observed_site": ({"y": ROWS}, "no latent site 'y'"),
    "shape": ({"mu": torch.zeros(3)}, r"site 'mu' has shape \(2,\), got \(3,\)"),
    "nan": ({"mu": torch.tensor([0.0, math.nan])}, "value of site 'mu' has nan"),
    "text": ({"mu": "high"}, "site 'mu' was given a str"),
    "none": ({"mu": None}, "site 'mu' was given a NoneType"),
    "negative": ({"tau": -1.0}, "value of site 'tau' lies outside of its support"),
    "no_simplex": ({"weights": torch.tensor([0.5, 0.9]).double()}, "'weights' lies outside"),
    "no_case": ({"z": torch.full((15,), 2)}, r"'z' is not among those it can take \(0, 1\)"),
    "half_a_case": ({"z": torch.full((15,), 0.5)}, "'z' is not among those it can take"),
    "distribution_shape": ({"mu": td.Normal(0.0, 1.0)}, r"\(2,\), got \(\)"),
    "distribution_support": ({"tau": td.Normal(-1.0, 1.0)}, "mean of site 'tau' lies outside"),
    "no_mean": ({"tau": td.HalfCauchy(1.0)}, "mean of site 'tau' has nan or infinite"),
    "no_distribution_of_cases": (
        {"z": td.Normal(torch.zeros(15), math.nan, validate_args=False)},
        "'z' was given a Normal that is no distribution over its 2 values",
    ),
    "fit_of_another": (
        lambda: cavi(Problem(_other, ROWS)),
        r"fit of model '_other' with sites .* expected those of model 'mixture'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_start(name):
    start, words = WRONG[name]
    with pytest.raises(VitoolsError, match=words):
        cavi(Problem(mixture, ROWS), start=start() if callable(start) else start)


def test_starts_that_make_no_sense_together():
    problem = Problem(mixture, ROWS)
    with pytest.raises(VitoolsError, match="restarts=3 from a start that gives every site"):
        cavi(problem, start=cavi(problem, max_sweeps=2), restarts=3)

    def plain(y):
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0), obs=y[0])

    with pytest.raises(VitoolsError, match="nothing in model 'plain' is begun from its data"):
        cavi(Problem(plain, ROWS), start="data")


def walk(y, prior):
    q = pyro.sample("q", dist.Gamma(*prior))
    r = pyro.sample("r", dist.Gamma(*prior))
    x = torch.zeros(()).double()
    for t in range(len(y)):
        x = pyro.sample(f"x{t}", dist.Normal(x, q.rsqrt()))
        pyro.sample(f"y{t}", dist.Normal(x, r.rsqrt()), obs=y[t])


WALK = torch.cumsum(torch.sin(torch.arange(20.0) ** 2), 0).double()
WALK = WALK + 0.3 * torch.cos(1.7 * torch.arange(20.0) ** 2).double()
VAGUE = torch.tensor([1e-5, 1e-5]).double()


def _evidence(y):
    """log p(y) of the walk by a grid over log q and log r: x has the covariance min(s, t) / q."""
    times = torch.arange(1.0, len(y) + 1).double()
    values, vectors = torch.linalg.eigh(torch.minimum(times[:, None], times))
    squares = (vectors.mT @ y).square()
    grid = torch.linspace(-12, 12, 300).double() - float(y.var().log())
    log_q, log_r = torch.meshgrid(grid, grid, indexing="ij")
    variance = values / log_q.exp()[..., None] + 1 / log_r.exp()[..., None]
    density = -0.5 * (squares / variance + variance.log() + math.log(2 * math.pi)).sum(-1)
    for log_precision in (log_q, log_r):  # of the logarithm
        prior = td.Gamma(*VAGUE, validate_args=False)
        density = density + prior.log_prob(log_precision.exp()) + log_precision
    return float(density.flatten().logsumexp(0)) + 2 * math.log(float(grid[1] - grid[0]))


@pytest.mark.parametrize(
    ("unit", "seed"),
    [(0.01, 0), (1.0, 1), (100.0, 2), pytest.param(100.0, 3, marks=pytest.mark.slow)],
)
def test_a_walk_of_unknown_scale_is_found_in_every_unit(unit, seed):
    """Scales begun at a number of their own end 25 nats lower in the largest unit."""
    evidence = _evidence(unit * WALK)
    bound = cavi(Problem(walk, unit * WALK, VAGUE), seed=seed, max_sweeps=80).bound
    assert evidence - 4 < bound < evidence


def test_a_prior_whose_draws_overflow_is_no_obstacle():
    """A draw of Gamma(1e-3, 1e-3) is a precision of 1e-38, and the chain of its matrix nan."""

    def system(y):
        alpha = pyro.sample("alpha", dist.Gamma(1e-3 * torch.ones(2), 1e-3).to_event(1))
        a = pyro.sample("a", dist.Normal(torch.zeros(2, 2), alpha.rsqrt()).to_event(2))
        x = pyro.sample("x0", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        for t in range(len(y)):
            x = pyro.sample(f"x{t + 1}", dist.Normal(a @ x, 1.0).to_event(1))
            pyro.sample(f"y{t}", dist.Normal(x, 0.5).to_event(1), obs=y[t])

    rows = torch.stack([WALK.sin(), WALK.cos()], -1).float()
    fit = cavi(Problem(system, rows), restarts=2, max_sweeps=200)
    assert all(math.isfinite(bound) for bound in fit.restart_bounds)
    assert bool(fit.mean()["a"].isfinite().all())


def test_a_model_that_is_wrong_at_moderate_values_too_is_refused_in_its_own_words():
    def wrong(y):
        tau = pyro.sample("tau", dist.Gamma(1e-3, 1e-3))
        x = pyro.sample("x", dist.Normal(0.0, tau.rsqrt()))
        pyro.sample("y", dist.Normal(x, -1.0), obs=y[0])

    with pytest.raises(VitoolsError, match=r"parameter scale .* invalid values"):
        Problem(wrong, ROWS.float())

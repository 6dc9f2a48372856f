"""Densities learnt from samples: against entropies and posteriors in closed form, and by ranks."""

import math

import pytest
import torch
from torch.distributions import Gamma, MultivariateNormal, Normal, Uniform, constraints

from vitools import fit_density
from vitools.errors import DataError, NumericalError, OptionError
from vitools.learned.front_door import KINDS
from vitools.posterior import Status

SMALL = {"layers": 2, "width": 16, "max_steps": 150}


def drawn(distribution, count, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return distribution.sample((count,))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gaussian_ends_at_its_entropy(kind):
    root = torch.tensor([[1.0, 0.0], [0.8, 0.3]])
    p = MultivariateNormal(torch.tensor([3.0, -200.0]), scale_tril=root)
    x = drawn(p, 4000)
    q = fit_density(x, kind=kind, **SMALL)
    truth, error = -p.entropy().item(), q.held_out.standard_error
    assert abs(q.held_out.value - truth) < 4 * error
    assert error == pytest.approx(1 / math.sqrt(400), rel=0.2)  # sd of the log density: √(D/2)
    assert q.held_out_bits.value == pytest.approx(q.held_out.value / math.log(2))
    new = drawn(p, 4000, seed=1)
    gap = (p.log_prob(new) - q.log_prob(new)).mean()  # KL(p ‖ q)
    assert -0.01 < gap < 0.03
    if kind == "normal":
        assert gap < 5 / len(x) * 5  # 5 parameters: KL ≈ 5 / 2n
        assert q.gain.value == 0
        assert q.gain.is_exact


def test_a_skewed_density_is_told_better_than_a_normal_does():
    p = Gamma(torch.tensor(2.0), torch.tensor(1.0))
    x = drawn(p, 4000)
    q = fit_density(x, layers=2, width=16, max_steps=200)
    assert abs(q.held_out.value + p.entropy().item()) < 4 * q.held_out.standard_error
    assert q.gain.value > 4 * q.gain.standard_error
    grid = torch.linspace(-5, 30, 20001)
    density = q.log_prob(grid).exp()
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)
    draws = q.sample(20_000)
    assert draws.shape == (20_000,)
    below = torch.linspace(0.5, 5, 10)  # draws follow the density
    shares = (draws[:, None] < below).double().mean(0)
    masses = torch.stack([density[grid < b].sum() for b in below]) * (grid[1] - grid[0])
    assert (shares - masses).abs().max() < 4 * 0.5 / math.sqrt(20_000) + 2e-3


def test_a_support_is_kept():
    p = Uniform(torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 1.0]))
    x = drawn(p, 3000)
    x[:, 1] = -x[:, 1].log()  # exponential
    q = fit_density(x, support=[constraints.interval(-1.0, 2.0), constraints.positive], **SMALL)
    truth = -math.log(3) - 1
    assert abs(q.held_out.value - truth) < 4 * q.held_out.standard_error + 0.05
    assert q.held_out.value < truth + 4 * q.held_out.standard_error
    draws = q.sample(1000)
    assert draws[:, 0].min() > -1
    assert draws[:, 0].max() < 2
    assert draws[:, 1].min() > 0
    outside = torch.tensor([[0.0, -1.0], [3.0, 1.0], [0.0, 1.0]])
    assert q.log_prob(outside).isinf().tolist() == [True, True, False]
    grid = torch.cartesian_prod(torch.linspace(-0.999, 1.999, 300), torch.linspace(0.005, 12, 1200))
    mass = q.log_prob(grid).exp().sum() * (2.998 / 299) * (11.995 / 1199)
    assert mass == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kind", ["normal", "realnvp"])
def test_the_posterior_of_a_linear_gaussian_model(kind):
    """λ ~ N(0, I), y = Aλ + ε: p(λ | y) = N(S Aᵀ y / σ², S), S = (I + AᵀA/σ²)⁻¹."""
    generator = torch.Generator().manual_seed(0)
    forward, noise = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]]), 0.5
    truths = torch.randn(6000, 2, generator=generator)
    data = truths @ forward.T + noise * torch.randn(6000, 3, generator=generator)
    q = fit_density(truths[:5000], data[:5000], kind=kind, **SMALL)
    covariance = torch.linalg.inv(torch.eye(2) + forward.T @ forward / noise**2)
    y = torch.tensor([[1.0, -0.5, 0.3], [-2.0, 0.0, 1.0]])
    exact = MultivariateNormal(y @ forward @ covariance / noise**2, covariance)
    sds = covariance.diagonal().sqrt()
    draws = q.sample(20_000, y, seed=1)
    assert draws.shape == (20_000, 2, 2)
    off = (draws.mean(0) - exact.mean) / sds
    wide = draws.std(0) / sds - 1
    if kind == "normal":  # least squares from 4000 rows: what a regression's line and scale may err
        spread = torch.linalg.inv(forward @ forward.T + noise**2 * torch.eye(3))
        leverage = 1 + ((y @ spread) * y).sum(1, keepdim=True)
        assert (off.abs() < 4 * (leverage / 4000 + 1 / 20_000).sqrt()).all()
        assert wide.abs().max() < 4 / math.sqrt(2 * 4000) + 4 / math.sqrt(2 * 20_000)
    else:
        assert off.abs().max() < 0.2
        assert wide.abs().max() < 0.12
    # held out: minus the conditional entropy, no more
    truth = -exact.entropy()[0].item()
    assert abs(q.held_out.value - truth) < 4 * q.held_out.standard_error
    own = q.score(truths[5000:], data[5000:])
    assert abs(own.value - truth) < 4 * own.standard_error + 0.02
    found = q.calibration(truths[5000:], data[5000:], names=["a", "b"])
    assert list(found.levels) == ["a", "b", "log density"]
    assert min(found.uniformity().values()) > 1e-3
    # one context for many points, many for one
    x = torch.zeros(2)
    torch.testing.assert_close(q.log_prob(x, y), torch.stack([q.log_prob(x, one) for one in y]))
    assert q.log_prob(draws[:7], y).shape == (7, 2)


def test_ranks_see_a_density_that_is_too_narrow():
    x = drawn(Normal(0.0, 1.0), 3000)
    c = drawn(Normal(0.0, 1.0), 3000, seed=1)
    narrow = fit_density(0.7 * x, c, kind="normal").calibration(x[:1000], c[:1000])
    good = fit_density(x[1000:], c[1000:], kind="normal").calibration(x[:1000], c[:1000])
    assert max(narrow.uniformity().values()) < 1e-6
    assert min(good.uniformity().values()) > 1e-3
    alone = fit_density(x[1000:], kind="normal").calibration(x[:1000])  # no context: own draws
    assert list(alone.levels) == ["x", "log density"]
    assert min(alone.uniformity().values()) > 1e-3


def test_training_that_learns_by_heart_is_ended_and_the_best_weights_kept():
    x = drawn(MultivariateNormal(torch.zeros(3), torch.eye(3)), 150)
    told = []
    heart = {"kind": "realnvp", "validation": 0.3, "max_steps": 2000, "learning_rate": 0.02}
    q = fit_density(x, **heart, progress=told.append)
    history = q.history
    assert history.steps[-1] < 1200
    assert q.status is Status.CONVERGED
    assert history.training[-1] > history.training[0] + 0.3  # by heart
    assert history.validation[-1] < max(history.validation)
    assert len(told) == len(history.steps)
    assert "held-out" in told[0].note
    truth = -1.5 * math.log(2 * math.pi * math.e)
    assert abs(q.held_out.value - truth) < 4 * q.held_out.standard_error + 0.3
    again = fit_density(x, **heart, progress=False)
    assert torch.equal(q.sample(3, seed=2), again.sample(3, seed=2))


def test_an_interrupted_fit_keeps_what_it_has_learnt():
    x = drawn(Gamma(torch.tensor(2.0), torch.tensor(1.0)), 1000)

    def interrupt(report):
        if report.step == 50:
            raise KeyboardInterrupt

    q = fit_density(x, kind="realnvp", max_steps=200, progress=interrupt)
    assert q.status is Status.INTERRUPTED
    assert q.history.steps == [0, 25, 50]
    assert q.sample(3).shape == (3,)


def test_the_dtype_of_the_samples_comes_back():
    x = drawn(Normal(0.0, 1.0), 200).float()
    q = fit_density(x.numpy(), kind="normal")
    assert q.sample(2).dtype == q.log_prob(x).dtype == torch.float32
    assert str(q).splitlines()[0] == "density of a number, normal"


X = torch.linspace(0, 1, 100)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dim": 1}, OptionError, "dim: belongs to an energy"),
        ({"temperature": 1.0}, OptionError, "temperature: belongs to an energy"),
        ({"scale": 1.0}, OptionError, "scale: belongs to an energy"),
        ({"loc": X[:1]}, OptionError, "loc: belongs to an energy"),
        ({"kind": "splin"}, OptionError, "kind: expected one of normal, spline.*Did you mean 'spline'"),
        ({"validation": 0.0}, OptionError, "validation: expected a share"),
        ({"validation": 0.5}, OptionError, "validation: expected a share"),
        ({"validation": 20}, OptionError, "validation: expected a share"),
        ({"layers": 0}, OptionError, "layers: expected a whole number"),
        ({"width": 1.5}, OptionError, "width: expected a whole number"),
        ({"max_steps": 0}, OptionError, "max_steps: expected a whole number"),
        ({"batch": 1}, OptionError, "batch: expected a whole number"),
        ({"learning_rate": 0.0}, OptionError, "learning_rate: expected a number above 0"),
        ({"seed": -1}, OptionError, "seed: expected a whole number"),
        ({"progress": 3}, OptionError, "progress: expected a function"),
        ({"support": "positive"}, OptionError, "support: expected constraints of single real numbers"),
        ({"support": constraints.simplex}, OptionError, "support: expected constraints of single"),
        ({"support": constraints.nonnegative_integer}, OptionError, "support: expected constraints"),
        ({"support": [constraints.real] * 2}, OptionError, "support: expected 1, one for each column, got 2"),
        ({"support": constraints.interval(0.2, 1.0)}, DataError, "row 0 .* outside its support"),
        ({"support": constraints.positive}, DataError, "row 0 .*support"),
        ({"samples": "x"}, DataError, "samples: expected a tensor or an array, got str"),
        ({"samples": torch.arange(100)}, DataError, "whole numbers have no density"),
        ({"samples": torch.zeros(3, 4, 5)}, DataError, r"samples: expected rows \[n, …\]"),
        ({"samples": torch.zeros(100, 0)}, DataError, r"samples: expected rows \[n, …\]"),
        ({"samples": torch.tensor([math.nan] * 100)}, DataError, r"samples: expected finite numbers, got nan at \[0\]"),
        ({"samples": X[:20]}, DataError, "samples: expected 50 rows or more, got 20"),
        ({"samples": X.round()}, DataError, "column 0 .* has 2 different values in 100 rows"),
        ({"samples": torch.stack([X, 2 * X], 1)}, DataError, "column 1 .* is a linear function"),
        ({"context": X}, DataError, "column 0 .* is a linear function of the columns before it or of the context"),
        ({"context": X[:50]}, DataError, "context: expected 100 rows, one a sample, got 50"),
    ],
)  # fmt: skip
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        fit_density(**{"samples": X, "kind": "normal"} | options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda q: q.log_prob(X), OptionError, "context: the density was learnt with a context. Give 2 numbers"),
        (lambda q: q.log_prob(X, torch.zeros(3)), DataError, "context: expected 2 numbers in the last dim"),
        (lambda q: q.sample(0, torch.zeros(2)), OptionError, "num_samples: expected a whole number"),
        (lambda q: q.calibration(X[:3], torch.zeros(4, 2)), OptionError, "expected rows"),
        (lambda q: q.calibration(X[:3], torch.zeros(3, 2), num_samples=5), OptionError, "num_samples"),
        (lambda q: q.calibration(X[:3], torch.zeros(3, 2), names=["a", "b"]), OptionError, "names: expected 1"),
        (lambda q: fit_density(X.sin(), kind="normal").log_prob(X, X), OptionError, "without a context. Leave it out"),
        (lambda q: fit_density(torch.randn(99, 2), kind="normal").log_prob(X), DataError, "x: expected 2 numbers"),
    ],
)  # fmt: skip
@pytest.mark.uses_global_generator
def test_what_is_refused_of_a_fit(call, error, message):
    q = fit_density(X.sin(), torch.stack([X, X.exp()], 1), kind="normal")
    with pytest.raises(error, match=message):
        call(q)


def test_steps_that_run_away_are_named():
    x = drawn(Normal(0.0, 1.0), 200)
    with pytest.raises(NumericalError, match="Lower learning_rate"):
        fit_density(x, kind="autoregressive", learning_rate=1e200, max_steps=200)

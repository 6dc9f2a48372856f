"""Data far from zero: the fit of y + c under a prior moved by c is that of y, moved by c."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import sample

from vitools import Problem, cavi
from vitools.calculus import ConjugateModel
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.errors import NumericalError
from vitools.posterior import Status

N = 120
SD = 0.1
_generator = torch.Generator().manual_seed(0)


def normals(*shape):
    return torch.randn(shape, generator=_generator, dtype=torch.float64)


def double(x):
    return torch.tensor(x, dtype=torch.float64)


GROUP = torch.arange(N) % 3
HALF = torch.randint(2, (N,), generator=_generator)
NOISE = SD * normals(N)
PLANE = SD * normals(N, 2)
COVARIATES = normals(N, 2)
SLOPES = double([0.3, -0.2])
LEVELS = double([0.0, 1.0, -1.0])
PLANES = normals(N, 2) @ normals(2, 3) + SD * normals(N, 3)
KINDS = {}


def kind(data, *moved):
    """A model of data and of how far they are moved, and the latents that move with them."""

    def register(function):
        KINDS[function.__name__] = (function, data, moved)
        return function

    return register


def precision(name="tau"):
    return sample(name, dist.Gamma(double(1.0), double(0.1)))


def pair(rows):
    weights = sample("weights", dist.Dirichlet(torch.ones(2, dtype=torch.float64)))
    return pyro.plate("rows", rows), weights


@kind(NOISE, "mu")
def scalar(y, c):
    mu, tau = sample("mu", dist.Normal(c, 10.0)), precision()
    with pyro.plate("rows", len(y)):
        sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)


@kind(NOISE, "mu")
def partly_known(y, c):
    mu, tau = sample("mu", dist.Normal(c, 10.0)), precision()
    with pyro.plate("rows", len(y)):
        sample("y", dist.Normal(mu * 0.5 + c / 2, tau.rsqrt()), obs=y)


@kind(NOISE + LEVELS[GROUP], "mu")
def gathered(y, c):
    with pyro.plate("groups", 3):
        mu, tau = sample("mu", dist.Normal(c, 10.0)), precision()
    with pyro.plate("rows", N):
        sample("y", dist.Normal(mu[GROUP], tau[GROUP].rsqrt()), obs=y)


@kind(NOISE + LEVELS[GROUP], "level", "mu")
def hierarchical(y, c):
    level, spread, tau = sample("level", dist.Normal(c, 10.0)), precision("spread"), precision()
    with pyro.plate("groups", 3):
        mu = sample("mu", dist.Normal(level, spread.rsqrt()))
    with pyro.plate("rows", N):
        sample("y", dist.Normal(mu[GROUP], tau.rsqrt()), obs=y)


@kind(NOISE + LEVELS[GROUP], "level")
def additive(y, c):
    level, spread, tau = sample("level", dist.Normal(c, 10.0)), precision("spread"), precision()
    with pyro.plate("groups", 3):
        part = sample("part", dist.Normal(0.0, spread.rsqrt()))
    with pyro.plate("rows", N):
        sample("y", dist.Normal(level + part[GROUP], tau.rsqrt()), obs=y)


@kind(NOISE + HALF, "mu")
def mixture(y, c):
    rows, weights = pair(N)
    with pyro.plate("components", 2):
        mu, tau = sample("mu", dist.Normal(c, 10.0)), precision()
    with rows:
        z = sample("z", dist.Categorical(weights))
        sample("y", dist.Normal(mu[z], tau[z].rsqrt()), obs=y)


@kind(NOISE + HALF, "first", "second")
def mixture_of_two_sites(y, c):
    rows, weights = pair(N)
    first, second = (sample(name, dist.Normal(c, 10.0)) for name in ("first", "second"))
    tau = precision()
    with rows:
        z = sample("z", dist.Categorical(weights))
        sample("y", dist.Normal(torch.stack([first, second])[z], tau.rsqrt()), obs=y)


@kind(PLANE + HALF.unsqueeze(1), "mu")
def mixture_of_vectors(y, c):
    eye = torch.eye(2, dtype=torch.float64)
    rows, weights = pair(N)
    with pyro.plate("components", 2):
        mu = sample("mu", dist.MultivariateNormal(c.expand(2), 100 * eye))
        tau = sample("tau", dist.Wishart(double(4.0), covariance_matrix=10 * eye))
    with rows:
        z = sample("z", dist.Categorical(weights))
        sample("y", dist.MultivariateNormal(mu[z], precision_matrix=tau[z]), obs=y)


@kind(PLANE, "mu")
def vector(y, c):
    eye = torch.eye(2, dtype=torch.float64)
    mu = sample("mu", dist.MultivariateNormal(c.expand(2), 100 * eye))
    tau = sample("tau", dist.Wishart(double(4.0), covariance_matrix=10 * eye))
    with pyro.plate("rows", N):
        sample("y", dist.MultivariateNormal(mu, precision_matrix=tau), obs=y)


@kind(NOISE + COVARIATES @ SLOPES, "intercept")
def regression(y, c):
    intercept = sample("intercept", dist.Normal(c, 10.0))
    slopes = sample("slopes", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    tau = precision()
    with pyro.plate("rows", N):
        sample("y", dist.Normal(intercept + COVARIATES @ slopes, tau.rsqrt()), obs=y)


@kind(PLANES, "mu")
def factors(y, c):
    with pyro.plate("features", 3):
        mu = sample("mu", dist.Normal(c, 10.0))
        w = sample("w", dist.Normal(0.0, 1.0))
    tau = precision()
    with pyro.plate("rows", N):
        x = sample("x", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(x.unsqueeze(-1) * w + mu, tau.rsqrt()).to_event(1), obs=y)


@kind(NOISE, *(f"x{t}" for t in range(4)))
def walk(y, c):
    step, tau = precision("step"), precision()
    x = c
    for t in range(4):
        x = sample(f"x{t}", dist.Normal(x, step.rsqrt()))
        with pyro.plate(f"rows{t}", 30):
            sample(f"y{t}", dist.Normal(x, tau.rsqrt()), obs=y[30 * t : 30 * t + 30])


def assert_moved(fit, plain, far, moved):
    """Equal to 1e-8; means to as many standard deviations, plus the rounding of a number at c."""
    assert fit.status is plain.status is Status.CONVERGED
    assert fit.bound == pytest.approx(plain.bound, rel=1e-8)
    for name, mean in plain.mean().items():
        sd = plain.sd()[name]
        torch.testing.assert_close(fit.sd()[name], sd, rtol=1e-8, atol=0.0)
        shift = far if name in moved else torch.zeros_like(torch.as_tensor(far))
        slack = 1e-6 * sd + 4 * torch.finfo(sd.dtype).eps * torch.as_tensor(shift).abs()
        assert bool(((fit.mean()[name] - shift - mean).abs() <= slack).all()), name
    assert fit.mean().keys() == plain.mean().keys()


@pytest.mark.parametrize("far", [pytest.param(1e4, marks=pytest.mark.slow), -1e7])
@pytest.mark.parametrize("name", KINDS)
def test_a_fit_moves_with_the_data(name, far):
    model, data, moved = KINDS[name]
    y = data + far  # rounded; what is left of it after - far is exact
    options = {"tol": 1e-12, "max_sweeps": 3000}
    fit = cavi(Problem(model, y, double(far)), **options)
    assert_moved(fit, cavi(Problem(model, y - far, double(0.0)), **options), double(far), moved)


def test_sites_of_one_factor():
    model, data, moved = KINDS["regression"]
    y = data + 1e6
    options = {"tol": 1e-12, "joint": [("intercept", "slopes")]}
    fit = cavi(Problem(model, y, double(1e6)), **options)
    plain = cavi(Problem(model, y - 1e6, double(0.0)), **options)
    assert_moved(fit, plain, double(1e6), moved)


def test_several_starts_in_one_batch():
    model, data, _ = KINDS["mixture"]
    y = data + 1e6
    fit = cavi(Problem(model, y, double(1e6)), tol=1e-12, restarts=3)
    plain = cavi(Problem(model, y - 1e6, double(0.0)), tol=1e-12)
    assert max(fit.restart_bounds) == pytest.approx(plain.bound, rel=1e-8)


def test_groups_at_several_distances():
    far = double([1e4, -1e4, 1e7])

    def model(y, c):
        with pyro.plate("groups", 3):
            mu = sample("mu", dist.Normal(c, 10.0))
        tau = precision()
        with pyro.plate("rows", N):
            sample("y", dist.Normal(mu[GROUP], tau.rsqrt()), obs=y)

    y = NOISE + far[GROUP]
    plain = cavi(Problem(model, y - far[GROUP], 0 * far), tol=1e-13)
    assert_moved(cavi(Problem(model, y, far), tol=1e-13), plain, far, ["mu"])


def longdouble_fit(y, mean, variance, shape, rate):
    """The mean-field fixed point of y ~ N(μ, 1/τ) in numpy's extended precision, about ``mean``."""
    y = np.asarray(y, np.longdouble) - np.longdouble(mean)
    n, tau = len(y), np.longdouble(shape) / rate
    for _ in range(200):
        held = 1 / np.longdouble(variance) + n * tau
        m = tau * y.sum() / held
        final = rate + ((y - m) ** 2).sum() / 2 + n / held / 2
        tau = (shape + np.longdouble(n) / 2) / final
    return m + mean, held ** -np.longdouble(0.5), tau


@pytest.mark.parametrize("far", [1e4, 1e7])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_prior_at_zero_against_extended_precision(far, seed):
    generator = torch.Generator().manual_seed(seed)
    y = far + SD * torch.randn(50, generator=generator, dtype=torch.float64)

    def model(y):
        mu = sample("mu", dist.Normal(0.0, 1e5))
        tau = sample("tau", dist.Gamma(double(1.0), double(1.0)))
        with pyro.plate("rows", len(y)):
            sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)

    fit = cavi(Problem(model, y), tol=1e-13)
    mean, sd, tau = longdouble_fit(y, 0.0, 1e10, 1.0, 1.0)
    assert float(fit.mean()["tau"]) == pytest.approx(float(tau), rel=1e-8)
    assert float(fit.sd()["mu"]) == pytest.approx(float(sd), rel=1e-8)
    assert float(fit.mean()["mu"]) == pytest.approx(float(mean), rel=4e-16)


def test_a_column_of_years():
    """The intercept at year 0 and that at year 2000, under one prior, give one posterior."""

    def model(y, years, origin):
        back = double([[1.0, origin], [0.0, 1.0]])
        prior = dist.MultivariateNormal(torch.zeros(2), precision_matrix=0.01 * back.T @ back)
        w, tau = sample("w", prior), precision()
        rows = torch.stack([torch.ones_like(years), years], -1)
        with pyro.plate("rows", N):
            sample("y", dist.Normal(rows @ w, tau.rsqrt()), obs=y)

    years = (10 * COVARIATES[:, 0]).round()
    y = NOISE + 3 + 0.5 * years
    fit = cavi(Problem(model, y, years + 2000, 2000.0), tol=1e-10)
    plain = cavi(Problem(model, y, years, 0.0), tol=1e-10)
    assert fit.status is Status.CONVERGED
    assert fit.bound == pytest.approx(plain.bound, rel=1e-8)
    assert float(fit.mean()["tau"]) == pytest.approx(float(plain.mean()["tau"]), rel=1e-8)
    for of in ("mean", "sd"):
        slopes = [float(getattr(f, of)()["w"][1]) for f in (fit, plain)]
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-8)


@pytest.mark.parametrize("far", [1e4, 1e7])
def test_streamed_rows(far):
    """More rows than are kept: latents of every row, and the components of a mixture."""
    rows = 12_000
    y = SD * torch.randn(rows, generator=torch.Generator().manual_seed(1)).double() + far

    def model(y, c):
        mu, spread = sample("mu", dist.Normal(c, 10.0)), precision("spread")
        with pyro.plate("rows", rows):
            theta = sample("theta", dist.Normal(mu, spread.rsqrt()))
            sample("y", dist.Normal(theta, SD), obs=y)

    blocks = ConjugateModel(model, (y, double(far)), joint=()).blocks
    assert any(isinstance(block, StreamedBlock) for block in blocks)
    options = {"tol": 1e-12, "max_sweeps": 400, "joint": ()}
    fit = cavi(Problem(model, y, double(far)), **options)
    plain = cavi(Problem(model, y - far, double(0.0)), **options)
    assert_moved(fit, plain, double(far), ["mu", "theta"])


def test_masked_and_repeated_rows():
    """Missing data keep out of the reference; rows of equal data are still one."""
    y = (NOISE * 30).round() / 64 + 1e7
    seen = torch.arange(N) % 5 > 0
    y = torch.where(seen, y, torch.nan)

    def model(y, c):
        mu, tau = sample("mu", dist.Normal(c, 10.0)), precision()
        with pyro.plate("rows", N), pyro.poutine.mask(mask=seen):
            sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)

    plain = cavi(Problem(model, y - 1e7, double(0.0)), tol=1e-13)
    assert_moved(cavi(Problem(model, y, double(1e7)), tol=1e-13), plain, double(1e7), ["mu"])


def test_numbers_of_single_precision():
    y = (NOISE + 100).float()

    def model(y):
        mu = sample("mu", dist.Normal(0.0, 1e3))
        tau = sample("tau", dist.Gamma(1.0, 1.0))
        with pyro.plate("rows", N):
            sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)

    fit = cavi(Problem(model, y))
    _, sd, tau = longdouble_fit(y.double(), 0.0, 1e6, 1.0, 1.0)
    assert fit.status is Status.CONVERGED
    assert float(fit.mean()["tau"]) == pytest.approx(float(tau), rel=1e-6)
    assert float(fit.sd()["mu"]) == pytest.approx(float(sd), rel=1e-6)


@pytest.mark.parametrize("far", [0.0, 1e7])
@pytest.mark.parametrize("error", [1e-3, 1e-5])
def test_a_wrong_update_is_still_caught(monkeypatch, far, error):
    """An error that grows from sweep to sweep; the smaller one lowers the bound by 1e-9 of it."""
    right, count = ConjugateModel.sweep, []

    def wrong(model, step=1.0):
        right(model, step)
        count.append(None)
        block = model.block_of["tau"]
        block.restore(tuple(eta * (1 + error * len(count)) for eta in block.natural))

    monkeypatch.setattr(ConjugateModel, "sweep", wrong)
    with pytest.raises(NumericalError, match="the bound fell"):
        cavi(Problem(scalar, NOISE + far, double(far)), tol=1e-16, accelerate=False)

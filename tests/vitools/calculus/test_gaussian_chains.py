"""Gaussian states over time as one factor: against Kalman filters and against dense covariances."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitools import Problem, cavi, explain, load, save
from vitools.calculus.blocks import levels
from vitools.distributions import GaussianMarkovChain

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def plain(problem, **options):
    """Factors that do not depend on the value of a scale."""
    return cavi(problem, nested=(), **options)


def kalman(y, observed, matrix, offset, scale, emission, noise, start, spread):
    """log p(y), and mean and covariance of the last state (Kalman 1960)."""
    mean, cov, total = start, torch.diag(spread**2), 0.0
    for t in range(len(y)):
        if t:
            mean = matrix @ mean + offset[t - 1]
            cov = matrix @ cov @ matrix.T + torch.diag(scale**2)
        if observed[t]:
            variance = emission @ cov @ emission + noise**2
            error = y[t] - emission @ mean
            total += -0.5 * (math.log(2 * math.pi * variance) + error**2 / variance)
            gain = cov @ emission / variance
            mean, cov = mean + gain * error, cov - torch.outer(gain, cov @ emission)
    return torch.as_tensor(total), mean, cov


@pytest.fixture(autouse=True)
def even_short_chains_are_eliminated(monkeypatch):
    monkeypatch.setattr(levels, "SMALLEST", 0)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**20), st.integers(3, 40), st.integers(1, 3))
def test_the_bound_is_the_evidence_of_a_kalman_filter(seed, steps, size):
    g = torch.Generator().manual_seed(seed)
    matrix = 0.5 * torch.randn(size, size, generator=g)
    offset = torch.randn(steps - 1, size, generator=g)
    scale, spread = torch.rand(size, generator=g) + 0.1, torch.rand(size, generator=g) + 0.1
    emission, start = torch.randn(size, generator=g), torch.randn(size, generator=g)
    y = torch.randn(steps, generator=g)
    observed = torch.rand(steps, generator=g) < 0.7

    def model(y):
        chain = GaussianMarkovChain(start, spread, scale, matrix, offset)
        x = pyro.sample("x", chain)
        with pyro.plate("t", steps), pyro.poutine.mask(mask=observed):
            pyro.sample("y", dist.Normal(x @ emission, 0.5), obs=y)

    evidence, mean, cov = kalman(y, observed, matrix, offset, scale, emission, 0.5, start, spread)
    fit = plain(Problem(model, y), progress=False)
    torch.testing.assert_close(torch.tensor(fit.bound), evidence, **EXACT)
    torch.testing.assert_close(fit.mean()["x"][-1], mean, **EXACT)
    torch.testing.assert_close(fit.sd()["x"][-1], cov.diagonal().sqrt(), **EXACT)
    weights = fit.log_weights(20)  # q is the posterior: p / q is the same at all draws
    torch.testing.assert_close(weights, evidence.expand(20), rtol=1e-8, atol=1e-8)


def noisy_walk(steps, seed=0):
    g = torch.Generator().manual_seed(seed)
    walk = torch.cumsum(0.3 * torch.randn(steps, generator=g), 0)
    control = torch.randn(steps, generator=g)
    return walk + 0.7 * control + 0.4 * torch.randn(steps, generator=g), control


def regression(y, control):
    """A walk with unknown scales beside a coefficient."""
    drift = pyro.sample("drift", dist.HalfCauchy(1.0))
    noise = pyro.sample("noise", dist.Gamma(2.0, 2.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 10.0))
    steps = len(y)
    chain = GaussianMarkovChain(torch.zeros(1), torch.ones(1), drift.unsqueeze(-1), num_steps=steps)
    x = pyro.sample("x", chain)
    with pyro.plate("t", steps):
        pyro.sample("y", dist.Normal(x[:, 0] + slope * control, noise.rsqrt()), obs=y)


def test_a_chain_beside_a_coefficient_is_that_of_one_dense_normal(monkeypatch):
    data = noisy_walk(30)
    chain = plain(Problem(regression, *data), progress=False)
    assert "a Markov chain of 30 steps of 1), then slope dense" in explain(
        Problem(regression, *data)
    )
    monkeypatch.setattr(levels, "SMALLEST", 10_000)
    dense = plain(Problem(regression, *data), progress=False)
    assert "Markov chain" not in explain(Problem(regression, *data))
    assert abs(chain.bound - dense.bound) < 1e-7
    for name in ("drift", "noise", "slope", "x"):
        torch.testing.assert_close(chain.mean()[name], dense.mean()[name], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(chain.sd()[name], dense.sd()[name], rtol=1e-4, atol=1e-4)
    assert_never_falls(chain)


def assert_never_falls(fit):
    bounds = torch.as_tensor(fit.history.elbo)
    assert len(bounds) > 2
    assert bool((bounds.diff() > -1e-10 * bounds.abs().max()).all())


def both_ways(monkeypatch, model, *data, **options):
    """The fit by elimination and the one with a dense matrix, whose bounds must agree."""
    monkeypatch.setattr(levels, "SMALLEST", 0)
    chain = plain(Problem(model, *data), progress=False, **options)
    said = explain(Problem(model, *data))
    monkeypatch.setattr(levels, "SMALLEST", 10**6)
    dense = plain(Problem(model, *data), progress=False, **options)
    assert abs(chain.bound - dense.bound) < 1e-6
    assert_never_falls(chain)
    for name in chain.mean():
        torch.testing.assert_close(chain.mean()[name], dense.mean()[name], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(chain.sd()[name], dense.sd()[name], rtol=1e-3, atol=1e-3)
    return chain, said


def test_a_panel_of_chains_beside_effects_of_its_groups(monkeypatch):
    g = torch.Generator().manual_seed(1)
    groups, steps = 6, 9
    y = torch.randn(groups, 1, generator=g) + torch.cumsum(
        0.3 * torch.randn(groups, steps, generator=g), -1
    )

    def model(y):
        drift = pyro.sample("drift", dist.Gamma(2.0, 2.0))
        level = pyro.sample("level", dist.Normal(0.0, 5.0))
        with pyro.plate("groups", groups, dim=-1):
            effect = pyro.sample("effect", dist.Normal(level, 1.0))
            chain = GaussianMarkovChain(
                torch.zeros(1), torch.ones(1), drift.rsqrt().reshape(1), num_steps=steps
            )
            x = pyro.sample("x", chain)
        with pyro.plate("g", groups, dim=-2), pyro.plate("t", steps, dim=-1):
            pyro.sample("y", dist.Normal(effect[:, None] + x[..., 0], 0.3), obs=y)

    fit, said = both_ways(monkeypatch, model, y)
    assert f"x ({groups} Markov chains of {steps} steps of 1), then effect ({groups} groups" in said
    assert fit.marginal("x").mean.shape == (groups * steps,)


def test_states_that_are_observed_together_stand_in_one_chain(monkeypatch):
    g = torch.Generator().manual_seed(2)
    steps = 24
    y = torch.cumsum(0.2 * torch.randn(steps, generator=g), 0) + torch.arange(24).cos()
    angle = torch.tensor(1.0)
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()]).reshape(2, 2)

    def model(y):
        noise = pyro.sample("noise", dist.Gamma(2.0, 1.0))
        level = pyro.sample(
            "level", GaussianMarkovChain(torch.zeros(1), torch.ones(1), 0.2, num_steps=steps)
        )
        wave = pyro.sample(
            "wave", GaussianMarkovChain(torch.zeros(2), 1.0, 0.05, turn, num_steps=steps)
        )
        with pyro.plate("t", steps):
            pyro.sample("y", dist.Normal(level[:, 0] + wave[:, 0], noise.rsqrt()), obs=y)

    _, said = both_ways(monkeypatch, model, y)
    assert "level and wave (a Markov chain of 24 steps of 3)" in said


def test_coefficients_and_noise_of_the_transitions_may_be_latent(monkeypatch):
    g = torch.Generator().manual_seed(3)
    steps, x = 40, [torch.zeros(2)]
    truth = torch.tensor([[0.8, 0.3], [-0.2, 0.7]])
    for _ in range(steps - 1):
        x.append(truth @ x[-1] + 0.4 * torch.randn(2, generator=g))
    y = torch.stack(x) + 0.2 * torch.randn(steps, 2, generator=g)

    def model(y):
        precision = pyro.sample("precision", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
        matrix = pyro.sample("matrix", dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))
        chain = GaussianMarkovChain(torch.zeros(2), 1.0, precision.rsqrt(), matrix, num_steps=steps)
        x = pyro.sample("x", chain)
        with pyro.plate("t", steps):
            pyro.sample("y", dist.Normal(x, 0.2).to_event(1), obs=y)

    both_ways(monkeypatch, model, y)


def test_an_autoregressive_coefficient_may_have_any_prior(monkeypatch):
    y, _ = noisy_walk(40)

    def model(y):
        keep = pyro.sample("keep", dist.Uniform(-1.0, 1.0))
        chain = GaussianMarkovChain(torch.zeros(1), 1.0, 0.5, keep.reshape(1, 1), num_steps=40)
        x = pyro.sample("x", chain)
        with pyro.plate("t", 40):
            pyro.sample("y", dist.Normal(x[:, 0], 0.3), obs=y)

    both_ways(monkeypatch, model, y)


def test_counts_of_a_log_rate_that_walks(monkeypatch):
    g = torch.Generator().manual_seed(4)
    steps = 25
    rate = torch.cumsum(0.2 * torch.randn(steps, generator=g), 0).exp()
    y = torch.poisson(3 * rate, generator=g)

    def model(y):
        drift = pyro.sample("drift", dist.HalfNormal(1.0))
        level = pyro.sample("level", dist.Normal(0.0, 5.0))
        x = pyro.sample(
            "x", GaussianMarkovChain(torch.zeros(1), 0.1, drift.reshape(1), num_steps=steps)
        )
        with pyro.plate("t", steps):
            pyro.sample("y", dist.Poisson((level + x[:, 0]).exp()), obs=y)

    both_ways(monkeypatch, model, y)


def test_a_fit_of_chains_survives_its_file(tmp_path):
    problem = Problem(regression, *noisy_walk(12))
    for joint in (None, ()):
        fit = plain(problem, progress=False, joint=joint)
        save(fit, tmp_path / "fit.safetensors")
        again = load(tmp_path / "fit.safetensors", problem)
        draws, there = fit.sample(5), again.sample(5)
        assert all(torch.equal(draws[name], there[name]) for name in draws)
        torch.testing.assert_close(fit.log_prob(draws), again.log_prob(draws))
        assert fit.sample(3)["x"].shape == (3, 12, 1)


def test_long_chains_are_linear_in_time():
    y, control = noisy_walk(20_000)
    fit = plain(Problem(regression, y, control), progress=False, max_sweeps=5)
    assert abs(float(fit.mean()["slope"]) - 0.7) < 0.05
    assert fit.marginal("x").event_shape == (20_000, 1)


@pytest.mark.slow
def test_restarts_run_together():
    problem = Problem(regression, *noisy_walk(20))
    assert plain(problem, progress=False, restarts=3).bound == pytest.approx(
        plain(problem, progress=False).bound, abs=1e-4
    )


@pytest.mark.parametrize("steps", [12, 13])
def test_second_differences_are_a_chain_of_two_steps_at_a_time(steps):
    """A smooth curve: the evidence is that of dense algebra, whether or not the last unit is full."""
    y, _ = noisy_walk(steps)
    zero = torch.zeros(steps - 2)

    def model(y):
        curve = pyro.sample("curve", dist.Normal(0.0, 3.0).expand([steps]).to_event(1))
        bend = curve[2:] - 2 * curve[1:-1] + curve[:-2]
        with pyro.plate("inner", steps - 2):
            pyro.sample("smooth", dist.Normal(bend, 0.4), obs=zero)
        with pyro.plate("t", steps):
            pyro.sample("y", dist.Normal(curve, 0.5), obs=y)

    bends = torch.eye(steps).diff(n=2, dim=0)
    rows = torch.cat([bends, torch.eye(steps)])
    noise = torch.cat([torch.full((steps - 2,), 0.16), torch.full((steps,), 0.25)])
    truth = torch.distributions.MultivariateNormal(
        torch.zeros(len(rows)), 9.0 * rows @ rows.T + torch.diag(noise)
    ).log_prob(torch.cat([zero, y]))
    problem = Problem(model, y)
    fit = plain(problem, progress=False)
    torch.testing.assert_close(torch.tensor(fit.bound), truth, **EXACT)
    torch.testing.assert_close(fit.log_weights(9), truth.expand(9), **EXACT)
    assert fit.marginal("curve").entropy() == pytest.approx(
        float(-fit.log_prob(fit.sample(20_000)).mean()), abs=0.1
    )
    assert f"a Markov chain of {steps} steps of 1, 2 steps at a time" in explain(problem)


def test_a_loop_of_second_order_beside_a_coefficient(monkeypatch):
    y, control = noisy_walk(51)

    def model(y, control):
        noise = pyro.sample("noise", dist.Gamma(2.0, 2.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
        before = last = None
        for t in range(len(y)):
            loc = 0.0 if last is None else 0.8 * last
            if before is not None:
                loc = 1.2 * last - 0.4 * before
            x = pyro.sample(f"x_{t}", dist.Normal(loc, 0.5))
            before, last = last, x
            seen = dist.Normal(x + slope * control[t], noise.rsqrt())
            pyro.sample(f"y_{t}", seen, obs=y[t])

    _, said = both_ways(monkeypatch, model, y, control)
    assert "51 steps of 1, 2 steps at a time" in said


def test_steps_beyond_the_data_are_forecasts():
    y, _ = noisy_walk(15)
    ahead = 4

    def model(y):
        chain = GaussianMarkovChain(torch.zeros(1), 1.0, 0.3, torch.tensor([[0.9]]), num_steps=19)
        x = pyro.sample("x", chain)
        with pyro.plate("t", 15):
            pyro.sample("y", dist.Normal(x[:15, 0], 0.5), obs=y)

    one = torch.ones(1)
    _, mean, cov = kalman(
        y, [True] * 15, 0.9 * torch.eye(1), torch.zeros(14, 1), 0.3 * one, one, 0.5, 0 * one, one
    )
    fit = plain(Problem(model, y), progress=False)
    for step in range(ahead):
        mean, cov = 0.9 * mean, 0.81 * cov + 0.09
        torch.testing.assert_close(fit.mean()["x"][15 + step], mean, **EXACT)
        torch.testing.assert_close(fit.sd()["x"][15 + step].square(), cov[0], **EXACT)

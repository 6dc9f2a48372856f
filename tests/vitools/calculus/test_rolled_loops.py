"""Loops over time are read as chains: the same posterior as step by step, under the user's names."""

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, explain, load, save
from vitools.calculus import ConjugateModel
from vitools.calculus.blocks.trajectory import TrajectoryBlock
from vitools.calculus.tracing import rolling
from vitools.errors import OptionError

LEVEL = torch.tensor([-1.0, 1.5], dtype=torch.float64)
STAY = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)


def plain(problem, **options):
    """Factors that do not depend on the value of a scale."""
    return cavi(problem, nested=(), **options)


def walk(y):
    drift = pyro.sample("drift", dist.Gamma(2.0, 1.0))
    noise = pyro.sample("noise", dist.HalfCauchy(1.0))
    x = pyro.sample("x_0", dist.Normal(0.0, 1.0))
    pyro.sample("y_0", dist.Normal(x, noise), obs=y[0])
    for t in pyro.markov(range(1, len(y))):
        x = pyro.sample(f"x_{t}", dist.Normal(0.9 * x + 0.1 * t, drift.rsqrt()))
        pyro.sample(f"y_{t}", dist.Normal(x, noise), obs=y[t])


def series(steps, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.cumsum(0.5 * torch.randn(steps, generator=g), 0)


def step_by_step(monkeypatch, model, *data, **options):
    monkeypatch.setattr(rolling, "SHORTEST", 10**6)
    fit = plain(Problem(model, *data), progress=False, **options)
    monkeypatch.undo()
    return fit


def assert_same(fit, other, tolerance=1e-3):
    assert fit.bound == pytest.approx(other.bound, abs=1e-5)
    mine, theirs = fit.mean(), other.mean()
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(fit.sd()[name], other.sd()[name], rtol=tolerance, atol=tolerance)


def test_a_walk_is_that_of_one_dense_normal_under_its_names(monkeypatch, tmp_path):
    problem = Problem(walk, series(12))
    fit = plain(problem, progress=False)
    assert set(fit.mean()) == {"drift", "noise", *(f"x_{t}" for t in range(12))}
    assert_same(fit, step_by_step(monkeypatch, walk, series(12)))
    assert "x " in explain(problem).splitlines()[3]
    whole = fit.mean()["x"]
    assert whole.shape == (12,)
    assert torch.equal(whole[7], fit.mean()["x_7"])
    with pytest.raises(OptionError, match="no latent site 'level'"):
        fit.sd()["level"]
    marginal = fit.marginal("x_7")
    torch.testing.assert_close(marginal.mean.squeeze(), fit.mean()["x_7"])
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    torch.testing.assert_close(again.sample(3)["x_11"], fit.sample(3)["x_11"])
    weights = fit.log_weights(200)
    assert abs(float(weights.mean()) - fit.bound) < 5 * float(weights.std()) / math.sqrt(200)


def test_a_known_model_has_the_evidence_of_a_kalman_filter():
    y = series(30)

    def model(y):
        x = pyro.sample("x0", dist.Normal(0.3, 1.0))
        for t in range(30):
            if t:
                x = pyro.sample(f"x{t}", dist.Normal(0.8 * x, 0.4))
            if t % 5 != 2:  # no observation
                pyro.sample(f"y{t}", dist.Normal(x, 0.5), obs=y[t])

    mean, var, total = 0.3, 1.0, 0.0
    for t in range(30):
        if t:
            mean, var = 0.8 * mean, 0.64 * var + 0.16
        if t % 5 != 2:
            spread, error = var + 0.25, float(y[t]) - mean
            total -= 0.5 * (math.log(2 * math.pi * spread) + error**2 / spread)
            mean, var = mean + var / spread * error, var * 0.25 / spread
    fit = plain(Problem(model, y), progress=False)
    assert fit.bound == pytest.approx(total, abs=1e-9)
    assert float(fit.mean()["x29"]) == pytest.approx(mean, abs=1e-9)


def hidden(y):
    level = pyro.sample("level", dist.Normal(LEVEL, 1.0).to_event(1))
    jump = pyro.sample("jump", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    with pyro.plate("rows", y.shape[0]):
        z = 0
        for t in pyro.markov(range(y.shape[1])):
            z = pyro.sample(f"z{t}", dist.Categorical(jump[z] if t else torch.ones(2) / 2))
            pyro.sample(f"y{t}", dist.Normal(level[z], 0.8), obs=y[:, t])


def test_discrete_states_in_a_plate_are_one_factor(monkeypatch, tmp_path):
    g = torch.Generator().manual_seed(1)
    y = 1.5 * torch.randn(3, 9, generator=g)
    problem = Problem(hidden, y)
    assert isinstance(ConjugateModel(hidden, (y,)).block_of["z"], TrajectoryBlock)
    fit = plain(problem, progress=False)
    names = [f"z{t}" for t in range(9)]
    other = step_by_step(monkeypatch, hidden, y, joint=[names])
    assert fit.bound == pytest.approx(other.bound, abs=1e-6)
    torch.testing.assert_close(
        fit.marginal("z4").probs, other.marginal("z4").probs, rtol=1e-3, atol=1e-3
    )
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", problem)
    torch.testing.assert_close(again.marginal("z4").probs, fit.marginal("z4").probs)
    assert abs(float(fit.log_weights(200).mean()) - fit.bound) < 0.5


def test_several_states_a_step_in_a_plate_and_what_reads_the_last(monkeypatch):
    y = torch.stack([series(9, seed) for seed in range(3)])

    def model(y):
        trend = pyro.sample("trend", dist.Normal(0.0, 1.0))
        noise = pyro.sample("noise", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", 3):
            level = pyro.sample("level_1", dist.Normal(0.0, 2.0))
            slope = pyro.sample("slope_1", dist.Normal(trend, 0.5))
            for t in range(1, 10):
                if t > 1:
                    level = pyro.sample(f"level_{t}", dist.Normal(level + slope, 0.3))
                    slope = pyro.sample(f"slope_{t}", dist.Normal(slope, 0.1))
                pyro.sample(f"y_{t}", dist.Normal(level, noise.rsqrt()), obs=y[:, t - 1])
            pyro.sample("end", dist.Normal(level + slope, 1.0), obs=torch.tensor([0.1, 0.2, 0.3]))

    assert_same(plain(Problem(model, y), progress=False), step_by_step(monkeypatch, model, y), 5e-3)


def test_vectors_and_counts_of_a_predictor(monkeypatch):
    g = torch.Generator().manual_seed(3)
    counts = torch.poisson(3 * torch.rand(10, 2, generator=g), generator=g)
    matrix = torch.tensor([[0.9, 0.1], [0.0, 0.8]])

    def model(counts):
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
        x = pyro.sample("x0", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
        for t in range(10):
            if t:
                x = pyro.sample(f"x{t}", dist.MultivariateNormal(matrix @ x, 0.2 * torch.eye(2)))
            with pyro.plate(f"both{t}", 2):
                pyro.sample(f"y{t}", dist.Poisson((level + x).exp()), obs=counts[t])

    assert_same(
        plain(Problem(model, counts), progress=False),
        step_by_step(monkeypatch, model, counts),
        1e-2,
    )


def test_sites_that_are_spoken_of_stay_as_they_are():
    y = series(9)
    assert ConjugateModel(walk, (y,)).trace.rolled
    assert not ConjugateModel(walk, (y,), joint=()).trace.rolled
    assert not ConjugateModel(walk, (y,), inner=["x_3"]).trace.rolled


def test_steps_that_have_no_factor_together_have_one_each():
    """A square of a state in the next: no term of neighbours that a normal has."""
    y = series(8)

    def model(y):
        x = pyro.sample("x0", dist.Normal(0.0, 1.0))
        for t in range(8):
            if t:
                x = pyro.sample(f"x{t}", dist.Normal(0.1 * x**2, 0.4))
            pyro.sample(f"y{t}", dist.Normal(x, 0.5), obs=y[t])

    assert not ConjugateModel(model, (y,)).trace.rolled
    assert math.isfinite(plain(Problem(model, y), progress=False).bound)


def test_starts_name_the_steps():
    problem = Problem(walk, series(10))
    fit = plain(problem, progress=False)
    again = plain(problem, progress=False, start=fit, max_sweeps=2)
    cold = plain(problem, progress=False, max_sweeps=2)
    assert cold.bound + 0.01 < again.bound <= fit.bound + 1e-6
    with pytest.raises(OptionError, match="share a factor over time"):
        plain(problem, progress=False, start={"x_3": torch.tensor(1.0)})


def test_reading_costs_the_same_for_every_step():
    """In calls of functions, which no clock can disturb; benchmarks/chains.py has the seconds."""

    def calls(steps):
        count = 0

        def counted(frame, event, argument):
            nonlocal count
            count += event == "call"

        y, before = series(steps), sys.getprofile()
        sys.setprofile(counted)
        try:
            ConjugateModel(walk, (y,))
        finally:
            sys.setprofile(before)
        return count

    calls(20)  # what is done once in a process
    fewer, some, more = (calls(steps) for steps in (100, 200, 300))
    assert more - some == pytest.approx(some - fewer, rel=0.02)
    assert (more - some) / 100 < 2500  # 2223 when this was written


def test_a_loop_is_explained_in_slices_of_its_steps():
    def model(y):
        drift = pyro.sample("drift", dist.Gamma(2.0, 1.0))
        x = pyro.sample("x_0", dist.Normal(0.0, 1.0))
        for t in range(len(y)):
            if t:
                x = pyro.sample(f"x_{t}", dist.Normal(0.9 * x, drift.rsqrt()))
            if t % 5 != 2:  # no observation
                pyro.sample(f"y_{t}", dist.Normal(x, 0.4), obs=y[t])

    text = explain(Problem(model, series(12)))
    assert "E[x[1:12]²]" in text
    assert "E[x[0:11]²]" in text
    assert "1[steps(y)] · y" in text
    assert "data₁" not in text

"""Every factor that coordinate ascent makes comes back from a file as it was."""

import pyro
import pyro.distributions as dist
import torch
from pyro import sample

from vitools import Problem, cavi, load, save

Y = torch.arange(12.0, dtype=torch.float64).reshape(3, 4).sin()


def joint_along_the_first_axis():
    """Full covariances along the first of two axes."""
    design = torch.tensor([[1.0, 0.5, -1.0], [0.3, 2.0, 1.0]], dtype=torch.float64)
    w = sample("w", dist.Normal(torch.zeros(3, 4, dtype=torch.float64), 1.0).to_event(2))
    sample("y", dist.Normal(design @ w, 1.0).to_event(2), obs=Y[:2])


def partly_observed():
    m = sample("m", dist.Normal(torch.zeros((), dtype=torch.float64), 2.0))
    with pyro.plate("n", 4):
        x = sample("x", dist.Normal(m, 1.0), obs=Y[0], obs_mask=Y[0] > 0.2)
        sample("y", dist.Normal(2 * x, 1.0), obs=Y[1])


def round_trip(model, path):
    problem = Problem(model)
    fit = cavi(problem, max_sweeps=5)
    save(fit, path)
    return fit, load(path, problem)


def same(fit, loaded):
    drawn, again = fit.sample(5, seed=1), loaded.sample(5, seed=1)
    for name, value in drawn.items():
        torch.testing.assert_close(again[name], value)
    torch.testing.assert_close(loaded.log_prob(drawn), fit.log_prob(drawn))


def test_jointly_normal_along_an_inner_axis(tmp_path):
    fit, loaded = round_trip(joint_along_the_first_axis, tmp_path / "fit")
    assert type(loaded.marginal("w").base_dist if hasattr(loaded.marginal("w"), "base_dist") else
                loaded.marginal("w")).__name__ == "JointNormal"  # fmt: skip
    same(fit, loaded)


def test_masked(tmp_path):
    fit, loaded = round_trip(partly_observed, tmp_path / "fit")
    same(fit, loaded)
    hidden = next(name for name in fit.problem.latents if name.startswith("x"))
    value = torch.zeros(4, dtype=torch.float64)
    assert torch.equal(loaded.marginal(hidden).log_prob(value) == 0, Y[0] > 0.2)

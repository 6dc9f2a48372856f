"""Loops over time: one array x in tables, marginals, ArviZ and draws from elsewhere."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, svi, to_arviz
from vitools.errors import NotSupportedError, OptionError
from vitools.posterior import Posterior
from vitools.reporting.arviz.groups import save_netcdf

T = 12
Y = torch.tensor([0.3, 0.1, 0.7, 1.2, 0.9, 1.4, 2.2, 2.0, 2.9, 3.1, 2.7, 3.3], dtype=torch.float64)


def walk(y):
    x = pyro.sample("x_0", dist.Normal(torch.zeros((), dtype=torch.float64), 2.0))
    pyro.sample("y_0", dist.Normal(x, 0.5), obs=y[0])
    for t in range(1, len(y)):
        x = pyro.sample(f"x_{t}", dist.Normal(x, 1.0))
        pyro.sample(f"y_{t}", dist.Normal(x, 0.5), obs=y[t])


PROBLEM = Problem(walk, Y)


@pytest.fixture(scope="module")
def fit():
    return cavi(PROBLEM)


@pytest.fixture(scope="module")
def truth():
    """The posterior by linear algebra: precision of the walk's differences and of the data."""
    differences = torch.eye(T, dtype=torch.float64) - torch.diag(torch.ones(T - 1).double(), -1)
    scale = torch.ones(T, dtype=torch.float64)
    scale[0] = 0.25
    precision = differences.mT @ torch.diag(scale) @ differences + 4 * torch.eye(T).double()
    covariance = precision.inverse()
    return covariance @ (4 * Y), covariance


def test_the_marginal_of_all_steps_is_the_posterior_and_that_of_one_its_own(fit, truth):
    mean, covariance = truth
    whole, one = fit.marginal("x"), fit.marginal("x_7")
    torch.testing.assert_close(whole.mean, mean)
    torch.testing.assert_close(whole.covariance_matrix, covariance)
    torch.testing.assert_close(one.mean.squeeze(), mean[7])
    torch.testing.assert_close(one.variance.squeeze(), covariance[7, 7])
    torch.testing.assert_close(fit.mean()["x"], mean)
    torch.testing.assert_close(fit.sd()["x"], covariance.diagonal().sqrt())


def test_the_table_shows_a_few_steps_and_counts_the_others(fit):
    rows = str(fit).splitlines()
    assert [row.split()[0] for row in rows[-7:-1]] == [f"x_{t}" for t in range(6)]
    assert rows[-1] == "x: 6 more"


def test_arviz_has_an_axis_of_steps(fit, truth, tmp_path):
    made = to_arviz(fit, 400)
    x = made["posterior"]["x"]
    assert x.dims == ("chain", "draw", "x_step")
    assert x["x_step"].values.tolist() == list(range(T))
    assert set(made["posterior"].data_vars) == {"x"}
    assert made["observed_data"]["y"].values.tolist() == Y.tolist()
    assert made["posterior_predictive"]["y"].dims == ("chain", "draw", "y_step")
    assert made["log_likelihood"]["y"].shape == (1, 400, T)
    assert made["prior"]["x"].shape == (1, 400, T)
    draws = fit.sample(400)
    np.testing.assert_array_equal(x.sel(x_step=7)[0], draws["x_7"])
    total = made["log_prior"]["x"].sum("x_step") + made["log_likelihood"]["y"].sum("y_step")
    np.testing.assert_allclose(total, made["sample_stats"]["log_p"])
    save_netcdf(made, tmp_path / "fit.nc")
    for given in (made, tmp_path / "fit.nc", {"x": x.values[0]}):
        again = Posterior.from_draws(PROBLEM, given)
        np.testing.assert_array_equal(again.pooled()["x_7"], draws["x_7"])


def test_draws_of_another_length_are_refused():
    with pytest.raises(
        OptionError,
        match=r"draws of 'x', the steps x_0 to x_11: expected shape \[chains, draws, 12\] or "
        r"\[draws, 12\], got \[400, 11\]\.",
    ):
        Posterior.from_draws(PROBLEM, {"x": np.zeros((400, 11))})


def test_where_steps_have_no_factor_in_common_one_step_is_named_instead():
    guided = svi(PROBLEM, max_steps=20)
    with pytest.raises(NotSupportedError, match=r"all 12 steps of 'x'.*marginal\('x_0'\)"):
        guided.marginal("x")


def states(y):
    z = torch.tensor(0)
    table = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    for t in range(len(y)):
        z = pyro.sample(f"z_{t}", dist.Categorical(table[z]))
        pyro.sample(f"y_{t}", dist.Normal(3.0 * z, 1.0), obs=y[t])


def test_states_of_a_loop_are_one_chain():
    fit = cavi(Problem(states, Y[:8]))
    made = to_arviz(fit, 200)
    assert made["posterior"]["z"].dims == ("chain", "draw", "z_step")
    chain = fit.marginal("z")
    one = fit.marginal("z_5").probs.squeeze()
    torch.testing.assert_close(chain.marginal(5).squeeze(), one)

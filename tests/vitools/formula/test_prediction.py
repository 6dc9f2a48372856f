"""New rows and new groups of a formula's problem, as vectors of the textbook's conditionals."""

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch

from vitools import cavi, from_formula, load, save, to_arviz
from vitools.posterior import Posterior

RNG = np.random.default_rng(5)
DATA = pd.DataFrame(
    {"x": RNG.normal(size=30), "h": ["u", "v", "v"] * 10, "g": np.repeat(list("abcde"), 6)}
)
DATA["y"] = 3 + 2 * DATA.x + RNG.normal(size=5).repeat(6) + 0.5 * RNG.normal(size=30)
N = 4000


@pytest.fixture(scope="module")
def fit():
    return cavi(from_formula("y ~ center(x) + h + (1 | g)", DATA), nested=())


def test_a_known_group_has_its_effect_and_a_new_one_that_of_its_prior(fit):
    new = pd.DataFrame({"x": [1.0, 1.0], "h": "v", "g": ["c", "new"]})
    at = fit.problem.at(new)
    assert at.coords["g"] == [*"abcde", "new"]
    drawn = fit.predictive(N, seed=1, at=at)["y"]
    draws = fit.sample(N, seed=1)
    level = draws["Intercept"] + draws["center(x)"] * (1 - DATA.x.mean()) + draws["h"][:, 0]
    noise = draws["sigma"].square().mean()
    known = level + draws["1|g"][:, 2]
    variance = known.var() + noise
    assert abs(drawn[:, 0].mean() - known.mean()) < 5 * (variance / N) ** 0.5
    assert abs(drawn[:, 0].var() / variance - 1) < 0.15
    variance = level.var() + draws["1|g_sigma"].square().mean() + noise
    assert abs(drawn[:, 1].mean() - level.mean()) < 5 * (variance / N) ** 0.5
    assert abs(drawn[:, 1].var() / variance - 1) < 0.25  # of a mixture of scales


def test_the_rows_of_the_fit_are_predicted_as_without_at(fit):
    again = fit.problem.at(DATA)
    assert again.has_response
    torch.testing.assert_close(again.arguments, fit.problem.arguments)
    one = fit.predictive(50, seed=2, at=again)["y"]
    torch.testing.assert_close(one, fit.predictive(50, seed=2)["y"])


def test_a_fit_is_saved_and_loaded_with_its_formula(fit, tmp_path):
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", from_formula(fit.problem.formula, DATA))
    assert isinstance(again, Posterior)
    torch.testing.assert_close(again.mean()["h"], fit.mean()["h"])


def test_tables_read_as_the_data_do(fit):
    assert "h[v] " in str(fit)
    assert "1|g[a] " in str(fit)
    posterior = to_arviz(fit, num_samples=20, include=["posterior"])["posterior"]
    assert posterior["h"].dims[-1] == "h_level"
    assert list(posterior["h_level"].values) == ["v"]
    assert list(posterior["g"].values) == [*"abcde"]


def test_response_levels_and_trials_of_new_rows():
    data = DATA.assign(word=np.where(DATA.y > 3, "yes", "no"), k=[0, 1, 2] * 10, n=5)
    bernoulli = from_formula("word ~ x", data, "bernoulli").at(data.iloc[:3])
    expected = (data.word.iloc[:3] == "yes").to_numpy(float).tolist()
    assert bernoulli.arguments["y"].tolist() == expected
    binomial = from_formula("weighted(p(k, n), n) ~ x", data, "binomial")
    new = binomial.at(pd.DataFrame({"x": [0.0, 1.0], "n": [9, 1]}))
    assert not new.has_response
    assert new.arguments["trials"].tolist() == [9.0, 1.0]


def test_a_source_of_priors_given_is_the_model_with_them():
    priors = {
        "x": dist.StudentT(3.0, 1.0, 2.0),
        "Intercept": dist.Normal(1.0, 2.0),
        "1 + x|g_sigma": dist.Gamma(2.0, torch.tensor([1.0, 3.0])),
        "sigma": dist.Exponential(0.7),
    }
    problem = from_formula("y ~ x + (x | g)", DATA, priors=priors)
    values = {name: value[0] for name, value in problem.prior(1, seed=3).items()}
    found = sum(prior.log_prob(values[name]).sum() for name, prior in priors.items())
    root = values["1 + x|g_cholesky"]
    found += dist.LKJCholesky(2, 1.0).log_prob(root)
    tril = values["1 + x|g_sigma"][:, None] * root
    found += (
        dist.MultivariateNormal(torch.zeros(2), scale_tril=tril).log_prob(values["1 + x|g"]).sum()
    )
    x, y = (torch.tensor(DATA[c].tolist()) for c in "xy")
    group = torch.tensor([list("abcde").index(g) for g in DATA.g])
    own = values["1 + x|g"][group]
    eta = values["Intercept"] + values["x"] * x + own[:, 0] + own[:, 1] * x
    found += dist.Normal(eta, values["sigma"]).log_prob(y).sum()
    torch.testing.assert_close(problem.log_joint(values), found)
    assert problem.priors["Intercept"].why == "given"

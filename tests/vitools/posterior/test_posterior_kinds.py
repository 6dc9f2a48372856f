"""The four kinds of posterior against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import special, stats
from torch import distributions as td

from vitools.errors import NotSupportedError, OptionError
from vitools.models import coin
from vitools.posterior import (
    DrawsPosterior,
    Estimate,
    FactorisedPosterior,
    GridPosterior,
    Status,
)
from vitools.problem import Problem


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


COMMON = {"engine": "test", "status": Status.CONVERGED}


def assert_mean(terms, expected, num_se=4.5):
    error = terms.double().std(0) / math.sqrt(len(terms))
    assert bool(((terms.double().mean(0) - expected).abs() <= num_se * error + 1e-12).all())


# ---- factorised -----------------------------------------------------------------------------------


def coin_fit(flips):
    heads = float(flips.sum())
    exact = td.Beta(torch.tensor(1 + heads), torch.tensor(1 + len(flips) - heads))
    evidence = coin.exact_log_evidence(flips)
    return FactorisedPosterior(Problem(coin.model, flips), {"p": exact}, evidence, **COMMON)


def test_an_exact_factor_has_constant_weights_equal_to_the_evidence():
    flips = coin.simulate(20)
    fit = coin_fit(flips)
    expected = torch.tensor(coin.exact_log_evidence(flips))
    torch.testing.assert_close(fit.log_weights(50), expected.expand(50))
    assert fit.elbo() == Estimate(coin.exact_log_evidence(flips))
    values, log_q = fit.sample_with_log_prob(50, seed=3)
    truth = stats.beta(1 + flips.sum(), 21 - flips.sum())
    torch.testing.assert_close(log_q, torch.as_tensor(truth.logpdf(values["p"].numpy())))
    assert fit.mean()["p"].item() == pytest.approx(truth.mean())
    assert fit.sd()["p"].item() == pytest.approx(truth.std())


def test_draws_follow_the_factor_and_repeat():
    flips = coin.simulate(20)
    fit = coin_fit(flips)
    p = fit.sample(4000, seed=1)["p"]
    truth = stats.beta(1 + flips.sum(), 21 - flips.sum())
    assert stats.kstest(p.numpy(), truth.cdf).pvalue > 1e-3
    assert torch.equal(fit.sample(4000, seed=1)["p"], p)
    assert not torch.equal(fit.sample(4000, seed=2)["p"], p)


def test_posterior_predictive_of_the_coin():
    flips = coin.simulate(20)
    fit = coin_fit(flips)
    heads = fit.predictive(4000, seed=2)["heads"]
    assert heads.shape == (4000, 20)
    # the number of heads among 20 new flips is beta-binomial
    a, b = 1 + float(flips.sum()), 21 - float(flips.sum())
    truth = stats.betabinom(20, a, b)
    assert_mean(heads.sum(1), torch.tensor(truth.mean()))
    assert_mean((heads.sum(1) - truth.mean()) ** 2, torch.tensor(truth.var()))


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 2.0))
    s = pyro.sample("s", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w + b, s.rsqrt()), obs=y)


def regression_fit():
    problem = Problem(regression, randn(6, 2), randn(6, seed=1))
    root = torch.tril(randn(3, 3, seed=2)) + 2 * torch.eye(3)
    mean, covariance = torch.tensor([0.5, -1.0, 2.0]), root @ root.mT
    block = td.MultivariateNormal(mean, covariance)
    precision = td.Gamma(torch.tensor(3.0), torch.tensor(2.0))
    factors = {("w", "b"): block, "s": precision}
    return FactorisedPosterior(problem, factors, -9.0, **COMMON), mean, covariance


def test_gaussian_block_and_its_marginals():
    fit, mean, covariance = regression_fit()
    values, log_q = fit.sample_with_log_prob(20_000, seed=1)
    joint = torch.cat([values["w"], values["b"][:, None]], 1)
    expected = torch.as_tensor(
        stats.multivariate_normal(mean.numpy(), covariance.numpy()).logpdf(joint.numpy())
        + stats.gamma(3.0, scale=0.5).logpdf(values["s"].numpy())
    )
    torch.testing.assert_close(log_q, expected)
    assert_mean(joint, mean)
    centred = joint - mean
    assert_mean((centred[:, :, None] * centred[:, None]).flatten(1), covariance.flatten())
    w, b = fit.marginal("w"), fit.marginal("b")
    torch.testing.assert_close(w.covariance_matrix, covariance[:2, :2])
    torch.testing.assert_close(b.mean, mean[2:])
    torch.testing.assert_close(fit.mean()["w"], mean[:2])
    torch.testing.assert_close(fit.sd()["b"], covariance[2, 2].sqrt())
    assert fit.sd()["b"].shape == ()
    torch.testing.assert_close(fit.mean()["s"], torch.tensor(1.5))


def test_log_prob_keeps_sample_dims_and_broadcasts():
    fit, *_ = regression_fit()
    values = {"w": randn(4, 1, 2), "b": randn(3), "s": torch.tensor(0.7)}
    result = fit.log_prob(values)
    assert result.shape == (4, 3)
    one = {"w": values["w"][2, 0], "b": values["b"][1], "s": values["s"]}
    torch.testing.assert_close(result[2, 1], fit.log_prob(one))
    with pytest.raises(OptionError, match="values for 's' are missing"):
        fit.log_prob({"w": randn(2), "b": randn()})
    with pytest.raises(OptionError, match="no latent site 'v'"):
        fit.log_prob({"v": randn(2)})


def two_switches(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        a = pyro.sample("a", dist.Bernoulli(0.3))
        b = pyro.sample("b", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("y", dist.Normal(mu + a + b, 1.0), obs=y)


def test_discrete_block_marginals():
    y = randn(4)
    problem = Problem(two_switches, y)
    table = randn(4, 2, 3, seed=3).flatten(1).softmax(-1)
    factors = {
        "mu": td.Normal(torch.tensor(0.1), torch.tensor(0.5)),
        ("a", "b"): td.Categorical(probs=table),
    }
    fit = FactorisedPosterior(problem, factors, -9.0, **COMMON)
    cube = table.reshape(4, 2, 3)
    torch.testing.assert_close(fit.marginal("a").probs, cube.sum(2))
    torch.testing.assert_close(fit.marginal("b").probs, cube.sum(1))
    # draws of discrete sites come from their exact conditionals, not from the factor
    draws = fit.sample(3000, seed=1, discrete=True)
    assert {k: tuple(v.shape) for k, v in draws.items()} == {
        "mu": (3000,),
        "a": (3000, 4),
        "b": (3000, 4),
    }
    marginal = problem.discrete_marginals({"mu": draws["mu"]})["b"]
    found = torch.nn.functional.one_hot(draws["b"], 3).double()
    assert_mean((found - marginal).flatten(1), torch.zeros(12))
    assert set(fit.sample(3)) == {"mu"}
    assert list(fit.mean()) == ["mu"]


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"mu": td.Normal(0.0, 1.0)}, r"factors cover \['mu'\], expected each latent once"),
        (
            {"mu": td.Normal(torch.zeros(2), 1.0), ("a", "b"): td.Categorical(torch.ones(4, 6))},
            r"q\(mu\) is a Normal of shape \(2,\), expected \(\)",
        ),
        (
            {"mu": td.Normal(0.0, 1.0), ("a", "b"): td.Categorical(torch.ones(4, 5))},
            r"q\(a, b\) is a Categorical of shape \(4, 5\), expected \(4, 6\)",
        ),
        (
            {"mu": td.Normal(0.0, 1.0), "a": td.Bernoulli(0.5), "b": td.Categorical(torch.ones(3))},
            r"q\(a\) is a Bernoulli of shape \(\), expected \(4,\)",
        ),
    ],
)
def test_factors_must_fit_the_sites(factors, words):
    with pytest.raises(NotSupportedError, match=words):
        FactorisedPosterior(Problem(two_switches, randn(4)), factors, 0.0, **COMMON)


def test_discrete_latents_alone():
    def model():
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.8])))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Bernoulli(torch.tensor([0.9, 0.3])[z]), obs=torch.ones(3))

    problem = Problem(model)
    posterior = torch.tensor([0.2 * 0.9**3, 0.8 * 0.3**3])
    evidence = float(posterior.sum().log())
    posterior = posterior / posterior.sum()
    fit = FactorisedPosterior(problem, {"z": td.Categorical(posterior)}, evidence, **COMMON)
    torch.testing.assert_close(fit.log_weights(5), torch.full((5,), evidence))
    z = fit.sample(8000, discrete=True)["z"]
    assert z.shape == (8000,)
    assert_mean(z, posterior[1])
    # z stands outside every plate: replicated data use its posterior, not its prior
    x = fit.predictive(8000)["x"]
    assert x.shape == (8000, 3)
    assert_mean(x[:, 0], posterior @ torch.tensor([0.9, 0.3]))
    assert "exact" in str(fit)


# ---- draws ----------------------------------------------------------------------------------------


def test_draws_are_permuted_without_repetition():
    problem = Problem(regression, randn(6, 2), randn(6, seed=1))
    draws = {"w": randn(2, 50, 2), "b": randn(2, 50), "s": randn(2, 50, seed=4).exp()}
    fit = DrawsPosterior(problem, draws, rhat={"b": 1.01}, ess={"b": 80.0}, **COMMON)
    b = fit.sample(100, seed=1)["b"]
    assert torch.equal(b.sort().values, draws["b"].flatten().sort().values)
    assert not torch.equal(b, draws["b"].flatten())
    assert fit.sample(250)["w"].shape == (250, 2)
    subset = fit.sample(10, seed=3)
    for i in range(10):  # sites stay together
        (where,) = (draws["b"].flatten() == subset["b"][i]).nonzero()
        assert torch.equal(draws["w"].flatten(0, 1)[where[0]], subset["w"][i])
    torch.testing.assert_close(fit.mean()["w"], draws["w"].flatten(0, 1).mean(0))
    torch.testing.assert_close(fit.sd()["s"], draws["s"].flatten().std())
    for call in (fit.elbo, lambda: fit.log_prob(subset), lambda: fit.sample_with_log_prob(3)):
        with pytest.raises(NotSupportedError, match="test gives draws"):
            call()
    assert fit.predictive(5)["y"].shape == (5, 6)


def test_draws_must_have_the_shapes_of_the_sites():
    problem = Problem(coin.model, coin.simulate(5))
    for draws in ({}, {"p": torch.ones(1, 10, 1)}):
        with pytest.raises(
            OptionError, match=r"site 'p': expected draws of shape \[chains, draws\]"
        ):
            DrawsPosterior(problem, draws, **COMMON)


# ---- grid -----------------------------------------------------------------------------------------


def grid_fit(flips, count=400):
    problem = Problem(coin.model, flips)
    nodes = torch.linspace(-7.0, 7.0, count)[:, None]
    p = torch.sigmoid(nodes[:, 0])
    heads = float(flips.sum())
    log_mass = (1 + heads) * p.log() + (1 + len(flips) - heads) * (-p).log1p()
    return GridPosterior(
        problem,
        nodes=nodes,
        log_masses=log_mass - log_mass.logsumexp(0),
        cell=(nodes[1] - nodes[0])[None],
        log_evidence=Estimate(coin.exact_log_evidence(flips), 1e-9),
        **COMMON,
    )


def test_grid_has_the_moments_density_and_draws_of_the_exact_posterior():
    flips = coin.simulate(20)
    fit = grid_fit(flips)
    truth = stats.beta(1 + flips.sum(), 21 - flips.sum())
    assert fit.mean()["p"].item() == pytest.approx(truth.mean(), abs=1e-6)
    assert fit.sd()["p"].item() == pytest.approx(truth.std(), rel=1e-5)
    values, log_q = fit.sample_with_log_prob(4000, seed=2)
    torch.testing.assert_close(log_q, torch.as_tensor(truth.logpdf(values["p"].numpy())))
    assert stats.kstest(values["p"].numpy(), truth.cdf).pvalue > 1e-3
    assert fit.elbo() == Estimate(coin.exact_log_evidence(flips), 1e-9)
    a, b = 1 + flips.sum().item(), 21 - flips.sum().item()
    assert fit.log_evidence.value == pytest.approx(special.betaln(a, b))


def test_grid_of_discrete_latents_alone():
    def model():
        z = pyro.sample("z", dist.Bernoulli(0.25))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.5))

    fit = GridPosterior(
        Problem(model),
        nodes=torch.zeros(1, 0),
        log_masses=torch.zeros(1),
        cell=torch.zeros(0, 0),
        log_evidence=Estimate(float(td.Normal(0.0, 1.0).log_prob(torch.tensor(0.5)))),
        **COMMON,
    )
    assert fit.sample(5) == {}
    z = fit.sample(8000, discrete=True)["z"]
    assert_mean(z, torch.tensor(0.25))  # x is half way, so it says nothing
    torch.testing.assert_close(fit.log_weights(3), torch.full((3,), fit.log_evidence.value))

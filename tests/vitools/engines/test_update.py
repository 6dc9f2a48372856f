"""Rows that arrive: one fit of all of them where factors are conjugate, in any order; wrong use by name."""

import math
from itertools import pairwise

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem, cavi, laplace, load, save, svi, update
from vitools.errors import FileError, NotSupportedError, OptionError
from vitools.guides import AutoMeanField, AutoMultivariate
from vitools.posterior import carry_over


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def coin(x):
    p = pyro.sample("p", dist.Beta(number(2.0), number(1.0)))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Bernoulli(p), obs=x)


def counts(x):
    rate = pyro.sample("rate", dist.Gamma(number(2.0), number(1.0)))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Poisson(rate), obs=x)


def faces(x):
    theta = pyro.sample("theta", dist.Dirichlet(torch.ones(4).double()))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Categorical(theta), obs=x)


def vector(x):
    mean = pyro.sample("mean", dist.MultivariateNormal(torch.zeros(2).double(), 4 * EYE))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.MultivariateNormal(mean, NOISE), obs=x)


def precision(x):
    matrix = pyro.sample("matrix", dist.Wishart(number(4.0), EYE))
    with pyro.plate("rows", len(x)):
        pyro.sample(
            "x", dist.MultivariateNormal(torch.zeros(2).double(), precision_matrix=matrix), obs=x
        )


def regression(x, y):
    with pyro.plate("features", x.shape[1]):
        w = pyro.sample("w", dist.Normal(number(0.0), 2.0))
    b = pyro.sample("b", dist.Normal(number(0.0), 3.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w + b, number(0.5)), obs=y)


def events(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w, number(0.5)), obs=y)


def outputs(x, y):
    with pyro.plate("outputs", 2, dim=-2), pyro.plate("features", 3, dim=-1):
        w = pyro.sample("w", dist.Normal(number(0.0), 2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w.T, number(0.5)).to_event(1), obs=y)


def grouped(group, y):
    with pyro.plate("groups", 5):
        effect = pyro.sample("effect", dist.Normal(number(0.0), 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(effect[group], number(0.5)), obs=y)


EYE = torch.eye(2, dtype=torch.float64)
NOISE = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)


def data(model, rows=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    if model in (coin, counts, faces):
        return ((x[:, 0].abs() * 2).floor().clamp(max=1 if model is coin else 3),)
    if model in (vector, precision):
        return (x[:, :2],)
    if model is grouped:
        return (x[:, 0].abs() * 3).long().clamp(max=4), x[:, 1]
    if model is outputs:
        return x, torch.stack([x.sum(1), x[:, 0]], 1) + 0.5 * torch.flip(x, [0])[:, :2]
    return x, x.sum(1) + 0.5 * torch.flip(x, [0])[:, 0]


def parts(values, *cuts):
    ends = [0, *cuts, len(values[0])]
    return [tuple(v[a:b] for v in values) for a, b in pairwise(ends)]


def streamed(model, batches):
    fit = cavi(Problem(model, *batches[0]))
    bound = fit.bound
    for batch in batches[1:]:
        fit = update(fit, Problem(model, *batch))
        bound += fit.bound
    return fit, bound


CONJUGATE = (coin, counts, faces, vector, precision, regression, events, outputs, grouped)


@pytest.mark.parametrize("model", CONJUGATE)
def test_one_conjugate_factor_forgets_nothing_in_any_order(model):
    values = data(model)
    if model in (coin, faces):
        values = (values[0].long() if model is faces else values[0],)
    whole = cavi(Problem(model, *values))
    batches = parts(values, 7, 30)
    for order in (batches, batches[::-1]):
        fit, bound = streamed(model, order)
        assert bound == pytest.approx(whole.bound, abs=1e-9)  # log p(x₁) + log p(x₂ | x₁) + …
        for name in whole.problem.latents:
            torch.testing.assert_close(fit.mean()[name], whole.mean()[name], rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(fit.sd()[name], whole.sd()[name], rtol=1e-10, atol=1e-10)
    spread = fit.log_weights(20).std()
    assert float(spread) < 1e-8  # q is the posterior of the problem it is handed out with


def test_a_hundred_batches_are_one_fit():
    values = data(regression, rows=500)
    fit, bound = streamed(regression, parts(values, *range(5, 500, 5)))
    whole = cavi(Problem(regression, *values))
    assert bound == pytest.approx(whole.bound, abs=1e-8)
    torch.testing.assert_close(fit.mean()["w"], whole.mean()["w"], rtol=1e-10, atol=1e-10)


def clusters(x):
    with pyro.plate("components", 2):
        centre = pyro.sample("centre", dist.Normal(number(0.0), 5.0))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2).double()))
    scale = pyro.sample("scale", dist.HalfNormal(number(2.0)))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(centre[z], scale), obs=x)


def test_latents_of_rows_are_those_of_the_new_rows_and_a_free_form_factor_is_a_prior():
    generator = torch.Generator().manual_seed(1)
    side = torch.rand(900, generator=generator) < 0.3
    x = torch.where(side, -3.0, 3.0) + 0.7 * torch.randn(900, generator=generator).double()
    fit, _ = streamed(clusters, parts((x,), 300, 600))
    whole = cavi(Problem(clusters, x))
    assert fit.problem.latents["z"].shape == (300,)
    for name in ("centre", "weights", "scale"):
        # well separated clusters: what independent factors forget is a small part of an sd
        gap = (fit.mean()[name] - whole.mean()[name]).abs() / whole.sd()[name]
        assert float(gap.max()) < 0.05
        torch.testing.assert_close(fit.sd()[name], whole.sd()[name], rtol=0.05, atol=0)


def test_a_scalar_on_nodes_is_a_prior_on_nodes():
    """q₂(r) ∝ q₁(r) exp Σ_n E log p(y_n | level, r), the expectation over q₂(level) by Gauss-Hermite."""

    def counts(y):
        level = pyro.sample("level", dist.Normal(torch.tensor(0.0).double(), 2.0))
        r = pyro.sample("r", dist.Gamma(torch.tensor(2.0).double(), 0.5))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.GammaPoisson(r, r / level.exp()), obs=y)

    first = cavi(Problem(counts, torch.tensor([0.0, 3.0, 1.0, 6.0, 2.0, 0.0]).double()))
    new = torch.tensor([1.0, 0.0, 4.0, 9.0]).double()
    fit = update(first, Problem(counts, new))
    at, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(60))
    level = fit.mean()["level"] + fit.sd()["level"] * at
    r = torch.tensor([0.4, 0.9, 1.7, 3.0, 6.0]).double()
    densities = td.NegativeBinomial(r, logits=level[:, None] - r.log()).log_prob(new[:, None, None])
    expected = densities.sum(0).mT @ (weights / weights.sum())
    gained = fit.marginal("r").log_prob(r) - first.marginal("r").log_prob(r)
    assert torch.allclose(gained - gained[0], expected - expected[0], atol=1e-6)


def test_forgetting_counts_old_rows_by_powers():
    values = data(regression, rows=90)
    first, second, third = parts(values, 30, 60)
    fit = cavi(Problem(regression, *first))
    for batch in (second, third):
        fit = update(fit, Problem(regression, *batch), forgetting=0.5)
    # closed form: precision and precision times mean, each halved before the next rows come
    design = torch.cat([values[0], torch.ones(90, 1).double()], 1)
    matrix = torch.diag(torch.tensor([0.25] * 3 + [1 / 9], dtype=torch.float64))
    linear = torch.zeros(4, dtype=torch.float64)
    for i, rows in enumerate((slice(0, 30), slice(30, 60), slice(60, 90))):
        factor = 0.5 if i else 1.0
        matrix = factor * matrix + design[rows].T @ design[rows] / 0.25
        linear = factor * linear + design[rows].T @ values[1][rows] / 0.25
    mean = torch.linalg.solve(matrix, linear)
    torch.testing.assert_close(fit.mean()["w"], mean[:3], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fit.mean()["b"], mean[3], rtol=1e-10, atol=1e-10)


def test_a_source_that_drifts_is_followed_with_forgetting():
    generator = torch.Generator().manual_seed(2)
    fit, plain = None, None
    for rate in torch.linspace(1.0, 9.0, 25):
        x = torch.poisson(rate.expand(40), generator=generator).double()
        problem = Problem(counts, x)
        plain = cavi(problem) if plain is None else update(plain, problem)
        fit = cavi(problem) if fit is None else update(fit, problem, forgetting=0.6)
    standard_error = math.sqrt(9.0 / 100)  # of the last hundred rows, which it remembers
    assert abs(float(fit.mean()["rate"]) - 9.0) < 4 * standard_error
    assert float(plain.mean()["rate"]) < 6.0  # the mean of all that there was


def test_a_saved_fit_needs_none_of_its_rows(tmp_path):
    values = data(regression)
    first, second = parts(values, 30)
    fit = cavi(Problem(regression, *first))
    save(fit, tmp_path / "fit.safetensors")
    straight = update(fit, Problem(regression, *second))
    again = update(tmp_path / "fit.safetensors", Problem(regression, *second))
    assert torch.equal(again.mean()["w"], straight.mean()["w"])
    save(again, tmp_path / "next.safetensors")
    problem = carry_over(tmp_path / "fit.safetensors", Problem(regression, *second))
    assert load(tmp_path / "next.safetensors", problem).bound == again.bound


def test_rows_can_be_named():
    def school(y):
        mu = pyro.sample("mu", dist.Normal(number(0.0), 5.0))
        with pyro.plate("schools", 4):
            theta = pyro.sample("theta", dist.Normal(mu, number(1.0)))
            with pyro.plate("pupils", len(y), dim=-2):
                pyro.sample("y", dist.Normal(theta, number(2.0)), obs=y)

    y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fit = cavi(Problem(school, y[:10]), joint=())
    same_schools = update(fit, Problem(school, y[10:]), rows="pupils")
    assert type(same_schools.problem.model).__name__ == "CarriedModel"
    assert set(same_schools.problem.model.priors) == {"mu", "theta"}
    others = update(fit, Problem(school, y[10:]))
    assert set(others.problem.model.priors) == {"mu"}
    with pytest.raises(OptionError, match="rows: no plate classes in model 'school'"):
        update(fit, Problem(school, y), rows="classes")
    joint = cavi(Problem(school, y[:10]))
    with pytest.raises(NotSupportedError, match=r"one factor holds 'mu', 'theta'.*joint=\(\)"):
        update(joint, Problem(school, y[10:]))


def wider(group, y):
    with pyro.plate("groups", 6):
        effect = pyro.sample("effect", dist.Normal(number(0.0), 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(effect[group], number(0.5)), obs=y)


def test_wrong_use_is_refused_by_name(tmp_path):
    values = data(grouped)
    fit = cavi(Problem(grouped, *values))
    with pytest.raises(
        NotSupportedError, match="fit is of model 'grouped', the new rows are of 'coin'"
    ):
        update(fit, Problem(coin, *data(coin)))
    wider.__name__ = "grouped"
    with pytest.raises(
        NotSupportedError, match=r"'effect' has shape \[5\] in the fit and \[6\] here.*seen"
    ):
        update(fit, Problem(wider, *values))
    labelled = Problem(grouped, *values).with_coords(groups=list("abcde"))
    known = cavi(labelled)
    with pytest.raises(NotSupportedError, match=r"labels of 'groups'.*unseen: f"):
        update(known, Problem(grouped, *values).with_coords(groups=list("abcdf")))
    assert update(known, labelled).problem.coords["groups"] == list("abcde")
    for wrong in (0.0, 1.5, "half"):
        with pytest.raises(OptionError, match="forgetting: expected a number above 0"):
            update(fit, Problem(grouped, *values), forgetting=wrong)
    with pytest.raises(OptionError, match="expects a Problem of the new rows"):
        update(fit, values)
    with pytest.raises(NotSupportedError, match="a Problem cannot be carried over"):
        update(labelled, labelled)
    with pytest.raises(FileError, match="no file"):
        update(tmp_path / "none.safetensors", labelled)

    def coin_of_rows(x):
        with pyro.plate("rows", len(x)):
            p = pyro.sample("p", dist.Beta(number(1.0), number(1.0)))
            pyro.sample("x", dist.Bernoulli(p), obs=x)

    alone = cavi(Problem(coin_of_rows, *data(coin)))
    with pytest.raises(NotSupportedError, match=r"every latent .* belongs to single rows"):
        update(alone, Problem(coin_of_rows, *data(coin)))


def positive(x, y):
    """Coefficients, a scale and shares: on the reals through three maps."""
    w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
    sd = pyro.sample("sd", dist.Gamma(number(2.0), number(2.0)))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(3).double()))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w + x @ share, sd), obs=y)


def test_a_table_of_two_scalars_is_refused_with_what_to_do():
    def waits(y):
        shape = pyro.sample("shape", dist.Gamma(number(2.0), number(1.0)))
        rate = pyro.sample("rate", dist.Gamma(number(2.0), number(1.0)))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Gamma(shape, rate), obs=y)

    rows = torch.linspace(0.2, 3.0, 20).double()
    new = Problem(waits, rows[10:])
    with pytest.raises(NotSupportedError, match=r"q\('shape', 'rate'\).*Fit with joint=\(\)"):
        update(cavi(Problem(waits, rows[:10])), new)
    fit = update(cavi(Problem(waits, rows[:10]), joint=()), new)
    assert set(fit.mean()) == {"shape", "rate"}


def test_a_gaussian_on_the_reals_is_carried_over_with_its_correlations():
    values = data(regression)
    first, second = parts(values, 30)
    whole = laplace(Problem(regression, *values))
    fit = update(laplace(Problem(regression, *first)), Problem(regression, *second))
    for name in ("w", "b"):  # a Gaussian posterior: nothing is lost
        torch.testing.assert_close(fit.mean()[name], whole.mean()[name], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(fit.sd()[name], whole.sd()[name], rtol=1e-7, atol=0)
    halved = carry_over(
        laplace(Problem(regression, *first)), Problem(regression, *second), forgetting=0.5
    )
    spread = halved.prior(20_000)["b"].std() / laplace(Problem(regression, *first)).sd()["b"]
    assert float(spread) == pytest.approx(math.sqrt(2), rel=5 / math.sqrt(2 * 20_000))


def test_other_supports_are_carried_over_through_their_maps():
    values = data(positive, rows=400)
    first, second = parts(values, 200)
    fit = laplace(Problem(positive, *first))
    carried = carry_over(fit, Problem(positive, *second))
    draws, log_q = fit.sample_with_log_prob(5)
    prior = carried.log_joint(draws) - sum(
        x.sum(-1) for x in carried.pointwise_log_likelihood(draws).values()
    )
    torch.testing.assert_close(prior, log_q, rtol=1e-8, atol=1e-8)
    whole = laplace(Problem(positive, *values))
    both = update(fit, Problem(positive, *second))
    for name in ("w", "sd"):
        gap = (both.mean()[name] - whole.mean()[name]).abs() / whole.sd()[name]
        assert float(gap.max()) < 0.2  # what curvature at two modes misses, a part of an sd


def test_a_guide_is_carried_over_by_its_density():
    values = data(positive, rows=60)
    fit = svi(Problem(positive, *values), AutoMultivariate, max_steps=60, compile=False)
    gaussian = fit.as_gaussian()
    draws, log_q = fit.sample_with_log_prob(6)
    torch.testing.assert_close(gaussian.log_prob(draws), log_q, rtol=1e-5, atol=1e-5)
    problem = Problem(positive, *data(positive, rows=40, seed=1))
    carried = carry_over(fit, problem)
    prior = carried.log_joint(draws) - sum(
        x.sum(-1) for x in carried.pointwise_log_likelihood(draws).values()
    )
    torch.testing.assert_close(prior, log_q, rtol=1e-5, atol=1e-5)
    both = update(fit, problem, max_steps=20, compile=False)
    assert type(both.guide) is AutoMultivariate
    with pytest.raises(NotSupportedError, match="a GuidePosterior cannot be carried over"):
        update(svi(problem, AutoMeanField, max_steps=5, compile=False), problem)


def counts_of_unknown_spread(x, y):
    """A dispersion on the nodes of a quadrature, beside coefficients."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), 2.0).to_event(1))
    s = pyro.sample("s", dist.HalfNormal(number(2.0)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.NegativeBinomial(s, logits=x @ w - s.log()), obs=y)


def test_a_scalar_on_nodes_is_carried_over_as_the_prior_of_one():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 2, generator=generator).double()
    y = torch.poisson((0.5 + x[:, 0]).exp(), generator=generator)
    first = cavi(Problem(counts_of_unknown_spread, x[:30], y[:30]))
    both = update(first, Problem(counts_of_unknown_spread, x[30:], y[30:]))
    whole = cavi(Problem(counts_of_unknown_spread, x, y))
    assert first.bound + both.bound == pytest.approx(whole.bound, abs=0.3)
    for name in ("w", "s"):
        gap = (both.mean()[name] - whole.mean()[name]).abs() / whole.sd()[name]
        assert float(gap.max()) < 0.2  # what factors of the first rows lose of their dependence

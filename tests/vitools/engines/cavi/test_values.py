"""Coordinate ascent with sites on values: against the exact answer, and what is refused."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, explain, load, save
from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.calculus.values.reading import Reader
from vitools.errors import NotConjugateError, OptionError, VitoolsWarning
from vitools.guides import AutoMultivariateNormal, AutoNormal
from vitools.posterior import Posterior


def number(value):
    return torch.tensor(value, dtype=torch.float64)


X = torch.linspace(-2.0, 2.0, 30, dtype=torch.float64)
Y = 0.5 * torch.sin(7 * X) + 1.0


def levels(y):
    level = pyro.sample("level", dist.Normal(number(0.0), 3.0))
    precision = pyro.sample("precision", dist.Gamma(number(1.0), 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(level, precision.rsqrt()), obs=y)


def network(x, y):
    inner = pyro.sample("inner", dist.Normal(number(0.0), 2.0).expand([2, 3]).to_event(2))
    outer = pyro.sample("outer", dist.Normal(number(0.0), 1.0).expand([3]).to_event(1))
    precision = pyro.sample("precision", dist.Gamma(number(1.0), 1.0))
    features = torch.stack([x, torch.ones_like(x)], -1)
    with pyro.plate("rows", len(x)):
        mean = torch.tanh(features @ inner) @ outer
        pyro.sample("y", dist.Normal(mean, precision.rsqrt()), obs=y)


def kernel_and_scale(x, y):
    length = pyro.sample("length", dist.LogNormal(number(0.0), 0.5))
    precision = pyro.sample("precision", dist.Gamma(number(2.0), 1.0))
    covariance = torch.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + 1e-2 * torch.eye(len(x))
    f = pyro.sample("f", dist.MultivariateNormal(torch.zeros_like(x), covariance))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(f, precision.rsqrt()), obs=y)


@pytest.fixture(scope="module")
def both():
    problem = Problem(levels, Y)
    return problem, cavi(problem), cavi(problem, guides={"level": AutoNormal}, max_sweeps=320)


def test_a_site_on_values_that_has_a_closed_form_comes_near_it(both):
    """The optimal q(level) is normal, so the guide can reach the mean field of the closed forms."""
    _, exact, fit = both
    estimate = fit.elbo()
    assert 0 < estimate.standard_error < 0.05
    assert abs(estimate.value - exact.bound) < 4 * estimate.standard_error + 0.02
    sd = exact.sd()
    for name in ("level", "precision"):
        assert abs(fit.mean()[name] - exact.mean()[name]) < 0.1 * sd[name]
        assert abs(fit.sd()[name] / sd[name] - 1) < 0.1
    assert "values of 'level' by AutoMeanField" in fit.detail


def test_the_bound_is_that_of_the_posterior_by_its_own_draws(both):
    _, _, fit = both
    again = Posterior.elbo(fit, 2000, seed=5)
    assert abs(again.value - fit.bound) < 5 * (again.standard_error + fit.elbo().standard_error)


def test_it_is_one_posterior(both, tmp_path):
    problem, _, fit = both
    draws, log_q = fit.sample_with_log_prob(50, seed=1)
    assert torch.allclose(fit.log_prob(draws), log_q)
    parts = sum(fit.marginal(name).log_prob(draws[name]) for name in draws)
    assert torch.allclose(parts, log_q)
    assert fit.predictive(4, seed=1)["y"].shape == (4, 30)
    save(fit, tmp_path / "fit")
    back = load(tmp_path / "fit", problem)
    assert back.elbo() == fit.elbo()
    assert torch.equal(back.sample(5, seed=2)["level"], fit.sample(5, seed=2)["level"])
    assert torch.allclose(back.log_prob(draws), log_q)


def test_the_same_seed_gives_the_same_numbers():
    guides = {("inner",): AutoMultivariateNormal}
    one, two = (cavi(Problem(network, X, Y), guides=guides, max_sweeps=5, seed=3) for _ in range(2))
    # to rounding: MKL sums a product in an order that depends on where its operands lie in memory
    # (to the last bit with MKL_CBWR=COMPATIBLE)
    assert one.elbo().value == pytest.approx(two.elbo().value, rel=1e-12)
    assert one.history.elbo == pytest.approx(two.history.elbo, rel=1e-12)


def test_terms_at_draws_are_the_average_of_models_at_each():
    """The bound at M draws and its gradient, against M models that have one draw as data."""
    draws = {
        "inner": torch.randn(
            (4, 2, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64
        ).requires_grad_()
    }
    read = Reader(network, (X, Y), {})
    model = ConjugateModel.of_reading(read(draws))
    initialise(model, 0)
    for _ in range(3):
        model.sweep()
    (slope,) = torch.autograd.grad(model.bound_of_values(), draws["inner"])

    def average(values):
        total = 0.0
        for value in values:
            held = pyro.condition(network, data={"inner": value})
            one = ConjugateModel(held, (X, Y), {}, collapse=False, stream=False)
            initialise(one, 0)
            one.load([dict(part) for part in model.state()])
            total += one.elbo() / len(values)
        return total

    at = draws["inner"].detach()
    assert abs(average(at) - model.elbo()) < 1e-9
    step = torch.zeros_like(at)
    step[2, 1, 0] = 1e-5
    numeric = (average(at + step) - average(at - step)) / 2e-5
    assert abs(numeric - float(slope[2, 1, 0])) < 1e-6
    with torch.no_grad():  # going on at other draws is the model of these draws
        assert model.take(read({"inner": (at + 0.1).requires_grad_()}))
    assert abs(average(at + 0.1) - model.elbo()) < 1e-9
    assert all(tensor.grad_fn is not None for tensor in model.moving.moments.values())


def test_nested_sites_beside_values_are_refused():
    with pytest.raises(OptionError, match="nested: not beside guides="):
        cavi(Problem(levels, Y), guides={"level": AutoNormal}, nested=["precision"])


@pytest.mark.parametrize(
    ("guides", "words"),
    [
        ("normal", r"guides: expected \{site: guide\}.*got str"),
        ({"levl": AutoNormal}, r"no latent site 'levl'.*'level'"),  # codespell:ignore levl
        ({3: AutoNormal}, "a site or a tuple of sites as a key, got 3"),
        ({(): AutoNormal}, r"a site or a tuple of sites as a key, got \(\)"),
        ({"level": "norml"}, "no guide 'norml' for 'level'.*normal"),  # codespell:ignore norml
        ({"level": 3}, "expected a guide for 'level'.*got 3"),
        ({"level": AutoNormal, ("level",): AutoNormal}, "'level' occurs twice"),
        ({("level", "precision"): AutoNormal}, r"nothing is left.*svi\(problem, guide\)"),
        ({"level": lambda y: pyro.sample("x", dist.Normal(0.0, 1.0))}, "draws no latent"),
    ],
)
def test_wrong_guides_are_refused(guides, words):
    with pytest.raises(OptionError, match=f"(?s){words}"):
        cavi(Problem(levels, Y), guides=guides)


def correlated_effects(y):
    """Effects of groups with an LKJ prior: its factor has no rule, nor have scales times it."""
    size = y.shape[-1]
    scales = pyro.sample("scales", dist.HalfNormal(torch.ones(size).double()).to_event(1))
    factor = pyro.sample("factor", dist.LKJCholesky(size, number(2.0)))
    with pyro.plate("groups", len(y)):
        tril = scales[:, None] * factor
        zero = torch.zeros(size, dtype=torch.float64)
        u = pyro.sample("u", dist.MultivariateNormal(zero, scale_tril=tril))
        pyro.sample("y", dist.Normal(u, number(0.05)).to_event(1), obs=y)


EFFECTS = torch.stack(
    [torch.sin(torch.arange(8.0)), torch.cos(torch.arange(8.0) ** 2)], -1
).double()


def test_sites_without_a_rule_get_values_by_themselves_and_a_warning_says_so():
    wide = torch.cat([EFFECTS, EFFECTS.flip(0)[:, :1]], 1).repeat(
        2, 1
    )  # six numbers: too many to nest
    problem = Problem(correlated_effects, wide)
    with pytest.warns(VitoolsWarning, match="'factor', 'scales' get values"):
        fit = cavi(problem, max_sweeps=1)
    assert "values of 'factor', 'scales' by AutoMultivariate" in fit.detail
    words = {line[:19] for line in explain(problem).splitlines() if "values of a guide" in line}
    assert {word.split()[0] for word in words} == {"factor", "scales"}
    with pytest.raises(NotConjugateError, match="'factor': LKJCholesky has no conjugate family"):
        cavi(problem, guides={})


def test_values_are_for_few_numbers_beside_those_that_keep_a_rule():
    problem = Problem(network, X, Y)  # nine weights that need values, one precision that does not
    with pytest.raises(NotConjugateError, match="a curved function of 'inner'"):
        cavi(problem)
    assert "values" not in explain(problem)
    assert cavi(problem, guides={("inner", "outer"): AutoNormal}, max_sweeps=1)


@pytest.mark.slow
def test_an_lkj_prior_meets_the_integral_over_scales_and_correlation():
    """log p(y) by quadrature: y_g ~ N(0, Σ + I/400) given scales and correlation."""
    nodes, weights = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(60))
    scale, by_scale = 3 * (nodes + 1), 3 * weights  # on [0, 6]
    prior = math.log(2) + torch.distributions.Normal(number(0.0), 1.0).log_prob(scale)
    one, two, r = torch.meshgrid(scale, scale, nodes, indexing="ij")
    covariance = torch.stack(
        [
            torch.stack([one**2 + 0.0025, r * one * two], -1),
            torch.stack([r * one * two, two**2 + 0.0025], -1),
        ],
        -2,
    )
    of_data = sum(
        torch.distributions.MultivariateNormal(number([0.0, 0.0]), covariance).log_prob(y)
        for y in EFFECTS
    )
    of_r = (1 - r**2).log() + math.log(0.75)  # LKJ(2) of a 2 x 2 matrix
    mass = (by_scale[:, None, None] * by_scale[:, None] * weights).log()
    whole = of_data + prior[:, None, None] + prior[:, None] + of_r + mass
    evidence = float(whole.flatten().logsumexp(0))
    q = whole.exp() / whole.exp().sum()
    fit = cavi(Problem(correlated_effects, EFFECTS), guides={("factor", "scales"): "multivariate"})
    bound = fit.elbo()
    assert evidence - 0.25 < bound.value < evidence + 4 * bound.standard_error
    mean = (q * one).sum()
    torch.testing.assert_close(fit.mean()["scales"][0], mean, rtol=0.1, atol=0)

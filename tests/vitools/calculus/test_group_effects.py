"""Gaussian factors on trees of groups against the dense factor, which they must equal."""

from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitools import Problem, cavi, explain
from vitools.calculus.blocks import levels
from vitools.calculus.model import ConjugateModel
from vitools.elimination import border
from vitools.errors import NumericalError
from vitools.posterior.storage import load, save

DENSE = 10**9


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def eliminated(monkeypatch):
    """Sites on trees however few."""
    monkeypatch.setattr(levels, "SMALLEST", 0)


def fits(problem, monkeypatch, nested=(), **options):
    """The fit by elimination and that by the dense factor."""
    monkeypatch.setattr(levels, "SMALLEST", 0)
    tree = cavi(problem, nested=nested, **options)
    assert any(type(f.distribution).__name__ == "TreeNormal" for f in tree.factors)
    monkeypatch.setattr(levels, "SMALLEST", DENSE)
    dense = cavi(problem, nested=nested, **options)
    assert not any(type(f.distribution).__name__ == "TreeNormal" for f in dense.factors)
    return tree, dense


def assert_equal(tree, dense, tolerance):
    close = {"rtol": tolerance, "atol": tolerance}
    assert tree.bound == pytest.approx(dense.bound, rel=tolerance)
    for name, mean in dense.mean().items():
        torch.testing.assert_close(tree.mean()[name], mean, **close)
        torch.testing.assert_close(tree.sd()[name], dense.sd()[name], **close)
    values = dense.sample(5, seed=3)
    torch.testing.assert_close(tree.log_prob(values), dense.log_prob(values), **close)


def random_design(seed, kind, rows=40):
    """Groups of rows: nested by data, or crossed, some of them empty."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randint(9, (rows,), generator=generator)
    above = torch.randint(4, (9,), generator=generator)
    outer = above[inner]
    if kind != "nested":
        outer = torch.randint(4, (rows,), generator=generator)
    x = torch.randn(rows, 3, generator=generator)
    return x, inner, outer, torch.randn(rows, generator=generator)


def two_levels(x, inner, outer, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    level = pyro.sample("level", dist.Normal(1.0, 3.0))
    with pyro.plate("inner", 9):
        u = pyro.sample("u", dist.Normal(0.0, 0.7))
        slope = pyro.sample("slope", dist.Normal(0.3 * level, 0.4))
    with pyro.plate("outer", 4):
        v = pyro.sample("v", dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 0.3))
    with pyro.plate("rows", len(y)):
        mean = (
            level + x @ w + u[inner] + slope[inner] * x[:, 0] + v[outer, 0] + v[outer, 1] * x[:, 1]
        )
        pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.integers(0, 2**20), st.sampled_from(["nested", "crossed", "sparse"]))
def test_the_posterior_of_random_designs_is_the_dense_one(seed, kind):
    """All scales known: one update is the posterior, and the bound the evidence."""
    problem = Problem(two_levels, *random_design(seed, kind))
    with pytest.MonkeyPatch.context() as patch:
        if kind == "sparse":  # crossed, and only what is coupled beside the groups
            patch.setattr(border, "SCATTERED", 0)
        assert_equal(*fits(problem, patch), 1e-9)


def test_plates_in_plates(monkeypatch):
    y = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))

    def model(y):
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
        with pyro.plate("schools", 3, dim=-1):
            school = pyro.sample("school", dist.Normal(level, 1.0))
            with pyro.plate("classes", 4, dim=-2):
                within = pyro.sample("class", dist.Normal(school, 0.5))
                with pyro.plate("pupils", 5, dim=-3):
                    pyro.sample("y", dist.Normal(within, 0.3), obs=y)

    assert_equal(*fits(Problem(model, y), monkeypatch), 1e-9)


def scales_and_slopes(x, inner, y):
    level = pyro.sample("level", dist.Normal(0.0, 5.0))
    precision = pyro.sample("precision", dist.Wishart(torch.tensor(4.0), torch.eye(2)))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("groups", 9):
        u = pyro.sample("u", dist.MultivariateNormal(torch.zeros(2), precision_matrix=precision))
    with pyro.plate("rows", len(y)):
        mean = level + u[inner, 0] + u[inner, 1] * x[:, 0]
        pyro.sample("y", dist.Normal(mean, noise), obs=y)


def test_latent_scales_and_a_covariance_of_effects(monkeypatch):
    x, inner, _, y = random_design(5, "nested")
    tree, dense = fits(Problem(scales_and_slopes, x, inner, y), monkeypatch, tol=1e-13)
    assert_equal(tree, dense, 2e-6)


def logistic(x, inner, outer, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("inner", 9):
        u = pyro.sample("u", dist.Normal(0.0, scale))
    with pyro.plate("outer", 4):
        v = pyro.sample("v", dist.Normal(0.0, 0.5))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w + u[inner] + v[outer]), obs=y)


@pytest.mark.parametrize("kind", ["nested", "crossed"])
def test_curved_factors_of_group_effects(monkeypatch, kind):
    x, inner, outer, noise = random_design(2, kind, rows=80)
    problem = Problem(logistic, x, inner, outer, (x[:, 0] + noise > 0).double())
    tree, dense = fits(problem, monkeypatch, tol=1e-13)
    assert_equal(tree, dense, 2e-6)


def test_a_fit_is_saved_sampled_and_has_marginals(eliminated, tmp_path):
    problem = Problem(two_levels, *random_design(1, "crossed"))
    fit = cavi(problem)
    save(fit, tmp_path / "fit")
    again = load(tmp_path / "fit", problem)
    values = fit.sample(4000, seed=1)
    torch.testing.assert_close(again.sample(4000, seed=1), values)
    torch.testing.assert_close(again.log_prob(values), fit.log_prob(values))
    for name, value in values.items():
        error = fit.sd()[name] / 4000**0.5
        assert bool(((value.mean(0) - fit.mean()[name]).abs() < 5 * error).all())
        assert bool((value.std(0) / fit.sd()[name] - 1).abs().max() < 0.07)
    marginal = fit.marginal("u")
    torch.testing.assert_close(marginal.variance.sqrt(), fit.sd()["u"])
    sampled = torch.cov(values["u"].mT)
    assert float((sampled - marginal.covariance_matrix).abs().max()) < 0.03


@pytest.mark.slow
def test_restarts_and_acceleration_change_nothing(eliminated):
    x, inner, _, y = random_design(5, "nested")
    problem = Problem(scales_and_slopes, x, inner, y)
    one = cavi(problem, tol=1e-12)
    several = cavi(problem, tol=1e-12, restarts=2)
    plain = cavi(problem, tol=1e-12, accelerate=False)
    assert one.bound == pytest.approx(several.bound, rel=1e-7)
    assert one.bound == pytest.approx(plain.bound, rel=1e-7)
    bounds = plain.history.elbo
    assert all(b >= a - 1e-9 * abs(a) for a, b in pairwise(bounds))


def test_collinear_columns_are_named(eliminated):
    """An intercept beside flat means of all groups."""
    _, _, _, y = random_design(0, "nested")
    inner = torch.arange(len(y)) % 9

    def model(inner, y):
        level = pyro.sample("level", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("groups", 9):
            u = pyro.sample("u", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(level + u[inner], 1.0), obs=y)

    with pytest.raises(NumericalError, match="by level"):
        cavi(Problem(model, inner, y))


def test_explain_says_how_the_block_is_held(eliminated):
    text = explain(Problem(two_levels, *random_design(1, "crossed")))
    assert "u (9 groups of 1)" in text
    assert "then w, level, v dense (12 numbers)" in text


def test_groups_beside_few_of_many_crossed_ones_keep_those_only(eliminated, tmp_path):
    """Students who rated three of 60 teachers each; means and bound by dense linear algebra."""
    student = torch.arange(100).repeat_interleave(3)
    teacher = (student * 7 + torch.tensor([0, 13, 31]).repeat(100)) % 60
    y = torch.randn(300, generator=torch.Generator().manual_seed(1))

    def model(student, teacher, y):
        level = pyro.sample("level", dist.Normal(0.0, 2.0))
        with pyro.plate("students", 100):
            u = pyro.sample("u", dist.Normal(0.0, 0.7))
        with pyro.plate("teachers", 60):
            v = pyro.sample("v", dist.Normal(0.0, 0.5))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(level + u[student] + v[teacher], 1.0), obs=y)

    problem = Problem(model, student, teacher, y)
    assert "each beside about 4 of the dense numbers" in explain(problem)
    fit = cavi(problem)
    columns = torch.cat(
        [2 * torch.ones(300, 1), 0.7 * torch.eye(100)[student], 0.5 * torch.eye(60)[teacher]], 1
    )
    marginal = dist.MultivariateNormal(torch.zeros(300), columns @ columns.mT + torch.eye(300))
    assert fit.bound == pytest.approx(float(marginal.log_prob(y)), rel=1e-10)
    inverse = torch.linalg.inv(torch.eye(161) + columns.mT @ columns)
    mean, sd = inverse @ columns.mT @ y, inverse.diagonal().sqrt()
    torch.testing.assert_close(fit.mean()["u"], 0.7 * mean[1:101], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fit.sd()["v"], 0.5 * sd[101:], rtol=1e-9, atol=1e-9)
    save(fit, tmp_path / "fit")
    again = load(tmp_path / "fit", problem)
    values = fit.sample(3, seed=1)
    torch.testing.assert_close(again.log_prob(values), fit.log_prob(values))
    torch.testing.assert_close(again.sd()["v"], fit.sd()["v"])


def test_thousands_of_groups_share_a_factor_with_the_coefficients():
    generator = torch.Generator().manual_seed(0)
    inner = torch.arange(4000) % 2000
    y = torch.randn(4000, generator=generator)

    def model(inner, y):
        level = pyro.sample("level", dist.Normal(0.0, 5.0))
        with pyro.plate("groups", 2000):
            u = pyro.sample("u", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(level + u[inner], 1.0), obs=y)

    conjugate = ConjugateModel(model, (inner, y))
    (block,) = conjugate.blocks
    assert block.names == ("level", "u")
    assert block.tree.count < 10_000
    fit = cavi(Problem(model, inner, y))
    # level | y: of 2000 means of two rows, each with variance 1 + 1/2
    precision = 2000 / 1.5 + 1 / 25
    assert float(fit.sd()["level"]) == pytest.approx(precision**-0.5, rel=1e-9)
    assert fit.marginal("u").mean.shape == (2000,)


@pytest.mark.parametrize("groups", [60, 300])
def test_groups_with_equal_data_are_not_one_where_they_share_a_factor(groups):
    """Given the level they are independent and alike; together they are not one group counted often."""
    y = (torch.arange(groups) % 3).double()

    def model(y):
        level = pyro.sample("level", dist.Normal(0.0, 5.0))
        with pyro.plate("groups", groups):
            u = pyro.sample("u", dist.Normal(level, 1.0))
            pyro.sample("y", dist.Normal(u, 1.0), obs=y)

    fit = cavi(Problem(model, y))
    assert float(fit.sd()["level"]) == pytest.approx((groups / 2 + 1 / 25) ** -0.5, rel=1e-9)
    marginal = dist.MultivariateNormal(
        torch.zeros(groups), 2 * torch.eye(groups) + 25.0 * torch.ones(groups, groups)
    )
    assert fit.bound == pytest.approx(float(marginal.log_prob(y)), rel=1e-9)

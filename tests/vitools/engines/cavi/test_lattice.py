"""Sites nested on a lattice of values against closed forms and quadrature, and what they must keep."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import distributions as td

from vitools import Problem, cavi, explain, load, save
from vitools.errors import NotSupportedError, NumericalError, OptionError
from vitools.posterior import FactorisedPosterior, MixturePosterior, ProductPosterior, Status


def number(x):
    return torch.tensor(x, dtype=torch.float64)


Y = torch.stack([torch.sin(torch.arange(8.0)), torch.cos(torch.arange(8.0) ** 2)], -1).double()


def by_scales(y):
    """Effects of groups, their covariance by scales and an LKJ prior."""
    scales = pyro.sample("scales", dist.HalfNormal(torch.ones(2, dtype=torch.float64)).to_event(1))
    root = pyro.sample("root", dist.LKJCholesky(2, number(2.0)))
    with pyro.plate("groups", len(y)):
        tril = scales[:, None] * root
        u = pyro.sample("u", dist.MultivariateNormal(number([0.0, 0.0]), scale_tril=tril))
        pyro.sample("y", dist.Normal(u, number(0.3)).to_event(1), obs=y)


def by_wishart(y):
    """The same, of a precision matrix."""
    precision = pyro.sample("precision", dist.Wishart(number(3.0), 0.5 * torch.eye(2).double()))
    with pyro.plate("groups", len(y)):
        u = pyro.sample(
            "u", dist.MultivariateNormal(number([0.0, 0.0]), precision_matrix=precision)
        )
        pyro.sample("y", dist.Normal(u, number(0.3)).to_event(1), obs=y)


def quadrature(prior):
    """log p(y), and a mean over the posterior: y_g ~ N(0, Σ + 0.09 I) given scales and correlation.

    ``prior``: log density of (τ₁, τ₂, ρ) given Σ and these.
    """
    nodes, weights = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(64))
    log_scale, by_scale = 3.5 * nodes - 1.5, 3.5 * weights
    angle, by_angle = math.pi / 2 * nodes, math.pi / 2 * weights  # ρ = sin angle
    first, second, turn = torch.meshgrid(log_scale, log_scale, angle, indexing="ij")
    one, two, r = first.exp(), second.exp(), turn.sin()
    rows = [torch.stack([one**2, r * one * two], -1), torch.stack([r * one * two, two**2], -1)]
    sigma = torch.stack(rows, -2)
    seen = td.MultivariateNormal(number([0.0, 0.0]), sigma + 0.09 * torch.eye(2).double())
    log = sum(seen.log_prob(y) for y in Y) + prior(sigma, one, two, r)
    mass = (by_scale[:, None, None] * by_scale[:, None] * by_angle).log()
    log = log + first + second + turn.cos().log() + mass
    chance = log.flatten().softmax(0)

    def average(x):
        return (chance * x.flatten()).sum()

    return float(log.flatten().logsumexp(0)), average, (sigma, one, two, r)


def moments(average, x):
    mean = average(x)
    return mean, (average(x**2) - mean**2).sqrt()


def of_first_effect(average, sigma):
    """Mean and sd of u_00: given Σ, u | y ~ N(K y, Σ - K Σ)."""
    gain = sigma @ torch.linalg.inv(sigma + 0.09 * torch.eye(2).double())
    mean = (gain @ Y[0])[..., 0]
    variance = (sigma - gain @ sigma)[..., 0, 0]
    whole = average(mean)
    return whole, (average(variance + mean**2) - whole**2).sqrt()


@pytest.fixture(scope="module")
def scales_fit():
    return cavi(Problem(by_scales, Y))


def test_scales_and_correlation_are_the_posteriors(scales_fit):
    def prior(sigma, one, two, r):
        half = td.HalfNormal(number(1.0))
        return half.log_prob(one) + half.log_prob(two) + (1 - r**2).log() + math.log(0.75)

    evidence, average, (sigma, one, two, r) = quadrature(prior)
    bound = scales_fit.elbo()
    assert evidence - 0.2 < bound.value < evidence
    assert 0 < bound.standard_error < 1e-2
    mean, sd = scales_fit.mean(), scales_fit.sd()
    found = [
        (mean["scales"][0], sd["scales"][0], moments(average, one)),
        (mean["scales"][1], sd["scales"][1], moments(average, two)),
        (mean["root"][1, 0], sd["root"][1, 0], moments(average, r)),
        (mean["u"][0, 0], sd["u"][0, 0], of_first_effect(average, sigma)),
    ]
    for at, width, (true, true_width) in found:
        assert abs(at - true) < 0.04 * true_width
        torch.testing.assert_close(width, true_width, rtol=0.05, atol=0)


def test_a_precision_matrix_is_the_posteriors():
    def prior(sigma, one, two, r):
        wishart = td.Wishart(number(3.0), 0.5 * torch.eye(2).double())
        # ∂W/∂Σ = |Σ|⁻³, ∂Σ/∂(τ₁, τ₂, ρ) = 4 τ₁² τ₂²
        log_det = torch.logdet(sigma)
        changes = -3 * log_det + math.log(4) + 2 * one.log() + 2 * two.log()
        return wishart.log_prob(torch.linalg.inv(sigma)) + changes

    evidence, average, (sigma, one, two, _) = quadrature(prior)
    problem = Problem(by_wishart, Y)
    fit, plain = cavi(problem), cavi(problem, nested=())
    assert isinstance(fit, MixturePosterior)
    assert isinstance(plain, FactorisedPosterior)
    assert plain.elbo().value + 0.2 < fit.elbo().value
    assert evidence - 0.2 < fit.elbo().value < evidence
    mean, sd = of_first_effect(average, sigma)
    assert abs(fit.mean()["u"][0, 0] - mean) < 0.04 * sd
    torch.testing.assert_close(fit.sd()["u"][0, 0], sd, rtol=0.05, atol=0)
    drawn = torch.linalg.inv(fit.sample(20_000)["precision"]).diagonal(dim1=-2, dim2=-1).sqrt()
    for column, scale in enumerate((one, two)):
        mean, sd = moments(average, scale.log())
        own = drawn[:, column].log()
        assert abs(own.mean() - mean) < 0.07 * sd
        torch.testing.assert_close(own.std(), sd, rtol=0.05, atol=0)


@pytest.mark.slow
def test_draws_density_and_bound_agree(scales_fit):
    weights = scales_fit.log_weights(2000, seed=1)
    error = float(weights.std()) / math.sqrt(len(weights))
    bound = scales_fit.elbo()
    off = abs(float(weights.mean()) - bound.value)
    assert off < 4.5 * error + bound.standard_error
    draws = scales_fit.sample(4000, seed=2)
    for name in ("scales", "root", "u"):
        error = scales_fit.sd()[name].nan_to_num() / math.sqrt(4000) + 1e-9
        assert bool(((draws[name].mean(0) - scales_fit.mean()[name]).abs() < 4.5 * error).all())
    assert "cells of a lattice of their values" in scales_fit.detail
    assert scales_fit.status is Status.CONVERGED


@pytest.mark.slow
def test_it_is_saved_and_loaded(scales_fit, tmp_path):
    save(scales_fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", scales_fit.problem)
    assert again.fingerprint == scales_fit.fingerprint
    torch.testing.assert_close(again.log_weights(50), scales_fit.log_weights(50))


def test_explain_says_what_is_nested():
    said = explain(Problem(by_scales, Y))
    assert {x.split()[0] for x in said.splitlines() if "values on a lattice" in x} == {
        "scales",
        "root",
    }
    assert "'precision': the covariance of few effects" in explain(Problem(by_wishart, Y))


def test_it_is_chosen_for_few_groups_few_data_and_few_numbers_only():
    def many(y):
        by_wishart(y)
        pyro.sample("more", dist.Normal(0.0, 1.0).expand([2001]).to_event(1), obs=torch.zeros(2001))

    assert isinstance(cavi(Problem(many, Y), max_sweeps=3), FactorisedPosterior)
    assert isinstance(cavi(Problem(by_wishart, Y.repeat(7, 1)), max_sweeps=3), FactorisedPosterior)
    assert isinstance(
        cavi(Problem(by_wishart, Y), factorised="all", max_sweeps=3), FactorisedPosterior
    )
    with pytest.warns(match="'root', 'scales' get values"):
        fit = cavi(Problem(by_scales, Y), nested=(), max_sweeps=1)
    assert isinstance(fit, ProductPosterior)


def conjugate(y, size):
    """A precision matrix beside a mean that has nothing to do with it."""
    scale = torch.eye(size, dtype=torch.float64)
    precision = pyro.sample("precision", dist.Wishart(number(size + 2.0), scale))
    m = pyro.sample("m", dist.Normal(number(0.0), number(1.0)))
    pyro.sample("x", dist.Normal(m, number(1.0)), obs=number(0.5))
    with pyro.plate("rows", len(y)):
        zero = torch.zeros(size, dtype=torch.float64)
        pyro.sample("y", dist.MultivariateNormal(zero, precision_matrix=precision), obs=y)


def wishart_evidence(y):
    """log p(y) (Murphy 2012, section 4.6), the posterior's degrees of freedom and scale."""
    rows, size = y.shape
    before = torch.eye(size, dtype=torch.float64)
    after = before + y.mT @ y
    df = size + 2

    def normaliser(degrees, inverse):
        of_gamma = torch.mvlgamma(number(degrees / 2), size)
        return of_gamma + degrees / 2 * (size * math.log(2) - torch.logdet(inverse))

    found = (
        normaliser(df + rows, after)
        - normaliser(df, before)
        - rows * size / 2 * math.log(2 * math.pi)
    )
    return float(found), df + rows, torch.linalg.inv(after)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "gap", "digits"),
    [(2, 0.02, 0.03), (3, 0.25, 0.06)],
)
def test_a_wishart_posterior_on_a_lattice(size, gap, digits):
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(12, size, generator=generator, dtype=torch.float64)
    evidence, df, scale = wishart_evidence(y)
    evidence += float(td.Normal(number(0.0), number(2.0).sqrt()).log_prob(number(0.5)))
    fit = cavi(Problem(conjugate, y, size), nested=["precision"])
    assert evidence - gap < fit.elbo().value < evidence + fit.elbo().standard_error
    mean = df * scale
    own = scale.diagonal()
    variance = df * (scale**2 + own[:, None] * own)
    sd = variance.sqrt()
    assert bool(((fit.mean()["precision"] - mean).abs() < digits * sd).all())
    torch.testing.assert_close(fit.sd()["precision"], sd, rtol=digits, atol=0)


def test_what_no_rule_takes_is_nested_by_reading_the_model_again():
    """A frequency: given it two amplitudes are normal, and quadrature over it is exact."""
    t = torch.arange(30, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    y = 0.6 * torch.sin(1.02 * t) + 0.4 * torch.cos(1.02 * t)
    y = y + 0.5 * torch.randn(30, generator=generator, dtype=torch.float64)

    def wave(y):
        w = pyro.sample("w", dist.Normal(number(1.0), number(0.03)))
        a = pyro.sample("a", dist.Normal(number([0.0, 0.0]), number(1.0)).to_event(1))
        with pyro.plate("times", len(y)):
            mean = a[0] * torch.sin(w * t) + a[1] * torch.cos(w * t)
            pyro.sample("y", dist.Normal(mean, number(0.5)), obs=y)

    w = torch.linspace(0.85, 1.15, 4001, dtype=torch.float64)
    design = torch.stack([torch.sin(w[:, None] * t), torch.cos(w[:, None] * t)], -1)
    seen = design @ design.mT + 0.25 * torch.eye(30).double()
    log = td.MultivariateNormal(torch.zeros(30).double(), seen).log_prob(y)
    log = log + td.Normal(number(1.0), number(0.03)).log_prob(w) + math.log(0.3 / 4000)
    chance = log.softmax(0)
    mean = (chance * w).sum()
    sd = ((chance * w**2).sum() - mean**2).sqrt()
    fit = cavi(Problem(wave, y), nested=["w"])
    evidence = float(log.logsumexp(0))
    assert evidence - 0.1 < fit.elbo().value < evidence
    assert abs(fit.mean()["w"] - mean) < 0.02 * sd
    torch.testing.assert_close(fit.sd()["w"], sd, rtol=0.03, atol=0)


def unfinished(y):
    """A correlation matrix too wide to be nested, an angle, and a site that decides what the model is."""
    pyro.sample("root", dist.LKJCholesky(5, number(1.0)))
    pyro.sample("turn", dist.VonMises(number(0.0), number(1.0)))
    pyro.sample("shares", dist.Dirichlet(torch.ones(3).double()))
    m = pyro.sample("m", dist.Normal(number(0.0), number(1.0)))
    pyro.sample("y", dist.Normal(m, number(1.0)), obs=y)


@pytest.mark.parametrize(
    ("nested", "error", "words"),
    [
        (["root"], OptionError, "'root' takes 10 numbers, at most 6 can be nested"),
        (["shares"], NotSupportedError, "'shares' has the support Simplex"),
    ],
)
def test_wrong_sites_are_refused(nested, error, words):
    with pytest.raises(error, match=words):
        cavi(Problem(unfinished, number(0.3)), nested=nested)


def test_a_posterior_without_a_maximum_is_refused():
    """A flat prior on the logarithm of a scale that data do not bound from below."""

    def endless(y):
        log_scale = pyro.sample("log_scale", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("groups", 3):
            u = pyro.sample(
                "u", dist.Normal(number(0.0), (log_scale - log_scale.exp().sin()).exp())
            )
            pyro.sample("y", dist.Normal(u, number(1.0)), obs=y)

    with pytest.raises(NumericalError, match=r"log_scale.*improper"):
        cavi(Problem(endless, torch.zeros(3).double()), nested=["log_scale"])


def test_checkpoints_are_refused(tmp_path):
    with pytest.raises(OptionError, match=r"checkpoint: .*lattice of their values \('precision'\)"):
        cavi(Problem(by_wishart, Y), checkpoint=tmp_path / "state")

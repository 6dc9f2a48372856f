"""A family added here, in one file and one line of the table, works in coordinate ascent and around it.

The normal distribution on the positive half-line: t = (x, x²), x > 0, η = (μ/σ², -1/2σ²),

    A = ½ μ²/σ² + log σ + ½ log 2π + log Φ(a),   E x = μ + σ φ(a)/Φ(a),   E x² = σ² + μ E x,   a = μ/σ,

which is what a half-normal prior on a normal's mean leads to. (Half-normal latents have a factor by
integrals without it, and the two must agree.)
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch.distributions import Distribution, Normal, constraints

from vitools import Problem, cavi, explain, load, save
from vitools.calculus.densities import rules
from vitools.calculus.densities.rules.normal import normal
from vitools.families import FAMILIES
from vitools.families.family import Family, narrow, noise


class PositiveNormal(Distribution):
    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.positive

    def __init__(self, loc, scale, validate_args=None):
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.whole = Normal(self.loc, self.scale, validate_args=False)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self):
        return self.loc + self.scale * hazard(self.loc / self.scale)

    @property
    def variance(self):
        return self.scale**2 + self.loc * self.mean - self.mean**2

    def log_prob(self, value):
        inside = self.whole.log_prob(value) - log_cdf(self.loc / self.scale)
        return torch.where(value > 0, inside, -torch.inf)

    def sample(self, sample_shape=()):
        shape = (*sample_shape, *self.loc.shape)
        below = self.whole.cdf(torch.zeros(()))
        at = below + (1 - below) * torch.rand(shape, dtype=self.loc.dtype)
        return self.whole.icdf(at).clamp(min=torch.finfo(self.loc.dtype).tiny)


def log_cdf(a):
    return (0.5 * torch.erfc(-a / math.sqrt(2))).log()


def hazard(a):
    return (-(a**2) / 2 - 0.5 * math.log(2 * math.pi) - log_cdf(a)).exp()


class PositiveNormalFamily(Family):
    name = "PositiveNormal"
    statistics = (1.0, 2.0)
    event_dims = (0, 0)
    support = constraints.positive
    priors = ("HalfNormal",)
    filler = (0.0, -0.5)
    members = {PositiveNormal: ("loc", "scale")}  # noqa: RUF012

    @staticmethod
    def parameters(natural):
        variance = -0.5 / natural[1]
        return natural[0] * variance, variance.sqrt()

    def log_normaliser(self, natural):
        loc, scale = self.parameters(natural)
        a = loc / scale
        return 0.5 * a**2 + scale.log() + 0.5 * math.log(2 * math.pi) + log_cdf(a)

    def mean_parameters(self, natural):
        loc, scale = self.parameters(natural)
        mean = loc + scale * hazard(loc / scale)
        return mean, scale**2 + loc * mean

    def to_distribution(self, natural):
        return PositiveNormal(*self.parameters(natural), validate_args=False)

    def from_distribution(self, distribution):
        precision = distribution.scale**-2
        return precision * distribution.loc, -0.5 * precision

    def proper(self, natural):
        return (natural[1] < 0) & natural[0].isfinite() & natural[1].isfinite()

    def start(self, prior, generator):
        return prior[0] + noise(prior[0], generator).abs(), prior[1].clamp(max=-0.5)

    def with_moments(self, mean, variance):
        variance = narrow(mean) if variance is None else variance
        return mean / variance, -0.5 / variance

    def words(self, total):
        return f"positive normal, precision {total(2.0, scale=-2)}, P mean {total(1.0)}"


def half_normal(x, scale):
    return normal(x, x * 0.0, scale) + math.log(2)


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setitem(FAMILIES, "PositiveNormal", PositiveNormalFamily())
    monkeypatch.setitem(rules.RULES, "HalfNormal", half_normal)


ROWS = torch.tensor([0.3, -0.2, 0.5, 0.1])


def known_noise(y):
    height = pyro.sample("height", dist.HalfNormal(2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(height, 0.5), obs=y)


def unknown_noise(y):
    height = pyro.sample("height", dist.HalfNormal(2.0))
    precision = pyro.sample("precision", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(height, precision.rsqrt()), obs=y)


def test_the_bound_is_the_evidence(added):
    def density(h):
        return 2 * norm.pdf(h, scale=2.0) * math.prod(norm.pdf(float(y), h, 0.5) for y in ROWS)

    evidence, _ = quad(density, 0, 10, epsabs=1e-13)
    moment, _ = quad(lambda h: h * density(h), 0, 10, epsabs=1e-13)
    fit = cavi(Problem(known_noise, ROWS))
    assert isinstance(fit.marginal("height"), PositiveNormal)
    assert fit.bound == pytest.approx(math.log(evidence), abs=1e-9)
    assert float(fit.mean()["height"]) == pytest.approx(moment / evidence, abs=1e-9)


def test_the_integral_agrees(monkeypatch):
    problem = Problem(unknown_noise, ROWS)
    by_integral = cavi(problem, joint=(), tol=1e-12)
    monkeypatch.setitem(FAMILIES, "PositiveNormal", PositiveNormalFamily())
    monkeypatch.setitem(rules.RULES, "HalfNormal", half_normal)
    closed = cavi(problem, joint=(), tol=1e-12)
    assert isinstance(closed.marginal("height"), PositiveNormal)
    assert not isinstance(by_integral.marginal("height"), PositiveNormal)
    assert closed.bound == pytest.approx(by_integral.bound, abs=1e-7)


def test_explain_has_its_words(added):
    table = explain(Problem(known_noise, ROWS))
    assert "PositiveNormal" in table
    assert "positive normal, precision 16.25, P mean" in table
    assert "1 of 1 latents have closed-form updates" in table


def test_starts(added):
    problem = Problem(unknown_noise, ROWS)
    best = cavi(problem).bound
    for start in (
        {"height": 3.0},
        {"height": Normal(1.0, 0.2)},
        "prior",
        cavi(problem, max_sweeps=2),
    ):
        assert cavi(problem, start=start).bound == pytest.approx(best, abs=1e-6)
    assert cavi(problem, restarts=3).restart_bounds == pytest.approx([best] * 3, abs=1e-6)


def test_its_file_gives_it_back(added, tmp_path):
    problem = Problem(unknown_noise, ROWS)
    fit = cavi(problem)
    save(fit, tmp_path / "fit")
    again = load(tmp_path / "fit", problem)
    assert isinstance(again.marginal("height"), PositiveNormal)
    for name, draws in fit.sample(5).items():
        assert torch.equal(draws, again.sample(5)[name])


def test_a_masked_element_takes_part_in_nothing(added):
    def rows(y, seen):
        with pyro.plate("rows", len(y)), pyro.poutine.mask(mask=seen):
            height = pyro.sample("height", dist.HalfNormal(2.0))
            pyro.sample("y", dist.Normal(height, 0.5), obs=y)

    seen = torch.tensor([True, True, False, True])
    masked = cavi(Problem(rows, ROWS, seen))
    alone = cavi(Problem(rows, ROWS[seen], torch.ones(3, dtype=torch.bool)))
    assert masked.bound == pytest.approx(alone.bound, abs=1e-9)

"""Entropies against closed forms of scipy and of torch, of tables by hand, of fits."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from seeds import assert_within_errors
from torch.distributions import Beta, Gamma, Independent, MultivariateNormal, Normal

from vitools import Problem
from vitools.errors import DataError, OptionError
from vitools.information import (
    conditional_entropy,
    conditional_entropy_of_normal,
    conditional_entropy_of_table,
    entropy,
    entropy_of_normal,
    entropy_of_table,
)
from vitools.information.expectation import expectation
from vitools.posterior import Posterior


def T(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


EYE = torch.eye(3, dtype=torch.float64)


class Bare(torch.distributions.Distribution):
    """A distribution that has forgotten its entropy."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, known):
        self.known = known
        super().__init__(known.batch_shape, known.event_shape, validate_args=False)

    @property
    def support(self):
        return self.known.support

    @property
    def has_enumerate_support(self):
        return self.known.has_enumerate_support

    def enumerate_support(self, expand=True):
        return self.known.enumerate_support(expand)

    def sample(self, sample_shape=()):
        return self.known.sample(sample_shape)

    def log_prob(self, value):
        return self.known.log_prob(value)


@pytest.mark.parametrize(
    ("p", "exact"),
    [
        (dist.Poisson(T(3.0)), stats.poisson(3.0).entropy()),
        (dist.Poisson(T(400.0)), stats.poisson(400.0).entropy()),
        (dist.NegativeBinomial(T(3.0), T(0.7)), stats.nbinom(3, 0.3).entropy()),
        (dist.Logistic(T(1.0), T(2.0)), 2 + math.log(2)),
        (dist.BetaBinomial(T(2.0), T(3.0), 10), stats.betabinom(10, 2, 3).entropy()),
        (Bare(Normal(T(1e4), T(1e-3))), stats.norm(1e4, 1e-3).entropy()),
        (Bare(torch.distributions.StudentT(T(1.5))), stats.t(1.5).entropy()),
        (Bare(torch.distributions.Cauchy(T(0.0), T(3.0))), stats.cauchy(0, 3).entropy()),
        (Bare(Gamma(T(0.2), T(5.0))), stats.gamma(0.2, scale=0.2).entropy()),
        (Bare(torch.distributions.Pareto(T(1.0), T(2.0))), stats.pareto(2).entropy()),
        (Bare(torch.distributions.Laplace(T(0.0), T(1.0))), 1 + math.log(2)),
    ],
)
def test_sums_and_quadrature_reach_closed_forms_within_their_errors(p, exact):
    found = entropy(p)
    assert found.standard_error < 1e-6
    assert found.value == pytest.approx(exact, abs=max(1e-9, 2 * found.standard_error))


def test_an_integrable_pole_at_an_edge_is_told_of():
    found = entropy(Bare(Beta(T(0.5), T(0.5))))
    off = abs(found.value - stats.beta(0.5, 0.5).entropy())
    assert 1e-10 < off < 2 * found.standard_error < 1e-6


@pytest.mark.parametrize(
    "p",
    [
        MultivariateNormal(T([1.0, -2.0]), T([[1.0, 0.999], [0.999, 1.0]])),
        torch.distributions.Dirichlet(T([0.7, 2.0, 3.0])),
        torch.distributions.Dirichlet(T([2.0, 3.0])),
        dist.MultivariateStudentT(T(3.0), T([0.0, 0.0]), EYE[:2, :2]),
    ],
)
def test_in_two_dims(p):
    bare = entropy(Bare(p))
    assert 0 < bare.standard_error < 1e-6
    if not isinstance(p, dist.MultivariateStudentT):
        assert bare.value == pytest.approx(float(p.entropy()), abs=2 * bare.standard_error)
    else:
        assert bare.value == pytest.approx(
            stats.multivariate_t(df=3, shape=np.eye(2)).entropy(), abs=1e-6
        )


def test_single_precision_ends_at_its_own_rounding():
    for p, exact in (
        (dist.Poisson(torch.tensor(30.0, dtype=torch.float32)), stats.poisson(30).entropy()),
        (
            Bare(Gamma(*torch.tensor([2.0, 5.0], dtype=torch.float32))),
            stats.gamma(2, scale=0.2).entropy(),
        ),
    ):
        found = entropy(p)
        assert 0 < found.standard_error < 1e-4
        assert abs(found.value - exact) < 2 * found.standard_error


def test_batches_add_up_and_so_do_independent_entries():
    many = Bare(Normal(T([0.0, 5.0]), T([1.0, 0.1])))
    sum_of_both = float(many.known.entropy().sum())
    assert entropy(many).value == pytest.approx(sum_of_both)
    assert entropy(Independent(many, 1)).value == pytest.approx(sum_of_both)


def test_draws_are_within_their_errors():
    """In three dims nothing but draws is left."""
    known = MultivariateNormal(torch.zeros(3), torch.eye(3) + 0.5)
    found = [entropy(Bare(known), num_samples=400, seed=s) for s in range(25)]
    assert_within_errors(found, float(known.entropy()))


def test_a_density_that_is_none_on_its_support_is_left_to_draws():
    """A von Mises says that its support is the line; its mass there is infinite."""
    p = torch.distributions.VonMises(T(0.0), T(2.0))
    assert expectation(p, lambda x: x) is None
    angle = torch.linspace(-math.pi, math.pi, 2001)[1:]
    log_p = p.log_prob(angle)
    exact = float(-(log_p.exp() * log_p).sum() * 2 * math.pi / 2000)
    found = entropy(Bare(p))
    assert abs(found.value - exact) < 4 * found.standard_error


def test_of_a_fit():
    def model(y):
        mu = pyro_sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro_sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)

    from pyro import sample as pyro_sample

    fit = Posterior.from_gaussian(Problem(model, torch.zeros(2)), torch.zeros(2), T([1.0, 4.0]))
    exact = float(MultivariateNormal(torch.zeros(2), T([1.0, 4.0]).diag()).entropy())
    assert_within_errors([entropy(fit, num_samples=500, seed=s) for s in range(20)], exact)


# ---- tables, normals --------------------------------------------------------------------------

CHANNEL = T([[0.3, 0.1, 0.1], [0.0, 0.2, 0.3]])


def test_tables_by_hand():
    joint = -(
        0.3 * math.log(0.3) + 0.4 * math.log(0.1) / 2 + 0.2 * math.log(0.2) + 0.3 * math.log(0.3)
    )
    assert entropy_of_table(CHANNEL).value == pytest.approx(joint)
    rows = math.log(2)
    assert conditional_entropy_of_table(CHANNEL, 1, 0).value == pytest.approx(joint - rows)
    assert entropy_of_table(CHANNEL).is_exact


def test_other_dims_are_summed_out():
    both = torch.stack([CHANNEL, CHANNEL]).permute(1, 0, 2) / 2
    found = conditional_entropy_of_table(both, of=2, given=0)
    assert found.value == pytest.approx(conditional_entropy_of_table(CHANNEL, 1, 0).value)
    none = conditional_entropy_of_table(both, of=(0, 2), given=1)
    assert none.value == pytest.approx(entropy_of_table(CHANNEL).value)


def test_normals():
    covariance = T([[2.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.5]])
    assert entropy_of_normal(covariance).value == pytest.approx(
        float(MultivariateNormal(torch.zeros(3), covariance).entropy())
    )
    chain = conditional_entropy_of_normal(covariance, [0, 1], 2).value
    last = entropy_of_normal(covariance[2:, 2:]).value
    assert chain + last == pytest.approx(entropy_of_normal(covariance).value)


def test_of_a_conditional_at_draws():
    """y ~ N(0, 1), x | y ~ N(0, e^y): H(x | y) = ½ log 2πe + E y = 1.4189."""
    found = []
    for seed in range(25):
        y = torch.randn(400, generator=torch.Generator().manual_seed(seed))
        found.append(
            conditional_entropy(Bare(Normal(torch.zeros(()), y.exp().unsqueeze(1).expand(-1, 1))))
        )
    assert_within_errors(found, 0.5 * math.log(2 * math.pi * math.e))


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: entropy(T([0.5, 0.5])), OptionError, "expects a distribution or a fit, got Tensor"),
        (lambda: entropy(Normal(0.0, 1.0), num_samples=1), OptionError, "num_samples: expected a whole"),
        (lambda: entropy(Normal(0.0, 1.0), seed=-1), OptionError, "seed: expected a whole number"),
        (lambda: entropy_of_table([0.5, 0.5]), OptionError, "p: expected a tensor of probabilities, got list"),
        (lambda: entropy_of_table(T([0.5, 0.6])), DataError, "that sum to 1, got a sum of 1.1"),
        (lambda: entropy_of_table(T([1.5, -0.5])), DataError, "negative or not finite"),
        (lambda: entropy_of_table(T([math.nan])), DataError, "negative or not finite"),
        (lambda: conditional_entropy_of_table(CHANNEL, 0, 0), OptionError, "different dims, got 0 in both"),
        (lambda: conditional_entropy_of_table(CHANNEL, 0, 2), OptionError, "given: expected one or more of 0 … 1"),
        (lambda: conditional_entropy_of_table(CHANNEL, "x", 1), OptionError, "of: expected a whole number or several"),
        (lambda: conditional_entropy_of_table(CHANNEL, 0.5, 1), OptionError, "of: expected a whole number or several"),
        (lambda: entropy_of_normal(torch.eye(2) - 1), DataError, "positive definite matrix"),
        (lambda: entropy_of_normal(T([[1.0, 0.5], [0.0, 1.0]])), DataError, "expected a symmetric matrix"),
        (lambda: entropy_of_normal(torch.ones(3)), OptionError, r"square matrix, got shape \[3\]"),
        (lambda: entropy_of_normal(1.0), OptionError, "covariance: expected a tensor, got float"),
        (lambda: conditional_entropy(Normal(0.0, 1.0)), OptionError, r"got batch shape \[\]"),
        (lambda: conditional_entropy(CHANNEL), OptionError, "got Tensor"),
    ],
)  # fmt: skip
def test_what_is_refused(call, kind, words):
    with pytest.raises(kind, match=words) as found:
        call()
    assert str(found.value).endswith(".")


def test_of_counts_with_an_excess_of_zeros():
    rates = np.array([1.0, 4.0])
    mass = 0.7 * stats.poisson.pmf(np.arange(60)[:, None], rates)
    mass[0] += 0.3
    found = entropy(dist.ZeroInflatedPoisson(T(rates), gate=T(0.3)))
    assert found.value == pytest.approx(-(mass * np.log(np.maximum(mass, 1e-300))).sum(), abs=1e-8)

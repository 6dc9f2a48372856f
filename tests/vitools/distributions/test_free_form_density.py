"""A density on panels against the torch distribution that it was tabulated from."""

import copy
import math

import pytest
import safetensors.torch
import torch
from scipy import stats
from torch import distributions as td
from torch.distributions import constraints

from vitools.distributions.free_form import FreeForm
from vitools.distributions.free_form.gauss_kronrod import GAUSS, KRONROD, NODES, legendre_integral
from vitools.distributions.free_form.line import line_of
from vitools.families.free_form import FreeFormFamily


def double(x):
    return torch.as_tensor(x, dtype=torch.float64)


def column(*parameters):
    return [double(p).unsqueeze(-1) for p in parameters]


def tabulated(kind, *parameters):
    """A batch of ``kind`` as a free form whose one statistic is its log density."""
    made = kind(*(double(p) for p in parameters))
    inside = kind(*column(*parameters), validate_args=False)
    natural = (torch.ones(made.batch_shape, dtype=torch.float64),)
    family = FreeFormFamily(("density",), (inside.log_prob,), made.support)
    return family.to_distribution(natural), made


CASES = {
    "Normal": (td.Normal, [0.0, -50.0, 3.0], [1.0, 1.0, 1e-4]),
    "Gamma": (td.Gamma, [3.0, 0.5, 0.05], [4.0, 1e-6, 1e6]),
    "Beta": (td.Beta, [3.0, 0.5, 1.0], [2.0, 0.5, 1.0]),
    "LogNormal": (td.LogNormal, [1.3, 0.0, -20.0], [0.1, 1.0, 3.0]),
    "HalfCauchy": (td.HalfCauchy, [1.0, 1e-8, 1e8]),
    "StudentT": (td.StudentT, [1.0, 2.5, 8.0], [0.0, 3.0, -7.0], [1.0, 10.0, 1e-2]),
    "Laplace": (td.Laplace, [0.0, 1.3, -7.0], [1.0, 0.1, 5.0]),
    "Uniform": (td.Uniform, [0.0, 2.0, -1.0], [1.0, 5.0, 1e3]),
    "Cauchy": (td.Cauchy, [0.0, 5.0, 0.0], [1.0, 1e-2, 1e8]),
}


@pytest.fixture
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def cases():
    return {name: tabulated(*case) for name, case in CASES.items()}


def quantiles(name, made, ps):
    """Quantiles by SciPy, [len(ps), batch]."""
    by_name = {
        "Gamma": lambda: stats.gamma(made.concentration, scale=1 / made.rate),
        "Beta": lambda: stats.beta(made.concentration1, made.concentration0),
        "StudentT": lambda: stats.t(made.df, made.loc, made.scale),
    }
    if name in by_name:
        return double(by_name[name]().ppf(double(ps).unsqueeze(-1).numpy()))
    return made.icdf(double(ps).unsqueeze(-1))


PS = [1e-6, 0.01, 0.3, 0.5, 0.8, 0.999]


@pytest.mark.parametrize("name", CASES)
def test_density_and_distribution_function(cases, name):
    found, made = cases[name]
    s = quantiles(name, made, PS)
    difference = (found.log_prob(s) - made.log_prob(s)).abs()
    assert bool((difference < 1e-9 * (1 + made.log_prob(s).abs())).all())
    ps = double(PS).unsqueeze(-1).expand_as(s)
    torch.testing.assert_close(found.cdf(s), ps, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.cdf(found.icdf(ps)), ps, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.icdf(ps), s, rtol=1e-6, atol=1e-7 * float(s.abs().median()))


@pytest.mark.parametrize("name", CASES)
def test_moments_and_entropy(cases, name):
    found, made = cases[name]
    endless = {"Cauchy": math.nan, "HalfCauchy": math.inf}
    mean = torch.full((3,), endless[name]) if name in endless else made.mean
    if name == "StudentT":
        mean = torch.tensor([math.nan, 3.0, -7.0])
    torch.testing.assert_close(found.mean, mean.double(), rtol=1e-9, atol=1e-9, equal_nan=True)
    variance = torch.full((3,), math.inf) if name in endless else made.variance.nan_to_num(math.inf)
    torch.testing.assert_close(found.variance, variance.double(), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(found.stddev, variance.double().sqrt(), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(found.entropy(), made.entropy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_distribution_function(cases, name, seeded):
    found, made = cases[name]
    drawn = found.sample((4000,))
    assert drawn.shape == (4000, 3)
    assert bool(found.support.check(drawn).all() and made.support.check(drawn).all())
    for i in range(3):
        uniform = stats.kstest(found.cdf(drawn)[:, i].numpy(), "uniform")
        assert uniform.pvalue > 1e-4
    torch.manual_seed(0)
    assert torch.equal(found.sample((4000,)), drawn)


def test_tails_go_on_as_power_laws(cases):
    found, made = cases["StudentT"]
    s = double([[1e30], [-1e60], [1e200]])
    expected = (
        made.log_prob(s.clamp(-1e100, 1e100)) - (made.df + 1) * (s.abs() / 1e100).clamp(min=1).log()
    )
    torch.testing.assert_close(found.log_prob(s), expected, rtol=1e-9, atol=0)
    found, _ = cases["HalfCauchy"]
    s = double([1e5, 1e-3, 1e13])
    survival = 2 / math.pi * double(CASES["HalfCauchy"][1]) / s
    torch.testing.assert_close(1 - found.cdf(s), survival, rtol=1e-8, atol=0)


def test_a_density_below_the_smallest_number_still_draws_positive_values(seeded):
    """Gamma(1e-4, 1): half of the draws are below e^-6900."""
    family = FreeFormFamily(("log", 1.0), (torch.log, lambda s: s), constraints.positive)
    found = family.to_distribution((double(1e-4 - 1), double(-1.0)))
    drawn = found.sample((2000,))
    assert bool((drawn > 0).all())
    torch.testing.assert_close(found.mean, double(1e-4), rtol=1e-8, atol=0)
    gamma = stats.gamma(1e-4)
    s = double([1e-300, 1e-30, 1.0])
    torch.testing.assert_close(found.cdf(s), double(gamma.cdf(s.numpy())), rtol=1e-9, atol=0)


def test_nothing_lies_outside_the_support(cases):
    found, _ = cases["Beta"]
    outside = double([-0.5, 1.5, 2.0])
    loose = copy.copy(found)
    loose._validate_args = False
    assert bool((loose.log_prob(outside) == -math.inf).all())
    assert loose.cdf(outside).tolist() == [0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="support"):
        FreeForm(*arguments(found), validate_args=True).log_prob(outside)


NAMES = ("edges", "log_density", "lower", "upper", "tail_slopes")


def arguments(found):
    return [getattr(found, name) for name in NAMES]


@pytest.mark.parametrize("name", CASES)
def test_it_is_its_tensors(cases, name, seeded):
    found, _ = cases[name]
    s = found.sample((5,))
    for again in (FreeForm(*arguments(found)), copy.deepcopy(found)):
        assert torch.equal(again.log_prob(s), found.log_prob(s))
        assert torch.equal(again.mean, found.mean) or bool(found.mean.isnan().any())
    saved = safetensors.torch.save(dict(zip(NAMES, arguments(found), strict=True)))
    loaded = FreeForm(**safetensors.torch.load(saved))
    assert torch.equal(loaded.log_prob(s), found.log_prob(s))
    shifted = FreeForm(found.edges, found.log_density + 3.0, *arguments(found)[2:])
    torch.testing.assert_close(shifted.log_prob(s), found.log_prob(s))


def test_batches(cases, seeded):
    found, _ = cases["Gamma"]
    wide = found.expand((2, 3))
    assert (wide.batch_shape, wide.event_shape) == ((2, 3), ())
    assert wide.sample((4,)).shape == (4, 2, 3)
    assert wide.mean.shape == wide.variance.shape == wide.entropy().shape == (2, 3)
    s = double([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    torch.testing.assert_close(wide.log_prob(s), found.log_prob(s))
    for i in range(3):
        one = FreeForm(*(argument[i] for argument in arguments(found)))
        assert one.batch_shape == ()
        torch.testing.assert_close(one.log_prob(s[:, i]), found.log_prob(s)[:, i])
        torch.testing.assert_close(one.mean, found.mean[i])


def test_values_may_vary_along_a_batch_dim_of_one(cases):
    found, _ = cases["Gamma"]
    columns = FreeForm(*(argument.unsqueeze(1) for argument in arguments(found)))
    assert columns.batch_shape == (3, 1)
    s = found.icdf(double([0.1, 0.3, 0.5, 0.9]).unsqueeze(-1))
    expected = found.log_prob(s).mT
    torch.testing.assert_close(columns.log_prob(s.mT), expected)
    torch.testing.assert_close(columns.log_prob(s.mT.expand(2, 3, 4)), expected.expand(2, 3, 4))


def test_many_values_at_once_are_as_one_by_one(cases):
    found, _ = cases["Gamma"]
    p = torch.linspace(0.001, 0.999, 60_000, dtype=torch.float64).unsqueeze(-1)
    s = found.icdf(p)
    few = slice(None, None, 7919)
    torch.testing.assert_close(s[few], found.icdf(p[few]), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.log_prob(s)[few], found.log_prob(s[few]), rtol=1e-12, atol=0)
    assert found.icdf(p[:0]).shape == (0, 3)


def test_the_nodes_integrate_polynomials():
    even = torch.arange(0, 32, 2)
    powers = NODES.unsqueeze(-1) ** even
    torch.testing.assert_close(KRONROD @ powers, 2 / (even.double() + 1), rtol=1e-14, atol=0)
    torch.testing.assert_close(
        (GAUSS @ powers)[:10], 2 / (even[:10].double() + 1), rtol=1e-14, atol=0
    )
    whole = legendre_integral(double([1.0]))[0]
    torch.testing.assert_close(whole, double([2.0] + [0.0] * 20), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("low", "high"), [(-math.inf, math.inf), (2.0, math.inf), (-math.inf, -3.0), (-1.0, 4.0)]
)
def test_coordinates(low, high):
    line = line_of(double(low), double(high), torch.Size())
    u = torch.linspace(-12.0, 12.0, 48, dtype=torch.float64).requires_grad_()
    s = line.value(u)
    (gradient,) = torch.autograd.grad(s.sum(), u)
    torch.testing.assert_close(line.log_jacobian(u), gradient.log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(line.coordinate(s), u, rtol=1e-7, atol=1e-7)
    near = line.value_near(u, torch.full_like(u, 0.05))
    torch.testing.assert_close(near, line.value(u + 0.05), rtol=1e-13, atol=1e-13)
    assert bool((s.diff() > 0).all() and (s > low).all() and (s < high).all())

"""Free-form scalar factors against closed forms, fine grids and arbitrary precision."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.distributions import InverseGamma
from torch import distributions as td
from torch.distributions import constraints

from vitools.errors import NotSupportedError, NumericalError
from vitools.families import FAMILIES
from vitools.families.free_form import FreeFormFamily

FUNCTIONS = {
    "log": torch.log,
    "log1m": lambda s: torch.log1p(-s),
    1.0: lambda s: s,
    2.0: lambda s: s**2,
    -1.0: lambda s: 1 / s,
    -2.0: lambda s: s**-2,
    "half-Cauchy": lambda s: math.log(2 / math.pi) - torch.log1p(s**2),
}


def double(x):
    return torch.as_tensor(x, dtype=torch.float64)


def family(*statistics, support=constraints.positive, **more):
    functions = FUNCTIONS | more
    keys = (*statistics, *more)
    return FreeFormFamily(keys, [functions[k] for k in keys], support)


def close(found, expected, rtol=1e-10, atol=0.0):
    torch.testing.assert_close(double(found), double(expected), rtol=rtol, atol=atol)


TEXTBOOK = [
    ("Gamma", td.Gamma(double([3.0, 0.5, 1e-3, 1e4]), double([4.0, 1e-3, 2.0, 1e9]))),
    ("Gamma", td.Gamma(double([2.5, 1.0, 0.25]), double([1e-300, 1e300, 1e-300]))),
    ("Beta", td.Beta(double([3.0, 0.5, 1.0, 1e3]), double([2.0, 0.5, 1.0, 3e3]))),
    ("Beta", td.Beta(double([1 / 1024, 2.0, 3.0]), double([1 / 1024, 1 / 1024, 0.1]))),
    ("Normal", td.Normal(double([0.0, -7.0, 1e3, 0.0, 0.0]), double([1.0, 0.1, 50.0, 1e-8, 1e8]))),
    ("InverseGamma", InverseGamma(double([3.0, 0.5, 200.0]), double([4.0, 1e-3, 1e6]))),
]


@pytest.mark.parametrize(("name", "example"), TEXTBOOK)
def test_textbook_families(name, example):
    textbook = FAMILIES[name]
    natural = textbook.from_distribution(example)
    made = family(*textbook.statistics, support=textbook.support)
    log_normaliser, means = made.normalised(natural)
    expected, expected_means = textbook.normalised(natural)
    close(log_normaliser, expected, atol=1e-10)
    scale = made.mean_parameters(natural)[-1].abs().sqrt() if name == "Normal" else 0.0
    for found, mean in zip(means, expected_means, strict=True):
        assert bool(
            ((found - mean).abs() <= 1e-10 * torch.maximum(mean.abs(), double(scale))).all()
        )
    assert bool(made.converged(natural).all() and made.proper(natural).all())


@pytest.mark.parametrize("shape", [2.0**-10, 2.0**-20, 2.0**-40])
def test_a_density_nearly_all_of_which_lies_below_the_smallest_number(shape):
    log_normaliser, (mean_log, mean) = family("log", 1.0).normalised(
        double([shape - 1, -1.0]).unbind()
    )
    close(log_normaliser, math.lgamma(shape))
    close(mean_log, torch.digamma(double(shape)))
    close(mean, shape)


def test_a_billion_counts():
    n, rate = 1e9, 3e8
    log_normaliser, (mean_log, mean) = family("log", 1.0).normalised(
        double([n - 1, -rate]).unbind()
    )
    close(log_normaliser, math.lgamma(n) - n * math.log(rate), rtol=1e-14)
    close(mean, n / rate)
    close(mean_log, float(mpmath.digamma(n) - mpmath.log(rate)))


def test_moments_that_do_not_exist_are_infinite():
    keys = ("half-Cauchy", "log", 1.0, 2.0, -1.0, -2.0)
    found = family(*keys, root=torch.sqrt).normalised(double([1.0] + [0.0] * 6).unbind())
    close(found[0], 0.0, atol=1e-12)
    log_two, log, *infinite, root = found[1]
    close(log_two, math.log(2 / math.pi) - 2 * math.log(2))
    close(log, 0.0, atol=1e-12)
    close(root, math.sqrt(2))
    assert [float(x) for x in infinite] == [math.inf] * 4


def test_a_mean_infinite_at_both_ends_is_undefined():
    made = family(
        1.0, 2.0, support=constraints.real, cauchy=td.Cauchy(double(0.0), double(3.0)).log_prob
    )
    mean, square, _ = made.mean_parameters(double([0.0, 0.0, 1.0]).unbind())
    assert math.isnan(mean)
    assert square == math.inf


@pytest.mark.parametrize("df", [2.001, 2.5, 10.0])
def test_a_variance_that_exists_by_a_hair(df):
    student = td.StudentT(double(df), double(0.0), double(3.0))
    made = family(2.0, support=constraints.real, prior=student.log_prob)
    close(made.mean_parameters(double([0.0, 1.0]).unbind())[0], student.variance)


def test_a_zero_weight_on_an_infinite_moment_leaves_the_entropy_finite():
    entropy = family("half-Cauchy", 2.0).entropy(double([1.0, 0.0]).unbind())
    close(entropy, math.log(2 * math.pi))


@pytest.mark.parametrize(
    ("statistics", "natural", "support"),
    [
        (("log", 1.0), (-1.0, -1.0), constraints.positive),
        (("log", 1.0), (-1.5, -1.0), constraints.positive),
        (("log", 1.0), (2.0, 0.0), constraints.positive),
        (("log", 1.0), (2.0, 1e-3), constraints.positive),
        (("log", 1.0), (math.nan, -1.0), constraints.positive),
        (("log", 1.0), (math.inf, -1.0), constraints.positive),
        (("log", -1.0), (-2.0, 1.0), constraints.positive),
        (("half-Cauchy",), (0.5,), constraints.positive),
        (("log", "log1m"), (0.0, -1.0), constraints.unit_interval),
        ((1.0, 2.0), (1.0, 0.0), constraints.real),
        ((1.0, 2.0), (0.0, 1e-6), constraints.real),
    ],
)
def test_parameters_without_a_density_are_told(statistics, natural, support):
    made, parameters = family(*statistics, support=support), double(natural).unbind()
    assert not bool(made.proper(parameters))
    assert bool(made.normalised(parameters)[0].isnan())
    with pytest.raises(NumericalError, match="no density"):
        made.to_distribution(parameters)


def test_one_improper_element_leaves_the_others_alone():
    log_normaliser, (_, mean) = family("log", 1.0).normalised(
        (double([2.0, -1.0, 4.0]), double([-2.0, -1.0, -1.0]))
    )
    assert log_normaliser.isnan().tolist() == [False, True, False]
    close(mean[[0, 2]], [1.5, 5.0])


def _integral(log_density, points):
    return mpmath.quad(lambda u: mpmath.exp(log_density(u)), points)


@pytest.mark.parametrize("n", [10.0, 1e4, 1e8])
def test_half_cauchy_scale_with_any_number_of_observations(n):
    """q(s) ∝ HalfCauchy(s) s^-n exp(-r / 2s²), by arbitrary precision around its mode."""
    made, residual = family("log", -2.0, "half-Cauchy"), 1.7 * n
    log_normaliser, (log, inverse, prior) = made.normalised(
        double([-n, -residual / 2, 1.0]).unbind()
    )
    with mpmath.workdps(25):
        mode = mpmath.log(mpmath.sqrt(1.7))
        width = 1 / mpmath.sqrt(2 * mpmath.mpf(n))

        def log_prior(u):
            return mpmath.log(2 / mpmath.pi) - mpmath.log1p(mpmath.exp(2 * u))

        def height(u):
            return -n * u - mpmath.mpf(residual) / 2 * mpmath.exp(-2 * u) + log_prior(u) + u

        top = height(mode)
        points = [mode + width * k for k in (-12, -8, -5, -2, 0, 2, 5, 8, 14, 25, 60, 150)]
        total = _integral(lambda u: height(u) - top, points)

        def mean(t):
            part = mpmath.quad(lambda u: t(u) * mpmath.exp(height(u) - top), points)
            return float(part / total)

        close(log_normaliser, float(top + mpmath.log(total)), rtol=1e-12)
        close(log, mean(lambda u: u))
        close(inverse, mean(lambda u: mpmath.exp(-2 * u)))
        close(prior, mean(log_prior))


def test_two_modes_of_very_different_width():
    weights, loc, scale = double([0.3, 0.7]), double([-40.0, 5.0]), double([0.5, 2.0])
    mixture = td.MixtureSameFamily(td.Categorical(weights), td.Normal(loc, scale))
    made = family(1.0, 2.0, support=constraints.real, mixture=lambda s: mixture.log_prob(s))
    log_normaliser, (mean, square, _) = made.normalised(double([0.0, 0.0, 1.0]).unbind())
    close(log_normaliser, 0.0, atol=1e-10)
    close(mean, mixture.mean)
    close(square, (weights * (loc**2 + scale**2)).sum())


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("location", [0.0, 3.0])
def test_heavy_tails_at_any_scale(scale, location):
    cauchy = td.Cauchy(double(location * max(scale, 1e-2)), double(scale))
    made = family(support=constraints.real, cauchy=cauchy.log_prob)
    log_normaliser, (mean_log,) = made.normalised((double(1.0),))
    rounding = 4 * 2.0**-52 * float(cauchy.loc) / scale
    close(log_normaliser, 0.0, atol=1e-10 + rounding)
    close(mean_log, -cauchy.entropy(), atol=1e-10 + rounding)


def test_a_kink():
    """Laplace prior and normal likelihood: two truncated normals."""
    made = family(1.0, 2.0, support=constraints.real, size=lambda s: (s - 0.7).abs())
    natural = double([1.2, -0.5, -3.0])
    log_normaliser, (mean, square, size) = made.normalised(natural.unbind())
    with mpmath.workdps(30):

        def density(s):
            return mpmath.exp(1.2 * s - s**2 / 2 - 3 * abs(s - mpmath.mpf(0.7)))

        points = [-12, -4, 0, mpmath.mpf(0.7), 2, 5, 12]
        total, first, second, away = (
            mpmath.quad(lambda s, t=t: t(s) * density(s), points)
            for t in (lambda s: 1, lambda s: s, lambda s: s**2, lambda s: abs(s - mpmath.mpf(0.7)))
        )
    close(log_normaliser, float(mpmath.log(total)))
    for found, expected in ((mean, first), (square, second), (size, away)):
        close(found, float(expected / total))


def test_a_density_that_ends_inside_the_support():
    made = family(1.0, cut=lambda s: torch.where(s < 0.3, 0.0, -torch.inf))
    log_normaliser, (mean, _) = made.normalised(double([2.0, 1.0]).unbind())
    mass = math.expm1(0.6) / 2
    close(log_normaliser, math.log(mass))
    close(mean, (0.3 * math.exp(0.6) / 2 - mass / 2) / mass)


def test_a_function_with_data_inside():
    """The number of successes r of a negative binomial: Σ_n lgamma(y_n + r) - N lgamma(r)."""
    y = double(np.random.default_rng(0).integers(0, 30, 50))
    made = family(
        "log",
        1.0,
        data=lambda r: (torch.lgamma(y[:, None] + r) - torch.lgamma(r)).sum(0),
    )
    log_normaliser, means = made.normalised(double([1.0, -45.0, 1.0]).unbind())
    u = np.linspace(-8, 6, 100_001)
    r = torch.from_numpy(np.exp(u))
    t = torch.stack([r.log(), r, sum(torch.lgamma(x + r) for x in y) - 50 * torch.lgamma(r)])
    height = t[0] - 45 * t[1] + t[2] + torch.from_numpy(u)
    close(log_normaliser, height.logsumexp(0) + math.log(u[1] - u[0]))
    for found, values in zip(means, t, strict=True):
        close(found, (values * height.softmax(0)).sum())


DEGREES = {
    "s log s": lambda s: s / 2 * torch.log(s / 2),
    "lgamma": lambda s: torch.lgamma(s / 2),
}
"""Of a Student-t's degrees of freedom: for large s the two cancel but for s/2."""


def test_statistics_that_nearly_cancel_make_no_peak_of_their_rounding():
    """At s = 1e16 their difference is rounded to several nats, at 1e300 to 1e284."""
    natural = double([-60.1, 1.0, 100.0, -100.0])
    made = family(1.0, "log", **DEGREES)
    log_normaliser, means = made.normalised(natural.unbind())
    u = torch.linspace(-5.0, 7.0, 100_001, dtype=torch.float64)
    functions = (*(FUNCTIONS[k] for k in (1.0, "log")), *DEGREES.values())
    t = torch.stack([function(u.exp()) for function in functions])
    height = natural @ t + u
    close(log_normaliser, height.logsumexp(0) + math.log(12 / 100_000))
    for found, values in zip(means, t, strict=True):
        close(found, (values * height.softmax(0)).sum())
    assert bool(made.converged(natural.unbind()))


def test_a_density_that_drowns_in_rounding_is_told():
    """Normal data and no prior: q(s) grows as a power of s for as far as numbers tell."""
    made = family(1.0, **DEGREES)
    assert not bool(made.converged(double([-50.0, 100.0, -100.0]).unbind()))


def test_bounds_and_data_that_differ_between_elements():
    low, high, rate = double([2.0, -1.0, 0.0]), double([5.0, 4.0, 1e-3]), double([1.0, 3.0, 0.5])
    made = FreeFormFamily(
        ("data",), (lambda s: -rate.unsqueeze(-1) * s,), constraints.interval(low, high)
    )
    log_normaliser, (mean,) = made.normalised((torch.ones(3),))
    decay = -torch.expm1(-rate * (high - low))
    close(log_normaliser, -rate * low + (decay / rate).log())
    close(mean, -1 - rate * low + rate * (high - low) * (1 - decay) / decay, rtol=1e-8)
    middle = -rate * (low + high) / 2 + (rate * (high - low)) ** 2 / 12  # of a short interval
    close(mean[2], middle[2])


@pytest.mark.parametrize("support", [constraints.less_than(3.0), constraints.greater_than(-2.0)])
def test_half_lines(support):
    sign, bound = (1.0, 3.0) if hasattr(support, "upper_bound") else (-1.0, -2.0)
    log_normaliser, (mean,) = family(1.0, support=support).normalised((double(4.0 * sign),))
    close(log_normaliser, 4 * sign * bound - math.log(4))
    close(mean, bound - sign / 4)


def test_the_entropy_is_that_of_the_density():
    gamma = td.Gamma(double([3.0, 0.5]), double([4.0, 1e3]))
    natural = FAMILIES["Gamma"].from_distribution(gamma)
    made = family("log", 1.0)
    close(made.entropy(natural), gamma.entropy())
    close(made.to_distribution(natural).entropy(), gamma.entropy())
    assert bool((made.kl(natural, natural).abs() < 1e-12).all())


MIXES = st.tuples(
    st.floats(-40.0, 40.0), st.floats(-4.0, 4.0), st.floats(-4.0, 4.0), st.floats(0.0, 3.0)
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(MIXES, min_size=1, max_size=4))
def test_random_mixes_against_a_fine_grid(mixes):
    """log s, s, 1/s and a half-Cauchy with random weights, a batch at a time."""
    log, up, down, prior = double(mixes).T
    natural = (log, -(10**up), -(10**down), prior)
    made = family("log", 1.0, -1.0, "half-Cauchy")
    log_normaliser, means = made.normalised(natural)
    u = torch.linspace(-25.0, 25.0, 100_001, dtype=torch.float64)
    t = torch.stack([FUNCTIONS[k](u.exp()) for k in made.statistics])
    heights = torch.einsum("kb,kn->bn", torch.stack(natural), t) + u
    close(log_normaliser, heights.logsumexp(-1) + math.log(50 / 100_000), atol=1e-10)
    for found, values in zip(means, t, strict=True):
        weights = heights.softmax(-1)
        error = (found - weights @ values).abs() / (weights @ values.abs())
        assert float(error.max()) < 1e-10
    single = [made.normalised(tuple(e[i] for e in natural)) for i in range(len(mixes))]
    close(log_normaliser, torch.stack([one[0] for one in single]), rtol=1e-12, atol=1e-12)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(MIXES)
def test_means_are_the_gradient_of_the_log_normaliser(mix):
    log, up, down, prior = mix
    natural = double([log, -(10**up), -(10**down), prior])
    made = family("log", 1.0, -1.0, "half-Cauchy")
    means = made.mean_parameters(natural.unbind())
    step = 1e-4 * natural.abs().clamp(min=1e-4)
    for k, mean in enumerate(means):
        direction = torch.eye(4, dtype=torch.float64)[k] * step[k]
        up, down = (made.log_normaliser((natural + sign * direction).unbind()) for sign in (1, -1))
        # the third derivative and the rounding of A, each times what the step makes of it
        rounding = 1e-14 * (1 + float((natural * torch.stack(means)).abs().sum()))
        third = float(step[k] ** 2 * mean.abs() ** 3)
        slack = rounding / float(step[k]) + third + 1e-9 * abs(float(mean))
        assert abs(float((up - down) / (2 * step[k]) - mean)) < 10 * slack


def test_one_family_through_many_sweeps_is_as_good_as_a_new_one():
    """Panels are kept from call to call, whether the parameters creep or leap."""
    generator = torch.Generator().manual_seed(0)
    kept = family("log", -2.0, "half-Cauchy")
    for size in (1e-9, 1e-6, 1e-3, 0.1, 3.0, 1e-6, 8.0):
        shift = 1 + size * torch.rand(5, generator=generator, dtype=torch.float64)
        n = double([5.0, 1e2, 1e4, 1e6, 1e8])
        natural = (-n * shift, -n * shift.flip(0), torch.ones(5, dtype=torch.float64))
        found, expected = kept.normalised(natural), family(*kept.statistics).normalised(natural)
        close(found[0], expected[0], rtol=1e-12)
        for a, b in zip(found[1], expected[1], strict=True):
            close(a, b, rtol=2e-10, atol=1e-12)


def test_a_mode_that_appears_between_two_calls_is_found():
    """Two narrow wells at ±1, tilted from the one to the other."""
    kept = family(1.0, support=constraints.real, wells=lambda s: -1e6 * (s**2 - 1) ** 2)
    for tilt in (-200.0, -199.0, 0.3, 200.0, -200.0):
        mean, _ = kept.mean_parameters(double([tilt, 1.0]).unbind())
        close(mean, math.tanh(tilt), rtol=1e-3)


def test_distribution_and_back():
    made = family("log", "log1m", support=constraints.unit_interval)
    natural = (double([2.0, -0.5]), double([3.0, 7.0]))
    again = made.from_distribution(made.to_distribution(natural))
    for a, b in zip(again, natural, strict=True):
        close(a, b, rtol=1e-8)
    with pytest.raises(NotSupportedError, match="Expected: a FreeForm"):
        made.from_distribution(td.Beta(1.0, 1.0))


@pytest.mark.parametrize(
    "support",
    [constraints.nonnegative_integer, constraints.integer_interval(0, 3), constraints.simplex],
)
def test_supports_that_are_no_line_are_refused(support):
    with pytest.raises(NotSupportedError, match="no coordinate for the support"):
        family(1.0, support=support)


def test_what_does_not_fit_is_refused():
    with pytest.raises(NotSupportedError, match="one function for each"):
        FreeFormFamily(("log",), (), constraints.positive)
    mixed = constraints.interval(double([0.0, -math.inf]), double([1.0, 1.0]))
    with pytest.raises(NotSupportedError, match="in some elements only"):
        family(1.0, support=mixed)


# ---- cut off -----------------------------------------------------------------------------------


def cut_family(support=constraints.positive):
    functions = [FUNCTIONS["log"], FUNCTIONS[1.0]]
    return FreeFormFamily(("log", 1.0), functions, support, is_cut=True)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.4), (0.3, 0.31), (0.7, math.inf), (0.0, math.inf)]
)
def test_a_cut_density_is_that_of_the_whole_within_the_cut(low, high):
    family = cut_family()
    whole = td.Gamma(double(3.0), double(4.0))
    ends = [family.coordinate(at) if at else family.coordinate(-math.inf) for at in (low, high)]
    natural = (double(2.0), double(-4.0), *map(double, ends))
    log_normaliser, (mean_log, mean, *none) = family.normalised(natural)

    def integral(f):
        return mpmath.quad(lambda s: s**2 * mpmath.exp(-4 * s) * f(s), [low, min(high, 30.0)])

    mass = integral(lambda s: 1)
    close(log_normaliser, float(mpmath.log(mass)))
    close(mean, float(integral(lambda s: s) / mass))
    close(mean_log, float(integral(mpmath.log) / mass))
    assert [float(x) for x in none] == [0.0, 0.0]

    q = family.to_distribution(natural)
    at = torch.linspace(0.053, 2.0, 40, dtype=torch.float64)
    inside = (at > low) & (at < high)
    expected = torch.where(inside, whole.log_prob(at), -math.inf)
    share = float(mass) * 32
    close(q.log_prob(at)[inside], (expected - math.log(share))[inside], 1e-8)
    assert bool((q.log_prob(at)[~inside] == -math.inf).all())
    close(q.mean, mean, 1e-9)
    draws = q.icdf(torch.linspace(0.001, 0.999, 99, dtype=torch.float64))
    assert bool(((draws > low) & (draws < high)).all())
    assert bool(q.support.check(draws).all())


def test_cuts_at_the_end_of_the_line_cut_nothing():
    family, whole = (
        cut_family(),
        FreeFormFamily(("log", 1.0), [FUNCTIONS["log"], FUNCTIONS[1.0]], constraints.positive),
    )
    natural = (double(2.0), double(-4.0))
    ends = (double(family.coordinate(-math.inf)), double(family.coordinate(math.inf)))
    found, expected = family.normalised((*natural, *ends)), whole.normalised(natural)
    assert float(found[0]) == float(expected[0])
    assert [float(x) for x in found[1][:2]] == [float(x) for x in expected[1]]


def test_many_runs_at_once_are_each_what_they_are_alone():
    family = cut_family()
    shape, rate = double([[0.5, 2.0], [3.0, 9.0]]), double([[-1.0, -4.0], [-2.0, -30.0]])
    low = double([family.coordinate(0.3), family.coordinate(-math.inf)])
    high = double([family.coordinate(0.9), family.coordinate(math.inf)])

    def moved(shape, rate, low, high):
        log_normaliser, mean = family.normalised((shape, rate, low, high))
        return log_normaliser, mean[1]

    found = torch.vmap(moved)(shape, rate, low, high)
    for run in range(2):
        ends = (low[run].expand(2), high[run].expand(2))
        log_normaliser, mean = family.normalised((shape[run], rate[run], *ends))
        close(found[0][run], log_normaliser)
        close(found[1][run], mean[1])

"""E f(η) and its derivatives, of every known function, against panels, mpmath and differences."""

import itertools
import subprocess
import sys
import time

import mpmath
import numpy as np
import pytest
import torch
from curved_truth import CASES, KINK, integral, integrals
from hypothesis import given, settings
from hypothesis import strategies as st

from vitools.calculus.curved.expectation import expected
from vitools.calculus.curved.function import CurvedFunction
from vitools.calculus.curved.functions import FUNCTIONS
from vitools.errors import NumericalError

VARIANCES = (1e-12, 1e-6, 0.01, 0.3, 1.0, 2.9, 3.1, 25.0, 1e3, 1e4)
MEANS = (0.0, 0.3, -0.7, 1.9, -4.0, 15.0, -100.0, 1e3, -1e3)
GRID = torch.tensor(list(itertools.product(MEANS, VARIANCES)), dtype=torch.float64).T


def one(function, mean, variance, **options):
    """The numbers for one row."""
    found = expected(function, torch.tensor([mean]), torch.tensor([variance]), **options)
    return [float(x) for x in found]


def test_every_function_of_the_table_is_among_the_cases():
    assert set(CASES) == set(FUNCTIONS) - {"exp"}


@pytest.mark.filterwarnings("ignore:divide by zero")  # numpy takes both sides of a where
@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_on_a_grid(name):
    function, twin = CASES[name]
    options = {"kinks": (KINK,), "panel": 0.8}
    found = expected(function, GRID[0], GRID[1])
    for row, (m, v) in enumerate(GRID.T.tolist()):
        size, value, first, second = integrals(twin, m, v, **options)
        size = max(1.0, size)
        assert abs(float(found.value[row]) - value) <= 1e-11 * size, (m, v)
        if v >= 0.01:
            assert abs(float(found.d_mean[row]) - first) <= 1e-10 * max(1, size / v**0.5), (m, v)
            assert abs(float(found.d_variance[row]) - second) <= 1e-10 * max(1, size / v), (m, v)
    assert float(found.error.max()) <= 1e-10


def log_probit_difference(low, high):
    """log[Φ(b) - Φ(a)] on the side of zero where neither is near one."""
    if low + high > 0:
        low, high = -high, -low
    root = mpmath.sqrt(2)
    return mpmath.log((mpmath.erfc(-high / root) - mpmath.erfc(-low / root)) / 2)


SMOOTH = {
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "log normal cdf": lambda x: mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2),
    "student t": lambda x: mpmath.log1p((x - 1) ** 2),
    "log complement": lambda x: mpmath.log(-mpmath.expm1(-mpmath.exp(x))),
    "log softplus": lambda x: mpmath.log(mpmath.log1p(mpmath.exp(x))),
    "ordinal probit": lambda x: log_probit_difference(-0.5 - x, 1.5 - x),
    "power": lambda x: x**4,
}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_vanishing_variance_gives_the_function_and_half_its_curvature(name):
    with mpmath.workdps(60):
        for m in (-20.0, -1.3, 0.3, 5.0):
            truth = [float(mpmath.diff(SMOOTH[name], m, k) / max(1, k)) for k in range(3)]
            for v in (0.0, 1e-300, 1e-16, 1e-12):
                found = one(CASES[name][0], m, v)[:3]
                assert found == pytest.approx(truth, rel=1e-9, abs=1e-11), (m, v)


@pytest.mark.parametrize("name", ["log normal cdf", "log complement", "ordinal probit"])
@pytest.mark.parametrize("eta", [-1e4, -300.0, -30.5, 30.5, 300.0, 1e4])
def test_far_tails_are_stable(name, eta):
    with mpmath.workdps(60):
        truth = [float(mpmath.diff(SMOOTH[name], mpmath.mpf(eta), k)) for k in range(2)]
    assert one(CASES[name][0], eta, 0.0)[:2] == pytest.approx(truth, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("m", "v"), [(0.7, 0.4), (-3.0, 7.0), (20.0, 400.0)])
@pytest.mark.parametrize("name", ["softplus", "log normal cdf", "student t"])
def test_values_against_mpmath(name, m, v):
    with mpmath.workdps(25):
        s = mpmath.sqrt(v)
        splits = sorted(
            {*(m + k * s for k in range(-12, 13)), *(mpmath.mpf(k) for k in range(-6, 7))}
        )
        truth = mpmath.quad(lambda x: SMOOTH[name](x) * mpmath.npdf(x, m, s), splits, maxdegree=5)
    assert one(CASES[name][0], m, v)[0] == pytest.approx(float(truth), rel=1e-12)


def difference(function, at, step):
    """A sixth-order central difference."""
    weights = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    return (
        sum(w * (function(at + k * step) - function(at - k * step)) for k, w in weights.items())
        / step
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("m", "v"), [(0.4, 0.2), (-2.0, 1.0), (1.0, 9.0), (-30.0, 2500.0)])
def test_derivatives_are_those_of_the_reported_value(name, m, v):
    function = CASES[name][0]
    value, d_mean, d_variance, _ = one(function, m, v)
    step = 0.02 * v**0.5
    tolerance = 1e-9 * max(1.0, abs(value))
    first = difference(lambda x: one(function, x, v)[0], m, step)
    second = difference(lambda x: one(function, m, x)[0], v, 0.02 * v)
    assert d_mean == pytest.approx(first, abs=tolerance / min(1, v**0.5))
    assert d_variance == pytest.approx(second, abs=tolerance / min(1, v))


def test_the_derivative_is_the_sum_s_even_where_nodes_are_far_too_few():
    rough = CurvedFunction(lambda x: torch.log1p(100 * x**2), distance=30.0)  # in truth .1
    value, d_mean, d_variance, _ = one(rough, 0.2, 4.0)
    truth = integral(lambda x: np.log1p(100 * x**2), 0.2, 4.0, panel=0.02)
    assert abs(value - truth) > 1e-3
    assert d_mean == pytest.approx(difference(lambda x: one(rough, x, 4.0)[0], 0.2, 1e-3), abs=1e-8)
    assert d_variance == pytest.approx(
        difference(lambda x: one(rough, 0.2, x)[0], 4.0, 1e-3), abs=1e-8
    )


@pytest.mark.parametrize(("rate", "m", "v"), [(1.0, 0.3, 2.0), (-1.5, 4.0, 0.1), (0.0, 1e3, 1e4)])
def test_exponentials_are_closed(rate, m, v):
    truth = np.exp(rate * m + rate**2 * v / 2)
    found = one(FUNCTIONS["exp"](rate), m, v)
    assert found[:3] == pytest.approx([truth, rate * truth, rate**2 * truth / 2], rel=1e-14)


def test_an_overflow_is_infinite_and_not_nan():
    infinity = float("inf")
    assert one(FUNCTIONS["exp"](), 700.0, 100.0)[:3] == [infinity] * 3
    assert one(FUNCTIONS["exp"](-1.0), 0.0, 1e4)[:3] == [infinity, -infinity, infinity]
    assert one(FUNCTIONS["exp"](), 0.0, 1e4)[0] == infinity


@pytest.mark.parametrize("v", [1.0, 1.5, 40.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_function_that_grows_as_fast_as_the_normal_falls_has_no_expectation(v, sign):
    value, d_mean, d_variance, _ = one(lambda x: sign * (x**2 / 2).exp(), 0.5, v)
    assert value == sign * float("inf")
    assert not np.isnan(d_mean)
    assert d_variance == value


def test_rows_with_and_without_an_expectation_do_not_disturb_each_other():
    v = torch.tensor([0.25, 0.5, 0.96, 1.0, 4.0])
    found = expected(lambda x: (x**2 / 2).exp(), torch.zeros(5), v)
    truth = (1 - v).rsqrt()  # (1 - v)^(-1/2)
    assert found.value[:2].tolist() == pytest.approx(truth[:2].tolist(), rel=1e-10)
    assert found.value[2:].tolist()[1:] == [float("inf")] * 2
    assert found.d_variance[:2].tolist() == pytest.approx((truth[:2] ** 3 / 2).tolist(), rel=1e-9)


@pytest.mark.parametrize("rate", [0.1, 5.0, -20.0])
def test_the_window_follows_growth_of_unknown_functions(rate):
    truth = np.exp(rate + rate**2 / 2)
    found = one(lambda x: (rate * x).exp(), 1.0, 1.0)
    assert found[:3] == pytest.approx([truth, rate * truth, rate**2 * truth / 2], rel=1e-9)


def test_a_function_growing_beyond_its_declared_distance_is_widened_too():
    found = one(CurvedFunction(lambda x: x.exp(), distance=50.0), 0.0, 49.0)
    assert found[:3] == pytest.approx([np.exp(24.5), np.exp(24.5), np.exp(24.5) / 2], rel=1e-9)


def test_a_plain_callable_may_hold_data():
    y = torch.linspace(-2, 2, 50).unsqueeze(-1)
    m, v = torch.linspace(-1, 1, 50), torch.linspace(0.0, 2, 50)
    plain = expected(lambda eta: torch.log1p((y - eta) ** 2), m, v)
    known = expected(FUNCTIONS["student t"](y.squeeze(-1), 1.0, 1.0), m, v)
    for a, b in zip(plain[:3], known[:3], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_data_follow_their_rows_into_every_group():
    generator = torch.Generator().manual_seed(3)
    y, scale, m = (torch.randn(400, generator=generator) for _ in range(3))
    v, scale = torch.logspace(-8, 4, 400), scale.abs() + 1e-4
    function = FUNCTIONS["student t"](y, scale, 4.0)
    found = expected(function, m, v)
    for row in range(0, 400, 57):
        single = FUNCTIONS["student t"](float(y[row]), float(scale[row]), 4.0)
        value, d_mean, d_variance, _ = one(single, float(m[row]), float(v[row]))
        assert float(found.value[row]) == pytest.approx(value, rel=1e-12)
        assert float(found.d_mean[row]) == pytest.approx(d_mean, rel=1e-9, abs=1e-12)
        assert float(found.d_variance[row]) == pytest.approx(d_variance, rel=1e-9, abs=1e-12)


def test_an_unresolved_kink_shows_in_the_error():
    value, d_mean, _, error = one(lambda x: (x - 0.3).abs(), 0.1, 1.0)
    exact = one(FUNCTIONS["distance"](0.3), 0.1, 1.0)
    assert error > 1e-6
    assert abs(d_mean - exact[1]) <= 4 * error
    assert value == pytest.approx(exact[0], abs=4 * error)


def test_kinks_at_a_point_mass():
    assert one(FUNCTIONS["relu"](1.0), 1.0, 0.0)[:2] == [0.0, 0.5]
    assert one(FUNCTIONS["relu"](1.0), 3.0, 0.0)[:3] == [2.0, 1.0, 0.0]
    assert one(FUNCTIONS["distance"](1.0), -1.0, 0.0)[:3] == [2.0, -1.0, 0.0]
    tail = one(FUNCTIONS["relu"](0.0), -30.0, 1.0)[0]  # the two terms of the textbook cancel
    with mpmath.workdps(250):
        truth = mpmath.npdf(30) - 30 * mpmath.ncdf(-30)
    assert tail == pytest.approx(float(truth), rel=1e-10)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    coefficients=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    rates=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    m=st.floats(-5, 5),
    v=st.floats(0, 20),
)
def test_random_sums_of_waves_are_found_without_any_hint(coefficients, rates, m, v):
    """E cos(rη) = cos(rm) e^(-r²v/2), E sin likewise, η² besides."""

    def function(eta):
        waves = sum(c * (r * eta).cos() for c, r in zip(coefficients, rates, strict=True))
        return waves + (rates[0] * eta).sin() + eta**2

    c, r = np.array(coefficients), np.array(rates)
    fall = np.exp(-(r**2) * v / 2)
    value = (c * np.cos(r * m) * fall).sum() + np.sin(r[0] * m) * fall[0] + m**2 + v
    first = (-c * r * np.sin(r * m) * fall).sum() + r[0] * np.cos(r[0] * m) * fall[0] + 2 * m
    second = (-(r**2) * c * np.cos(r * m) * fall).sum() - r[0] ** 2 * np.sin(r[0] * m) * fall[0]
    found = one(function, m, v)
    assert found[:3] == pytest.approx([value, first, second / 2 + 1], rel=1e-9, abs=1e-8)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    y=st.floats(-20, 20), width=st.floats(1e-3, 10), m=st.floats(-30, 30), v=st.floats(1e-4, 1e3)
)
def test_a_student_t_of_any_width_against_panels(y, width, m, v):
    found = one(FUNCTIONS["student t"](y, width, 1.0), m, v)
    panel = min(1.0, width)  # finer near y by kinks
    kinks = y + width * np.linspace(-40, 40, 161)

    def twin(x):
        return np.log1p(((x - y) / width) ** 2)

    truth = integral(twin, m, v, panel=max(panel, 0.02), kinks=tuple(kinks))
    assert found[0] == pytest.approx(truth, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(
    "width",
    [1e-3, 3.5, 20.0, *(pytest.param(w, marks=pytest.mark.slow) for w in (0.3, 1.0, 2.0, 6.0))],
)
def test_ordinal_probits_of_any_width(width):
    low, high = 0.4 - width / 2, 0.4 + width / 2
    with mpmath.workdps(40):

        def f(x):
            return log_probit_difference(low - x, high - x)

        splits = [1.4 + 3 * k for k in range(-10, 11)]
        truth = mpmath.quad(lambda x: f(x) * mpmath.npdf(x, 1.4, 3), splits, maxdegree=4)
    found = one(FUNCTIONS["ordinal probit"](low, high), 1.4, 9.0)
    assert found[0] == pytest.approx(float(truth), rel=1e-9)


def test_open_ended_cuts_are_plain_distribution_functions():
    infinity = float("inf")
    for m, v in ((0.4, 2.0), (-8.0, 0.0), (30.0, 100.0)):
        probit = one(FUNCTIONS["ordinal probit"](-infinity, 0.5), -m, v)
        plain = one(FUNCTIONS["log normal cdf"](), 0.5 + m, v)
        assert probit[:3] == pytest.approx([plain[0], -plain[1], plain[2]], rel=1e-9, abs=1e-12)
        logit = one(FUNCTIONS["ordinal logit"](0.5, infinity), m, v)
        assert logit[:3] == pytest.approx(one(FUNCTIONS["log sigmoid"](), m - 0.5, v)[:3], rel=1e-9)


def test_what_is_no_mean_or_variance_is_refused():
    for m, v in ((0.0, -1e-3), (0.0, float("nan")), (float("nan"), 1.0)):
        with pytest.raises(NumericalError, match="finite and not negative"):
            one(torch.sin, m, v)
    with pytest.raises(NumericalError, match=r"got shape \(2, 2\)"):
        expected(torch.sin, torch.zeros(2, 2), torch.ones(2, 2))


def test_no_rows_have_no_expectation():
    for function in (torch.sin, FUNCTIONS["softplus"](), FUNCTIONS["sigmoid"]()):
        assert expected(function, torch.empty(0), torch.empty(0)).value.shape == (0,)


MEMORY = """
import resource, torch
from vitools.calculus.curved.expectation import expected
from vitools.calculus.curved.functions import FUNCTIONS
m = torch.linspace(-3, 3, 300_000, dtype=torch.float64)
v = torch.linspace(0, 9, 300_000, dtype=torch.float64)
functions = [FUNCTIONS[name]() for name in ("softplus", "sigmoid", "relu")]
for f in functions:
    expected(f, m[:1000], v[:1000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = [expected(f, m, v) for f in functions]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 - 12 * 2.4)
"""


def test_many_rows_take_little_memory_beside_the_answer():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 100  # MiB


def test_a_wide_predictor_costs_little_more_than_a_narrow_one():
    function, m = FUNCTIONS["log softplus"](), torch.linspace(-5, 5, 4000)
    seconds = []
    for v in (1.0, 1e4):
        expected(function, m, torch.full_like(m, v))
        start = time.process_time()
        expected(function, m, torch.full_like(m, v))
        seconds.append(time.process_time() - start)
    assert seconds[1] < 20 * seconds[0]  # the trapezoid rule in z alone: a hundred times

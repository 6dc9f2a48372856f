"""E f(η₁, η₂) against Gauss-Hermite products, closed forms and differences of the value itself."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitools.calculus.curved.expectation import expected
from vitools.calculus.curved.expectation_pair import expected_pair
from vitools.calculus.curved.functions import FUNCTIONS
from vitools.calculus.curved.pair_function import PairFunction
from vitools.calculus.curved.pairs import PAIRS
from vitools.errors import NumericalError

HERMITE, WEIGHTS = np.polynomial.hermite_e.hermegauss(150)
MEAN = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
COVARIANCE = torch.tensor([[[0.5, 0.2], [0.2, 0.3]]], dtype=torch.float64)


def integral(function, mean, covariance):
    """E f by a product of 150 Gauss-Hermite nodes an axis."""
    factor = np.linalg.cholesky(covariance.numpy())
    a, b = HERMITE[:, None], HERMITE[None]
    x, y = mean[0].item() + factor[0, 0] * a, mean[1].item() + factor[1, 0] * a + factor[1, 1] * b
    weights = WEIGHTS[:, None] * WEIGHTS / (2 * math.pi)
    return float((function(x + 0 * b, y) * weights).sum())


def change(function, mean, covariance, direction, step=1e-3):
    """A fourth-order central difference of the value along a change of the mean and covariance."""

    def value(k):
        moved = mean + k * step * direction[0], covariance + k * step * direction[1]
        return float(expected_pair(function, *moved).value[0])

    return (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)


FUNCTIONS_OF_TWO = {
    "student t": (
        PAIRS["student t"](1.2, 4.0),
        lambda a, b: np.log1p((1.2 - a) ** 2 * np.exp(-2 * b) / 4),
    ),
    "softplus of product": (PAIRS["softplus of product"](), lambda a, b: np.logaddexp(0, a * b)),
    "standardised square": (
        PAIRS["standardised square"](1.2),
        lambda a, b: (1.2 - a) ** 2 * np.exp(-2 * b),
    ),
    "by distances": (
        PairFunction(
            lambda a, b: torch.nn.functional.logsigmoid(a) * torch.sigmoid(b),
            distances=(math.pi, math.pi),
        ),
        lambda a, b: -np.logaddexp(0, -a) / (1 + np.exp(-b)),
    ),
}


def test_every_pair_of_the_table_is_tried():
    assert set(PAIRS) <= set(FUNCTIONS_OF_TWO)


@pytest.mark.parametrize("name", FUNCTIONS_OF_TWO)
def test_values_and_derivatives(name):
    function, twin = FUNCTIONS_OF_TWO[name]
    found = expected_pair(function, MEAN, COVARIANCE)
    assert float(found.value[0]) == pytest.approx(integral(twin, MEAN[0], COVARIANCE[0]), rel=1e-9)
    nothing = torch.zeros(2, 2)
    for i in range(2):
        slope = change(function, MEAN, COVARIANCE, (torch.eye(2)[i], nothing))
        assert float(found.d_mean[0, i]) == pytest.approx(slope, abs=1e-9)
    for i, j in ((0, 0), (0, 1), (1, 1)):
        direction = nothing.clone()
        direction[i, j] = direction[j, i] = 1.0
        slope = change(function, MEAN, COVARIANCE, (torch.zeros(2), direction))
        assert float((found.d_covariance[0] * direction).sum()) == pytest.approx(slope, abs=1e-8)
    assert torch.equal(found.d_covariance, found.d_covariance.mT)
    assert float(found.error.max()) <= 1e-10


def test_the_heteroscedastic_normal_s_closed_form_is_the_grid_s():
    closed = PAIRS["standardised square"](1.2)
    searched = PairFunction(closed.value, data=closed.data)
    for a, b in zip(
        expected_pair(closed, MEAN, COVARIANCE),
        expected_pair(searched, MEAN, COVARIANCE),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def dense(function, mean, covariance):
    """E f on 3000 × 1500 equidistant nodes."""
    factor = torch.linalg.cholesky(covariance)
    axes = [np.linspace(-8.5, 8.5, n) for n in (3001, 1501)]
    weights = [np.exp(-(z**2) / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi) for z in axes]
    a, b = axes[0][:, None], axes[1][None]
    x = float(mean[0]) + float(factor[0, 0]) * a + 0 * b
    values = function(x, float(mean[1]) + float(factor[1, 0]) * a + float(factor[1, 1]) * b)
    return weights[0] @ values @ weights[1]


@pytest.mark.parametrize(
    ("mean", "covariance"),
    [
        ([0.0, -2.0], [[1.0, 0.0], [0.0, 0.5]]),  # scales far below the location's sd
        ([1.0, -1.0], [[4.0, 1.0], [1.0, 1.0]]),
        ([0.0, 0.0], [[25.0, 0.0], [0.0, 0.01]]),
        ([3.0, -3.0], [[1.0, 0.0], [0.0, 1e-4]]),
    ],
)
def test_a_student_t_whose_scale_is_uncertain(mean, covariance):
    function, twin = FUNCTIONS_OF_TWO["student t"]
    mean, covariance = torch.tensor([mean]), torch.tensor([covariance])
    found = expected_pair(function, mean, covariance)
    truth = dense(twin, mean[0], covariance[0])
    assert float(found.value[0]) == pytest.approx(truth, rel=2e-9)  # the dense sum's own error
    assert float(found.error[0]) <= 1e-10
    for direction in (
        torch.tensor([[1.0, 0], [0, 0]]),
        torch.tensor([[0, 1.0], [1, 0]]),
        torch.diag(torch.tensor([0, 1.0])),
    ):
        scaled = direction * covariance[0].diagonal().sqrt().outer(covariance[0].diagonal().sqrt())
        slope = change(function, mean, covariance, (torch.zeros(2), scaled), step=2e-3)
        assert float((found.d_covariance[0] * scaled).sum()) == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("sd", [0.0, 1e-9, 1e-4, 1e-2])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_student_t_whose_scale_is_nearly_known(sd, correlation):
    """∂F/∂Σ = ½ E ∇²f, by panels over the location with the scale at its mean, up to order sd²."""
    covariance = torch.tensor([[[0.5, correlation * 0.5**0.5 * sd], [0.0, sd**2]]])
    covariance[0, 1, 0] = covariance[0, 0, 1]
    found = expected_pair(PAIRS["student t"](1.2, 4.0), MEAN, covariance)
    location, log_scale = MEAN[0].tolist()

    def parts(x):
        u = (1.2 - x) ** 2 * math.exp(-2 * log_scale) / 4
        mixed = 4 * (1.2 - x) * math.exp(-2 * log_scale) / 4 / (1 + u) ** 2
        return 4 * u / (1 + u) ** 2, mixed

    own, mixed = (
        sum(w * parts(location + 0.5**0.5 * z)[k] for w, z in zip(WEIGHTS, HERMITE, strict=True))
        for k in range(2)
    )
    own, mixed = own / math.sqrt(2 * math.pi), mixed / math.sqrt(2 * math.pi)
    near = 1e-9 + 20 * sd
    assert float(found.d_covariance[0, 1, 1]) == pytest.approx(own / 2, abs=near)
    assert float(found.d_covariance[0, 0, 1]) == pytest.approx(mixed / 2, abs=near)


@pytest.mark.parametrize("correlation", [0.0, 0.7, -1.0])
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e-5])
def test_a_vanishing_covariance_gives_half_the_hessian(correlation, scale):
    root = torch.tensor([1.0, 2.0]) * scale
    covariance = torch.outer(root, root) * torch.tensor([[1.0, correlation], [correlation, 1.0]])
    found = expected_pair(lambda a, b: (a * b).sin() + a**2, MEAN, covariance[None])
    a, b = MEAN[0].tolist()
    sine, cosine = math.sin(a * b), math.cos(a * b)
    cross = cosine - a * b * sine
    hessian = [[2 - b * b * sine, cross], [cross, -a * a * sine]]
    assert float(found.value[0]) == pytest.approx(sine + a * a, abs=1e-8)
    torch.testing.assert_close(found.d_covariance[0], torch.tensor(hessian) / 2, atol=1e-8, rtol=0)


@pytest.mark.parametrize("correlation", [0.0, 1.0, -1.0, 1 - 1e-13])
def test_predictors_that_move_as_one(correlation):
    covariance = torch.tensor([[[1.0, correlation], [correlation, 1.0]]]) * 0.8
    total = expected_pair(lambda a, b: torch.sigmoid(a + b), MEAN, covariance)
    v = covariance.sum((-1, -2))
    single = expected(FUNCTIONS["sigmoid"](), MEAN.sum(-1), v)
    assert float(total.value[0]) == pytest.approx(float(single.value[0]), rel=1e-10)
    assert float(total.d_mean[0, 1]) == pytest.approx(float(single.d_mean[0]), rel=1e-9)
    slopes = torch.full((2, 2), float(single.d_variance[0]))
    torch.testing.assert_close(total.d_covariance[0], slopes, atol=1e-9, rtol=0)


@pytest.mark.parametrize("product", [0.3, 0.8])
def test_an_exponential_of_a_product(product):
    """E e^(ab) = (1 - s²)^(-1/2) for independent a and b whose sds' product is s < 1."""
    covariance = torch.diag(torch.tensor([1.0, product**2]))[None]
    found = expected_pair(lambda a, b: (a * b).exp(), torch.zeros(1, 2), covariance)
    truth = (1 - product**2) ** -0.5
    assert float(found.value[0]) == pytest.approx(truth, rel=1e-9)
    slopes = torch.tensor([product**2, 1.0]) * truth**3 / 2
    torch.testing.assert_close(found.d_covariance[0].diagonal(), slopes, atol=1e-8, rtol=1e-8)


def test_beyond_that_it_has_no_expectation_and_other_rows_are_left_alone():
    covariances = torch.diag_embed(torch.tensor([[1.0, 0.25], [1.0, 1.0], [4.0, 1.0]]))
    found = expected_pair(lambda a, b: -(a * b).exp(), torch.zeros(3, 2), covariances)
    assert float(found.value[0]) == pytest.approx(-(0.75**-0.5), rel=1e-9)
    assert found.value[1:].tolist() == [-math.inf] * 2
    assert not bool(found.d_covariance.isnan().any())


def test_data_follow_their_rows():
    generator = torch.Generator().manual_seed(0)
    y, means = torch.randn(90, generator=generator), torch.randn(90, 2, generator=generator)
    factors = torch.randn(90, 2, 2, generator=generator) * torch.logspace(-3, 0, 90)[:, None, None]
    covariances = factors @ factors.mT
    together = expected_pair(PAIRS["student t"](y, 3.0), means, covariances)
    for row in range(0, 90, 23):
        alone = expected_pair(
            PAIRS["student t"](float(y[row]), 3.0), means[row : row + 1], covariances[row : row + 1]
        )
        for a, b in zip(together[:3], alone[:3], strict=True):
            torch.testing.assert_close(a[row], b[0], rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    rates=st.lists(st.floats(-2, 2), min_size=2, max_size=2),
    mean=st.lists(st.floats(-3, 3), min_size=2, max_size=2),
    factor=st.lists(st.floats(-1.5, 1.5), min_size=4, max_size=4),
)
def test_random_waves(rates, mean, factor):
    """E cos(rᵀη) = cos(rᵀm) e^(-rᵀΣr/2), so ∂/∂Σ = -½ rrᵀ times that."""
    r, m, root = torch.tensor(rates), torch.tensor([mean]), torch.tensor(factor).view(2, 2)
    covariance = (root @ root.T)[None]
    found = expected_pair(lambda a, b: (r[0] * a + r[1] * b).cos(), m, covariance)
    phase, fall = m[0] @ r, torch.exp(-(r @ covariance[0] @ r) / 2)
    truth = phase.cos() * fall
    torch.testing.assert_close(found.value[0], truth, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.d_mean[0], -phase.sin() * fall * r, rtol=0, atol=1e-8)
    torch.testing.assert_close(
        found.d_covariance[0], -torch.outer(r, r) * truth / 2, rtol=0, atol=1e-6
    )


def test_what_is_no_covariance_is_refused():
    bad = (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), -torch.eye(2), torch.full((2, 2), math.nan))
    for covariance in bad:
        with pytest.raises(NumericalError, match=r"positive semidefinite.*row 0"):
            expected_pair(torch.mul, torch.zeros(1, 2), covariance[None])
    for shapes in itertools.product([(3, 2)], [(3, 2), (2, 2, 2)]):
        with pytest.raises(NumericalError, match=r"\[N, 2, 2\]"):
            expected_pair(torch.mul, torch.zeros(shapes[0]), torch.ones(shapes[1]))

"""The tilted bound against the exact logistic expectation, Monte Carlo, and looser bounds."""

import itertools
import math

import pytest
import torch

from vitools.calculus.curved.expectation import expected
from vitools.calculus.curved.functions import FUNCTIONS
from vitools.calculus.curved.softmax import softmax_bound
from vitools.errors import NumericalError

SCALES = (1e-8, 0.01, 1.0, 30.0, 1e4)


def problems(rows, classes, scale, joint):
    generator = torch.Generator().manual_seed(classes)
    mean = 2 * torch.randn(rows, classes, generator=generator)
    if not joint:
        return mean, scale * torch.rand(rows, classes, generator=generator)
    root = torch.randn(rows, classes, classes, generator=generator)
    return mean, root @ root.mT * scale / classes


def variances(covariance):
    return covariance if covariance.dim() == 2 else covariance.diagonal(dim1=-2, dim2=-1)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("joint", [False, True])
def test_two_classes_beside_the_exact_logistic_expectation(scale, joint):
    mean, covariance = problems(200, 2, scale, joint)
    spread = (
        covariance.sum(-1)
        if not joint
        else covariance @ torch.tensor([1.0, -1.0]) @ torch.tensor([1.0, -1.0])
    )
    exact = expected(FUNCTIONS["softplus"](), mean[:, 1] - mean[:, 0], spread).value + mean[:, 0]
    gap = softmax_bound(mean, covariance).value - exact
    assert float(gap.min()) >= -1e-13 * (1 + scale)
    assert float(gap.max()) <= min(spread.max() ** 2 / 64 + 1e-12, spread.max() / 8)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_never_below_the_truth(scale, joint):
    classes, draws = 5, 20_000
    mean, covariance = problems(20, classes, scale, joint)
    full = covariance if joint else torch.diag_embed(covariance)
    noise = torch.randn(draws, classes, generator=torch.Generator().manual_seed(1))
    eta = mean[:, None] + noise @ torch.linalg.cholesky(full).mT
    values = eta.logsumexp(-1)
    error = values.std(-1) / math.sqrt(draws)
    assert bool((softmax_bound(mean, covariance).value > values.mean(-1) - 4 * error).all())


@pytest.mark.parametrize(("classes", "scale"), list(itertools.product([2, 5, 60], SCALES)))
@pytest.mark.parametrize("joint", [False, True])
def test_tighter_than_the_moment_bound_and_boehning_s(classes, scale, joint):
    mean, covariance = problems(60, classes, scale, joint)
    found = softmax_bound(mean, covariance)
    v = variances(covariance)
    moment = (mean + v / 2).logsumexp(-1)
    total = covariance.sum((-1, -2)) if joint else covariance.sum(-1)
    boehning = mean.logsumexp(-1) + (v.sum(-1) - total / classes) / 4  # at its best point, the mean
    rounding = 1e-13 * (1 + moment.abs())
    assert bool((found.value <= moment + rounding).all())
    assert bool((found.value <= boehning + rounding).all())


@pytest.mark.parametrize(("classes", "scale"), list(itertools.product([2, 5, 60], SCALES)))
@pytest.mark.parametrize("joint", [False, True])
def test_the_tilt_is_its_own_softmax(classes, scale, joint):
    mean, covariance = problems(60, classes, scale, joint)
    found = softmax_bound(mean, covariance)
    torch.testing.assert_close(found.tilt, found.d_mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.tilt.sum(-1), torch.ones(60))


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e3])
def test_derivatives_are_those_of_the_optimised_bound(scale, joint):
    mean, covariance = problems(3, 4, scale, joint)
    found = softmax_bound(mean, covariance)

    def slope(direction, which):
        def value(k):
            moved = [mean, covariance]
            moved[which] = moved[which] + k * step * direction
            return softmax_bound(*moved).value

        step = 1e-3 * (scale if which else 1.0)
        return (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)

    for k in range(4):
        direction = torch.eye(4)[k]
        torch.testing.assert_close(found.d_mean[:, k], slope(direction, 0), rtol=1e-5, atol=1e-8)
    if not joint:
        for k in range(4):
            direction = torch.eye(4)[k]
            torch.testing.assert_close(
                found.d_covariance[:, k], slope(direction, 1), rtol=1e-5, atol=1e-8
            )
        return
    for i, j in itertools.combinations_with_replacement(range(4), 2):
        direction = torch.zeros(4, 4)
        direction[i, j] = direction[j, i] = 1.0
        along = (found.d_covariance * direction).sum((-1, -2))
        torch.testing.assert_close(along, slope(direction, 1), rtol=1e-5, atol=1e-8)


def test_independent_predictors_are_a_diagonal_covariance():
    mean, variance = problems(30, 6, 5.0, False)
    apart, joint = softmax_bound(mean, variance), softmax_bound(mean, torch.diag_embed(variance))
    torch.testing.assert_close(apart.value, joint.value)
    diagonal = joint.d_covariance.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(apart.d_covariance, diagonal, rtol=1e-8, atol=1e-8)


def test_without_variance_it_is_the_function():
    mean, variance = problems(30, 6, 0.0, False)
    found = softmax_bound(mean, variance)
    torch.testing.assert_close(found.value, mean.logsumexp(-1))
    p = mean.softmax(-1)
    torch.testing.assert_close(found.d_covariance, p * (1 - p) / 2)


def test_a_shift_of_all_predictors_moves_the_bound_as_much():
    mean, variance = problems(10, 5, 3.0, False)
    base, moved = softmax_bound(mean, variance).value, softmax_bound(mean + 1e4, variance).value
    torch.testing.assert_close(moved - 1e4, base, rtol=0, atol=1e-8)


def test_what_is_no_mean_or_variance_is_refused():
    with pytest.raises(NumericalError, match=r"\[N, K\]"):
        softmax_bound(torch.zeros(3, 4), torch.ones(3, 5))
    with pytest.raises(NumericalError, match="1 variances that are negative"):
        softmax_bound(torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]))
    assert softmax_bound(torch.empty(0, 3), torch.empty(0, 3)).value.shape == (0,)

"""What looks at values gives the same for many runs at once as for each alone."""

from functools import partial

import pytest
import torch

from vitools.calculus.algebra.atoms import Function
from vitools.calculus.curved.rowwise import rowwise
from vitools.calculus.curved.softmax import softmax_bound_of_runs
from vitools.calculus.curved.statistic import CurvedStatistic


def normals(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def expectation_of(observed):
    """E of the log of a Student-t with 3 degrees of freedom and scale ½ about a predictor, for ``rowwise``."""
    tail = Function("tail", lambda x, y: -2 * torch.log1p(4 * (y - x) ** 2 / 3), "tail({})")
    return partial(CurvedStatistic(tail, (observed,), observed.shape, ()).of_runs, False)


def test_rows_of_all_runs_keep_the_data_of_their_own():
    expectation = expectation_of(normals(7))
    mean, variance = normals(3, 7), normals(3, 7).exp()
    variance[1] *= 1e-6  # other nodes than those of its neighbours
    found = torch.vmap(partial(rowwise, expectation))(mean, variance)
    for run in range(3):
        alone = rowwise(expectation, mean[run], variance[run])
        for together, one in zip(found, alone, strict=True):
            torch.testing.assert_close(together[run], one, rtol=1e-9, atol=1e-12)


def test_an_argument_may_be_the_same_for_all_runs():
    function = expectation_of(normals(4))
    mean, variance = normals(2, 4), torch.ones(4, dtype=torch.float64)
    found = torch.vmap(partial(rowwise, function), in_dims=(0, None))(mean, variance)
    alone = rowwise(function, mean[1], variance)
    torch.testing.assert_close(found[0][1], alone[0])


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_spoil_no_others(number):
    mean, variance = normals(3), torch.ones(3, dtype=torch.float64)
    mean[1] = number
    for part in expectation_of(torch.zeros(3, dtype=torch.float64))(1, mean, variance):
        assert part.isnan().tolist() == [False, True, False]
    rows, covariance = normals(3, 2), torch.eye(2, dtype=torch.float64).repeat(3, 1, 1)
    covariance[1, 0, 1] = number
    value, d_mean, d_covariance = softmax_bound_of_runs(1, rows, covariance)
    assert value.isnan().tolist() == [False, True, False]
    assert d_mean.isnan().any(-1).tolist() == [False, True, False]
    assert d_covariance.isnan().flatten(1).any(-1).tolist() == [False, True, False]

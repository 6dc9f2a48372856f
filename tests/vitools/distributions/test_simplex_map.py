"""The stick-breaking map: torch's where torch is exact, and finite where torch rounds to 0."""

import pytest
import torch
from torch.distributions import biject_to, constraints

from vitools.distributions.simplex_map import SimplexMap, onto


@pytest.fixture(autouse=True)
def own_generator(clean_process):
    """Tests here seed torch's generator; it is handed back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_is_the_map_of_torch() -> None:
    x = 2 * torch.randn(20, 6)
    ours, theirs = SimplexMap(), biject_to(constraints.simplex)
    y = theirs(x)
    torch.testing.assert_close(ours(x), y)
    torch.testing.assert_close(ours.inv(y), x)
    torch.testing.assert_close(ours.log_abs_det_jacobian(x, y), theirs.log_abs_det_jacobian(x, y))
    assert ours.forward_shape(x.shape) == y.shape
    assert ours.inverse_shape(y.shape) == x.shape


def test_log_determinant_is_that_of_autodiff() -> None:
    x = torch.randn(5)
    jacobian = torch.func.jacrev(lambda v: SimplexMap()(v)[:-1])(x)
    log_det = SimplexMap().log_abs_det_jacobian(x, SimplexMap()(x))
    torch.testing.assert_close(log_det, jacobian.logdet())


def test_tiny_remainders_survive_in_float32() -> None:
    """After a first stick of 1 - e⁻³⁰ torch's own map leaves a rounding error to the others."""
    x = torch.tensor([30.0, 1.0, -2.0, 40.0], dtype=torch.float32, requires_grad=True)
    exact = SimplexMap()(x.detach().double())
    assert biject_to(constraints.simplex)(x)[1] > 1e5 * exact[1]
    value = SimplexMap()(x)
    torch.testing.assert_close(value.log().double(), exact.log(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(SimplexMap().inv(value), x, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(value.log().sum(), x)
    assert gradient.isfinite().all()


def test_several_simplices_are_one_event() -> None:
    support = constraints.independent(constraints.simplex, 2)
    x = torch.randn(3, 4, 2)
    transform = onto(support)
    assert transform(x).shape == (3, 4, 3)
    assert transform.log_abs_det_jacobian(x, transform(x)).shape == ()
    assert onto(constraints.positive) == biject_to(constraints.positive)

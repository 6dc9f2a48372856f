"""Boxed matrices against automatic differentiation, draws and torch's own densities."""

import pytest
import torch
from torch import distributions as td

from vitools.distributions.boxed import BoxedCorrelation, BoxedCovariance
from vitools.distributions.free_form.gauss_kronrod import NODES

pytestmark = pytest.mark.uses_global_generator

KINDS = [(BoxedCovariance, 1), (BoxedCovariance, 2), (BoxedCovariance, 3), (BoxedCorrelation, 2), (BoxedCorrelation, 4)]  # fmt: skip


def boxed(kind, size, width=0.6):
    """Of a log density that slopes and bends in each coordinate."""
    count = kind.count_of(size)
    centre = torch.linspace(-0.4, 0.5, count, dtype=torch.float64)
    slope = torch.linspace(2.0, -1.0, count, dtype=torch.float64)
    x = NODES * width / 2
    edges = torch.stack([centre - width / 2, centre + width / 2], -1)
    return kind(edges, (slope[:, None] * x - 2 * x**2)[:, None, :])


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_coordinates_and_jacobian(kind, size):
    u = torch.linspace(-0.7, 0.9, kind.count_of(size), dtype=torch.float64)
    value = kind.value(u)
    torch.testing.assert_close(kind.coordinates(value), u)
    rows, columns = torch.tril_indices(size, size, 0 if kind is BoxedCovariance else -1)
    slopes = torch.func.jacrev(lambda x: kind.value(x)[rows, columns])(u)
    expected = torch.linalg.slogdet(slopes).logabsdet
    torch.testing.assert_close(kind.log_jacobian(u), expected)
    assert kind.size_of(kind.count_of(size)) == size


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_moments_are_those_of_draws_which_stay_in_the_box(kind, size):
    made = boxed(kind, size)
    torch.manual_seed(0)
    drawn = made.sample((20_000,))
    assert bool(made.reaches(drawn).all())
    error = made.variance.sqrt() / 20_000**0.5 + 1e-12
    assert bool(((drawn.mean(0) - made.mean).abs() < 4.5 * error).all())
    torch.testing.assert_close(drawn.var(0), made.variance, rtol=0.06, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Singular sample detected")  # torch: unsymmetric by rounding
def test_the_density_is_one_of_matrices_as_torch_counts_them():
    """E_q (p / q) is the mass that a Wishart has in the box: that of draws of it."""
    made = boxed(BoxedCovariance, 2, width=1.5)
    prior = td.Wishart(torch.tensor(4.0).double(), torch.eye(2).double() / 4)
    torch.manual_seed(1)
    drawn = made.sample((40_000,))
    ratio = (prior.log_prob(drawn) - made.log_prob(drawn)).exp()
    inside = made.reaches(prior.sample((40_000,))).double()
    error = (ratio.var() / 40_000 + inside.var() / 40_000).sqrt()
    assert inside.mean() > 0.05
    assert abs(ratio.mean() - inside.mean()) < 4.5 * error
    outside = 100 * torch.eye(2).double()
    assert made.log_prob(outside) == -torch.inf
    assert not made.reaches(outside)


def test_batches_and_expansion():
    one = boxed(BoxedCovariance, 2)
    many = one.expand((3, 2))
    assert many.batch_shape == (3, 2)
    torch.manual_seed(0)
    drawn = many.sample((5,))
    assert drawn.shape == (5, 3, 2, 2, 2)
    torch.testing.assert_close(many.log_prob(drawn), one.log_prob(drawn))
    torch.testing.assert_close(many.mean[1, 1], one.mean)

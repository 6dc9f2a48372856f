"""Reference points by least squares, where columns are collinear."""

import pyro
import pyro.distributions as dist
import torch

from vitools.calculus.reduction.references import reference_points
from vitools.calculus.tracing.trace import trace_model


def points(x, y):
    def model():
        w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]).double(), 1.0).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    return reference_points(trace_model(model, (), {}))


def test_along_collinear_columns_points_stay_where_they_are():
    """Two of four columns, the others their combinations: no least point along two directions."""
    x = torch.cos(torch.arange(48.0).reshape(12, 4) * 1.7 + 0.4).double()
    y = x.sum(1) * 1000 + torch.sin(torch.arange(12.0)).double()
    w = points(x, y)["w"]
    assert float((y - x @ w).abs().max()) < 10
    assert float(w.abs().max()) < 1e5


def test_a_level_and_a_slope_far_from_zero_are_found():
    years = torch.arange(2000.0, 2020.0).double()
    x = torch.stack([torch.ones_like(years), years], 1)
    y = 3e4 + 7.0 * years
    w = points(x, y)["w"]
    assert float((y - x @ w).abs().max()) < 1e-3 * float(y.max())

"""Digits that cancel between terms of the bound, and where to take the locations about to keep them.

Of components at distances m with standard deviation s, squares about a point that they share lose
ε (m/s)²: 1 % of a variance at m/s = 10⁷. A fit finds their means well enough all the same; about these,
each component's own, nothing cancels, at the price of a table of data times components. So a fit that
may have lost digits is made again about its own means.
"""

from __future__ import annotations

import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.reduction.shifting import Points
from vitools.engines.cavi.outcome import distributions

FAR = 1e-5  # nats that rounding may take from a bound unnoticed
OUT_OF_PROPORTION = 1e6  # parts of the bound that its terms add up to, where they cancel
MOST_RETURNS = 2


def lost(model: ConjugateModel) -> float:
    """About how many nats the rounding of terms that cancel may have taken; 0 where it is no matter."""
    size = float(model.size())
    nats = torch.finfo(torch.float64).eps * size
    return nats if nats > FAR and size > OUT_OF_PROPORTION * abs(model.elbo()) else 0.0


def own_points(model: ConjugateModel) -> Points:
    """The means of the locations that can be moved."""
    found = distributions(model)
    points = {name: found[name].mean.double() for name in model.movable if name in found}
    return {name: mean for name, mean in points.items() if bool(mean.isfinite().all())}

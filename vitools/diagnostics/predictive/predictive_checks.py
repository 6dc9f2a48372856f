"""Posterior predictive checks: does replicated data look like the data, in what matters?

p = Pr(T(x_rep) ≥ T(x) | x) for a statistic T of the data; ties count half. A p near 0 or 1 says that
the model does not produce data like these in the respect that T measures. It is no level of a test:
p is closer to 1/2 than uniform where the model is right.

Reference: Gelman, Meng, Stern, *Posterior predictive assessment of model fitness via realized
discrepancies*, Statistica Sinica 6, 1996.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.posterior import Estimate, Posterior
from vitools.problem.sites import nearest

Statistic = Callable[[Tensor], Tensor]
"""From one data set of a site to a number."""

STATISTICS: dict[str, Statistic] = {
    "mean": lambda x: x.mean(),
    "sd": lambda x: x.std(),
    "min": lambda x: x.min(),
    "max": lambda x: x.max(),
}


@dataclass(frozen=True)
class PredictiveCheck:
    """One statistic of one observed site.

    Attributes:
        p_value: with its Monte Carlo error.
        observed: T of the data.
        replicated: T of each replicated data set, ``[n]``.
    """

    p_value: Estimate
    observed: float
    replicated: Tensor


def predictive_checks(
    posterior: Posterior,
    statistics: Mapping[str, Statistic] | None = None,
    *,
    site: str | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, PredictiveCheck]:
    """Compare statistics of the data with those of data sets replicated from a fit.

    Args:
        statistics: ``{name: function of one data set}``; mean, sd, min and max if omitted.
        site: the observed site; needed only where there are several.

    Example:
        >>> import torch
        >>> from vitools import Problem
        >>> from vitools.models import coin
        >>> from vitools.posterior import FactorisedPosterior, Status
        >>> problem = Problem(coin.model, torch.tensor([1.0] * 10 + [0.0] * 10).double())
        >>> q = torch.distributions.Beta(torch.tensor(11.0).double(), torch.tensor(11.0).double())
        >>> fit = FactorisedPosterior(problem, {"p": q}, 0.0, engine="cavi", status=Status.CONVERGED)
        >>> def switches(x):
        ...     return (x[1:] != x[:-1]).sum()
        >>> bool(predictive_checks(fit, {"switches": switches})["switches"].p_value.value > 0.99)
        True
    """
    observed = posterior.problem.observed
    if site is None and len(observed) != 1:
        raise OptionError(f"site= is needed to choose among {', '.join(observed) or 'no sites'}.")
    name = site if site is not None else next(iter(observed))
    if name not in observed:
        raise OptionError(
            f"no observed site '{name}' (observed: {', '.join(observed)}).{nearest(name, observed)}"
        )
    data = observed[name].value
    assert data is not None
    with torch.no_grad():
        replicated = posterior.predictive(num_samples, seed)[name]
        data = data.expand(replicated.shape[1:]).to(replicated)
        return {
            title: _check(title, statistic, data, replicated)
            for title, statistic in (statistics or STATISTICS).items()
        }


def _check(title: str, statistic: Statistic, data: Tensor, replicated: Tensor) -> PredictiveCheck:
    observed = float(statistic(data))
    found = torch.tensor([float(statistic(x)) for x in replicated], dtype=torch.float64)
    if math.isnan(observed) or bool(torch.isnan(found).any()):
        raise DataError(f"statistic '{title}' is NaN for the data or for a replicated data set.")
    p = float((found > observed).double().mean() + 0.5 * (found == observed).double().mean())
    return PredictiveCheck(Estimate(p, math.sqrt(p * (1 - p) / len(found))), observed, found)

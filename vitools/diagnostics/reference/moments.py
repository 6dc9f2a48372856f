"""Means and standard deviations of what a fit is judged on, each with its Monte Carlo error.

What is judged are the model's invariants where it carries some (functions of the latents that
it identifies, e.g. up to relabelling), else its continuous latents. Discrete latents are summed out and
not judged themselves.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from vitools.errors import NotSupportedError
from vitools.posterior import DrawsPosterior, GridPosterior, Posterior
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace


@dataclass(frozen=True)
class Moments:
    """Mean and sd of the entries of one quantity, with standard errors (0 where exact).

    All four tensors have the quantity's own shape and are float64, on the CPU.

    Attributes:
        mean: with its standard error ``mean_error``.
        sd: with its standard error ``sd_error``.
    """

    mean: Tensor
    sd: Tensor
    mean_error: Tensor
    sd_error: Tensor

    @classmethod
    def exact(cls, mean: Tensor, sd: Tensor) -> "Moments":
        """Moments known without Monte Carlo error.

        Args:
            mean: of each entry.
            sd: of each entry.
        """
        mean, sd = mean.detach().cpu().double(), sd.detach().cpu().double()
        return cls(mean, sd, *torch.zeros((2, *mean.shape), dtype=torch.float64))

    @classmethod
    def of_draws(cls, draws: Tensor) -> "Moments":
        """From independent draws ``[n, *shape]``."""
        return cls._estimated(draws.cpu().double(), lambda terms: terms.new_tensor(len(terms)))

    @classmethod
    def of_chains(cls, draws: Tensor) -> "Moments":
        """From Markov chains ``[chains, draws, *shape]``, which carry fewer draws' worth of news."""
        chains, length = draws.shape[:2]
        most = chains * length * math.log10(max(10, chains * length))

        def effective(terms: Tensor) -> Tensor:
            size = effective_sample_size(terms.reshape((chains, length, *terms.shape[1:])))
            return size.nan_to_num(chains * length).clamp(1.0, most)

        return cls._estimated(draws.cpu().double().flatten(0, 1), effective)

    @classmethod
    def _estimated(cls, draws: Tensor, effective_size: Callable[[Tensor], Tensor]) -> "Moments":
        mean = draws.mean(0)
        squares = (draws - mean) ** 2
        sd = squares.mean(0).sqrt()
        mean_error = sd / effective_size(draws).sqrt()
        variance_error = squares.std(0) / effective_size(squares).sqrt()
        sd_error = torch.where(sd > 0, variance_error / (2 * sd), 0.0)
        return cls(mean, sd, mean_error, sd_error)


def quantities(problem: Problem, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a problem is judged on, at ``{site: [*S, *shape]}``: ``{name: [*S, *own shape]}``."""
    if problem.invariants is not None:
        return problem.invariants(dict(values))
    return {name: values[name] for name in problem.continuous}


def moments(posterior: Posterior, draws: Mapping[str, Tensor]) -> dict[str, Moments]:
    """Moments of every judged quantity: exact where the fit gives them, else from draws.

    Args:
        draws: the :func:`quantities` at independent draws of the fit, ``{name: [n, *shape]}``;
            Markov chains bring their own.
    """
    problem = posterior.problem
    if isinstance(posterior, DrawsPosterior):
        chains = quantities(problem, posterior.draws)
        return {name: Moments.of_chains(value) for name, value in chains.items()}
    if isinstance(posterior, GridPosterior):
        return _grid_moments(posterior)
    found = {}
    for name, value in draws.items():
        exact = None if problem.invariants is not None else _closed_form(posterior, name)
        found[name] = exact or Moments.of_draws(value)
    return found


def _grid_moments(posterior: GridPosterior) -> dict[str, Moments]:
    if not posterior.problem.continuous:
        return {}
    nodes = UnconstrainedSpace(posterior.problem).to_values(posterior.nodes)
    masses = posterior.log_masses.double().exp()
    found = {}
    for name, value in quantities(posterior.problem, nodes).items():
        value = value.double()
        mean = torch.tensordot(masses, value, 1)
        found[name] = Moments.exact(
            mean, torch.tensordot(masses, (value - mean) ** 2, 1).clamp(min=0.0).sqrt()
        )
    return found


def _closed_form(posterior: Posterior, name: str) -> Moments | None:
    """Moments of a site from its marginal's formulas, if it has a marginal with formulas."""
    try:
        marginal = posterior.marginal(name)
        mean, variance = marginal.mean, marginal.variance
    except (NotSupportedError, NotImplementedError, AttributeError):
        return None
    if not bool(torch.isfinite(mean).all() & torch.isfinite(variance).all()):
        return None
    shape = posterior.problem.latents[name].shape
    return Moments.exact(mean.reshape(shape), variance.sqrt().reshape(shape))

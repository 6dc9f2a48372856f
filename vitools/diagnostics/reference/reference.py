"""Draws from elsewhere as a reference: a file, another program, posteriordb."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitools.diagnostics.reference.moments import Moments, quantities
from vitools.errors import OptionError
from vitools.problem import Problem


def reference_draws(problem: Problem, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the problem is judged on, at draws of its continuous latents.

    Args:
        draws: ``{site: [n, *shape]}``, NumPy arrays or tensors; or ``[chains, n, *shape]``, which
            is laid end to end.

    Returns:
        ``{name: [n, *own shape]}``, for :func:`~vitools.diagnostics.reference.distance.measure_distance`.
    """
    flat = {}
    for name, site in problem.continuous.items():
        if name not in draws:
            raise OptionError(
                f"reference draws of '{name}' are missing (given: {', '.join(draws) or 'none'})."
            )
        value = torch.as_tensor(draws[name]).to(site.dtype)
        extra = value.dim() - len(site.shape)
        if extra not in (1, 2) or value.shape[extra:] != site.shape:
            raise OptionError(
                f"reference draws of '{name}': expected shape [n, "
                f"{', '.join(map(str, site.shape))}], got {tuple(value.shape)}."
            )
        flat[name] = value.flatten(0, 1) if extra == 2 else value
    return quantities(problem, flat)


def reference_moments(
    problem: Problem, draws: Mapping[str, Tensor], num_chains: int = 1
) -> dict[str, Moments]:
    """Moments of draws from elsewhere, as ``judge(fit, reference=…)`` takes them.

    Args:
        num_chains: the chains that ``[n, *shape]`` draws were laid end to end from, whose
            autocorrelation enters the errors; 1 for independent draws.

    Example:
        >>> from vitools import Problem
        >>> from vitools.models import coin
        >>> problem = Problem(coin.model, torch.tensor([1.0, 0.0]).double())
        >>> found = reference_moments(problem, {"p": torch.linspace(0.0, 1.0, 101)})
        >>> round(float(found["p"].mean), 2)
        0.5
    """
    judged = reference_draws(problem, draws)
    if num_chains == 1:
        return {name: Moments.of_draws(value) for name, value in judged.items()}
    for name, value in judged.items():
        if len(value) % num_chains:
            raise OptionError(
                f"reference draws of '{name}': {len(value)} do not make {num_chains} equal chains."
            )
    return {
        name: Moments.of_chains(value.unflatten(0, (num_chains, -1)))
        for name, value in judged.items()
    }

"""Pareto k̂ of each latent: which of them makes the weights heavy.

The joint k̂ says that q is wrong, not where. The weight of one unconstrained entry u alone is that
of its marginals, p(u | x) / q(u) = E_q[w | u] up to a constant, of which log w gives the first two
cumulants,

    log E_q[w | u] ≈ E_q[log w | u] + ½ Var_q[log w | u],

both fitted by least squares to 1, u, u². k̂ of these smooth weights is the entry's. For Gaussians,
which tend to be what guides and large-sample posteriors are, the formula gives the exact marginal
weight where p's conditional variances are q's (the optimal mean field, for one), and then
k = 1 - var_q(u) / var_p(u).

It is an estimate by regression, good for naming the culprit; the joint k̂ decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.reference.accuracy import entry_name
from vitools.diagnostics.weights.khat import checked_log_weights, differ_by_rounding, pareto_khat
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

ENTRIES_PER_SITE = 20
"""The entries whose fitted weights spread most; the tail of the others is not fitted."""

FLOOR = 0.01
"""The share of the smallest log weights that is raised to their quantile: they have no say in the
tail on the right, and least squares would listen to them first."""


@dataclass(frozen=True)
class SiteKhat:
    """k̂ of a site's worst entry.

    Attributes:
        value: k̂.
        at: the entry's name, e.g. ``"theta[3]"``; the site's where a transformation mixes entries
            (a simplex).
    """

    value: float
    at: str


def site_khats(
    problem: Problem, values: Mapping[str, Tensor], log_weights: Tensor
) -> dict[str, SiteKhat]:
    """The worst entry of each continuous latent.

    Args:
        values: draws of the fit, ``{site: [n, *shape]}``.
        log_weights: log p(x, θ) - log q(θ) at them, ``[n]``, n ≥ 25.
    """
    log_weights = checked_log_weights(log_weights)
    if differ_by_rounding(log_weights):
        return {name: SiteKhat(0.0, name) for name in problem.continuous}
    space = UnconstrainedSpace(problem)
    log_weights = log_weights.double()
    vector = space.from_values(values).detach().cpu().double()
    lowest = torch.quantile(log_weights[torch.isfinite(log_weights)], FLOOR)
    marginal = marginal_log_weights(vector, log_weights.clamp(min=float(lowest)))
    found = {}
    for name, columns in space.slices.items():
        block = marginal[:, columns]
        spread = block.max(0).values - block.mean(0)
        tried = spread.argsort(descending=True)[:ENTRIES_PER_SITE].tolist()
        khats = {i: pareto_khat(block[:, i]) for i in tried}
        worst = max(khats, key=khats.__getitem__)
        found[name] = SiteKhat(khats[worst], _entry(problem, space, name, worst))
    return found


def marginal_log_weights(vector: Tensor, log_weights: Tensor) -> Tensor:
    """Fitted log E_q[w | u_j] for every column: ``[n, P]`` and ``[n]`` to ``[n, P]``.

    A column that does not vary gets weights that do not vary.
    """
    spread = vector.std(0)
    standard = (vector - vector.mean(0)) / torch.where(spread > 0, spread, 1.0)
    basis = torch.stack([torch.ones_like(standard), standard, standard.square()], -1)  # [n, P, 3]
    gram = torch.einsum("npi,npj->pij", basis, basis)
    inverse = torch.linalg.pinv(gram, hermitian=True)

    def fitted(target: Tensor) -> Tensor:
        moments = torch.einsum("npi,np->pi", basis, target)
        return torch.einsum("npi,pij,pj->np", basis, inverse, moments)

    mean = fitted(log_weights[:, None].expand_as(standard))
    variance = fitted((log_weights[:, None] - mean).square()).clamp(min=0.0)
    return mean + variance / 2


def _entry(problem: Problem, space: UnconstrainedSpace, name: str, index: int) -> str:
    shape = problem.latents[name].shape
    if space.shapes[name] != shape:
        return name
    where = torch.unravel_index(torch.tensor(index), shape) if shape else ()
    return entry_name(name, tuple(int(i) for i in where))

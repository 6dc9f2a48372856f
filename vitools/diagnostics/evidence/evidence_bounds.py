"""log p(x) between what is known to lie below it and what is known to lie above it.

From log weights log w_i = log p(x, θ_i) - log q(θ_i):

- importance-weighted bounds L_K = E log (1/K) Σ_{i≤K} w_i, which rise to log p(x) with bias O(1/K);
- their jackknife K L_K - (K - 1) L_{K-1}, whose bias is O(1/K²). It is *no bound*;
- CUBO₂ = ½ log E w² ≥ log p(x), the χ² upper bound. E w² exists only where the weights' tail has
  k < 1/2, so it is given only there; its estimate is a little low (Jensen), and its error is a
  guess unless k < 1/4;
- the exact value where the model carries ``exact_log_evidence``, called with the model's arguments.

References:
    Burda, Grosse, Salakhutdinov, *Importance weighted autoencoders*, ICLR 2016.
    Nowozin, *Debiasing evidence approximations: on importance-weighted autoencoders and jackknife
    variational inference*, ICLR 2018.
    Dieng, Tran, Ranganath, Paisley, Blei, *Variational inference via χ upper bound minimization*,
    NeurIPS 2017.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.weights.bounds import bound, importance_weighted_bound, is_constant
from vitools.diagnostics.weights.khat import MIN_DRAWS, khat_estimate
from vitools.errors import NotSupportedError, OptionError
from vitools.posterior import Estimate, GridPosterior, Posterior
from vitools.problem import Problem

KS = (1, 10, 100, 1000)
FEWEST_GROUPS = 10
UPPER_KHAT = 0.5


@dataclass(frozen=True)
class Evidence:
    """What is known of log p(x).

    Attributes:
        lower: ``{K: L_K}``.
        jackknife: ``{K: …}`` for K ≥ 2; close to log p(x), but no bound.
        upper: CUBO₂, or ``None`` where k̂ does not allow it.
        exact: ``None`` where unknown.
    """

    lower: dict[int, Estimate]
    jackknife: dict[int, Estimate]
    upper: Estimate | None
    exact: Estimate | None

    def with_noise(self, nats: float) -> "Evidence":
        """The bounds where the log density of all draws has an error of so many nats in common."""

        def noisy(found: Estimate) -> Estimate:
            return Estimate(found.value, math.hypot(found.standard_error, nats))

        return Evidence(
            {k: noisy(found) for k, found in self.lower.items()},
            {k: noisy(found) for k, found in self.jackknife.items()},
            None if self.upper is None else noisy(self.upper),
            self.exact,
        )


def evidence(
    posterior: Posterior, num_samples: int = 10_000, seed: int = 0, ks: Sequence[int] = KS
) -> Evidence:
    """All bounds from one set of draws; each K needs ``10 K`` of them for a standard error.

    Args:
        ks: numbers of draws that each importance-weighted bound averages over.

    Raises:
        NotSupportedError: the fit has no density (NUTS).

    Example:
        >>> from vitools import Problem
        >>> from vitools.models import coin
        >>> from vitools.posterior import FactorisedPosterior, Status
        >>> flips = torch.tensor([1.0, 1.0, 0.0]).double()
        >>> q = torch.distributions.Beta(torch.tensor(2.0).double(), torch.tensor(2.0).double())
        >>> fit = FactorisedPosterior(
        ...     Problem(coin.model, flips), {"p": q}, 0.0, engine="cavi", status=Status.CONVERGED)
        >>> found = evidence(fit)  # log p(x) = log 1/12 = -2.48
        >>> found.lower[1].value < found.lower[10].value < -2.48 < found.upper.value
        True
    """
    for k in ks:
        if not 1 <= k <= num_samples // FEWEST_GROUPS:
            raise OptionError(
                f"K = {k} needs {FEWEST_GROUPS} groups of {k} draws, so num_samples of at least "
                f"{FEWEST_GROUPS * k}; got {num_samples}."
            )
    exact = exact_log_evidence(posterior.problem)
    if isinstance(posterior, GridPosterior):
        found = posterior.log_evidence
        return Evidence(dict.fromkeys(ks, found), {}, found, exact or found)
    return evidence_of(posterior.log_weights(num_samples, seed).expand(num_samples), exact, ks)


def evidence_of(
    log_weights: Tensor, exact: Estimate | None = None, ks: Sequence[int] = KS
) -> Evidence:
    """From log weights ``[n]``; those K of ``ks`` for which they make ten groups."""
    used = [k for k in ks if k * FEWEST_GROUPS <= len(log_weights)]
    lower = {k: importance_weighted_bound(log_weights, k) for k in used}
    corrected = {k: jackknife(log_weights, k) for k in used if k > 1}
    return Evidence(lower, corrected, upper_bound(log_weights), exact)


def jackknife(log_weights: Tensor, k: int) -> Estimate:
    """K L_K - (K - 1) L_{K-1}, the second averaged over the K subsets of each group.

    Example:
        >>> round(jackknife(torch.tensor([0.0, 1.0]), 2).value, 4)  # 2 · 0.6201 - (0 + 1) / 2
        0.7402
    """
    if not 2 <= k <= len(log_weights):
        raise OptionError(
            f"expected k between 2 and the number of log weights ({len(log_weights)}), got {k}."
        )
    if is_constant(log_weights):
        return bound(log_weights)
    groups = log_weights.double()[: len(log_weights) // k * k].reshape(-1, k).sort(-1).values
    whole = groups.logsumexp(-1)
    rest = groups[:, :-1].logsumexp(-1)  # without the largest, computed rather than subtracted
    others = whole[:, None] + torch.log1p(-(groups[:, :-1] - whole[:, None]).exp())
    smaller = torch.cat([others, rest[:, None]], -1).mean(-1) - math.log(k - 1)
    return bound(k * (whole - math.log(k)) - (k - 1) * smaller)


def upper_bound(log_weights: Tensor) -> Estimate | None:
    """CUBO₂ from log weights ``[n]``; ``None`` where k̂ ≥ 1/2, where E w² need not exist."""
    if is_constant(log_weights):
        return bound(log_weights)
    if len(log_weights) < MIN_DRAWS or not bool(torch.isfinite(log_weights).all()):
        return None
    if not khat_estimate(log_weights).value < UPPER_KHAT:
        return None
    doubled = 2.0 * log_weights.detach().double()
    level = doubled.logsumexp(0) - math.log(len(doubled))
    relative = (doubled - level).exp()
    return Estimate(float(level) / 2, float(relative.std() / (2 * math.sqrt(len(doubled)))))


def exact_log_evidence(problem: Problem) -> Estimate | None:
    """log p(x) by the model's own formula, if it carries one that takes these data."""
    formula = getattr(problem.model, "exact_log_evidence", None)
    if formula is None:
        return None
    try:
        return Estimate(float(formula(*problem.args, **problem.kwargs)))
    except NotSupportedError:  # the formula exists, but not for data of this size
        return None

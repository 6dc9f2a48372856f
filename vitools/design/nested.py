"""The expected gain from draws and an explicit likelihood: above, below, and listed outcomes.

With θ_i from the belief and y_i ~ p(y | θ_i, design),

    nested        mean_i log p(y_i | θ_i) / mean_{j≠i} p(y_i | θ_j)     above (Rainforth et al. 2018)
    contrastive   mean_i log p(y_i | θ_i) / mean_j p(y_i | θ_j)         below (Foster et al. 2020)
    listed        mean_i Σ_y p(y | θ_i) log p(y | θ_i) / mean_j p(y | θ_j)  below, outcomes not drawn

each off by a term of order 1/n. Latents that are no targets are averaged over, given the targets.
"""

import math
from itertools import product

import torch
from torch import Tensor

from vitools.design.experiment import Candidate, Values
from vitools.errors import NotSupportedError
from vitools.information.bounds import info_nce, leave_one_out
from vitools.posterior import Estimate

MOST_OUTCOMES = 1024
INNER = 100
"""Draws of the nuisances given each draw of the targets."""


def nested(candidate: Candidate, num_samples: int, seed: int) -> Estimate:
    """The upper bound; where there are nuisances an estimate that bounds neither side."""
    table = _table(candidate, num_samples, seed)
    found = leave_one_out(table)
    return Estimate(found.value, found.standard_error) if candidate.nuisances else found


def contrastive(candidate: Candidate, num_samples: int, seed: int) -> Estimate:
    """The lower bound."""
    candidate.refuse_nuisances("contrastive")
    return info_nce(_table(candidate, num_samples, seed))


def _table(candidate: Candidate, num_samples: int, seed: int) -> Tensor:
    """log p(y_i | t_j), ``[n, n]``, of targets t_j."""
    draws = candidate.draws(num_samples, 16 * seed)
    outcomes = candidate.outcomes(draws, 16 * seed + 3)
    table = candidate.log_likelihoods(draws, outcomes)
    if not candidate.nuisances:
        return table
    # off the diagonal one draw of the nuisances is as good as many: the mean over j averages them;
    # on it p(y_i | t_i) stands inside of a logarithm
    wide = candidate.nuisances_given(draws, INNER, 16 * seed + 4)
    inner = _given_targets(candidate, wide, outcomes)
    own = torch.eye(num_samples, dtype=torch.bool)
    return torch.where(own, inner.unsqueeze(1), table)


def _given_targets(candidate: Candidate, wide: Values, outcomes: Values) -> Tensor:
    """log mean_m p(y_i | t_i, nuisance_im), ``[n]``."""
    flat = {k: v.flatten(0, 1) for k, v in wide.items()}
    repeated = {k: v.repeat_interleave(INNER, 0) for k, v in outcomes.items()}
    terms = candidate.log_likelihood(flat, repeated).reshape(-1, INNER)
    return terms.logsumexp(1) - math.log(INNER)


def listed_outcomes(candidate: Candidate) -> Values | None:
    """All outcomes ``{site: [K, *shape]}``, where they are few."""
    entries = []
    for site in candidate.problem.observed.values():
        values = site.support_values
        if values is None:
            values = _values_of(candidate, site.name)
        if values is None or site.event_shape:
            return None
        entries += [(site.name, values)] * site.shape.numel()
    if math.prod(len(values) for _, values in entries) > MOST_OUTCOMES:
        return None
    rows = list(product(*(values.tolist() for _, values in entries)))
    found: Values = {}
    start = 0
    for name, site in candidate.problem.observed.items():
        size = site.shape.numel()
        assert site.value is not None
        column = torch.tensor([row[start : start + size] for row in rows]).to(site.value)
        found[name] = column.reshape(len(rows), *site.shape)
        start += size
    return found


def _values_of(candidate: Candidate, name: str) -> Tensor | None:
    support = candidate.problem.observed[name].support
    support = getattr(support, "base_constraint", support)
    low, high = (getattr(support, end, None) for end in ("lower_bound", "upper_bound"))
    if type(support).__name__ == "_Boolean":
        return torch.tensor([0.0, 1.0])
    if not getattr(support, "is_discrete", False) or low is None or high is None:
        return None
    low, high = torch.as_tensor(low), torch.as_tensor(high)
    if int(high.max() - low.min()) > MOST_OUTCOMES or bool((high != high.flatten()[0]).any()):
        return None
    return torch.arange(int(low.min()), int(high.max()) + 1)


def listed(candidate: Candidate, num_samples: int, seed: int) -> Estimate:
    """Where outcomes can be listed: their probabilities in place of draws of them."""
    candidate.refuse_nuisances("listed")
    outcomes = listed_outcomes(candidate)
    if outcomes is None:
        raise NotSupportedError(
            "method 'listed' needs outcomes that can be listed, at most "
            f"{MOST_OUTCOMES} of them. Use method='nested'."
        )
    draws = candidate.draws(num_samples, 16 * seed)
    log_p = candidate.log_likelihoods(draws, outcomes)  # [K, n]
    log_mean = log_p.logsumexp(1, keepdim=True) - math.log(num_samples)
    terms = torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_mean), 0.0).sum(0)
    return Estimate.of_mean(terms, "lower")

"""The expected gain from draws and an explicit likelihood: above, below, and listed outcomes.

With θ_i from the belief and y_i ~ p(y | θ_i, design),

    nested        mean_i log p(y_i | θ_i) / mean_{j≠i} p(y_i | θ_j)     above (Rainforth et al. 2018)
    contrastive   mean_i log p(y_i | θ_i) / mean_j p(y_i | θ_j)         below (Foster et al. 2020)
    listed        mean_i Σ_y p(y | θ_i) log p(y | θ_i) / mean_j p(y | θ_j)  below, outcomes not drawn

each off by a term of order 1/n. Latents that are no targets are averaged over, given the targets:

    log p(y_i | t_i) ≈ log mean_m p(y_i | t_i, ν_im),   ν_im ~ p(ν | t_i),  m = 1 … M

is too low by var / 2M, so that the sum bounds neither side. There all averages inside of a logarithm are
extrapolated, 2 L(all) - ½ (L(one half) + L(the other)), which leaves terms of order 1/M² (Goda, Hironaka and
Iwamoto, "Multilevel Monte Carlo estimation of expected information gains", 2020), and M is doubled until what was
so removed is small beside the standard error.
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
FEWEST_INNER, MOST_INNER = 64, 4096
"""Draws of the nuisances given each draw of the targets: at first, and at most."""
SMALL = 0.25
"""Of the standard error: a bias below which no more of them are drawn."""
LARGEST_BIAS = 0.3
"""Nats removed by extrapolation from which on nothing is known of what is left."""


def nested(candidate: Candidate, num_samples: int, seed: int) -> Estimate:
    """The upper bound; where there are nuisances an estimate that bounds neither side."""
    draws = candidate.draws(num_samples, 16 * seed)
    outcomes = candidate.outcomes(draws, 16 * seed + 3)
    table = candidate.log_likelihoods(draws, outcomes)
    if not candidate.nuisances:
        return leave_one_out(table)
    return _beside_nuisances(candidate, draws, outcomes, table, 16 * seed + 4)


def contrastive(candidate: Candidate, num_samples: int, seed: int) -> Estimate:
    """The lower bound."""
    candidate.refuse_nuisances("contrastive")
    draws = candidate.draws(num_samples, 16 * seed)
    outcomes = candidate.outcomes(draws, 16 * seed + 3)
    return info_nce(candidate.log_likelihoods(draws, outcomes))


def _beside_nuisances(
    candidate: Candidate, draws: Values, outcomes: Values, table: Tensor, seed: int
) -> Estimate:
    """mean_i log p(y_i | t_i) / p(y_i), both from draws.

    Args:
        table: log p(y_i | t_j, ν_j), ``[n, n]``: off the diagonal one draw of the nuisances is as good as
            many, for the mean over j averages them.
    """
    own_column = torch.eye(len(table), dtype=torch.bool)
    marginal, outer = _extrapolated(table[~own_column].reshape(len(table), -1))
    others = table.masked_fill(own_column, -torch.inf)
    shares = (others - others.logsumexp(1, keepdim=True)).exp().sum(0) - 1
    inner: list[Tensor] = []
    size = count = FEWEST_INNER
    while True:
        inner.append(_given_targets(candidate, draws, outcomes, size, seed + len(inner)))
        own, removed = _extrapolated(torch.cat(inner, 1))
        terms = own - marginal
        found = Estimate.of_mean(terms - shares)  # each draw's influence, as of the bounds
        biases = float(removed.mean()), float(outer.mean())
        is_small = abs(biases[0]) < SMALL * found.standard_error
        if is_small or count >= MOST_INNER or not abs(biases[1]) < LARGEST_BIAS:
            break
        size, count = count, 2 * count
    if not max(map(abs, biases)) < LARGEST_BIAS:  # nor where one is NaN
        return Estimate(float(terms.mean()), math.inf)
    return Estimate(float(terms.mean()), math.hypot(found.standard_error, *biases))


def _extrapolated(terms: Tensor) -> tuple[Tensor, Tensor]:
    """log mean of ``[n, m]`` numbers known by their logarithms, without its bias of order 1/m; and that bias."""

    def log_mean(part: Tensor) -> Tensor:
        return part.logsumexp(1) - math.log(part.shape[1])

    whole = log_mean(terms)
    halves = 0.5 * (log_mean(terms[:, ::2]) + log_mean(terms[:, 1::2]))
    return 2 * whole - halves, halves - whole


def _given_targets(
    candidate: Candidate, draws: Values, outcomes: Values, count: int, seed: int
) -> Tensor:
    """log p(y_i | t_i, ν_im), ``[n, count]``."""
    wide = candidate.nuisances_given(draws, count, seed)
    flat = {k: v.flatten(0, 1) for k, v in wide.items()}
    repeated = {k: v.repeat_interleave(count, 0) for k, v in outcomes.items()}
    return candidate.log_likelihood(flat, repeated).reshape(-1, count)


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

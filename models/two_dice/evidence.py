"""log p(x) of two dice by exact summation over the hidden throws, for small data.

With π¹, π² and ρ integrated out, p(x, z) depends on z only through how often each side and each
face fell:

    p(x, z) = DM(n¹(z); α¹) · DM(n²(z); α²) · ∏_s DM(M_s(z, x); β_s),
    DM(n; α) = B(α + n) / B(α),   B(α) = ∏ Γ(α_i) / Γ(Σα)

so the sum over all (D₁ D₂)^N assignments collapses to a sum over the reachable totals
(n¹, n², M), each weighted by the number of assignments that lead to it. Rows are added one at a
time, each with all D₁ D₂ pairs, and equal totals are merged.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vitools.errors import NotSupportedError
from vitools.models.two_dice.prior import Hyperparameter, prior_concentrations
from vitools.models.two_dice.rows import RollsLike, distinct_rows, unique_rows

MAX_ENTRIES = 20_000_000
"""Entries of the largest table of totals: 160 MB of int64."""


def exact_log_evidence(
    rolls: RollsLike,
    sides1: int = 3,
    sides2: int = 4,
    faces: int = 6,
    alpha1: Hyperparameter | None = None,
    alpha2: Hyperparameter | None = None,
    beta: Hyperparameter | None = None,
) -> float:
    """log p(x), the rolls taken as ordered, in float64.

    Args:
        rolls: x, integers in 0, …, V-1, shape [N, J].
        sides1: D₁. The hyperparameters as for :func:`vitools.models.two_dice.model`.

    Returns:
        The log evidence in nats.

    Raises:
        NotSupportedError: too many assignments of rows to pairs of sides to sum over.
        DataError: rolls that are not faces.
        OptionError: impossible hyperparameters.

    Example:
        A single die of two faces, uniform prior: two different faces have probability 1/6.

        >>> round(exact_log_evidence([[0, 1]], sides1=1, sides2=1, faces=2, beta=1.0), 6)
        -1.791759
    """
    rows = distinct_rows(rolls, faces, dtype=torch.int64)
    given = prior_concentrations(
        sides1, sides2, faces, alpha1, alpha2, beta, device=rows.counts.device
    )
    totals = rows.counts.new_zeros(1, sides1 + sides2 + given.beta.numel())
    log_weight = torch.zeros(1, dtype=torch.float64, device=totals.device)
    # Equal rows one after the other, where most totals merge.
    ordered = rows.row_index.sort().values.tolist()
    for added, row in enumerate(ordered):
        steps = _steps(rows.counts[row], sides1, sides2)
        entries = totals.numel() * len(steps)
        if entries > MAX_ENTRIES:
            raise NotSupportedError(
                f"exact_log_evidence: after {added} of {len(ordered)} rows the sum has "
                f"{len(totals):,} different totals, and the next row makes that a table of "
                f"{entries:,} entries; at most {MAX_ENTRIES:,} are tried. Give fewer rows or "
                "sides, or bound the evidence from below with hand_derived_cavi."
            )
        summed = (totals[:, None, :] + steps).flatten(0, 1)
        totals, group = unique_rows(summed)
        weights = log_weight.repeat_interleave(len(steps))
        log_weight = _logsumexp_by_group(weights, group, len(totals))
    log_joint = log_weight
    widths = [sides1, sides2, *[faces] * given.beta.shape[0]]
    for count, concentration in zip(
        totals.split(widths, 1), [given.alpha1, given.alpha2, *given.beta], strict=True
    ):
        prior = concentration.double()
        log_joint = log_joint + _log_beta(prior + count) - _log_beta(prior)
    return torch.logsumexp(log_joint, 0).item()


def _steps(counts: Tensor, sides1: int, sides2: int) -> Tensor:
    """What one row adds to the totals for each pair (i, k), shape [D₁ D₂, D₁ + D₂ + S V]."""
    first = torch.arange(sides1, device=counts.device).repeat_interleave(sides2)
    second = torch.arange(sides2, device=counts.device).repeat(sides1)
    chosen = one_hot(first + second, sides1 + sides2 - 1)
    rolled = (chosen[:, :, None] * counts).flatten(1)
    return torch.cat([one_hot(first, sides1), one_hot(second, sides2), rolled], 1)


def _logsumexp_by_group(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    largest = values.new_full((num_groups,), -torch.inf)
    largest = largest.scatter_reduce(0, group, values, "amax")
    total = torch.zeros_like(largest).scatter_add(0, group, torch.exp(values - largest[group]))
    return largest + total.log()


def _log_beta(concentration: Tensor) -> Tensor:
    """log B(α) over the last axis."""
    return torch.lgamma(concentration).sum(-1) - torch.lgamma(concentration.sum(-1))

"""Every coordinate update of two dice, and its ELBO, as explicit formulas.

With E log π = ψ(α̂) - ψ(Σα̂) and L_ns = Σ_v C_nv E log ρ_sv over distinct rows n:

    factorised  φ¹_ni ∝ exp(E log π¹_i + Σ_k φ²_nk L_{n,i+k}), and φ² likewise
    joint       φ_nik ∝ exp(E log π¹_i + E log π²_k + L_{n,i+k})
    either      α̂¹ = α¹ + Σ_n m_n φ¹_n,  α̂² likewise,  β̂_s = β_s + Σ_n m_n q(z¹+z² = s) C_n

Derivations: ``docs/derivations/two_dice.md``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitools.models.two_dice.prior import Concentrations
from vitools.models.two_dice.rows import CountedRows


class ExpectedCounts(NamedTuple):
    """Expected sufficient statistics of z and x under q(z).

    Fields:
        sides1: E #{n : z¹_n = i}, shape [D₁].
        sides2: E #{n : z²_n = k}, shape [D₂].
        faces: E #{(n, j) : z¹_n + z²_n = s, x_nj = v}, shape [S, V].
    """

    sides1: Tensor
    sides2: Tensor
    faces: Tensor


def _complement(values: Tensor, size: int, fill: float) -> Tensor:
    """Entry [..., s, i] is ``values[..., s - i]`` for i < size, ``fill`` where that is outside."""
    padded = pad(values, (size - 1, size - 1), value=fill)
    return padded.unfold(-1, size, 1).flip(-1)


def sum_distribution(first: Tensor, second: Tensor) -> Tensor:
    """w_s = Σ_{i+k=s} p_i q_k, the distribution of the sum of two independent throws.

    Args:
        first: p, shape [..., D₁].
        second: q, shape [..., D₂].

    Returns:
        w, shape [..., D₁ + D₂ - 1].

    Example:
        >>> sum_distribution(torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5])).tolist()
        [0.25, 0.5, 0.25]
    """
    return (_complement(second, first.shape[-1], 0.0) * first[..., None, :]).sum(-1)


@dataclass(frozen=True)
class FactorisedResponsibilities:
    """q(z¹_n) q(z²_n) on distinct rows.

    Attributes:
        phi1: φ¹, shape [U, D₁].
        phi2: φ², shape [U, D₂].
    """

    phi1: Tensor
    phi2: Tensor

    def table(self) -> Tensor:
        """q(z¹_n = i, z²_n = k) = φ¹_ni φ²_nk, shape [U, D₁, D₂]."""
        return self.phi1[:, :, None] * self.phi2[:, None, :]

    def expected_counts(self, rows: CountedRows) -> ExpectedCounts:
        """The statistics that the updates of π¹, π² and ρ need."""
        weighted = rows.multiplicity[:, None] * sum_distribution(self.phi1, self.phi2)
        return ExpectedCounts(
            rows.multiplicity @ self.phi1,
            rows.multiplicity @ self.phi2,
            weighted.T @ rows.counts,
        )

    def entropy(self, rows: CountedRows) -> Tensor:
        """Σ_n m_n (H[φ¹_n] + H[φ²_n])."""
        per_row = torch.special.entr(self.phi1).sum(1) + torch.special.entr(self.phi2).sum(1)
        return rows.multiplicity @ per_row


@dataclass(frozen=True)
class JointResponsibilities:
    """q(z¹_n, z²_n) on distinct rows, as q(sum) q(throws | sum).

    The rolls see only the sum, so given the sum the throws are the same for all rows.

    Attributes:
        sums: r_ns = q(z¹_n + z²_n = s), shape [U, S].
        split: q(z¹ = i, z² = k | z¹ + z² = i + k), shape [D₁, D₂].
    """

    sums: Tensor
    split: Tensor

    def table(self) -> Tensor:
        """q(z¹_n = i, z²_n = k) = r_{n,i+k} split_ik, shape [U, D₁, D₂]."""
        return self.sums.unfold(1, self.split.shape[1], 1) * self.split

    @property
    def phi1(self) -> Tensor:
        """The marginal q(z¹_n), shape [U, D₁]."""
        return self.table().sum(2)

    @property
    def phi2(self) -> Tensor:
        """The marginal q(z²_n), shape [U, D₂]."""
        return self.table().sum(1)

    def _expected_pairs(self, rows: CountedRows) -> Tensor:
        """E #{n : z¹_n = i, z²_n = k}, shape [D₁, D₂]."""
        return (rows.multiplicity @ self.sums).unfold(0, self.split.shape[1], 1) * self.split

    def expected_counts(self, rows: CountedRows) -> ExpectedCounts:
        """The statistics that the updates of π¹, π² and ρ need."""
        pairs = self._expected_pairs(rows)
        weighted = rows.multiplicity[:, None] * self.sums
        return ExpectedCounts(pairs.sum(1), pairs.sum(0), weighted.T @ rows.counts)

    def entropy(self, rows: CountedRows) -> Tensor:
        """Σ_n m_n H[q(z¹_n, z²_n)] = Σ_n m_n (H[sum] + H[throws | sum])."""
        of_sums = rows.multiplicity @ torch.special.entr(self.sums).sum(1)
        return of_sums - torch.special.xlogy(self._expected_pairs(rows), self.split).sum()


Responsibilities = FactorisedResponsibilities | JointResponsibilities


def expected_log(concentration: Tensor) -> Tensor:
    """E log π_i = ψ(α_i) - ψ(Σα) under Dirichlet(α), shape [..., K] to [..., K]."""
    return torch.digamma(concentration) - torch.digamma(concentration.sum(-1, keepdim=True))


def expected_log_likelihood(rows: CountedRows, q: Concentrations) -> Tensor:
    """L_ns = Σ_v C_nv E log ρ_sv, the log likelihood of row n from die s, shape [U, S]."""
    return rows.counts @ expected_log(q.beta).T


def update_z1(rows: CountedRows, q: Concentrations, phi2: Tensor) -> Tensor:
    """φ¹_ni ∝ exp(E log π¹_i + Σ_k φ²_nk L_{n,i+k}), shape [U, D₁]."""
    by_pair = expected_log_likelihood(rows, q).unfold(1, phi2.shape[1], 1)
    message = (by_pair * phi2[:, None, :]).sum(2)
    return torch.softmax(expected_log(q.alpha1) + message, 1)


def update_z2(rows: CountedRows, q: Concentrations, phi1: Tensor) -> Tensor:
    """φ²_nk ∝ exp(E log π²_k + Σ_i φ¹_ni L_{n,i+k}), shape [U, D₂]."""
    by_pair = expected_log_likelihood(rows, q).unfold(1, phi1.shape[1], 1)
    message = (by_pair * phi1[:, None, :]).sum(2)
    return torch.softmax(expected_log(q.alpha2) + message, 1)


def update_rows_factorised(
    rows: CountedRows, q: Concentrations, phi2: Tensor
) -> FactorisedResponsibilities:
    """φ¹ given φ², then φ² given the new φ¹."""
    phi1 = update_z1(rows, q, phi2)
    return FactorisedResponsibilities(phi1, update_z2(rows, q, phi1))


def update_rows_joint(rows: CountedRows, q: Concentrations) -> JointResponsibilities:
    """r_ns ∝ w_s exp(L_ns) with w the convolution of exp E log π¹ and exp E log π².

    In logarithms throughout: exp E log π_i underflows where α̂_i is small.
    """
    log_pi1, log_pi2 = expected_log(q.alpha1), expected_log(q.alpha2)
    pairs = _complement(log_pi2, log_pi1.shape[0], -torch.inf) + log_pi1
    log_sum = torch.logsumexp(pairs, 1)
    split = torch.exp(log_pi1[:, None] + log_pi2 - log_sum.unfold(0, log_pi2.shape[0], 1))
    sums = torch.softmax(log_sum + expected_log_likelihood(rows, q), 1)
    return JointResponsibilities(sums, split)


def update_globals(
    rows: CountedRows, prior: Concentrations, responsibilities: Responsibilities
) -> Concentrations:
    """Prior plus expected counts: α̂¹, α̂² and β̂."""
    counts = responsibilities.expected_counts(rows)
    return Concentrations(
        prior.alpha1 + counts.sides1, prior.alpha2 + counts.sides2, prior.beta + counts.faces
    )


def _log_normaliser(concentration: Tensor) -> Tensor:
    """A(α) = Σ log Γ(α_i) - log Γ(Σα), summed over the rows of α."""
    total = torch.lgamma(concentration.sum(-1)).sum()
    return torch.lgamma(concentration).sum() - total


def elbo(
    rows: CountedRows,
    prior: Concentrations,
    q: Concentrations,
    responsibilities: Responsibilities,
) -> Tensor:
    """E_q[log p(x, π¹, π², ρ, z¹, z²) - log q], exactly, at any q.

    For each Dirichlet, E log p + its share of the likelihood - E log q is
    (α + expected counts - α̂)·E log π + A(α̂) - A(α); the entropy of q(z) completes it. The rolls
    are ordered: no multinomial coefficient.
    """
    counts = responsibilities.expected_counts(rows)
    value = responsibilities.entropy(rows)
    for before, count, after in zip(prior, counts, q, strict=True):
        slack = before + count - after
        value = value + (slack * expected_log(after)).sum()
        value = value + _log_normaliser(after) - _log_normaliser(before)
    return value

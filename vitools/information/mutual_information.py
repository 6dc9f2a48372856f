"""What x tells of y: I(x; y) = H(x) - H(x | y) = KL(p(x, y) ‖ p(x) p(y)) ≥ 0, in nats.

Exact from a table or a covariance here; from draws of unknown distribution by
:mod:`vitools.information.neighbours`, between bounds where a conditional density is known by
:mod:`vitools.information.bounds`.
"""

from typing import Any

import torch
from torch import Tensor

from vitools.information.neighbours import mutual_information
from vitools.information.tables import apart, checked_covariance, checked_table, marginal, plogp
from vitools.posterior import Estimate

__all__ = [
    "information_table",
    "mutual_information",
    "mutual_information_of_normal",
    "mutual_information_of_table",
]


def mutual_information_of_table(p: Tensor, of: Any = 0, given: Any = 1) -> Estimate:
    """I(x; y) = Σ p(x, y) log p(x, y) / (p(x) p(y)) from a joint table of any dims.

    Args:
        of, given: dims of the table that are x and y, one or several each; others are summed out.

    Example:
        >>> noisy_bit = torch.tensor([[0.45, 0.05], [0.05, 0.45]])  # log 2 less the entropy of 0.1
        >>> print(mutual_information_of_table(noisy_bit))
        0.37 (exact)
    """
    table = checked_table("p", p)
    first, second = apart(of, given, table.dim())
    both = marginal(table, [*first, *second])
    ends = plogp(marginal(table, first)).sum() + plogp(marginal(table, second)).sum()
    return Estimate(float(plogp(both).sum() - ends))


def mutual_information_of_normal(covariance: Tensor, of: Any, given: Any) -> Estimate:
    """½ log (det Σ_xx det Σ_yy / det Σ) of entries of a normal vector.

    Args:
        covariance: of the whole vector, ``[P, P]``.
        of: the entries that are x, one or several.
        given: those that are y.

    Example:
        >>> print(mutual_information_of_normal(torch.tensor([[1.0, 0.8], [0.8, 1.0]]), 0, 1))
        0.51 (exact)
    """
    root = checked_covariance("covariance", covariance)
    matrix = root @ root.mT
    first, second = (list(dims) for dims in apart(of, given, len(root)))

    def log_det(kept: list[int]) -> float:
        return float(torch.linalg.slogdet(matrix[kept][:, kept]).logabsdet)

    return Estimate(0.5 * (log_det(first) + log_det(second) - log_det(first + second)))


def information_table(latents: Tensor, truth: Tensor, neighbours: int = 3) -> Tensor:
    """I(z_k; t_j) of every pair of a latent and a truth by neighbours, [latent_dim, num_truths].

    Args:
        latents: [N, latent_dim], one vector of an encoder's means or draws for each datum.
        truth: [N, num_truths].
    """
    return torch.tensor(
        [[mutual_information(z, t, neighbours).value for t in truth.mT] for z in latents.mT]
    )

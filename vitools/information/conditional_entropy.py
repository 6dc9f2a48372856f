"""Entropy that is left of x when y is known: H(x | y) = -E log p(x | y) = H(x, y) - H(y)."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.errors import OptionError
from vitools.information.entropy import NUM_SAMPLES, entropies
from vitools.information.tables import apart, checked_covariance, checked_table, marginal, plogp
from vitools.posterior import Estimate
from vitools.whole_numbers import check_seed, check_whole


def conditional_entropy(
    conditional: Any, *, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> Estimate:
    """E_y H(p(x | y)) from p(x | y_i) at draws y_1 … y_n of y.

    Args:
        conditional: a distribution whose first batch dim is that of the draws, ``[n, …]``; further
            batch dims are entries of x, independent given y.
        num_samples, seed: of draws of x for each y, where p(x | y) has neither closed form nor
            quadrature.

    Example:
        >>> y = torch.randn(1000, generator=torch.Generator().manual_seed(0))
        >>> x_given_y = torch.distributions.Normal(y, 0.5)  # the same width whatever y
        >>> print(conditional_entropy(x_given_y))
        0.73 (exact)
    """
    check_whole("num_samples", num_samples, 2)
    check_seed(seed)
    if not isinstance(conditional, Distribution):
        raise OptionError(
            "conditional: expected a distribution with a batch of draws of y, got "
            f"{type(conditional).__name__}. Of a table it is conditional_entropy_of_table(p, of, given)."
        )
    if not conditional.batch_shape or conditional.batch_shape[0] < 2:
        raise OptionError(
            "conditional: expected a distribution whose first batch dim holds 2 draws of y or more, "
            f"got batch shape {list(conditional.batch_shape)}."
        )
    each, error = entropies(conditional, num_samples, seed)
    terms = each.flatten(1).sum(1) if each.dim() > 1 else each
    if bool((terms == terms[0]).all()) and not bool(error.any()):
        return Estimate(float(terms[0]))
    return Estimate.of_mean(terms)


def conditional_entropy_of_table(p: Tensor, of: Any = 0, given: Any = 1) -> Estimate:
    """H(x | y) from a joint table of any dims; others than these are summed out.

    Args:
        p: the joint probabilities, a dim for each variable.
        of, given: dims of the table that are x and y, one or several each.

    Example:
        >>> noisy_bit = torch.tensor([[0.45, 0.05], [0.05, 0.45]])
        >>> print(conditional_entropy_of_table(noisy_bit))
        0.33 (exact)
    """
    table = checked_table("p", p)
    first, second = apart(of, given, table.dim())
    both = marginal(table, [*first, *second])
    return Estimate(float(plogp(marginal(table, second)).sum() - plogp(both).sum()))


def conditional_entropy_of_normal(covariance: Tensor, of: Any, given: Any) -> Estimate:
    """½ log det(2πe (Σ_xx - Σ_xy Σ_yy⁻¹ Σ_yx)) of entries of a normal vector given others.

    Args:
        covariance: of the whole vector, ``[P, P]``.
        of: the entries that are x, one or several.
        given: those that are y.
    """
    root = checked_covariance("covariance", covariance)
    matrix = root @ root.mT
    first, second = (list(dims) for dims in apart(of, given, len(root)))
    cross = matrix[first][:, second]
    left = matrix[first][:, first] - cross @ torch.linalg.solve(matrix[second][:, second], cross.mT)
    size = len(first)
    log_det = float(torch.linalg.slogdet(left).logabsdet)
    constant = float(torch.log(torch.tensor(2 * torch.pi).double())) + 1
    return Estimate(0.5 * (size * constant + log_det))

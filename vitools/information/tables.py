"""What is asked of tables of probabilities and of covariances before anything is computed from them."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.whole_numbers import is_whole

SUM_TOLERANCE = 1e-6


def plogp(p: Tensor) -> Tensor:
    """p log p, 0 where p is."""
    return torch.special.xlogy(p, p)


def checked_table(name: str, p: object) -> Tensor:
    """In float64, summing to 1, or an error that names what is wrong."""
    if not isinstance(p, Tensor) or p.is_complex():
        raise OptionError(
            f"{name}: expected a tensor of probabilities, got {type(p).__name__}. "
            "torch.tensor makes one of a list."
        )
    table = p.detach().double()
    if not bool(torch.isfinite(table).all()) or bool((table < 0).any()):
        raise DataError(
            f"{name}: expected probabilities, got some that are negative or not finite. Of draws use "
            "entropy_of_samples or mutual_information."
        )
    total = float(table.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise DataError(
            f"{name}: expected probabilities that sum to 1, got a sum of {total:.6g}. Of counts, "
            "divide them by it."
        )
    return table / total


def checked_dims(name: str, dims: object, count: int) -> tuple[int, ...]:
    """Dims or entries of ``count``, each named once."""
    given = [dims] if is_whole(dims) else dims
    if (
        not isinstance(given, Collection)
        or isinstance(given, str | Tensor)
        or not all(map(is_whole, given))
    ):
        raise OptionError(f"{name}: expected a whole number or several, got {dims!r}.")
    found = tuple(int(d) + count if int(d) < 0 else int(d) for d in given)
    if not found or len(set(found)) < len(found) or not all(0 <= d < count for d in found):
        raise OptionError(
            f"{name}: expected one or more of 0 … {count - 1}, each once, got {dims!r}."
        )
    return found


def apart(of: object, given: object, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two sets of dims that have none in common."""
    first, second = checked_dims("of", of, count), checked_dims("given", given, count)
    both = set(first) & set(second)
    if both:
        raise OptionError(
            f"of, given: expected different dims, got {min(both)} in both. Leave it out of one."
        )
    return first, second


def marginal(table: Tensor, kept: Sequence[int]) -> Tensor:
    """The table of these dims."""
    gone = [d for d in range(table.dim()) if d not in kept]
    return table.sum(gone) if gone else table


def checked_covariance(name: str, covariance: object) -> Tensor:
    """The Cholesky factor of a covariance ``[D, D]`` in float64."""
    if not isinstance(covariance, Tensor):
        raise OptionError(f"{name}: expected a tensor, got {type(covariance).__name__}.")
    matrix = covariance.detach().double()
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise OptionError(f"{name}: expected a square matrix, got shape {list(matrix.shape)}.")
    if not torch.allclose(matrix, matrix.mT, rtol=1e-6, atol=1e-12 * float(matrix.abs().max())):
        raise DataError(
            f"{name}: expected a symmetric matrix, got one that is not. Give (Σ + Σᵀ) / 2."
        )
    root, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise DataError(
            f"{name}: expected a positive definite matrix, got one whose smallest eigenvalue is "
            f"{float(torch.linalg.eigvalsh(matrix)[0]):.3g}. Leave out what others determine."
        )
    return root

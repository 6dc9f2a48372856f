"""Rows of rolls as count vectors, equal rows collapsed.

Row n enters the likelihood only through C_nv = #{j : x_nj = v}, so rows with equal counts have
equal q(z_n) at every coordinate optimum. U ≤ (J+V-1 choose V-1) distinct rows with their
multiplicities m_u carry the whole data set exactly, whatever N is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitools.errors import DataError
from vitools.models.two_dice.prior import check_count

RollsLike = Tensor | np.ndarray | Sequence[Sequence[int]]


class CountedRows(NamedTuple):
    """The distinct count vectors of a data set.

    Attributes:
        counts: C, how often each face fell in each distinct row, shape [U, V], floating.
        multiplicity: m, how many rows of the data have these counts, shape [U], floating.
        row_index: the distinct row of each row of the data, shape [N], so that
            ``counts[row_index]`` are the counts of all rows.
    """

    counts: Tensor
    multiplicity: Tensor
    row_index: Tensor


def check_rolls(rolls: RollsLike, faces: int) -> Tensor:
    """The rolls as an int64 tensor [N, J], or a :class:`DataError` naming the first bad value."""
    try:
        values = torch.as_tensor(rolls)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"site 'rolls': expected a table of integers [rows, rolls] ({error})."
        ) from error
    check_layout(values)
    bad = ((values < 0) | (values >= faces)).nonzero()
    if len(bad):
        row, throw = bad[0].tolist()
        raise DataError(
            f"site 'rolls': probabilities for {faces} faces, observed value "
            f"{values[row, throw].item()} in row {row}, roll {throw} (faces, rows and rolls count "
            f"from 0). Recode the data as 0-{faces - 1}."
        )
    return values.long()


def check_layout(rolls: Tensor) -> None:
    """Refuse what is not an integer tensor [N, J]; looks at no value, so it can be traced."""
    if not isinstance(rolls, Tensor):
        raise DataError(
            "site 'rolls': expected an integer tensor [rows, rolls], got "
            f"{type(rolls).__name__}. Convert it with torch.as_tensor."
        )
    if rolls.ndim != 2 or 0 in rolls.shape:
        raise DataError(
            "site 'rolls': expected one row per pair of throws and one column per roll, "
            f"shape [rows, rolls], got shape {list(rolls.shape)}."
        )
    if rolls.is_floating_point() or rolls.is_complex() or rolls.dtype == torch.bool:
        raise DataError(
            f"site 'rolls': expected integer faces counted from 0, got dtype {rolls.dtype}. "
            "Convert them with .long()."
        )


def distinct_rows(
    rolls: RollsLike, faces: int = 6, *, dtype: torch.dtype = torch.float64
) -> CountedRows:
    """Count the faces in each row and collapse rows with equal counts.

    Args:
        rolls: x, integers in 0, …, V-1, shape [N, J].
        faces: V.
        dtype: of the counts and multiplicities.

    Returns:
        The :class:`CountedRows`, in a fixed order that does not depend on the order of the rows.

    Example:
        >>> rows = distinct_rows([[0, 0, 1], [1, 0, 0], [1, 1, 1]], faces=2)
        >>> rows.counts.tolist(), rows.multiplicity.tolist(), rows.row_index.tolist()
        ([[0.0, 3.0], [2.0, 1.0]], [1.0, 2.0], [1, 1, 0])
    """
    check_count("faces", faces)
    values = check_rolls(rolls, faces)
    counts = values.new_zeros(len(values), faces)
    counts.scatter_add_(1, values, torch.ones_like(values))
    distinct, row_index = unique_rows(counts)
    multiplicity = torch.bincount(row_index, minlength=len(distinct))
    return CountedRows(distinct.to(dtype), multiplicity.to(dtype), row_index)


def unique_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of a table of non-negative int64, sorted, and where each row went.

    Equal to ``torch.unique(table, dim=0, return_inverse=True)``, but sorts one integer per row
    in place of vectors: the columns are digits of a number, and whenever the next digit would
    overflow, the numbers so far are replaced by their ranks.
    """
    code = table.new_zeros(len(table))
    size = 1
    for column, span in zip(table.T, (table.amax(0) + 1).tolist(), strict=True):
        if size * span >= 2**63:
            distinct, code = torch.unique(code, return_inverse=True)
            size = len(distinct)
        code = code * span + column
        size *= span
    distinct, index = torch.unique(code, return_inverse=True)
    example = torch.empty_like(distinct).scatter_(0, index, torch.arange(len(table)).to(index))
    return table[example], index

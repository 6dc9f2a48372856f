"""From columns as a user has them to what a model needs: real numbers, codes from 0, one table."""

import torch
from torch import Tensor

from vitools.errors import DataError


def as_real(name: str, values: Tensor, like: Tensor | None = None) -> Tensor:
    """Floats as they are, integers and booleans as float64; in the type of ``like`` if given."""
    if not isinstance(values, Tensor) or values.is_complex():
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise DataError(f"{name}: expected a tensor of numbers, got {got}.")
    real = values if values.is_floating_point() else values.double()
    if not bool(real.isfinite().all()):
        where = (~real.isfinite()).nonzero()[0].tolist()
        raise DataError(
            f"{name}: {real[tuple(where)].item()} in row {where[0]} (counting from 0), and a finite "
            "number is expected. Remove the row, or fill the value in."
        )
    return real if like is None else real.to(like)


def as_column(name: str, values: Tensor, num_rows: int | None = None) -> Tensor:
    """One real number for each row, ``[num_rows]``."""
    real = as_real(name, values)
    if real.dim() != 1 or not len(real) or num_rows not in (None, len(real)):
        rows = "rows" if num_rows is None else num_rows
        raise DataError(
            f"{name}: expected shape [{rows}], one number for each row, got {list(real.shape)}."
        )
    return real


def as_table(name: str, values: Tensor, like: Tensor | None = None) -> Tensor:
    """Real numbers ``[rows, columns]``; a single column may come as ``[rows]``."""
    real = as_real(name, values, like)
    table = real[:, None] if real.dim() == 1 else real
    if table.dim() != 2 or 0 in table.shape or (like is not None and len(table) != len(like)):
        rows = "rows" if like is None else len(like)
        raise DataError(f"{name}: expected shape [{rows}, columns], got {list(real.shape)}.")
    return table


def as_codes(
    name: str, values: Tensor, num_rows: int, *, least: int = 2, among: Tensor | None = None
) -> tuple[Tensor, int]:
    """Codes ``[num_rows]`` from 0 of whole numbers, in their order, and how many there are.

    Args:
        among: the values of all rows, in their order, where these are some of them.

    >>> as_codes("group", torch.tensor([308, 350, 308]), 3)
    (tensor([0, 1, 0]), 2)
    """
    column = as_column(name, values, num_rows)
    if bool((column != column.round()).any()):
        row = int((column != column.round()).nonzero()[0])
        raise DataError(
            f"{name}: {column[row].item()} in row {row} (counting from 0), and whole numbers or words "
            f"are expected, which say the {name} of a row."
        )
    found = torch.unique(column) if among is None else among
    if len(found) < least:
        raise DataError(
            f"{name}: expected at least {least} different values, got {len(found)} in {num_rows} "
            f"rows. Is another column the {name}?"
        )
    codes = torch.searchsorted(found, column).clamp(max=len(found) - 1)
    unseen = (found[codes] != column).nonzero()
    if len(unseen):
        row = int(unseen[0])
        raise DataError(
            f"{name}: {column[row].item():g} in row {row} (counting from 0) is none of the {len(found)} values "
            "that the facts of all rows have. Make these of all rows.",
            row=row,
        )
    return codes, len(found)


def spread_of(name: str, column: Tensor) -> Tensor:
    """Standard deviation of each column ``[rows, …]``; columns that do not vary are refused."""
    if len(column) < 2:
        raise DataError(f"{name}: expected at least 2 rows, got {len(column)}.")
    spread = column.std(0)
    if bool((spread <= 0).any()):
        place = (
            f", column {int((spread <= 0).nonzero()[0])} (counting from 0)" if spread.dim() else ""
        )
        raise DataError(f"{name}{place}: all values are equal, and so say nothing. Leave it out.")
    return spread

"""From the columns of a data file to the arguments of a model, matched by name."""

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitools.data import read_table
from vitools.errors import DataError, OptionError, VitoolsError
from vitools.problem import Problem
from vitools.problem.sites import nearest

ALIKE = 0.85
"""Share of letters in common from which a column's name is taken for that of an argument."""


def bind(function: Callable[..., Any], data: Path | None, model: str) -> Problem:
    """The problem of ``function`` on the columns of ``data``.

    A csv file says nothing of types. Its numbers are given as float64; a model that refuses those
    gets the columns of whole numbers as int64, so that it can index with them, and the others in
    torch's default dtype, so that they meet tensors the model itself makes.
    """
    if data is None:
        needed = _required(function)
        if needed:
            raise OptionError(
                f"{model} needs data for {', '.join(map(repr, needed))}, got none. Give a csv or "
                "npz file with columns of these names: --data FILE."
            )
        return Problem(function)
    arguments = _arguments(function, _columns(data), data, model)
    try:
        return Problem(function, **arguments)
    except VitoolsError as error:
        for others in _other_types(arguments):
            with contextlib.suppress(VitoolsError):
                return Problem(function, **others)
        given = ", ".join(
            f"{name} ({str(value.dtype).removeprefix('torch.')} {list(value.shape)})"
            for name, value in arguments.items()
        )
        raise type(error)(f"{error} From '{data}' the model was given {given}.") from error


def _other_types(arguments: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The same values in other types, as far as they differ from those and from each other."""
    integers = {name: _as_integers(value) for name, value in arguments.items()}
    tried = [arguments]
    for found in (integers, _in_default_dtype(arguments), _in_default_dtype(integers)):
        types = [value.dtype for value in found.values()]
        if all(types != [value.dtype for value in other.values()] for other in tried):
            tried.append(found)
            yield found


def _in_default_dtype(arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    dtype = torch.get_default_dtype()
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in arguments.items()}


def _arguments(
    function: Callable[..., Any], columns: dict[str, Tensor], data: Path, model: str
) -> dict[str, Tensor]:
    """Each column for the argument of its name; a model that takes ``**kwargs`` gets them all.

    A model with one required argument that no column is named after gets the columns that are
    not arguments as a table, ``[rows, columns]``, or ``[rows]`` where there is but one.
    """
    parameters = _parameters(function)
    names = [
        p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        names += [name for name in columns if name not in names]
    required = _required(function)
    given = {name: columns[name] for name in names if name in columns}
    rest = {name: column for name, column in columns.items() if name not in given}
    missing = [name for name in required if name not in given] or ([] if given else names[:1])
    optional = [name for name in names if name not in given and name not in required]
    _refuse_mistyped(rest, optional, data, model)
    if len(required) == 1 and missing and rest and all(c.dim() == 1 for c in rest.values()):
        return {required[0]: torch.stack(list(rest.values()), -1).squeeze(-1)} | given
    if missing:
        raise DataError(
            f"'{data}' has no column '{missing[0]}', which {model} needs (columns: "
            f"{', '.join(columns)}; arguments: {', '.join(names)}).{nearest(missing[0], columns)} "
            "Rename the column, or the argument."
        )
    return given


def _refuse_mistyped(
    columns: Iterable[str], arguments: Iterable[str], data: Path, model: str
) -> None:
    """A column of almost the name of an argument that has a default is a slip of the pen.

    The fit would go without it, unsaid. Other columns that the model has no use for may stay.
    """
    for column in columns:
        for argument in arguments:
            if SequenceMatcher(None, column.casefold(), argument.casefold()).ratio() >= ALIKE:
                raise DataError(
                    f"'{data}' has a column '{column}', which {model} does not take. Did you mean "
                    f"'{argument}'? Rename the column, or take it out."
                )


def _required(function: Callable[..., Any]) -> list[str]:
    """Names of the arguments without a default."""
    kinds = inspect.Parameter
    parameters = _parameters(function).values()
    unnamed = [p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY]
    if unnamed:
        raise OptionError(
            f"argument '{unnamed[0]}' of the model is positional only, and columns are matched by "
            "name. Remove the '/' from its signature."
        )
    starred = (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in starred]


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    # a module is called through torch's own wrapper, which takes anything
    called = function.forward if isinstance(function, torch.nn.Module) else function
    return inspect.signature(called).parameters


def _columns(data: Path) -> dict[str, Tensor]:
    columns = {}
    for name, array in read_table(data).items():
        try:
            # torch reads the machine's own byte order only, and wants to own what it reads
            columns[name] = torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
        except TypeError as error:
            raise DataError(
                f"'{data}', column '{name}': torch has no dtype for {array.dtype}. Store it as "
                "float64 or int64."
            ) from error
    return columns


def _as_integers(value: Tensor) -> Tensor:
    is_whole = value.is_floating_point() and bool((value == value.round()).all())
    return value.long() if is_whole else value

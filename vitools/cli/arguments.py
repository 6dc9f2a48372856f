"""From the columns of a data file to the arguments of a model, matched by name."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitools.cli.given import check_settings, parameters_of, parsed_columns, parsed_settings
from vitools.cli.progress import status_line
from vitools.data import MappedTable, Table, column_names, open_table, read_table
from vitools.data.open_table import files_of, is_pattern
from vitools.errors import (
    DataError,
    ModelError,
    OptionError,
    VitoolsError,
    VitoolsWarning,
    callers_level,
)
from vitools.missing import MissingPolicy
from vitools.problem import Problem
from vitools.problem.sites import listed, nearest, nearest_name

ALIKE = 0.85
"""Share of letters in common from which a column's name is taken for that of an argument."""

MOST_WHOLE = 8
"""Columns of whole numbers among which the one that a model needs as such is looked for."""

LARGE = 2**28
"""Bytes of a file from which it is mapped rather than read into memory."""

PART = 2**16
"""Rows that are looked at together."""

Chosen = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class DataFile:
    """``--data``, ``--columns`` and ``--missing``: files, or none, and how they are to be read.

    Attributes:
        path: a file, or a pattern of the names of several.
        quiet: whether nobody is told how far the reading is.
        rank, num_ranks: which of so many equal parts of the rows.
        settings: arguments of the model that are no columns, ``--set``.
    """

    path: Path | None = None
    columns: Chosen = field(default_factory=dict)
    missing: MissingPolicy = "refuse"
    quiet: bool = False
    rank: int = 0
    num_ranks: int = 1
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        path: Path | None,
        columns: list[str] | None,
        missing: MissingPolicy,
        quiet: bool = False,
        settings: list[str] | None = None,
    ) -> "DataFile":
        """As the options say."""
        named, values = parsed_columns(columns), parsed_settings(settings)
        for name in named.keys() & values.keys():
            raise OptionError(
                f"--set {name}: --columns names a column for it. Leave one of both out."
            )
        if path is None and named:
            raise OptionError(f"--columns {columns[0]}: of which file? Add --data FILE.")  # type: ignore[index]
        return cls(path, named, missing, quiet, settings=values)

    def refuse_choices(self, subject: str) -> None:
        """Raise where columns are chosen of what has none."""
        if self.columns or self.missing != "refuse":
            option = "--columns" if self.columns else "--missing"
            raise OptionError(f"{option} is for a file of columns, and {subject} is none.")


def example_arguments(example: Any, settings: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The keyword arguments of an example's model, some of them set."""
    names = [name for name, _ in zip(parameters_of(example.model), example.args, strict=False)]
    check_settings(example.model, settings, model, taken=names)
    return {**example.kwargs, **settings}


def bind(function: Callable[..., Any], data: DataFile, model: str) -> Problem:
    """The problem of ``function`` on the columns of a file, labelled where columns were words.

    The model is given whole numbers and booleans as such. One that refuses those gets them as float64,
    all but one or all, and then in torch's default dtype, so that they meet tensors it makes itself.
    """
    check_settings(function, data.settings, model)
    if data.path is None:
        needed = [name for name in _required(function) if name not in data.settings]
        if needed:
            raise OptionError(
                f"{model} needs data for {', '.join(map(repr, needed))}, got none. Give a csv or "
                "npz file with columns of these names: --data FILE."
            )
        return Problem(function, **data.settings)
    masks = _mask_arguments(function) if data.missing == "mask" else set()
    chosen = _chosen(function, data, model, masks)
    table = _table(data, chosen)
    masks -= chosen.keys()
    if data.missing == "mask":
        _refuse_unmasked(table, masks, data.path, model)
    _say_changes(table, data.path)
    arguments = table.tensors | _masks(table, masks)
    try:
        problem = _built(
            partial(Problem, function, **data.settings),
            arguments,
            data.path,
            set(table.labels) | masks,
        )
    except DataError as error:
        if error.row is None or not isinstance(table, MappedTable):
            raise
        raise DataError(f"{error} It stands in {table.place(error.row)}.") from error
    return problem.with_coords(**_coords(problem, table))


def _table(data: DataFile, chosen: Chosen) -> Table:
    """In memory, or mapped where there are many files or one that is large."""
    assert data.path is not None
    is_whole = data.num_ranks == 1
    if is_whole and not is_pattern(data.path) and data.path.stat().st_size < LARGE:
        return read_table(data.path, chosen, missing=data.missing)
    with status_line("opening", data.quiet) as say:
        return open_table(
            data.path,
            chosen,
            missing=data.missing,
            rank=data.rank,
            num_ranks=data.num_ranks,
            progress=say or _nobody,
        )


def _nobody(text: str) -> None:
    pass


# ---- number types ------------------------------------------------------------------------


def _built(
    problem: Callable[..., Problem], arguments: dict[str, Tensor], path: Path, settled: set[str]
) -> Problem:
    """The problem of these arguments in the first types that the model takes; else the error that says most."""
    refusals: list[tuple[VitoolsError, dict[str, Tensor]]] = []
    for typed in _types(arguments, settled):
        try:
            return problem(**typed)
        except VitoolsError as error:
            refusals.append((error, typed))
    # what ails the data is said by the types the model would take; others fail within the model
    of_data = [refusal for refusal in refusals if not isinstance(refusal[0], ModelError)]
    reason, typed = (of_data or refusals)[0]
    given = ", ".join(
        f"{name} ({str(value.dtype).removeprefix('torch.')} {list(value.shape)})"
        for name, value in typed.items()
    )
    words = f"{reason} From '{path}' the model was given {given}."
    if isinstance(reason, DataError):
        raise DataError(words, row=reason.row) from reason
    raise type(reason)(words) from reason


def _types(arguments: dict[str, Tensor], settled: set[str]) -> Iterator[dict[str, Tensor]]:
    """The same values in one choice of types after another, each once.

    ``settled``: labels' codes and masks, which become floats last of all.
    """
    given = {name: value.dtype for name, value in arguments.items()}
    whole = [k for k, v in arguments.items() if not v.is_floating_point() and k not in settled]
    exact = [k for k, v in arguments.items() if v.is_floating_point() and _is_whole(v)]
    few = whole if len(whole) <= MOST_WHOLE else []
    choices = [
        given,
        given | dict.fromkeys(whole, torch.float64),
        *(given | dict.fromkeys([k for k in whole if k != kept], torch.float64) for kept in few),
        given | dict.fromkeys(exact, torch.int64),
        dict.fromkeys(given, torch.float64),
    ]
    default = torch.get_default_dtype()
    choices += [
        {name: default if kind.is_floating_point else kind for name, kind in choice.items()}
        for choice in choices
    ]
    tried: set[tuple[torch.dtype, ...]] = set()
    for choice in choices:
        if tuple(choice.values()) not in tried:
            tried.add(tuple(choice.values()))
            yield {name: arguments[name].to(kind) for name, kind in choice.items()}


def _is_whole(value: Tensor) -> bool:
    return all(bool((part == part.round()).all()) for part in value.split(PART))


# ---- which column for which argument -----------------------------------------------------


def _chosen(function: Callable[..., Any], data: DataFile, model: str, masks: set[str]) -> Chosen:
    """Each argument's column: the one that ``--columns`` says, else the one of its name.

    A model that takes ``**kwargs`` gets all columns. A model with one required argument that no column
    is named after gets the columns that are not arguments as a table, where they are more than one.
    """
    assert data.path is not None
    columns = column_names(files_of(data.path)[0])
    parameters = parameters_of(function).values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [name for name in names if name not in data.settings]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = dict(data.columns)
    for argument, chosen in given.items():
        if argument not in names and not takes_any:
            raise OptionError(
                f"--columns {argument}={chosen[0]}: {model} has no argument '{argument}' (arguments: "
                f"{', '.join(names) or 'none'}).{nearest(argument, names)}"
            )
    used = {column for chosen in given.values() for column in chosen}
    if takes_any and not given:
        names += [name for name in columns if name not in names]
    given |= {name: (name,) for name in names if name not in given and name in columns}
    rest = [column for column in columns if column not in used and column not in given]
    required = [n for n in _required(function) if n not in masks and n not in data.settings]
    missing = [name for name in required if name not in given] or ([] if given else names[:1])
    optional = [name for name in names if name not in given and name not in required]
    _refuse_mistyped(rest, optional, data.path, model)
    if missing == required[:1] == required and len(rest) > 1 and data.path.suffix != ".npz":
        return {required[0]: tuple(rest)} | given
    if missing:
        column = nearest_name(missing[0], columns) or (rest or ["COLUMN"])[0]
        option = f"{missing[0]}={column}"
        raise DataError(
            f"'{data.path}' has no column '{missing[0]}', which {model} needs (columns: "
            f"{', '.join(columns)}; arguments: {', '.join(names)}).{nearest(missing[0], columns)} Rename the column, or say "
            f"which it is: --columns {repr(option) if ' ' in option else option}."
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
    parameters = parameters_of(function).values()
    unnamed = [p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY]
    if unnamed:
        raise OptionError(
            f"argument '{unnamed[0]}' of the model is positional only, and columns are matched by "
            "name. Remove the '/' from its signature."
        )
    starred = (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in starred]


# ---- missing values ----------------------------------------------------------------------


def _mask_arguments(function: Callable[..., Any]) -> set[str]:
    """``mask``, for rows, and ``{argument}_mask``, of that argument's shape."""
    names = set(parameters_of(function))
    return {n for n in names if n == "mask" or n.removesuffix("_mask") in names - {n}}


def _refuse_unmasked(table: Table, masks: set[str], path: Path, model: str) -> None:
    for argument, count in table.missing.items():
        if "mask" not in masks and f"{argument}_mask" not in masks:
            raise OptionError(
                f"--missing mask: '{path}' lacks {count} values of '{argument}', and {model} has no "
                f"argument 'mask' (or '{argument}_mask') to be told where. Give it one, for "
                "poutine.mask, or choose --missing drop."
            )


def _masks(table: Table, masks: set[str]) -> dict[str, Tensor]:
    """The masks a model asks for, true where there are values; ``mask`` counts what has none of its own."""
    own = {n: table.masks[a] for n in masks if (a := n.removesuffix("_mask")) in table.masks}
    if "mask" in masks:
        rows = [
            mask.reshape(len(mask), -1).all(1)
            for argument, mask in table.masks.items()
            if mask.dim() and f"{argument}_mask" not in own
        ]
        lengths = {len(mask) for mask in rows}
        if len(lengths) == 1:
            own["mask"] = torch.stack(rows).all(0)
    return own


# ---- labels ------------------------------------------------------------------------------


def _say_changes(table: Table, path: Path) -> None:
    """Words that became codes, which are right for a factor and little else, and what is missing."""
    for argument, labels in table.labels.items():
        codes = [f"{label} = {code}" for code, label in enumerate(labels)]
        warnings.warn(
            f"'{path}': the words of '{argument}' stand as codes: {listed(codes)}.",
            VitoolsWarning,
            stacklevel=callers_level(),
        )
    said = ""
    if table.dropped:
        is_one = table.dropped == 1
        said = (
            "1 row that lacks a value is"
            if is_one
            else f"{table.dropped} rows that lack a value are"
        )
        said += " left out"
    elif table.masks and table.missing:
        counts = ", ".join(f"{argument} {count}" for argument, count in table.missing.items())
        said = f"values that are missing are masked: {counts}"
    if said:
        warnings.warn(f"'{path}': {said}.", VitoolsWarning, stacklevel=callers_level())


def _coords(problem: Problem, table: Table) -> dict[str, tuple[str, ...]]:
    """For each plate or other dim, the labels of the one column whose number fits it.

    Of several that fit, the one that shares its name with the plate. Whole numbers label a plate only
    where they do: the groups 308, 309, … of a column ``group`` the plate *groups*.
    """
    found = {}
    for dim, size in problem.dims.items():
        fitting = [argument for argument, own in table.labels.items() if len(own) == size]
        named = [a for a in fitting if a.casefold() in dim.casefold()]
        if len(fitting) == 1 or len(named) == 1:
            found[dim] = table.labels[(named or fitting)[0]]
        elif not fitting:
            numbers = [v for a, v in table.tensors.items() if a in dim and v.dtype == torch.int64]
            values = [torch.unique(v) for v in numbers if v.dim() == 1]
            if len(values) == 1 and len(values[0]) == size:
                found[dim] = tuple(map(str, values[0].tolist()))
    return found

"""From what the user typed, MODEL and --data, to a problem."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitools.data import read_table
from vitools.errors import DataError, FileError, ModelError, OptionError
from vitools.models import SHIPPED
from vitools.problem import Problem
from vitools.sites import nearest


@dataclass(frozen=True)
class Target:
    """What a command works on."""

    problem: Problem
    description: str
    guide: Any = None
    learning_rate: float | None = None
    pictures: Callable[[], dict[str, Any]] | None = None


def open_target(model: str, data: Path | None, seed: int) -> Target:
    """A shipped model by name, or ``path/to/file.py:function`` with ``--data``."""
    if ":" in model or model.endswith(".py"):
        function = _load_function(model)
        kwargs = _arguments(function, data, model) if data is not None else {}
        return Target(Problem(function, **kwargs), f"data from {data}" if data else "no data file")
    if model not in SHIPPED:
        raise OptionError(
            f"no shipped model '{model}' (shipped: {', '.join(SHIPPED)}).{nearest(model, SHIPPED)} "
            "For your own, give path/to/file.py:function."
        )
    example = SHIPPED[model].build(seed)
    if data is not None:
        kwargs = _arguments(example.model, data, model)
        return Target(Problem(example.model, **kwargs), f"data from {data}")
    problem = Problem(example.model, *example.args, **example.kwargs)
    return Target(
        problem, example.description, example.guide, example.learning_rate, example.pictures
    )


def _load_function(model: str) -> Callable[..., Any]:
    path_text, _, name = model.rpartition(":")
    if not path_text or not name:
        raise OptionError(f"'{model}': expected path/to/file.py:function, e.g. {model}:model.")
    path = Path(path_text)
    if not path.is_file():
        raise FileError(f"no file '{path}'.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileError(f"'{path}' is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelError(f"'{path}' raised {type(error).__name__} on import: {error}.") from error
    finally:
        sys.path.pop(0)
    function = getattr(module, name, None)
    if not callable(function):
        found = [k for k, v in vars(module).items() if inspect.isfunction(v)]
        raise OptionError(
            f"'{path}' has no function '{name}' (functions: {', '.join(found) or 'none'})."
            f"{nearest(name, found)}"
        )
    return function


def _arguments(function: Callable[..., Any], data: Path, model: str) -> dict[str, Tensor]:
    """The file's columns as the model's arguments, matched by name.

    A model with one required argument that no column is named after gets the whole table,
    ``[rows, columns]``.
    """
    columns = {name: torch.as_tensor(array) for name, array in read_table(data).items()}
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in named if p.default is p.empty]
    missing = [name for name in required if name not in columns]
    if len(required) == 1 and missing and all(c.dim() == 1 for c in columns.values()):
        return {required[0]: torch.stack(list(columns.values()), -1).squeeze(-1)}
    if missing:
        raise DataError(
            f"'{data}' has no column '{missing[0]}', which {model} needs (columns: "
            f"{', '.join(columns)}; arguments: {', '.join(p.name for p in named)})."
            f"{nearest(missing[0], columns)}"
        )
    return {p.name: columns[p.name] for p in named if p.name in columns}

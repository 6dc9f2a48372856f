"""What the command line gives a model besides its data: columns and settings."""

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from vitools.errors import (
    OptionError,
)
from vitools.problem.sites import nearest


def parsed_columns(given: list[str] | None) -> dict[str, tuple[str, ...]]:
    """``ARGUMENT=COLUMN`` as ``{argument: columns}``.

    >>> parsed_columns(["y=height cm", "x=age", "x=dose"])
    {'y': ('height cm',), 'x': ('age', 'dose')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in given or ():
        argument, equals, column = (part.strip() for part in text.partition("="))
        if not (argument and equals and column):
            raise OptionError(
                f"--columns '{text}': expected ARGUMENT=COLUMN, e.g. --columns 'y=height cm'."
            )
        if column in found.get(argument, ()):
            raise OptionError(f"--columns '{text}' is given twice.")
        found[argument] = (*found.get(argument, ()), column)
    return found


def parsed_settings(given: list[str] | None) -> dict[str, Any]:
    """``ARGUMENT=VALUE`` as ``{argument: value}``; what Python reads as no value is a word.

    >>> parsed_settings(["states=3", "levels=[-1, 0.5]", "kind=local"])
    {'states': 3, 'levels': tensor([-1.0000,  0.5000]), 'kind': 'local'}
    """
    found: dict[str, Any] = {}
    for text in given or ():
        argument, equals, written = (part.strip() for part in text.partition("="))
        if not (argument and equals and written):
            raise OptionError(f"--set '{text}': expected ARGUMENT=VALUE, e.g. --set states=3.")
        if argument in found:
            raise OptionError(f"--set '{text}': '{argument}' is given twice.")
        try:
            value = ast.literal_eval(written)
        except (ValueError, SyntaxError):
            value = written
        if isinstance(value, list):
            try:
                value = torch.tensor(value)
            except (TypeError, ValueError) as error:
                raise OptionError(f"--set '{text}': expected a list of numbers.") from error
        found[argument] = value
    return found


def check_settings(
    function: Callable[..., Any], settings: Mapping[str, Any], model: str, taken: Iterable[str] = ()
) -> None:
    """Refuse values for what is no argument of the model.

    Args:
        taken: arguments that have values already.
    """
    parameters = parameters_of(function).values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in settings:
        if name not in names and not takes_any:
            raise OptionError(
                f"--set {name}: {model} has no argument '{name}' (arguments: "
                f"{', '.join(names) or 'none'}).{nearest(name, names)}"
            )
        if name in taken:
            raise OptionError(
                f"--set {name}: '{name}' is the data that {model} is tried on. Give data of your own: --data FILE."
            )


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    # a module is called through torch's own wrapper, which takes anything
    called = function.forward if isinstance(function, torch.nn.Module) else function
    return inspect.signature(called).parameters

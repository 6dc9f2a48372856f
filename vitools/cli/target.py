"""From what the user typed, MODEL and --data, to a problem."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from vitools.cli.arguments import bind
from vitools.errors import FileError, ModelError, OptionError
from vitools.models import SHIPPED
from vitools.problem import Problem
from vitools.sites import nearest


@dataclass(frozen=True)
class Target:
    """What a command works on; what a model brings along is said at ``vitools.models.Example``."""

    problem: Problem
    description: str
    guide: Any = None
    learning_rate: float | None = None
    pictures: Callable[[], dict[str, Any]] | None = None


def open_target(model: str, data: Path | None, seed: int) -> Target:
    """A shipped model by name, or ``path/to/file.py:function`` with ``--data``."""
    description = f"data from {data}"
    if ":" in model or model.endswith(".py"):
        problem = bind(_load_function(model), data, model)
        return Target(problem, description if data is not None else "no data file")
    if model not in SHIPPED:
        raise OptionError(
            f"no shipped model '{model}' (shipped: {', '.join(SHIPPED)}).{nearest(model, SHIPPED)} "
            "For your own, give path/to/file.py:function."
        )
    example = SHIPPED[model].build(seed)
    if data is not None:
        problem = bind(example.model, data, model)
        return Target(problem, description, example.guide, example.learning_rate)
    problem = Problem(example.model, *example.args, **example.kwargs)
    return Target(
        problem, example.description, example.guide, example.learning_rate, example.pictures
    )


def _load_function(model: str) -> Callable[..., Any]:
    path_text, _, name = model.rpartition(":")
    if not path_text or not name:
        example = f"{model}:model" if model.endswith(".py") else "mymodel.py:model"
        raise OptionError(f"'{model}': expected path/to/file.py:function, e.g. {example}.")
    path = Path(path_text)
    if not path.is_file():
        neighbours = [str(other) for other in path.parent.glob("*.py")]
        raise FileError(
            f"no file '{path}'; expected the Python file with the model."
            f"{nearest(str(path), neighbours)}"
        )
    module = _import(path)
    function = getattr(module, name, None)
    if inspect.isclass(function):
        raise OptionError(
            f"'{name}' in '{path}' is a class; expected a function or an instance. "
            f"Add a line such as `model = {name}()` and give {path}:model."
        )
    if not callable(function):
        found = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        raise OptionError(
            f"'{path}' has no function '{name}' (functions: {', '.join(found) or 'none'})."
            f"{nearest(name, found)}"
        )
    return function


def _import(path: Path) -> ModuleType:
    # its own name, so that a model.py or random.py hides no module of that name
    spec = importlib.util.spec_from_file_location(f"model file {path.stem}", path)
    if spec is None or spec.loader is None:
        raise FileError(f"'{path}' does not end in .py; expected a Python file. Rename it.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses, among others, look themselves up there
    folder = str(path.parent.resolve())
    if folder not in sys.path:  # as for a script: the model may import its neighbours as it runs
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"'{path}' raised {type(error).__name__} on import: {error}. Check that "
            f"`python {path}` runs."
        ) from error
    return module

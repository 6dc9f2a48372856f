"""From what the user typed, MODEL and --data, to a problem."""

import copy
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import torch

from vitools.cli.arguments import DataFile, bind, example_arguments
from vitools.errors import FileError, ModelError, OptionError
from vitools.models import SHIPPED, Example
from vitools.problem import Problem
from vitools.problem.sites import nearest


@dataclass(frozen=True)
class Target:
    """What a command works on; what a model brings along is said at ``vitools.models.Example``.

    ``is_amortised``: the model comes with a guide without which it is of no use (an encoder).
    ``nested``: sites that coordinate ascent nests; it chooses if None.
    ``batch_rows``: rows that coordinate ascent takes at a time; all if None.
    ``sharded``: the plate of which every process has some rows; None where one has all.
    ``untrained``: the networks whose method the guide is, as they were: a fit trains its own in place.
    """

    problem: Problem
    description: str
    guide: Any = None
    learning_rate: float | None = None
    is_amortised: bool = False
    pictures: Callable[[Any], dict[str, Any]] | None = None
    validation: tuple[Any, ...] = ()
    held_out: tuple[Any, ...] = ()
    batch_rows: int | None = None
    nested: tuple[str, ...] | None = None
    sharded: str | None = None
    untrained: Any = field(init=False)

    def __post_init__(self) -> None:
        found = getattr(self.guide, "__self__", None)
        untrained = copy.deepcopy(found) if isinstance(found, torch.nn.Module) else None
        object.__setattr__(self, "untrained", untrained)  # the rest stays frozen


def open_target(
    model: str, data: DataFile, seed: int, guide: str = "", *, formula: str = "", family: str = ""
) -> Target:
    """A shipped model by name, ``path/to/file.py:function`` with ``--data``, or a formula.

    Args:
        guide: ``path/to/file.py:name`` of a guide of the user's.
        formula: in the place of ``model``, with the ``family`` of its response (gaussian if "").
    """
    modules: dict[Path, ModuleType] = {}  # a guide in the model's file shares its modules
    own = _load_function(guide, modules, "--guide ") if guide else None
    described = "no data file" if data.path is None else f"data from {data.path}"
    if formula:
        return _of_formula(model, data, formula, family, described, own)
    if family:
        raise OptionError(f"--family {family}: of which response? Add --formula 'y ~ …'.")
    if not model:
        raise OptionError(
            "expected MODEL, a shipped name (vitools list) or path/to/file.py:function, or --formula 'y ~ …'."
        )
    if ":" in model or model.endswith(".py"):
        return Target(bind(_load_function(model, modules), data, model), described, own)
    if model not in SHIPPED:
        raise OptionError(
            f"no shipped model '{model}' (shipped: {', '.join(SHIPPED)}).{nearest(model, SHIPPED)} "
            "For your own, give path/to/file.py:function."
        )
    is_folder = data.path is not None and data.path.is_dir()
    if is_folder:
        data.refuse_choices(f"the folder '{data.path}'")
    example = _example_on(model, data.path, seed) if is_folder else SHIPPED[model].build(seed)
    is_own = data.path is None or is_folder
    if is_own:
        chosen = example_arguments(example, data.settings, model)
        problem = Problem(example.model, *example.args, **chosen)
        problem, described = problem.with_coords(**example.coords), example.description
    else:
        problem = bind(example.model, data, model)
    if own is not None:
        return Target(problem, described, own)
    return Target(
        problem,
        described,
        example.guide,
        example.learning_rate,
        nested=example.nested,
        is_amortised=example.guide is not None,
        # an encoder's show the images it was made for; others read all they show from the fit
        pictures=example.pictures if is_own or example.guide is None else None,
        validation=example.validation if is_own else (),
        held_out=example.held_out if is_own else (),
    )


def _of_formula(
    model: str, data: DataFile, formula: str, family: str, described: str, guide: Any
) -> Target:
    """The problem of a formula on the columns that it names."""
    from vitools.formula import from_formula

    if model:
        raise OptionError(f"'{model}' and --formula are two models. Leave one out.")
    if data.path is None:
        raise OptionError(f"--formula '{formula}': of which columns? Add --data FILE.")
    if data.columns:
        raise OptionError(
            "--columns is for the arguments of a model; a formula names columns itself, between "
            "backquotes where they have spaces: 'y ~ `height cm`'."
        )
    if data.settings:
        raise OptionError(
            f"--set {next(iter(data.settings))}: a formula has no arguments. Write the number into it."
        )
    if data.missing == "mask":
        raise OptionError(
            "--missing mask is for models with an argument 'mask'. Use --missing drop."
        )
    problem = from_formula(formula, data.path, family or "gaussian", missing=data.missing)
    return Target(problem, described, guide, pictures=partial(_effects_in_order, problem.effects))


def _effects_in_order(effects: Mapping[str, list[str]], posterior: Any) -> dict[str, Any]:
    """A picture of the effects of each block of groups, by site and names of its columns."""
    from vitools.models.pictures import plot_effects

    found = {}
    for name, titles in effects.items():
        stem = "".join(c if c.isalnum() else "_" for c in name).strip("_")
        found[f"effects_{stem}"] = plot_effects(posterior, name, titles=titles)
    return found


def _example_on(model: str, folder: Any, seed: int) -> Example:
    """A shipped model built for the data of a folder, which not all can be."""
    shipped = SHIPPED[model]
    build = getattr(importlib.import_module(shipped.module), shipped.example)
    if "folder" not in inspect.signature(build).parameters:
        raise OptionError(
            f"'{folder}' is a folder, and {model} takes a file of columns. Name a file in it."
        )
    return build(seed, folder=folder)


def load_function(model: str) -> Callable[..., Any]:
    """The function of ``path/to/file.py:name``."""
    if ":" not in model and not model.endswith(".py"):
        raise OptionError(
            f"'{model}': expected path/to/file.py:function, a model that is called with a design. "
            "Shipped models are called with their data."
        )
    return _load_function(model, {})


def _load_function(
    model: str, modules: dict[Path, ModuleType], option: str = ""
) -> Callable[..., Any]:
    """The function of ``path:name``; a guide may be a class, which is called with the model."""
    path_text, _, name = model.rpartition(":")
    if not path_text or not name:
        example = f"{model}:model" if model.endswith(".py") else "mymodel.py:model"
        raise OptionError(f"{option}'{model}': expected path/to/file.py:function, e.g. {example}.")
    path = Path(path_text)
    if not path.is_file():
        neighbours = [str(other) for other in path.parent.glob("*.py")]
        raise FileError(
            f"no file '{path}'; expected the Python file with the {'guide' if option else 'model'}."
            f"{nearest(str(path), neighbours)}"
        )
    if path not in modules:
        modules[path] = _import(path)
    module = modules[path]
    function = getattr(module, name, None)
    if inspect.isclass(function) and not option:
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
    cloudpickle.register_pickle_by_value(module)  # jobs in other processes cannot import it
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

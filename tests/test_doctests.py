"""The examples in docstrings run as written, module by module."""

import doctest
import importlib
import pkgutil
import warnings

import pytest
import torch

import vitools
import vitools.guides
import vitools.models


def module_names():
    """Every module of the package; ``models`` and ``guides`` are folders of their own."""
    names = {"vitools"}
    for package in (vitools, vitools.models, vitools.guides):
        names |= {
            m.name for m in pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}.")
        }
        names.add(package.__name__)
    return sorted(names)


@pytest.mark.usefixtures("float32_by_default")
@pytest.mark.parametrize("name", module_names())
def test_examples_of(name):
    module = importlib.import_module(name)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error")
        failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_the_list_of_modules_is_complete():
    names = module_names()
    assert {"vitools.problem", "vitools.models.coin", "vitools.guides.mean_field.normal"} <= set(
        names
    )
    assert len(names) > 50

"""Without what only the extras bring, every module is imported, and what needs one names its pip line."""

import subprocess
import sys

import pandas as pd
import pytest
import torch

from vitools import Problem, nuts
from vitools.data import read_table
from vitools.errors import NotSupportedError
from vitools.formula import from_formula
from vitools.models import coin

BROUGHT = {
    "nutpie": "nutpie",
    "pyarrow": "data",
    "formulae": "formula",
    "sklearn": "dev",
    "bayespy": "dev",
    "hypothesis": "dev",
    "numpyro": "bench",
    "jax": "bench",
    "funsor": "bench",
    "hpfrec": "bench",
    "myst_nb": "docs",
    "numba": "nutpie",
}
"""Packages, and the extra that brings each."""

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # None: as if it were not installed
import vitools
count = 0
for module in pkgutil.walk_packages(vitools.__path__, "vitools."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        count += 1
print(count)
"""


def test_every_module_is_imported_without_any_extra(tmp_path):
    run = [sys.executable, "-c", IMPORT_ALL, *BROUGHT]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


def _of_nutpie(_):
    nuts(Problem(coin.model, torch.ones(2)), sampler="nutpie")


def _of_parquet(folder):
    (folder / "my.parquet").write_bytes(b"PAR1")
    read_table(folder / "my.parquet")


def _of_a_formula(_):
    from_formula("y ~ x", pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [1.0, 0.0, 2.0]}))


@pytest.mark.parametrize(
    ("package", "use"),
    [("nutpie", _of_nutpie), ("pyarrow", _of_parquet), ("formulae", _of_a_formula)],
)
def test_what_a_missing_extra_brings_is_asked_for_by_its_pip_line(
    package, use, tmp_path, monkeypatch
):
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotSupportedError, match=rf"pip install 'vitools\[{BROUGHT[package]}\]'"):
        use(tmp_path)

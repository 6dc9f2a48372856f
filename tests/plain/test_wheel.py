"""What the wheel carries: shipped models and data, the page's templates, its types. Run by ``make test-wheel``."""

import subprocess
import sys
from importlib.metadata import files
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import vitools
from vitools import Problem
from vitools.data.shipped import load_diabetes, load_digits, load_nile
from vitools.models import SHIPPED

pytestmark = pytest.mark.plain

OUTSIDE = """
import pyro
import pyro.distributions as dist
import torch

from vitools import Problem, cavi, compare


def model(y: torch.Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


fit = cavi(Problem(model, torch.tensor([1.2, 0.7, 2.9])))
reveal_type(compare({"CAVI": fit}))
cavi(3)
"""
# types of other packages are theirs to check, and take longest
SETTINGS = """
[mypy]
[mypy-torch.*,pyro.*,numpy.*,scipy.*,pandas.*,matplotlib.*]
follow_imports = skip
"""


def test_the_wheel_is_tested_and_holds_nothing_else():
    assert Path(vitools.__file__).is_relative_to(sys.prefix)
    tops = {
        path.parts[0] for path in files("vitools") if path.parts[0] not in ("..", "__pycache__")
    }
    assert {top for top in tops if not top.startswith("vitools")} == set()
    assert [name for name in ("models", "guides", "tests", "docs") if find_spec(name)] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_read_with_its_data(name):
    example = SHIPPED[name].build(0)
    problem = Problem(example.model, *example.args, **example.kwargs)
    assert problem.latents
    value = problem.log_joint({site: draws[0] for site, draws in problem.prior(1).items()})
    assert not torch.isnan(value).any()


def test_data_sets_that_ship_are_read():
    assert len(load_diabetes().progression) == 442
    assert len(load_digits().images) == 1797
    assert len(load_nile()[0]) == 100


def test_types_are_seen_by_a_project_outside(tmp_path):
    (tmp_path / "own.py").write_text(OUTSIDE, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(SETTINGS, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "own.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    revealed, refused = done.stdout.splitlines()
    assert 'Revealed type is "vitools.reporting.comparison.comparison.Comparison"' in revealed
    assert 'Argument 1 to "cavi" has incompatible type "int"; expected "Problem"' in refused

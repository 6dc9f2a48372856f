"""What an ordinary install does that has no extra: run by ``make test-wheel``, not by ``make test``."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vitools
from vitools import Problem, cavi, compare, nuts, svi, to_arviz
from vitools.data import read_table
from vitools.errors import NotSupportedError
from vitools.guides import AutoMultivariate
from vitools.models import bayesian_regression
from vitools.posterior import load, save

pytestmark = pytest.mark.plain

EXTRAS = ("nutpie", "pyarrow", "sklearn", "bayespy", "numpyro", "jax", "hypothesis", "xdist")
SECONDS = 120

MODEL = """
import pyro
import pyro.distributions as dist


def model(dose, response):
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
    noise = pyro.sample("noise", dist.Gamma(2.0, 2.0))
    with pyro.plate("rows", len(response)):
        pyro.sample("response", dist.Normal(level + effect * dose, noise), obs=response)
"""


@pytest.fixture
def folder(tmp_path):
    """A model of one's own and its data."""
    random = np.random.default_rng(0)
    dose = random.normal(size=20)
    rows = np.stack([dose, 0.5 + dose + 0.5 * random.normal(size=20)], -1)
    path = tmp_path / "my.csv"
    np.savetxt(path, rows, delimiter=",", header="dose,response", comments="")
    (tmp_path / "mymodel.py").write_text(MODEL, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(folder):
    """Runs the installed command in the folder; its output, after the exit code was checked."""

    def command(*words, codes=(0,)):
        executable = Path(sys.executable).with_name("vitools")
        done = subprocess.run(
            [executable, *words], cwd=folder, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode in codes, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return command


def test_the_installed_package_is_tested_without_any_extra():
    assert Path(vitools.__file__).is_relative_to(sys.prefix)
    assert [name for name in EXTRAS if importlib.util.find_spec(name)] == []


def test_five_lines_then_arviz_and_a_file(tmp_path):
    data = bayesian_regression.simulate(60, 3, seed=2)
    problem = Problem(bayesian_regression.model, data.features, data.target)
    fits = {
        "CAVI": cavi(problem),
        "SVI": svi(problem, AutoMultivariate),
        "NUTS": nuts(problem, num_chains=2),
    }
    table = str(compare(fits))
    assert all(name in table for name in fits)
    assert fits["NUTS"].status.label == "sampled"
    assert to_arviz(fits["CAVI"]).posterior["weights"].shape[-1] == 3
    path = tmp_path / "fit.safetensors"
    save(fits["CAVI"], path)
    again = load(path, problem)
    assert torch.equal(again.mean()["weights"], fits["CAVI"].mean()["weights"])


def test_a_model_of_ones_own_is_compared_by_every_method(run, folder):
    # 1: the verdict of a short-sighted mean field may be "do not use"
    said = run("compare", "mymodel.py:model", "--data", "my.csv", codes=(0, 1))
    assert "no answer" not in said
    assert "NUTS" in said
    assert (folder / "report" / "index.html").exists()
    assert (folder / "report" / "posterior.nc").exists()


def test_a_fit_from_the_command_line_leaves_its_files(run, folder):
    assert "verdict" in run("fit", "regression", "--method", "cavi", "--out", "fits", codes=(0, 1))
    assert (folder / "fits" / "fit.safetensors").exists()
    assert (folder / "fits" / "posterior.nc").exists()


def test_explain_and_draw(run, folder):
    assert "precision" in run("explain", "regression")
    run("draw", "mymodel.py:model", "--data", "my.csv", "--out", "graph.svg")
    assert "<svg" in (folder / "graph.svg").read_text("utf-8")


def test_what_an_extra_brings_is_asked_for_by_its_pip_line(run, folder):
    data = bayesian_regression.simulate(20, 1, seed=0)
    problem = Problem(bayesian_regression.model, data.features, data.target)
    with pytest.raises(NotSupportedError, match=r"pip install 'vitools\[nutpie\]'"):
        nuts(problem, sampler="nutpie")
    (folder / "my.parquet").write_bytes(b"PAR1")
    with pytest.raises(NotSupportedError, match=r"pip install 'vitools\[data\]'"):
        read_table(folder / "my.parquet")
    said = run("fit", "mymodel.py:model", "--data", "my.parquet", codes=(2,))
    assert "pip install 'vitools[data]'" in said

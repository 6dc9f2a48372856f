"""``vitools design`` and ``vitools information``: candidates, measurements so far, what was told."""

import math
import re

import pytest
import torch
from torch.distributions import Beta, kl_divergence

from vitools.models import coin

RULER = """
import pyro, torch
import pyro.distributions as dist

def model(x, y=None):
    w = pyro.sample("w", dist.Normal(torch.tensor(0.0).double(), 1.0))
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)
"""


@pytest.fixture
def ruler(folder):
    (folder / "ruler.py").write_text(RULER)
    return "ruler.py:model"


def numbers(line):
    return [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?", line)]


def test_candidates_of_a_range(vitools, ruler):
    done = vitools("design", ruler, "--designs", "0:2:3", "--method", "laplace")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "expected information gain in nats, method 'laplace', the best first"
    assert lines[-1] == f"measure at 2: {0.5 * math.log(5):.2f} (exact) nats expected"
    assert [numbers(line)[0] for line in lines[1:-1]] == [2, 1, 0]


def test_after_measurements(vitools, ruler, folder):
    (folder / "so_far.csv").write_text("x,y\n2.0,1.0\n1.0,0.4\n")
    (folder / "candidates.csv").write_text("x\n1.0\n2.0\n")
    done = vitools(
        "design",
        ruler,
        "--designs",
        "candidates.csv",
        "--data",
        "so_far.csv",
        "--method",
        "laplace",
    )
    assert done.exit_code == 0, done.output
    assert "after so_far.csv" in done.stdout
    assert f"measure at 2: {0.5 * math.log1p(4 / 6):.2f}" in done.stdout


def test_what_the_data_told(vitools, folder):
    assert vitools("fit", "coin", "--method", "cavi", "--out", "fits").exit_code == 0
    (fit,) = (folder / "fits").glob("*.safetensors")
    done = vitools("information", fit, "coin")
    assert done.exit_code == 0, done.output
    heads = coin.example(0).args[0].double()
    ones = heads.sum()
    exact = float(
        kl_divergence(Beta(1 + ones, 1 + len(heads) - ones), Beta(*torch.ones(2).double()))
    )
    nats, error, bits, _ = numbers(done.stdout.splitlines()[-1])
    assert abs(nats - exact) < 4 * error + 0.006
    assert bits == pytest.approx(nats / math.log(2), abs=0.02)


@pytest.mark.parametrize(("method", "warns"), [("cavi", True), ("exact", False)])
def test_of_a_fit_that_may_not_be_the_posterior_it_says_whose_divergence_it_is(
    vitools, folder, method, warns
):
    assert vitools("fit", "coin", "--method", method, "--out", "fits").exit_code == 0
    (fit,) = (folder / "fits").glob("*.safetensors")
    lines = vitools("information", fit, "coin").stdout.splitlines()
    assert any("divergence of this fit from the prior" in line for line in lines) == warns
    assert lines[-1].startswith("by this fit the data told" if warns else "the data told")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--designs", "0:2"], "expected low:high:count"),
        (["--designs", "2:0:3"], "expected low:high:count"),
        (["--designs", "none.csv"], "or a file that is there"),
        (["--designs", "0:2:3", "--method", "x"], "method: expected one of auto"),
        (["--designs", "0:2:3", "--observations", "z"], "no site 'z'"),
        (["--designs", "0:2:3", "--targets", "v"], "no latent 'v'"),
        (["--designs", "0:2:3", "--method", "posterior", "--flow", "x"], "flow: expected one of spline"),
    ],
)  # fmt: skip
def test_what_is_refused(refused, ruler, arguments, words):
    assert words in refused("design", ruler, *arguments)


def test_a_shipped_model_has_no_design(refused):
    assert "Shipped models are called with their data" in refused(
        "design", "coin", "--designs", "0:1:2"
    )

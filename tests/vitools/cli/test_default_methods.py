"""What compare fits where nobody says by which methods, and a reader who leaves."""

import subprocess
import sys

import pytest

from vitools.cli.arguments import DataFile
from vitools.cli.methods import default_methods
from vitools.cli.target import open_target

MODEL = """
import pyro
import pyro.distributions as dist


def waits(t):
    start = pyro.sample("start", dist.Normal(0.0, 10.0))
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(t)):
        pyro.sample("t", dist.{likelihood}, obs=t)
"""
SHIFTED = (
    "TransformedDistribution(dist.Exponential(rate), [dist.transforms.AffineTransform(start, 1.0)])"
)


@pytest.mark.parametrize(
    ("likelihood", "reference"), [(SHIFTED, "nuts"), ("Normal(start, rate)", "exact")]
)
def test_the_reference_of_two_latents_is_exact_unless_their_data_have_an_edge(
    folder, likelihood, reference
):
    (folder / "m.py").write_text(MODEL.format(likelihood=likelihood))
    (folder / "t.csv").write_text("t\n5.1\n6.2\n5.4\n")
    names = default_methods(open_target("m.py:waits", DataFile(folder / "t.csv"), 0))
    assert reference in names
    assert len({"nuts", "exact"} & set(names)) == 1


def test_a_reader_who_leaves_is_no_fault_of_the_model():
    command = f"{sys.executable} -m vitools compare --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert "ended the program" not in done.stderr

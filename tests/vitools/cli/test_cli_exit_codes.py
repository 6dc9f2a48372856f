"""A model that ends the program is at fault: the command line does not end with code 0."""

import pytest
from typer.testing import CliRunner

from vitools.cli.app import app

AT_ONCE = "import sys\n\n\ndef model():\n    sys.exit(0)\n"
LATER = """
import sys

import pyro
import pyro.distributions as dist
import torch

RUNS = []


def model():
    RUNS.append(None)
    if len(RUNS) > 2:
        sys.exit(0)
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(level, 1.0), obs=torch.tensor(0.3))
"""


@pytest.mark.parametrize("source", [AT_ONCE, LATER], ids=["at once", "later"])
@pytest.mark.parametrize(
    "command", [["explain"], ["fit", "--method", "laplace"]], ids=lambda c: c[0]
)
def test_sys_exit_in_a_model_is_an_error(tmp_path, command, source):
    path = tmp_path / "ending.py"
    path.write_text(source)
    name, *options = command
    result = CliRunner().invoke(app, [name, f"{path}:model", *options])
    assert result.exit_code in (1, 2)

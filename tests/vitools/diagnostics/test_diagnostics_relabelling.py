"""Two fits of a mixture whose components are numbered in different order."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem
from vitools.diagnostics import Moments
from vitools.diagnostics.relabelling import exchanged_plate


def mixture(x):
    with pyro.plate("components", 3):
        centre = pyro.sample("centre", dist.Normal(0.0, 10.0))
        width = pyro.sample("width", dist.Gamma(2.0, 2.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.ones(3) / 3))
        pyro.sample("x", dist.Normal(centre[z], width[z]), obs=x)


def moments(centre, width):
    sd = torch.tensor([0.1, 0.2, 0.3])
    return {
        "centre": Moments.exact(torch.tensor(centre), sd),
        "width": Moments.exact(torch.tensor(width), sd),
    }


REFERENCE = moments([-4.0, 0.0, 5.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("found", "plate"),
    [
        (moments([0.0, 5.0, -4.0], [2.0, 3.0, 1.0]), "components"),
        (moments([0.05, 5.1, -4.05], [2.1, 2.9, 1.0]), "components"),
        (REFERENCE, None),
        (moments([0.0, 7.0, -4.0], [2.0, 3.0, 1.0]), None),  # another answer altogether
        (moments([0.0, 0.0, -4.0], [2.0, 3.0, 1.0]), None),  # two components on one place
    ],
)
def test_exchanged_labels_are_told_from_other_errors(found, plate):
    problem = Problem(mixture, torch.tensor([-4.0, 0.1, 5.0]))
    assert exchanged_plate(problem, found, REFERENCE) == plate


def test_only_components_can_be_exchanged():
    def regression(x):
        with pyro.plate("columns", 3):
            centre = pyro.sample("centre", dist.Normal(0.0, 10.0))
            width = pyro.sample("width", dist.Gamma(2.0, 2.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(centre.sum(), width.sum()), obs=x)

    problem = Problem(regression, torch.tensor([-4.0, 0.1, 5.0]))
    found = moments([0.0, 5.0, -4.0], [2.0, 3.0, 1.0])
    assert exchanged_plate(problem, found, REFERENCE) is None

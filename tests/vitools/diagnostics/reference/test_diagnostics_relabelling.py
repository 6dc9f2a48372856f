"""Two fits of a mixture, or chains, whose components are numbered in different order."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem
from vitools.diagnostics import Moments, judge
from vitools.diagnostics.reference.relabelling import exchanged_plate, switched_plate
from vitools.posterior import DrawsPosterior, Status


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


def chains(orders, off=0.0, model=mixture, status=Status.NOT_MIXED):
    """Chains of 200 draws at the reference, each with its components in one of ``orders``."""
    generator = torch.Generator().manual_seed(0)
    draws = {}
    for name, found in REFERENCE.items():
        noise = torch.randn(len(orders), 200, 3, generator=generator, dtype=torch.float64)
        each = (found.mean + found.sd * noise).clamp(min=1e-3 if name == "width" else -100.0)
        draws[name] = torch.stack([x[:, order] for x, order in zip(each, orders, strict=True)])
    draws["centre"][-1] += off
    problem = Problem(model, torch.tensor([-4.0, 0.1, 5.0]))
    return DrawsPosterior(problem, draws, engine="nuts", status=status, detail="R-hat 3.1, ESS 4")


STRAIGHT = [0, 1, 2]


@pytest.mark.parametrize(
    ("orders", "off", "plate"),
    [
        ([STRAIGHT, [2, 0, 1], STRAIGHT, [1, 0, 2]], 0.0, "components"),
        ([STRAIGHT, STRAIGHT], 0.0, None),  # whatever ails them, it is not that
        ([STRAIGHT, STRAIGHT, STRAIGHT], 3.0, None),  # one of them is elsewhere
        ([STRAIGHT, [1, 2, 0], STRAIGHT], 3.0, None),  # labels, and one of them elsewhere
        ([STRAIGHT], 0.0, None),
    ],
)
def test_chains_with_other_labels_are_told_from_chains_that_disagree(orders, off, plate):
    fit = chains(orders, off)
    assert switched_plate(fit) == plate
    verdict = judge(fit).verdict
    assert verdict.reason == "not mixed (R-hat 3.1, ESS 4)"
    if plate is None:
        assert verdict.advice == Status.NOT_MIXED.advice
    else:
        assert "differ by the labels of plate 'components' alone" in verdict.advice
        assert "model.invariants" in verdict.advice
        assert "run longer" not in verdict.advice


def test_a_mixture_summed_out_by_hand_has_labels_too():
    def summed(x):
        with pyro.plate("components", 3):
            centre = pyro.sample("centre", dist.Normal(0.0, 10.0))
            width = pyro.sample("width", dist.Gamma(2.0, 2.0))
        weights = dist.Categorical(torch.ones(3) / 3)
        with pyro.plate("rows", len(x)):
            parts = dist.MixtureSameFamily(weights, dist.Normal(centre, width))
            pyro.sample("x", parts, obs=x)

    assert switched_plate(chains([STRAIGHT, [2, 0, 1]], model=summed)) == "components"


def test_what_is_judged_by_its_invariants_has_no_labels():
    def judged(x):
        mixture(x)

    judged.invariants = lambda values: {"sorted": values["centre"].sort(-1).values}
    assert switched_plate(chains([STRAIGHT, [2, 0, 1]], model=judged)) is None

"""The steps of a loop are one sequence where nothing speaks against it."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem
from vitools.problem.sequences import numbered, sequences


def problem_of(*names, size=None):
    """A normal of each name; ``size`` gives some another shape."""

    def model():
        total = torch.tensor(0.0)
        for name in names:
            loc = torch.zeros((size or {}).get(name, ()))
            total = total + pyro.sample(name, dist.Normal(loc, 1.0).to_event(loc.dim())).sum()
        pyro.sample("data", dist.Normal(total, 1.0), obs=torch.tensor(1.0))

    return Problem(model)


STEPS = [f"x_{t}" for t in range(1, 10)]


@pytest.mark.parametrize(
    ("problem", "found"),
    [
        (problem_of(*STEPS), {"x": tuple(STEPS)}),
        (problem_of("a", *reversed(STEPS)), {"x": tuple(STEPS)}),
        (problem_of(*[f"x{t}" for t in range(8)]), {"x": tuple(f"x{t}" for t in range(8))}),
        (problem_of(*STEPS[:7]), {}),  # names of coefficients
        (problem_of(*STEPS[:4], *STEPS[5:], "x_10"), {}),  # a gap
        (problem_of(*STEPS, size={"x_3": (2,)}), {}),
        (problem_of("x", *STEPS), {}),  # the name is taken
        (
            problem_of(*[f"x_{t:02}" for t in range(3, 13)]),
            {"x": tuple(f"x_{t:02}" for t in range(3, 13))},
        ),
        (problem_of(*[f"_{t}" for t in range(9)]), {}),
    ],
    ids=["one", "order", "bare", "few", "gap", "shapes", "taken", "zeros", "nameless"],
)
def test_sites_that_count_up_are_steps(problem, found):
    assert {stem: steps.sites for stem, steps in sequences(problem.latents).items()} == found


def test_a_step_is_known_as_it_would_be_under_the_name_of_all():
    def model():
        x = torch.zeros(3)
        for t in range(8):
            x = pyro.sample(f"x_{t}", dist.Normal(x, 1.0))  # a batch dim without a plate
        pyro.sample("y", dist.Normal(x.sum(), 1.0), obs=torch.tensor(1.0))

    (steps,) = sequences(Problem(model).latents).values()
    assert (steps.site.name, steps.numbers) == ("x", tuple(range(8)))
    assert tuple(steps.site.shape) == (3,)


def test_names_are_told_from_their_numbers():
    assert numbered(["b_2", "b_1", "b_10", "c", "7", "d07"]) == {
        "b_": {1: "b_1", 2: "b_2", 10: "b_10"},
        "d": {7: "d07"},
    }

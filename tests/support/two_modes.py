"""Posteriors of one number with two modes, known by closed form and by quadrature."""

from dataclasses import dataclass
from functools import cache

import pyro
import pyro.distributions as dist
import torch

from vitools.posterior import Posterior
from vitools.problem import Problem


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


CENTRES, WIDTHS, SHARES = tensor(-3.0, 4.0), tensor(0.5, 1.0), tensor(0.6, 0.4)


def clusters():
    """x | y is N(m_k, v_k) with probability proportional to π_k N(y | c_k, s_k² + 1)."""
    z = pyro.sample("z", dist.Categorical(SHARES))
    x = pyro.sample("x", dist.Normal(CENTRES[z], WIDTHS[z]))
    pyro.sample("y", dist.Normal(x, tensor(4.0)[0]), obs=tensor(1.5)[0])


def square():
    """y = t² + noise: modes near ±√2, with the heavier on the side of the prior's mean."""
    t = pyro.sample("x", dist.Normal(tensor(0.3)[0], 1.0))
    pyro.sample("y", dist.Normal(t * t, 0.5), obs=tensor(2.0)[0])


CLUSTERS, SQUARE = Problem(clusters), Problem(square)


@dataclass(frozen=True)
class Truth:
    """Of a posterior of x on the line: log evidence, mass below 0, and moments on each side and of all."""

    log_evidence: float
    below: float
    sides: tuple[tuple[float, float], tuple[float, float]]
    mean: float
    sd: float


@cache
def truth(problem):
    """By the trapezoidal rule, which is exact to rounding for what falls off at both ends."""
    x = torch.linspace(-12.0, 14.0, 20_001, dtype=torch.float64)
    density = problem.log_joint({"x": x}).exp()
    evidence = torch.trapezoid(density, x)
    sides = [moments(density * side, x) for side in (x < 0, x > 0)]
    mean, sd = moments(density, x)
    below = float(torch.trapezoid(density * (x < 0), x) / evidence)
    return Truth(float(evidence.log()), below, tuple(sides), mean, sd)


def moments(density, x):
    share = density / density.sum()
    mean = float((share * x).sum())
    return mean, float((share * (x - mean) ** 2).sum().sqrt())


def normal(problem, mean, sd, name="normal"):
    return Posterior.from_gaussian(problem, tensor(mean), tensor(sd**2), name=name)


def sides(problem, widened=1.1):
    """A normal at each mode, a little wider than what is there."""
    found = truth(problem).sides
    names = ("left", "right")
    return {
        name: normal(problem, mean, widened * sd, name)
        for name, (mean, sd) in zip(names, found, strict=True)
    }

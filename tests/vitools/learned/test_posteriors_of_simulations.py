"""Posteriors of any data, learnt from pairs of a prior and a simulator: by ranks, by exact densities, by a grid."""

import math

import pytest
import torch
from torch.distributions import Normal, constraints

from vitools import Problem, fit_density
from vitools.models.physics import oscillator

pytestmark = pytest.mark.slow

LOOKS = 1.6 * torch.arange(1, 9).double()


def crescent(angle, radius):
    return torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], -1)


def moons(count, seed):
    """Two moons (Greenberg, Nonnenmacher, Macke 2019): θ ~ U(-1, 1)², y = crescent + folded θ."""
    generator = torch.Generator().manual_seed(seed)
    theta = 2 * torch.rand(count, 2, generator=generator) - 1
    angle = math.pi * (torch.rand(count, generator=generator) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(count, generator=generator)
    return theta, crescent(angle, radius) + folded(theta)


def folded(theta):
    total, difference = theta.sum(-1), theta[..., 1] - theta[..., 0]
    return torch.stack([-total.abs(), difference], -1) / math.sqrt(2)


def exact_log_posterior(theta, y):
    """log p(θ | y): the crescent's density in polar coordinates, and p(y) by sums over the crescent."""
    p = y - folded(theta) - torch.tensor([0.25, 0.0])
    radius = p.norm(dim=-1)
    log_likelihood = Normal(0.1, 0.01).log_prob(radius) - radius.log() - math.log(math.pi)
    log_likelihood = torch.where(p[..., 0] > 0, log_likelihood, -math.inf)
    # y - p is a folded θ of density 1/2 wherever θ is inside the square
    angles = math.pi * ((torch.arange(200) + 0.5) / 200 - 0.5)
    quantiles = Normal(0.1, 0.01).icdf((torch.arange(20) + 0.5) / 20)
    left = y[:, None, None] - crescent(angles[:, None], quantiles)
    inside = (left[..., 0] <= 0) & (left.abs().sum(-1) <= math.sqrt(2))
    return log_likelihood + math.log(1 / 4) - (inside.double().mean((1, 2)) / 2).log()


def test_two_moons():
    """Held-out nats stay below the exact posterior's and come near; truths rank evenly among draws."""
    theta, y = moons(10_000, 0)
    square = constraints.interval(-1.0, 1.0)
    q = fit_density(theta, y, support=square, layers=5, max_steps=1500)
    new_theta, new_y = moons(1000, 1)
    lost = exact_log_posterior(new_theta, new_y) - q.log_prob(new_theta, new_y)  # E KL(p ‖ q)
    error = lost.std() / math.sqrt(len(lost))
    assert lost.isfinite().all()
    assert -4 * error < lost.mean() < 0.4  # of 3.6 nats above the best normal
    assert q.gain.value > 3
    found = q.calibration(new_theta[:300], new_y[:300])
    assert min(found.uniformity().values()) > 1e-3
    # both moons, alike
    draws = q.sample(2000, torch.zeros(2), seed=1)
    share = (draws.sum(-1) > 0).double().mean()
    assert 0.3 < share < 0.7


def test_the_oscillator():
    """Against its grid, on data the training has not seen; and by ranks."""
    problem = Problem(oscillator.model, LOOKS, torch.zeros(8).double())
    with torch.no_grad():
        truths = problem.prior(12_000, seed=0)
        data = problem.predictive(truths, seed=1)["y"]
    both = torch.stack([truths["omega"], truths["gamma"]], 1)
    support = [constraints.interval(0.0, oscillator.FASTEST), constraints.positive]
    q = fit_density(both[:11_000], data[:11_000], support=support, max_steps=2000)
    found = q.calibration(both[11_000:11_400], data[11_000:11_400], names=["omega", "gamma"])
    assert min(found.uniformity().values()) > 1e-3
    lost = []
    for truth, y in zip(both[11_400:11_430], data[11_400:11_430], strict=True):
        grid = oscillator.posterior_on_grid(LOOKS, y, points=(900, 300))
        nearest = [
            (axis - value).abs().argmin()
            for axis, value in zip((grid.omega, grid.gamma), truth, strict=True)
        ]
        at = torch.stack([grid.omega[nearest[0]], grid.gamma[nearest[1]]])
        lost.append(grid.density[nearest[0], nearest[1]].log() - q.log_prob(at, y))
    lost = torch.stack(lost)
    assert -4 * lost.std() / math.sqrt(len(lost)) < lost.mean() < 0.5

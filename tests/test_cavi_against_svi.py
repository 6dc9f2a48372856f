"""Coordinate ascent against SVI on the two dice, both bounds with the discrete latents summed out."""

import math

import pytest

from vitools import Problem, cavi, svi
from vitools.diagnostics import elbo
from vitools.guides import AutoDirichlet, AutoKumaraswamy, AutoLogisticNormal
from vitools.models import two_dice


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_best_guide_is_at_least_as_good_as_coordinate_ascent(seed):
    rolls = two_dice.simulate(60, 10, sides1=2, sides2=3, faces=4, seed=seed).rolls
    problem = Problem(two_dice.model, rolls, 2, 3, 4)
    ascent = cavi(problem, joint=[("z1", "z2")], restarts=5, seed=seed)
    by_cavi = elbo(ascent, 4000, seed=1)
    bounds = [
        elbo(svi(problem, guide, start=ascent, seed=seed), 4000, seed=2)
        for guide in (AutoDirichlet, AutoLogisticNormal, AutoKumaraswamy)
    ]
    best = max(bounds, key=lambda bound: bound.value)
    noise = math.hypot(best.standard_error, by_cavi.standard_error)
    assert best.value >= by_cavi.value - 3 * noise

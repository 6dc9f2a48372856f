"""Coordinate ascent, SVI and NUTS on simulated rolls of two dice.

Bounds have the discrete latents summed out; moments are those of what relabelling cannot change.
"""

import math

import pytest
import scipy.optimize
import torch

from vitools import Problem, cavi, nuts, svi
from vitools.diagnostics import marginal_bound
from vitools.guides import AutoDirichlet, AutoKumaraswamy, AutoLogisticNormal, AutoMultivariate
from vitools.models import two_dice


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_best_guide_is_at_least_as_good_as_coordinate_ascent(seed):
    rolls = two_dice.simulate(60, 10, sides1=2, sides2=3, faces=4, seed=seed).rolls
    problem = Problem(two_dice.model, rolls, 2, 3, 4)
    ascent = cavi(problem, joint=[("z1", "z2")], restarts=5, seed=seed)
    by_cavi = marginal_bound(ascent, 4000, seed=1)
    bounds = [
        marginal_bound(svi(problem, guide, start=ascent, seed=seed), 4000, seed=2)
        for guide in (AutoDirichlet, AutoLogisticNormal, AutoKumaraswamy)
    ]
    best = max(bounds, key=lambda bound: bound.value)
    noise = math.hypot(best.standard_error, by_cavi.standard_error)
    assert best.value >= by_cavi.value - 3 * noise


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_moments_of_invariants_agree_with_nuts_as_far_as_the_divergence_allows(seed):
    """κ = KL(q ‖ p), the gap between bound and evidence, limits how far moments may part.

    For a quantity that is Gaussian under p, of mean m and standard deviation s, a law within κ nats
    has its mean within s √(2κ) of m (Donsker and Varadhan); a Gaussian one has its standard
    deviation within r s, r² - 1 - log r² ≤ 2κ. Importance weights take the rest away: weighted by
    them, q's means are those of p. Rows are of 20 rolls: one mode, up to relabelling.
    """
    rolls = two_dice.simulate(200, 20, sides1=2, sides2=3, seed=seed).rolls
    problem = Problem(two_dice.model, rolls, 2, 3)
    ascent = cavi(problem, joint=[("z1", "z2")], restarts=5, seed=seed)
    fit = svi(problem, AutoMultivariate, start=ascent, seed=seed)
    assert marginal_bound(fit, 4000, seed=1).value > marginal_bound(ascent, 4000, seed=1).value
    count = 20_000
    values, log_q = fit.sample_with_log_prob(count, seed=2)
    log_weights = problem.log_joint(values) - log_q
    weights = log_weights.softmax(0)
    divergence = float(log_weights.logsumexp(0) - math.log(count) - log_weights.mean())
    assert 0 < divergence < 0.5  # half a nat lets a mean be a standard deviation off
    narrow, wide = (
        scipy.optimize.brentq(lambda r: r * r - 1 - 2 * math.log(r) - 2 * divergence, *ends)
        for ends in ((0.01, 1.0), (1.0, 10.0))
    )
    chains = nuts(problem, start=fit, num_samples=1000, num_warmup=500, num_chains=2, seed=seed)
    drawn = two_dice.invariants(values)
    for name, by_nuts in two_dice.invariants(chains.pooled()).items():
        mean, sd = by_nuts.mean(0), by_nuts.std(0)
        nuts_noise = 1 / chains.ess[name] ** 0.5
        noise = nuts_noise + 1 / count**0.5
        apart = (drawn[name].mean(0) - mean).abs() / sd
        assert bool((apart < math.sqrt(2 * divergence) + 4 * noise).all()), (name, apart)
        ratio = drawn[name].std(0) / sd
        assert bool((ratio > narrow - 4 * noise).all()), (name, ratio)
        assert bool((ratio < wide + 4 * noise).all()), (name, ratio)
        share = weights.reshape(-1, *(1,) * mean.dim())
        weighted = (share * drawn[name]).sum(0)
        error = (share * (drawn[name] - weighted)).square().sum(0).sqrt()
        apart = (weighted - mean).abs() / torch.hypot(error, nuts_noise * sd)
        assert bool((apart < 4.5).all()), (name, apart)

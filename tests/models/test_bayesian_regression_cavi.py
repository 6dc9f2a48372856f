"""Hand-derived coordinate ascent: each update, the bound and the limits against outside truths."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from scipy import stats

from vitools.errors import DataError, OptionError
from vitools.models import bayesian_regression as regression

FACTORISATIONS = ("joint", "factorised", "elementwise")
factorisations = pytest.mark.parametrize("factorisation", FACTORISATIONS)
PRIOR = {"prior_scale": 0.7, "intercept_scale": 4.0, "noise_shape": 2.0, "noise_rate": 3.0}


def correlated_data(num_rows=40, num_features=3, seed=0):
    data = regression.simulate(num_rows, num_features, seed, correlation=0.8)
    # Features away from 0 correlate with the intercept, so that all factorisations differ.
    return data.features + 0.7, data.target


def random_factors(num_features, seed, partition):
    """Factors with nothing optimal about them, with covariance inside blocks only."""
    generator = torch.Generator().manual_seed(seed)
    size = num_features + 1
    covariance = torch.zeros(size, size, dtype=torch.float64)
    for block in partition:
        root = torch.randn(len(block), len(block) + 1, generator=generator, dtype=torch.float64)
        covariance[np.ix_(block, block)] = root @ root.T / len(block)
    mean = torch.randn(size, generator=generator, dtype=torch.float64)
    shape, rate = torch.rand(2, generator=generator, dtype=torch.float64) * 5 + 0.5
    return regression.Factors(mean, covariance, shape, rate)


# The bound itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_elbo_equals_quadrature_of_densities(seed):
    """E_q[log p - log q] by Gauss-Hermite in β, exact for its quadratics, and trapezoids in τ."""
    features, target = correlated_data(num_rows=5, num_features=1)
    q = random_factors(1, seed, [[0, 1]])
    design = np.column_stack([features.numpy(), np.ones(5)])
    prior_sd = np.array([PRIOR["prior_scale"], PRIOR["intercept_scale"]])
    q_beta = stats.multivariate_normal(q.mean.numpy(), q.covariance.numpy())
    q_tau = stats.gamma(q.shape.item(), scale=1 / q.rate.item())
    p_tau = stats.gamma(PRIOR["noise_shape"], scale=1 / PRIOR["noise_rate"])

    points, weights = hermegauss(4)
    pairs = np.array(list(itertools.product(points, points)))
    beta_weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
    beta = q.mean.numpy() + pairs @ np.linalg.cholesky(q.covariance.numpy()).T  # [16, 2]
    tau = np.exp(np.linspace(-60, 6, 4001))[:, None]
    tau_weights = q_tau.pdf(tau) * tau * 66 / 4000  # the trapezoid rule in log τ, [4001, 1]

    log_ratio = (
        stats.norm.logpdf(target.numpy(), beta @ design.T, tau[..., None] ** -0.5).sum(-1)
        + stats.norm(0, prior_sd).logpdf(beta).sum(-1)
        + p_tau.logpdf(tau)
        - q_beta.logpdf(beta)
        - q_tau.logpdf(tau)
    )
    expected = (tau_weights * beta_weights * log_ratio).sum()
    statistics = regression.sufficient_statistics(features, target)
    bound = regression.elbo(q, statistics, regression.regression_prior(1, **PRIOR))
    assert bound.item() == pytest.approx(expected, rel=1e-10)


@factorisations
def test_bound_climbs_from_twenty_starts_to_one_place_below_the_evidence(factorisation):
    features, target = correlated_data()
    evidence = regression.exact_log_evidence(features, target, **PRIOR)
    ends = []
    for seed in range(20):
        fit = regression.hand_derived_cavi(
            features, target, **PRIOR, factorisation=factorisation, seed=seed, tol=1e-11
        )
        assert fit.converged
        assert len(fit.elbo_history) == len(fit.seconds)
        rounding = 1e-12 * abs(fit.elbo_history[-1])
        assert all(b >= a - rounding for a, b in itertools.pairwise(fit.elbo_history))
        assert fit.elbo_history[-1] < evidence
        ends.append(torch.cat([fit.mean, fit.sd, fit.shape[None], fit.rate[None]]))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-8, atol=1e-8)


def test_finer_factorisations_have_lower_bounds():
    features, target = correlated_data()
    bounds = [
        regression.hand_derived_cavi(features, target, **PRIOR, factorisation=name).elbo_history[-1]
        for name in FACTORISATIONS
    ]
    assert bounds[0] > bounds[1] + 0.01
    assert bounds[1] > bounds[2] + 0.01


def test_known_noise_is_the_limit_of_a_concentrated_gamma():
    """With τ ~ Gamma(κτ₀, κ) the gap to log p(y | τ₀) is of order 1/κ."""
    features, target = correlated_data()
    tau = 1.7
    evidence = regression.exact_log_evidence(features, target, 0.7, 4.0, noise_precision=tau)
    gaps = []
    for concentration in (1e4, 1e5, 1e6):
        fit = regression.hand_derived_cavi(
            features, target, 0.7, 4.0, concentration * tau, concentration
        )
        gaps.append(fit.elbo_history[-1] - evidence)
    assert abs(gaps[2]) < 1e-3
    assert gaps[1] / gaps[0] == pytest.approx(0.1, rel=0.01)
    assert gaps[2] / gaps[1] == pytest.approx(0.1, rel=0.01)

    exact = regression.exact_posterior(features, target, 0.7, 4.0, noise_precision=tau)
    torch.testing.assert_close(fit.mean, exact.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fit.covariance, exact.covariance, rtol=1e-4, atol=1e-6)


# The updates --------------------------------------------------------------------------------------


def bound_of(statistics, prior, block, mean, root, log_shape, log_rate, factors):
    """The ELBO as a function of unconstrained parameters of one block and of q(τ)."""
    index = torch.tensor(block)
    full_mean = factors.mean.index_copy(0, index, mean)
    keep = torch.ones_like(factors.covariance)
    keep[index[:, None], index] = 0.0
    place = torch.eye(len(factors.mean), dtype=torch.float64)[:, block]
    covariance = keep * factors.covariance + place @ root @ root.T @ place.T
    q = regression.Factors(full_mean, covariance, log_shape.exp(), log_rate.exp())
    return regression.elbo(q, statistics, prior)


@factorisations
@pytest.mark.parametrize("seed", range(3))
def test_each_update_is_the_maximum_over_its_factor(factorisation, seed):
    """The gradient vanishes there, and the bound is lower at points around it."""
    features, target = correlated_data()
    statistics = regression.sufficient_statistics(features, target)
    prior = regression.regression_prior(3, **PRIOR)
    partition = regression.blocks(3, factorisation)
    q = random_factors(3, seed, partition)
    generator = torch.Generator().manual_seed(seed)

    def check(factors, block, moves):
        parameters = [
            factors.mean[block],
            torch.linalg.cholesky(factors.covariance[block][:, block]),
            factors.shape.log(),
            factors.rate.log(),
        ]
        free = [p.clone().requires_grad_(i in moves) for i, p in enumerate(parameters)]
        bound = bound_of(statistics, prior, block, *free, factors)
        for gradient in torch.autograd.grad(bound, [free[i] for i in moves]):
            # Each is a sum over 40 rows of parts of size up to some thousands.
            assert gradient.abs().max() < 1e-9
        for _ in range(10):
            near = [
                p + 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype).mul(i in moves)
                for i, p in enumerate(parameters)
            ]
            assert bound_of(statistics, prior, block, *near, factors) < bound

    for block in partition:
        before = regression.elbo(q, statistics, prior)
        updated = regression.update_coefficients(q, block, statistics, prior)
        others = [d for d in range(4) if d not in block]
        assert torch.equal(updated.mean[others], q.mean[others])
        assert torch.equal(updated.covariance[others][:, others], q.covariance[others][:, others])
        assert (updated.shape, updated.rate) == (q.shape, q.rate)
        assert regression.elbo(updated, statistics, prior) > before
        check(updated, block, moves=(0, 1))
        q = updated
    updated = regression.update_precision(q, statistics, prior)
    assert torch.equal(updated.mean, q.mean)
    check(updated, partition[0], moves=(2, 3))


def test_updates_leave_their_input_alone():
    features, target = correlated_data()
    statistics = regression.sufficient_statistics(features, target)
    prior = regression.regression_prior(3, **PRIOR)
    q = random_factors(3, 0, [[0, 1, 2, 3]])
    copy = regression.Factors(*(value.clone() for value in q))
    regression.update_coefficients(q, [0, 2], statistics, prior)
    regression.update_precision(q, statistics, prior)
    for value, kept in zip(q, copy, strict=True):
        assert torch.equal(value, kept)


# What the mean field does to moments ---------------------------------------------------------------


@pytest.mark.parametrize(("num_rows", "noise_shape"), [(12, 0.5), (40, 2.0), (400, 2.0)])
def test_flat_prior_shrinkage_is_the_derived_factor(num_rows, noise_shape):
    """Exact: Student t with 2a* degrees of freedom, a* = a₀ + (N-D-1)/2. q(β) has its scale matrix
    for covariance: sd ratio √(1-1/a*). E[τ] is right; its sd is √(a*/(a₀+N/2)) of the exact one.
    """
    features, target = correlated_data(num_rows)
    wide = (1e6, 1e6, noise_shape, 3.0)
    exact = regression.exact_posterior(features, target, *wide)
    fit = regression.hand_derived_cavi(features, target, *wide, tol=1e-12)
    star = noise_shape + (num_rows - 4) / 2
    full = noise_shape + num_rows / 2
    np.testing.assert_allclose(fit.mean, exact.mean, rtol=1e-6)
    np.testing.assert_allclose(fit.sd / exact.sd, math.sqrt(1 - 1 / star), rtol=1e-6)
    assert (fit.shape / fit.rate).item() == pytest.approx(exact.precision_mean, rel=1e-6)
    ratio = (fit.shape.sqrt() / fit.rate).item() / exact.precision_sd
    assert ratio == pytest.approx(math.sqrt(star / full), rel=1e-6)


def test_elementwise_means_are_the_joint_ones_and_sds_are_conditional():
    """At any E[τ] the means solve Λm = E[τ]h, while sd = Λ_dd^-½ ≤ (Λ⁻¹)_dd^½."""
    features, target = correlated_data()
    fit = regression.hand_derived_cavi(
        features, target, **PRIOR, factorisation="elementwise", tol=1e-13
    )
    design = np.column_stack([features.numpy(), np.ones(40)])
    scales = np.array([0.7, 0.7, 0.7, 4.0])
    expected_precision = (fit.shape / fit.rate).item()
    precision = np.diag(scales**-2) + expected_precision * design.T @ design
    mean = np.linalg.solve(precision, expected_precision * design.T @ target.numpy())
    np.testing.assert_allclose(fit.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(fit.sd, np.diag(precision) ** -0.5, rtol=1e-12)
    assert (fit.sd.numpy() < 0.9 * np.diag(np.linalg.inv(precision)) ** 0.5).all()
    assert fit.covariance.count_nonzero() == 4


def test_elementwise_pays_half_the_log_determinant():
    """Known noise: evidence - bound = ½ (Σ log Λ_dd - log|Λ|), by formulas that share no code."""
    features, target = correlated_data()
    tau, concentration = 1.7, 1e7
    fit = regression.hand_derived_cavi(
        features,
        target,
        0.7,
        4.0,
        concentration * tau,
        concentration,
        factorisation="elementwise",
    )
    design = np.column_stack([features.numpy(), np.ones(40)])
    precision = np.diag(np.array([0.7, 0.7, 0.7, 4.0]) ** -2) + tau * design.T @ design
    cost = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision).logabsdet)
    evidence = regression.exact_log_evidence(features, target, 0.7, 4.0, noise_precision=tau)
    assert cost > 1
    assert evidence - fit.elbo_history[-1] == pytest.approx(cost, abs=1e-4)


def test_factorised_covariance_lies_in_its_blocks():
    features, target = correlated_data()
    fit = regression.hand_derived_cavi(features, target, **PRIOR, factorisation="factorised")
    assert fit.covariance[:3, 3].abs().max() == 0.0
    assert fit.covariance[0, 1] != 0.0


# Stopping, starts, options ------------------------------------------------------------------------


def test_stopping_waits_for_the_means():
    """Two nearly equal columns: the bound is flat while the weights still exchange their share."""
    data = regression.simulate(200, 2, seed=1, correlation=0.99)
    fit = regression.hand_derived_cavi(
        data.features, data.target, factorisation="elementwise", max_sweeps=5000
    )
    assert fit.converged
    assert len(fit.elbo_history) > 200
    # Where the bound alone would have stopped, with the same tolerance:
    early = next(
        i
        for i, (a, b) in enumerate(itertools.pairwise(fit.elbo_history), 1)
        if b - a <= 1e-8 * abs(b)
    )
    stopped = regression.hand_derived_cavi(
        data.features, data.target, factorisation="elementwise", max_sweeps=early + 1
    )
    assert distance_to_optimum(fit, data) < distance_to_optimum(stopped, data) / 1000


def distance_to_optimum(fit, data):
    """How far the means are from Λm = E[τ]h, at the fit's own E[τ], in standard deviations."""
    design = np.column_stack([data.features.numpy(), np.ones(200)])
    tau = (fit.shape / fit.rate).item()
    mean = np.linalg.solve(
        np.diag([1.0, 1.0, 0.01]) + tau * design.T @ design, tau * design.T @ data.target.numpy()
    )
    return (np.abs(fit.mean.numpy() - mean) / fit.sd.numpy()).max()


def test_limit_init_and_zero_tolerance():
    features, target = correlated_data()
    whole = regression.hand_derived_cavi(
        features, target, **PRIOR, factorisation="elementwise", max_sweeps=20, tol=0
    )
    assert len(whole.elbo_history) == 20
    assert not whole.converged
    half = regression.hand_derived_cavi(
        features, target, **PRIOR, factorisation="elementwise", max_sweeps=10, tol=0
    )
    rest = regression.hand_derived_cavi(
        features, target, **PRIOR, factorisation="elementwise", max_sweeps=10, tol=0,
        init=half.state,
    )  # fmt: skip
    assert half.elbo_history + rest.elbo_history == whole.elbo_history
    assert torch.equal(rest.mean, whole.mean)


def test_seeds_repeat_and_global_randomness_is_left_alone():
    features, target = correlated_data()
    state = torch.get_rng_state()
    runs = [
        regression.hand_derived_cavi(features, target, seed=seed, max_sweeps=3).elbo_history
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert runs[0] == runs[1] != runs[2]


def test_float32_and_integer_like_data_give_float64_results():
    features, target = correlated_data()
    fit = regression.hand_derived_cavi(features.float(), target.float(), **PRIOR)
    full = regression.hand_derived_cavi(features, target, **PRIOR)
    assert fit.mean.dtype == torch.float64
    torch.testing.assert_close(fit.mean, full.mean, rtol=1e-5, atol=1e-6)


def test_diabetes_means_equal_the_exact_ones():
    data = regression.load()
    fit = regression.hand_derived_cavi(data.features, data.target)
    exact = regression.exact_posterior(data.features, data.target)
    assert fit.converged
    assert ((fit.mean - exact.mean).abs() / exact.sd).max() < 0.01
    # a* of the derivation is about 217: the standard deviations lose 0.2 per cent.
    np.testing.assert_allclose(fit.sd / exact.sd, math.sqrt(1 - 1 / 217), atol=0.002)
    assert 0 < exact.log_evidence - fit.elbo_history[-1] < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"factorisation": "full"},
            "factorisation: expected one of joint, factorised, elementwise",
        ),
        ({"max_sweeps": 0}, "max_sweeps: expected a positive integer, got 0"),
        ({"tol": -1.0}, "tol: expected a number at least 0"),
        ({"tol": math.nan}, "tol: expected a number at least 0"),
        ({"noise_rate": 0.0}, "noise_rate: expected a positive finite number"),
        ({"init": random_factors(2, 0, [[0, 1, 2]])}, r"init: expected means for 3 weights.*\[3\]"),
    ],
)
def test_impossible_options_are_refused(options, message):
    features, target = correlated_data()
    with pytest.raises(OptionError, match=message):
        regression.hand_derived_cavi(features, target, **options)


def test_data_are_refused_by_name():
    features, target = correlated_data()
    with pytest.raises(DataError, match="features has 40 rows and target has 39"):
        regression.hand_derived_cavi(features, target[1:])
    with pytest.raises(DataError, match="features: nan in row 0, column 0"):
        regression.hand_derived_cavi(features * math.nan, target)


def test_covariances_across_blocks_of_a_richer_start_are_dropped():
    data = regression.simulate(60, 3, seed=2)
    joint = regression.hand_derived_cavi(data.features, data.target)
    options = {"factorisation": "elementwise", "tol": 1e-12}
    from_joint = regression.hand_derived_cavi(
        data.features, data.target, init=joint.state, **options
    )
    at_random = regression.hand_derived_cavi(data.features, data.target, **options)
    assert torch.equal(from_joint.covariance, torch.diag(from_joint.covariance.diagonal()))
    assert from_joint.elbo_history[-1] == pytest.approx(at_random.elbo_history[-1], abs=1e-9)

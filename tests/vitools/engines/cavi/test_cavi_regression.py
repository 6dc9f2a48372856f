"""Derived updates of linear regression against the formulas written out by hand."""

import pytest
import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.engines.cavi.cavi import cavi
from vitools.engines.cavi.outcome import factors
from vitools.models import bayesian_regression as regression
from vitools.problem import Problem

OPTIONS = {
    "joint": {"joint": [("weights", "intercept")]},
    "factorised": {"joint": ()},
    "elementwise": {"factorised": ["weights"]},
}
UPDATES = 10


def hand_updates(factors, factorisation, statistics, prior):
    """The state after each of the updates that the derived blocks make at once."""
    size = len(factors.mean)
    partition = regression.blocks(size - 1, factorisation)
    groups = [partition] if factorisation == "joint" else [partition[:-1], partition[-1:]]
    while True:
        for group in groups:
            for block in group:
                factors = regression.update_coefficients(factors, block, statistics, prior)
            yield factors
        factors = regression.update_precision(factors, statistics, prior)
        yield factors


def coefficients(model):
    """Mean and covariance of weights and intercept under the derived factors."""
    found = factors(model)
    if ("weights", "intercept") in found:
        q = found["weights", "intercept"]
        return q.mean, q.covariance_matrix
    weights, intercept = found["weights"], found["intercept"]
    mean = torch.cat([weights.mean, intercept.mean.reshape(1)])
    own = getattr(weights, "covariance_matrix", None)
    own = torch.diag(weights.variance) if own is None else own
    return mean, torch.block_diag(own, intercept.variance.reshape(1, 1))


@pytest.mark.parametrize("factorisation", OPTIONS)
@pytest.mark.parametrize("centred", [True, False])
def test_every_update_equals_the_hand_derivation(factorisation, centred):
    data = regression.simulate(num_rows=60, num_features=3, seed=1)
    features = data.features.double() + (0.0 if centred else 2.0)
    target = data.target.double()
    statistics = regression.sufficient_statistics(features, target)
    prior = regression.regression_prior(3, 1.0, 10.0, 1.0, 1.0)
    start = regression.starting_point(statistics, prior, torch.Generator().manual_seed(2))

    model = ConjugateModel(
        regression.model,
        (features, target),
        order=["weights", "intercept", "precision"],
        **OPTIONS[factorisation],
    )
    initialise(model, 0)
    precision = prior.coefficient_precision
    linear, quadratic = precision * start.mean, -0.5 * precision
    if factorisation == "joint":
        model.block_of["weights"].restore((linear, torch.diag(quadratic)))
    else:
        shaped = quadratic[:3] if factorisation == "elementwise" else torch.diag(quadratic[:3])
        model.block_of["weights"].restore((linear[:3], shaped))
        model.block_of["intercept"].restore((linear[3], quadratic[3]))
    model.block_of["precision"].restore((start.shape - 1, -start.rate))

    bound = regression.elbo(start, statistics, prior)
    assert model.elbo() == pytest.approx(float(bound), rel=1e-13, abs=1e-10)
    by_hand = hand_updates(start, factorisation, statistics, prior)
    for update in range(UPDATES):
        model.update(model.order[update % len(model.order)])
        expected = next(by_hand)
        mean, covariance = coefficients(model)
        q = factors(model)["precision"]
        assert torch.allclose(mean, expected.mean, atol=1e-10, rtol=0)
        assert torch.allclose(covariance, expected.covariance, atol=1e-10, rtol=0)
        assert torch.allclose(q.concentration, expected.shape, atol=1e-10, rtol=0)
        assert torch.allclose(q.rate, expected.rate, atol=1e-10, rtol=1e-14)
        bound = regression.elbo(expected, statistics, prior)
        assert model.elbo() == pytest.approx(float(bound), rel=1e-13, abs=1e-10)


@pytest.mark.parametrize(
    "factorisation",
    [pytest.param(o, marks=pytest.mark.slow) if o == "elementwise" else o for o in OPTIONS],
)
def test_the_fixed_point_on_the_diabetes_data(factorisation):
    data = regression.load()
    arguments = (data.features.double(), data.target.double())
    by_hand = regression.hand_derived_cavi(*arguments, factorisation=factorisation, tol=1e-12)
    fit = cavi(Problem(regression.model, *arguments), tol=1e-14, **OPTIONS[factorisation])
    assert fit.elbo().value == pytest.approx(by_hand.elbo_history[-1], rel=1e-12)
    means = torch.cat([fit.mean()["weights"], fit.mean()["intercept"].reshape(1)])
    assert torch.allclose(means, by_hand.mean, atol=1e-8)

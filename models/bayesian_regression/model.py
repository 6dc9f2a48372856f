"""Linear regression and three relatives as ordinary Pyro models.

All share the linear predictor η = X w + b. The product is written ``weights @ features.T`` so that
draws may be stacked in front of ``weights``.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.models.bayesian_regression.checks import check_layout, check_positive


def model(
    features: Tensor,
    target: Tensor | None = None,
    prior_scale: float = 1.0,
    intercept_scale: float = 10.0,
    noise_shape: float = 1.0,
    noise_rate: float = 1.0,
) -> None:
    """p(w, b, τ, y) of linear regression with unknown noise precision τ.

    Sites: ``weights`` [D] in plate *coefficients*, ``intercept`` [], ``precision`` [], ``target``
    [N] in plate *rows*. Everything follows the dtype and device of ``features``.

    Args:
        features: X, shape [N, D].
        target: y, shape [N]; drawn from the model when not given.
        prior_scale: s, the prior standard deviation of each weight.
        intercept_scale: s_b, that of the intercept.
        noise_shape: a₀ of τ ~ Gamma(a₀, b₀).
        noise_rate: b₀.
    """
    check_layout(features, target, "target")
    check_positive(
        prior_scale=prior_scale,
        intercept_scale=intercept_scale,
        noise_shape=noise_shape,
        noise_rate=noise_rate,
    )
    precision = pyro.sample(
        "precision", dist.Gamma(_like(features, noise_shape), _like(features, noise_rate))
    )
    location = _linear_predictor(features, prior_scale, intercept_scale)
    with pyro.plate("rows", features.shape[0], dim=-1):
        pyro.sample(
            "target", dist.Normal(location, precision.rsqrt()), obs=_observed(features, target)
        )


def ard(
    features: Tensor,
    target: Tensor | None = None,
    relevance_shape: float = 1.0,
    relevance_rate: float = 0.1,
    intercept_scale: float = 10.0,
    noise_shape: float = 1.0,
    noise_rate: float = 1.0,
) -> None:
    """Automatic relevance determination: a precision of its own for each weight.

        α_d ~ Gamma(c₀, d₀),  w_d ~ Normal(0, 1/α_d),  the rest as :func:`model`

    A feature that explains nothing gets a large α_d, which pulls its weight to 0 (MacKay 1994).
    All full conditionals are conjugate. Sites: those of :func:`model`, and ``relevance`` [D] in
    plate *coefficients*.

    Args:
        features: X, shape [N, D].
        target: y, shape [N]; drawn from the model when not given.
        relevance_shape: c₀.
        relevance_rate: d₀.
        intercept_scale: and the rest as for :func:`model`.
    """
    check_layout(features, target, "target")
    check_positive(
        relevance_shape=relevance_shape,
        relevance_rate=relevance_rate,
        intercept_scale=intercept_scale,
        noise_shape=noise_shape,
        noise_rate=noise_rate,
    )
    zero = features.new_zeros(())
    precision = pyro.sample(
        "precision", dist.Gamma(_like(features, noise_shape), _like(features, noise_rate))
    )
    with pyro.plate("coefficients", features.shape[1], dim=-1):
        relevance = pyro.sample(
            "relevance",
            dist.Gamma(_like(features, relevance_shape), _like(features, relevance_rate)),
        )
        weights = pyro.sample("weights", dist.Normal(zero, relevance.rsqrt()))
    intercept = pyro.sample("intercept", dist.Normal(zero, _like(features, intercept_scale)))
    location = weights @ features.T + intercept
    with pyro.plate("rows", features.shape[0], dim=-1):
        pyro.sample(
            "target", dist.Normal(location, precision.rsqrt()), obs=_observed(features, target)
        )


def logistic(
    features: Tensor,
    outcome: Tensor | None = None,
    prior_scale: float = 1.0,
    intercept_scale: float = 10.0,
) -> None:
    """Logistic regression: P(yₙ = 1) = 1 / (1 + exp(-ηₙ)).

    Sites: ``weights`` [D] in plate *coefficients*, ``intercept`` [], ``outcome`` [N] in plate
    *rows*. Not conjugate.

    Args:
        features: X, shape [N, D].
        outcome: y of zeros and ones, shape [N]; drawn from the model when not given.
        prior_scale: and the rest as for :func:`model`.
    """
    check_layout(features, outcome, "outcome")
    check_positive(prior_scale=prior_scale, intercept_scale=intercept_scale)
    logits = _linear_predictor(features, prior_scale, intercept_scale)
    with pyro.plate("rows", features.shape[0], dim=-1):
        pyro.sample("outcome", dist.Bernoulli(logits=logits), obs=_observed(features, outcome))


def poisson(
    features: Tensor,
    counts: Tensor | None = None,
    prior_scale: float = 1.0,
    intercept_scale: float = 2.0,
) -> None:
    """Poisson regression: yₙ ~ Poisson(exp ηₙ).

    Sites: ``weights`` [D] in plate *coefficients*, ``intercept`` [], ``counts`` [N] in plate
    *rows*. Not conjugate.

    Args:
        features: X, shape [N, D].
        counts: y of non-negative integers, shape [N]; drawn from the model when not given.
        prior_scale: as for :func:`model`.
        intercept_scale: narrower than elsewhere, as η is on the log scale.
    """
    check_layout(features, counts, "counts")
    check_positive(prior_scale=prior_scale, intercept_scale=intercept_scale)
    log_rate = _linear_predictor(features, prior_scale, intercept_scale)
    with pyro.plate("rows", features.shape[0], dim=-1):
        pyro.sample("counts", dist.Poisson(log_rate.exp()), obs=_observed(features, counts))


def _linear_predictor(features: Tensor, prior_scale: float, intercept_scale: float) -> Tensor:
    """Sample w and b; return η = X w + b, shape [N]."""
    zero = features.new_zeros(())
    with pyro.plate("coefficients", features.shape[1], dim=-1):
        weights = pyro.sample("weights", dist.Normal(zero, _like(features, prior_scale)))
    intercept = pyro.sample("intercept", dist.Normal(zero, _like(features, intercept_scale)))
    return weights @ features.T + intercept


def _like(features: Tensor, value: float) -> Tensor:
    return torch.full((), value, dtype=features.dtype, device=features.device)


def _observed(features: Tensor, values: Tensor | None) -> Tensor | None:
    """Integers and booleans are fine as data; densities want them as floats."""
    return None if values is None else values.to(features)

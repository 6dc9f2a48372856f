"""Bayesian linear regression with unknown noise, and its logistic, Poisson and ARD relatives.

::

    w_d ~ Normal(0, s²)                  weight of feature d = 1, …, D
    b ~ Normal(0, s_b²)                  intercept
    τ ~ Gamma(a₀, b₀)                    noise precision
    y_n ~ Normal(x_nᵀw + b, 1/τ)         row n = 1, …, N

::

    s ──► w_d ──┐
                ├──► y_n ◄── τ ◄── a₀, b₀
    s_b ──► b ──┘
          └ plate: coefficients d ┘   └ plate: rows n ┘

The smallest model in which everything about variational inference can be checked: the evidence is
one integral away from a closed form (``exact``), every coordinate update is one line (``updates``),
and how much the mean field shrinks a standard deviation has a formula
(``docs/derivations/bayesian_regression.md``).

References:
    Bishop, *Pattern Recognition and Machine Learning*, 2006, sections 3.3 and 10.3.
    MacKay, *Bayesian nonlinear modeling for the prediction competition*, 1994 (ARD).
    Drugowitsch, *Variational Bayesian inference for linear and logistic regression*,
    arXiv:1310.5438.
"""

from vitools.models import Example
from vitools.models.bayesian_regression.cavi import (
    HandDerivedFit,
    hand_derived_cavi,
    starting_point,
)
from vitools.models.bayesian_regression.exact import (
    ExactPosterior,
    exact_log_evidence,
    exact_posterior,
)
from vitools.models.bayesian_regression.model import ard, logistic, model, poisson
from vitools.models.bayesian_regression.simulation import RegressionData, load, simulate
from vitools.models.bayesian_regression.statistics import (
    Prior,
    SufficientStatistics,
    regression_prior,
    sufficient_statistics,
)
from vitools.models.bayesian_regression.updates import (
    Factors,
    blocks,
    elbo,
    expected_square_error,
    update_coefficients,
    update_precision,
)

__all__ = [
    "ExactPosterior",
    "Factors",
    "HandDerivedFit",
    "Prior",
    "RegressionData",
    "SufficientStatistics",
    "ard",
    "ard_example",
    "blocks",
    "elbo",
    "exact_log_evidence",
    "exact_posterior",
    "example",
    "expected_square_error",
    "hand_derived_cavi",
    "load",
    "logistic",
    "logistic_example",
    "model",
    "poisson",
    "poisson_example",
    "regression_prior",
    "simulate",
    "starting_point",
    "sufficient_statistics",
    "update_coefficients",
    "update_precision",
]

model.hand_derived_cavi = hand_derived_cavi  # type: ignore[attr-defined]
model.exact_log_evidence = exact_log_evidence  # type: ignore[attr-defined]


def example(seed: int) -> Example:
    """The diabetes data, standardised; the same for every seed."""
    data = load()
    rows, columns = data.features.shape
    return Example(model, (data.features, data.target), f"diabetes, {rows} rows × {columns}")


def ard_example(seed: int) -> Example:
    """The diabetes data for :func:`ard`."""
    data = load()
    rows, columns = data.features.shape
    return Example(ard, (data.features, data.target), f"diabetes, {rows} rows × {columns}")


def logistic_example(seed: int) -> Example:
    """200 binary outcomes of 3 features, simulated."""
    data = simulate(200, 3, seed, likelihood="bernoulli")
    return Example(logistic, (data.features, data.target), "200 rows × 3 (simulated)")


def poisson_example(seed: int) -> Example:
    """200 counts of 3 features, simulated."""
    data = simulate(200, 3, seed, likelihood="poisson")
    return Example(poisson, (data.features, data.target), "200 rows × 3 (simulated)")

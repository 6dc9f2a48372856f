"""Factor rules: the log density of each Pyro distribution, written in expressions.

A rule takes the value and the distribution's parameters under the names that torch gives them. To
add one: write the textbook formula in a file here and add a line to :data:`RULES`.
"""

from collections.abc import Callable
from typing import Any

from vitools.calculus.densities.rules.bernoulli import bernoulli
from vitools.calculus.densities.rules.beta import beta, uniform
from vitools.calculus.densities.rules.categorical import categorical, one_hot_categorical
from vitools.calculus.densities.rules.counts import (
    binomial,
    gamma_poisson,
    geometric,
    multinomial,
    negative_binomial,
    poisson,
)
from vitools.calculus.densities.rules.dirichlet import dirichlet
from vitools.calculus.densities.rules.gamma import chi2, exponential, gamma, inverse_gamma
from vitools.calculus.densities.rules.heavy_tails import cauchy, laplace, logistic, student_t
from vitools.calculus.densities.rules.markov_chains import (
    categorical_markov_chain,
    gaussian_markov_chain,
)
from vitools.calculus.densities.rules.multivariate_normal import multivariate_normal, shaped_normal
from vitools.calculus.densities.rules.normal import log_normal, normal
from vitools.calculus.densities.rules.ordinal import ordered_logistic
from vitools.calculus.densities.rules.survival import gumbel, weibull
from vitools.calculus.densities.rules.unit import flat, unit
from vitools.calculus.densities.rules.wishart import wishart

RULES: dict[str, Callable[..., Any]] = {
    "Bernoulli": bernoulli,
    "Beta": beta,
    "Binomial": binomial,
    "Categorical": categorical,
    "CategoricalMarkovChain": categorical_markov_chain,
    "Cauchy": cauchy,
    "Chi2": chi2,
    "Dirichlet": dirichlet,
    "Exponential": exponential,
    "Gamma": gamma,
    "GammaPoisson": gamma_poisson,
    "GaussianMarkovChain": gaussian_markov_chain,
    "Geometric": geometric,
    "Gumbel": gumbel,
    "ImproperUniform": flat,
    "InverseGamma": inverse_gamma,
    "Laplace": laplace,
    "LogNormal": log_normal,
    "Logistic": logistic,
    "Multinomial": multinomial,
    "MultivariateNormal": multivariate_normal,
    "NegativeBinomial": negative_binomial,
    "Normal": normal,
    "OneHotCategorical": one_hot_categorical,
    "OrderedLogistic": ordered_logistic,
    "Poisson": poisson,
    "ShapedNormal": shaped_normal,
    "StudentT": student_t,
    "Uniform": uniform,
    "Unit": unit,
    "Weibull": weibull,
    "Wishart": wishart,
}

# Distributions whose values are integers used as indices or cases.
DISCRETE_VALUES = frozenset({"Categorical", "CategoricalMarkovChain", "Bernoulli"})

__all__ = ["DISCRETE_VALUES", "RULES"]

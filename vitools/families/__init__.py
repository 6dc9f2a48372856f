"""Exponential families under one contract (:mod:`vitools.families.family`)."""

from vitools.families.beta import BetaFamily
from vitools.families.categorical import CategoricalFamily
from vitools.families.dirichlet import DirichletFamily
from vitools.families.family import Family
from vitools.families.gamma import GammaFamily
from vitools.families.inverse_gamma import InverseGammaFamily
from vitools.families.multivariate_normal import MultivariateNormalFamily
from vitools.families.normal import NormalFamily
from vitools.families.wishart import WishartFamily

# The families, by name.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        BetaFamily(),
        CategoricalFamily(),
        DirichletFamily(),
        GammaFamily(),
        InverseGammaFamily(),
        MultivariateNormalFamily(),
        NormalFamily(),
        WishartFamily(),
    )
}

# The family of the optimal q for a latent with this prior.
FAMILY_OF_PRIOR: dict[str, str] = {
    "Bernoulli": "Categorical",
    "Beta": "Beta",
    "Categorical": "Categorical",
    "Chi2": "Gamma",
    "Dirichlet": "Dirichlet",
    "Exponential": "Gamma",
    "Gamma": "Gamma",
    "InverseGamma": "InverseGamma",
    "MultivariateNormal": "MultivariateNormal",
    "Normal": "Normal",
    "OneHotCategorical": "Categorical",
    "Uniform": "Beta",
    "Wishart": "Wishart",
}

__all__ = ["FAMILIES", "FAMILY_OF_PRIOR", "Family"]

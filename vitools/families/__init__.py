"""Exponential families under one contract (:mod:`vitools.families.family`)."""

from torch.distributions import Distribution

from vitools.families.beta import BetaFamily
from vitools.families.categorical import CategoricalFamily
from vitools.families.dirichlet import DirichletFamily
from vitools.families.family import Family
from vitools.families.free_form import FreeFormFamily
from vitools.families.gamma import GammaFamily
from vitools.families.gated_normal import GatedNormalFamily
from vitools.families.inverse_gamma import InverseGammaFamily
from vitools.families.markov_chain import MarkovChainFamily, TrajectoryFamily
from vitools.families.multivariate_normal import MultivariateNormalFamily
from vitools.families.normal import NormalFamily
from vitools.families.tree_normal import TreeNormalFamily
from vitools.families.wishart import WishartFamily

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
"""The families, by name."""

# Families of which each block of q makes one of its own.
MADE_FOR_A_BLOCK: tuple[type[Family], ...] = (
    FreeFormFamily,
    GatedNormalFamily,
    MarkovChainFamily,
    TrajectoryFamily,
    TreeNormalFamily,
)


def family_of_prior(prior: str) -> Family | None:
    """The family of the optimal q for a latent with this prior; ``None`` where there is none."""
    return next((family for family in FAMILIES.values() if prior in family.priors), None)


def conjugate_priors() -> list[str]:
    """The distributions that a latent may have and its factor be in a family."""
    return sorted(prior for family in FAMILIES.values() for prior in family.priors)


def members() -> dict[str, tuple[type[Distribution], tuple[str, ...]]]:
    """The distributions that factors are handed out as, with the parameters that make them anew."""
    families: list[type[Family]] = [*map(type, FAMILIES.values()), *MADE_FOR_A_BLOCK]
    return {
        kind.__name__: (kind, parameters)
        for family in families
        for kind, parameters in family.members.items()
    }


__all__ = ["FAMILIES", "Family", "conjugate_priors", "family_of_prior", "members"]

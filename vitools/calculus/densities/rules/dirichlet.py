"""Dirichlet: log p = Σ_k (a_k - 1) log x_k + log Γ(Σ_k a_k) - Σ_k log Γ(a_k)."""

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.functions import log_gamma


def dirichlet(x: Expression, concentration: Expression) -> Expression:
    a = concentration.folded()
    normaliser = log_gamma(a.sum(-1).folded()) - log_gamma(a).sum(-1)
    return ((a - 1).folded() * x.log()).sum(-1) + normaliser

"""Dirichlet: log p = Σ_k (a_k - 1) log x_k + log Γ(Σ_k a_k) - Σ_k log Γ(a_k)."""

import torch

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.functions import constant


def dirichlet(x: Expression, concentration: Expression) -> Expression:
    a = constant(concentration, "concentration")
    normaliser = torch.lgamma(a.sum(-1)) - torch.lgamma(a).sum(-1)
    return (Expression.constant(a - 1) * x.log()).sum(-1) + Expression.constant(normaliser)

"""Categorical and its one-hot form: log p(x) = Σ_k 1[x = k] log p_k."""

from vitools.calculus.algebra.discrete import Discrete, pick
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.functions import log_probabilities


def categorical(
    x: Discrete,
    probs: Expression | None = None,
    logits: Expression | None = None,
    *,
    simplex_sites: frozenset[str],
) -> Expression:
    return pick(log_probabilities(probs, logits, simplex_sites), x)


def one_hot_categorical(
    x: Expression,
    probs: Expression | None = None,
    logits: Expression | None = None,
    *,
    simplex_sites: frozenset[str],
) -> Expression:
    return (x * log_probabilities(probs, logits, simplex_sites)).sum(-1)

"""Bernoulli: log p(x) = x log p + (1-x) log(1-p) = x η - log(1 + e^η), η the logit."""

from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression


def bernoulli(
    x: Discrete, probs: Expression | None = None, logits: Expression | None = None
) -> Expression:
    one = x.expression()
    if logits is not None and not logits.is_constant:
        return one * logits - logits.elementwise("softplus")
    zero = x.apply(lambda table: 1 - table.double()).expression()
    return one * log_probability(probs, logits) + zero * log_complement(probs, logits)


def log_probability(probs: Expression | None, logits: Expression | None) -> Expression:
    """log p of a probability parameter, or of its logit."""
    if probs is not None:
        return probs.log()
    assert logits is not None
    if logits.is_constant:  # the difference would cancel, and be nan at an infinite logit
        return logits.elementwise("log_sigmoid")
    return logits - logits.elementwise("softplus")


def log_complement(probs: Expression | None, logits: Expression | None) -> Expression:
    """log(1-p)."""
    if probs is not None:
        return (1 - probs).log()
    assert logits is not None
    return -logits.elementwise("softplus")

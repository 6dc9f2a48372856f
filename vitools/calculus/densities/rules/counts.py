"""Distributions of counts, observed only: Poisson, binomial, multinomial, geometric and others."""

import torch

from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.bernoulli import log_complement, log_probability
from vitools.calculus.densities.rules.functions import (
    constant,
    log_gamma,
    log_gamma_ratio,
    log_probabilities,
)


def poisson(x: Expression, rate: Expression) -> Expression:
    return x * rate.log() - rate - log_gamma(constant(x, "value") + 1)


def binomial(
    x: Expression,
    total_count: Expression,
    probs: Expression | None = None,
    logits: Expression | None = None,
) -> Expression:
    n, k = constant(total_count, "total_count"), constant(x, "value")
    choose = log_gamma(n + 1) - log_gamma(k + 1) - log_gamma(n - k + 1)
    if logits is not None and not logits.is_constant:
        return x * logits - Expression.constant(n) * logits.elementwise("softplus") + choose
    success, failure = log_probability(probs, logits), log_complement(probs, logits)
    return x * success + Expression.constant(n - k) * failure + choose


def geometric(
    x: Expression, probs: Expression | None = None, logits: Expression | None = None
) -> Expression:
    return x * log_complement(probs, logits) + log_probability(probs, logits)


def negative_binomial(
    x: Expression,
    total_count: Expression,
    probs: Expression | None = None,
    logits: Expression | None = None,
) -> Expression:
    """Successes x of probability p before ``total_count`` failures (torch's convention)."""
    n, k = total_count.folded(), constant(x, "value")
    choose = log_gamma_ratio(n, k) - log_gamma(k + 1)
    if logits is not None and not logits.is_constant:
        return x * logits - (n + k).folded() * logits.elementwise("softplus") + choose
    success, failure = log_probability(probs, logits), log_complement(probs, logits)
    return x * success + n * failure + choose


def gamma_poisson(x: Expression, concentration: Expression, rate: Expression) -> Expression:
    """A Poisson whose rate is Gamma(a, b): a negative binomial of a failures, its logit -log b."""
    return negative_binomial(x, concentration, logits=(-rate.log()).folded())


def multinomial(
    x: Expression,
    total_count: Expression | None = None,
    probs: Expression | None = None,
    logits: Expression | None = None,
    *,
    simplex_sites: frozenset[str],
) -> Expression:
    counts = constant(x, "value")
    choose = torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)
    log_probs = log_probabilities(probs, logits, simplex_sites)
    return (x * log_probs).sum(-1) + Expression.constant(choose)

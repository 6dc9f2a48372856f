"""Markov chains: log p(x_0) + Σ_t log p(x_t | x_t-1), all steps at once."""

import math

import torch

from vitools.calculus.algebra.discrete import Discrete, pick
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.densities.rules.functions import log_probabilities
from vitools.calculus.densities.rules.multivariate_normal import precision_of
from vitools.calculus.tracing.operations.matrices import matmul_expressions


def gaussian_markov_chain(
    x: Expression,
    initial_loc: Expression,
    initial_scale: Expression | None = None,
    transition_scale: Expression | None = None,
    transition_matrix: Expression | None = None,
    transition_offset: Expression | None = None,
    num_steps: Expression | None = None,
    initial_scale_tril: Expression | None = None,
    transition_scale_tril: Expression | None = None,
) -> Expression:
    """x_t = F_t x_t-1 + c_t + S_t ε_t."""
    steps = x.shape[-2]
    first = x.take(0, -2) - initial_loc
    total = _normal(first, initial_scale, initial_scale_tril)
    if steps == 1:
        return total
    before, after = x.take(torch.arange(steps - 1), -2), x.take(torch.arange(1, steps), -2)
    if transition_matrix is not None:
        before = matmul_expressions(transition_matrix, before.unsqueeze(-1)).squeeze(-1)
    error = after - before
    if transition_offset is not None:
        error = error - transition_offset
    return total + _normal(error, transition_scale, transition_scale_tril).sum(-1)


def _normal(error: Expression, scale: Expression | None, tril: Expression | None) -> Expression:
    """log N(error | 0, S Sᵀ) over the last dim, of standard deviations or a Cholesky factor."""
    error = error.folded()  # constants first: their squares apart would cancel
    if tril is None:
        assert scale is not None
        precision = scale.power(-2)
        each = 0.5 * precision.log() - 0.5 * math.log(2 * math.pi)
        return (-0.5 * precision * error.square() + each).sum(-1)
    precision, log_det = precision_of(None, None, tril)
    quadratic = (error.unsqueeze(-1) * error.unsqueeze(-2) * precision).sum_right(2)
    return -0.5 * quadratic + 0.5 * log_det - 0.5 * error.shape[-1] * math.log(2 * math.pi)


def categorical_markov_chain(
    x: Discrete,
    initial_probs: Expression | None = None,
    transition_probs: Expression | None = None,
    num_steps: Expression | None = None,
    initial_logits: Expression | None = None,
    transition_logits: Expression | None = None,
    *,
    simplex_sites: frozenset[str],
) -> Expression:
    """log p_0[x_0] + Σ_t log P_t[x_t-1, x_t]."""
    steps = x.shape[-1]
    initial = log_probabilities(initial_probs, initial_logits, simplex_sites)
    total = pick(initial, x.restructured(lambda e: e.take(0, -1)))
    if steps == 1:
        return total
    transition = log_probabilities(transition_probs, transition_logits, simplex_sites)
    before = x.restructured(lambda e: e.take(torch.arange(steps - 1), -1))
    after = x.restructured(lambda e: e.take(torch.arange(1, steps), -1).unsqueeze(-1))
    if transition.dim > 2 and transition.shape[-3] == 1:  # the same for all steps
        transition = transition.take(0, -3).unsqueeze(-3)
    return total + pick(pick(transition, after), before).sum(-1)

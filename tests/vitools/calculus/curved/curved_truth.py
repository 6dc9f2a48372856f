"""Truths from outside: the functions in numpy and scipy, integrated over many small panels."""

import math

import numpy as np
import scipy.special as sp

from vitools.calculus.curved.functions import FUNCTIONS

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(24)


def nodes(mean, variance, panel=0.4, kinks=()):
    """z and weights of E f(m + √v z): panels of 24 Legendre nodes, none wider than ``panel`` in η."""
    sd = math.sqrt(variance)
    edges = np.linspace(-9.5, 9.5, max(40, math.ceil(19 * sd / panel)) + 1)
    edges = np.sort(np.append(edges, [(k - mean) / sd for k in kinks if abs(k - mean) < 9.5 * sd]))
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + edges[1:, None]) / 2 + half * POINTS
    return z, np.exp(-z * z / 2) * half * WEIGHTS / math.sqrt(2 * math.pi)


def integral(function, mean, variance, **options):
    """E f(m + √v z)."""
    z, weights = nodes(mean, variance, **options)
    return math.fsum((function(mean + math.sqrt(variance) * z) * weights).ravel())


def integrals(function, mean, variance, **options):
    """E |f|, E f, ∂/∂m and ∂/∂v of it, these by parts, without f': E[f z]/s and E[(f - f(m)) (z² - 1)] / 2v."""
    z, weights = nodes(mean, variance, **options)
    value = function(mean + math.sqrt(variance) * z)
    centred = value - function(np.array([float(mean)]))[0]
    first = (centred * z * weights).sum() / math.sqrt(variance)
    second = (centred * (z * z - 1) * weights).sum() / (2 * variance)
    return (abs(value) * weights).sum(), (value * weights).sum(), first, second


def softplus(x):
    return np.logaddexp(0, x)


def log_softplus(x):
    return np.where(x < -30, x, np.log(softplus(np.maximum(x, -31))))


def log_complement(x):
    rate = np.exp(np.clip(x, -700, 3.5))
    small = np.minimum(rate, 1.0)
    middle = np.where(rate < 0.6, np.log(-np.expm1(-small)), np.log1p(-np.exp(-rate - 1e-300)))
    return np.where(x < -20, x, np.where(rate < 1e-12, 0.0, middle))


def ordinal_probit(low, high):
    def function(x):
        a, b = low - x, high - x
        a, b = np.where(a + b > 0, -b, a), np.where(a + b > 0, -a, b)
        middle = np.log(np.maximum(sp.ndtr(b) - sp.ndtr(a), 1e-300))
        tail = sp.log_ndtr(b) + np.log(-np.expm1(sp.log_ndtr(a) - sp.log_ndtr(b)))
        return np.where(b > 0, middle, tail)

    return function


KINK = 0.3

CASES = {
    "identity": (FUNCTIONS["identity"](), lambda x: x),
    "softplus": (FUNCTIONS["softplus"](), softplus),
    "log sigmoid": (FUNCTIONS["log sigmoid"](), lambda x: -softplus(-x)),
    "sigmoid": (FUNCTIONS["sigmoid"](), sp.expit),
    "tanh": (FUNCTIONS["tanh"](), np.tanh),
    "log normal cdf": (FUNCTIONS["log normal cdf"](), sp.log_ndtr),
    "student t": (FUNCTIONS["student t"](1.0, 0.5, 4.0), lambda x: np.log1p((x - 1) ** 2)),
    "log1p square": (FUNCTIONS["log1p square"](), lambda x: np.log1p(x**2)),
    "log sum": (FUNCTIONS["log sum"](3.0), lambda x: np.logaddexp(math.log(3), x)),
    "log complement": (FUNCTIONS["log complement"](), log_complement),
    "log softplus": (FUNCTIONS["log softplus"](), log_softplus),
    "ordinal logit": (
        FUNCTIONS["ordinal logit"](-0.5, 1.5),
        lambda x: math.log(-math.expm1(-2)) - softplus(x - 1.5) - softplus(-0.5 - x),
    ),
    "ordinal probit": (FUNCTIONS["ordinal probit"](-0.5, 1.5), ordinal_probit(-0.5, 1.5)),
    "relu": (FUNCTIONS["relu"](KINK), lambda x: np.maximum(x - KINK, 0)),
    "distance": (FUNCTIONS["distance"](KINK), lambda x: abs(x - KINK)),
    "squared relu": (FUNCTIONS["squared relu"](KINK), lambda x: np.maximum(x - KINK, 0) ** 2),
    "power": (FUNCTIONS["power"](4), lambda x: x**4),
}
"""Each function of the table but the exponential, which has its own tests, and its numpy twin."""

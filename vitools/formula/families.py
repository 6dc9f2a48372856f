"""Families: what a response may be, how it follows from the predictor, the parameters that come with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from vitools.formula.priors import Prior

Scale = float
"""The standard deviation of the response on the scale of the predictor."""


@dataclass(frozen=True)
class ResponseFamily:
    """A row of the table.

    Attributes:
        links: for each link, the first the default, the response's distribution as it is written in
            the model: a function of the predictor ``eta`` and the parameters by name.
        parameters: default priors by name, given the response's standard deviation.
        fits: which values [N] the response may have; ``support`` says so in words.
        values: ``numbers``, ``two`` (numbers 0 and 1, or two words), ``levels`` or ``ordered``.
        is_scaled: whether the predictor is in units of the response, so that priors follow its mean and sd.
        words: for ``print(problem.priors)`` and docs: the distribution.
    """

    links: Mapping[str, str]
    words: str
    fits: Callable[[np.ndarray], np.ndarray]
    support: str
    values: str = "numbers"
    parameters: Mapping[str, Callable[[Scale], Prior]] = field(default_factory=dict)
    is_scaled: bool = False
    takes_trials: bool = False


def _noise(scale: Scale) -> Prior:
    return Prior.of("HalfNormal", scale=2.5 * scale, why="2.5 · sd(y)")


def _wide(scale: Scale) -> Prior:
    return Prior.of("HalfCauchy", scale=10.0, why="median 10, heavy tail")


def _whole(y: np.ndarray) -> np.ndarray:
    return (y >= 0) & (y == np.round(y))


def _any(y: np.ndarray) -> np.ndarray:
    return np.isfinite(y)


_PROBABILITY = {
    "logit": "logits=eta",
    "probit": "probs=0.5 * torch.erfc(-eta / 2**0.5)",
    "cloglog": "probs=-torch.expm1(-eta.exp())",
}

FAMILIES: dict[str, ResponseFamily] = {
    "gaussian": ResponseFamily(
        links={"identity": "dist.Normal(eta, sigma)"},
        words="Normal(eta, sigma)",
        fits=_any,
        support="numbers",
        parameters={"sigma": _noise},
        is_scaled=True,
    ),
    "t": ResponseFamily(
        links={"identity": "dist.StudentT(nu, eta, sigma)"},
        words="Student-t with nu degrees of freedom, location eta, scale sigma",
        fits=_any,
        support="numbers",
        parameters={
            "sigma": _noise,
            "nu": lambda scale: Prior.of("Gamma", concentration=2.0, rate=0.1, why="from 2 to 60"),
        },
        is_scaled=True,
    ),
    "bernoulli": ResponseFamily(
        links={link: f"dist.Bernoulli({p})" for link, p in _PROBABILITY.items()},
        words="Bernoulli with P(1) = link⁻¹(eta)",
        fits=lambda y: (y == 0) | (y == 1),
        support="0 and 1, or two words of which the last in alphabetical order counts as 1",
        values="two",
    ),
    "binomial": ResponseFamily(
        links={link: f"dist.Binomial(trials, {p})" for link, p in _PROBABILITY.items()},
        words="Binomial of the trials with probability link⁻¹(eta)",
        fits=_whole,
        support="whole numbers from 0",
        takes_trials=True,
    ),
    "poisson": ResponseFamily(
        links={"log": "dist.Poisson(eta.exp())"},
        words="Poisson with mean exp(eta)",
        fits=_whole,
        support="whole numbers from 0",
    ),
    "negativebinomial": ResponseFamily(
        links={"log": "dist.GammaPoisson(alpha, alpha / eta.exp())"},
        words="negative binomial with mean m = exp(eta) and variance m + m²/alpha",
        fits=_whole,
        support="whole numbers from 0",
        parameters={
            "alpha": lambda scale: Prior.of("Exponential", rate=0.1, why="mean 10"),
        },
    ),
    "gamma": ResponseFamily(
        links={"log": "dist.Gamma(alpha, alpha / eta.exp())"},
        words="Gamma with mean m = exp(eta) and variance m²/alpha",
        fits=lambda y: y > 0,
        support="numbers above 0",
        parameters={"alpha": _wide},
    ),
    "beta": ResponseFamily(
        links={"logit": "dist.Beta(kappa * eta.sigmoid(), kappa * (-eta).sigmoid())"},
        words="Beta with mean m = logit⁻¹(eta) and variance m (1 - m) / (1 + kappa)",
        fits=lambda y: (y > 0) & (y < 1),
        support="numbers above 0 and below 1",
        parameters={"kappa": _wide},
    ),
    "cumulative": ResponseFamily(
        links={"logit": "dist.OrderedLogistic(eta, centred_threshold)"},
        words="ordered levels with P(y ≤ k) = logit⁻¹(threshold[k] - eta)",
        fits=_whole,
        support="whole numbers, or an ordered categorical column",
        values="ordered",
    ),
    "categorical": ResponseFamily(
        links={"softmax": "dist.Categorical(logits=logits)"},
        words="levels with P(y = k) in proportion to exp(eta[k]), eta of the first level 0",
        fits=_whole,
        support="words or whole numbers",
        values="levels",
    ),
}

"""Leave-one-out predictive scores, from one fit.

    elpd = Σ_n log p(x_n | x_{-n}) ≈ Σ_n log Σ_i w_i^n p(x_n | θ_i),    w_i^n ∝ r_i / p(x_n | θ_i),

r_i = 1 for draws from the posterior. For draws of an approximation q, r_i = p(x, θ_i) / q(θ_i)
corrects for it in the same stroke. Weights are Pareto smoothed for every unit of data, each with
its own k̂. Units are what stays independent given the parameters, discrete latents summed out.

For draws of Markov chains the numbers are those of ``arviz.loo``, which lets the tail grow where draws
are correlated. For an approximation they are those of ``arviz.loo_approximate_posterior``: its
weights carry the error of q as well as the step to x_{-n}, so their k̂ is larger than the one that
``arviz.loo`` shows of the same draws, and more units may pass the threshold.

References:
    Vehtari, Gelman, Gabry, *Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC*, Statistics and Computing 27, 2017.
    Magnusson, Andersen, Jonasson, Vehtari, *Bayesian leave-one-out cross-validation for large
    data*, ICML 2019 (the correction for an approximate posterior).
    Watanabe, *Asymptotic equivalence of Bayes cross validation and WAIC*, JMLR 11, 2010.
"""

import math
from dataclasses import dataclass

import torch
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from vitools.diagnostics.weights.bounds import is_constant
from vitools.diagnostics.weights.khat import khat_threshold
from vitools.diagnostics.weights.psis import smooth
from vitools.errors import OptionError
from vitools.posterior import DrawsPosterior, Estimate, Posterior


@dataclass(frozen=True)
class PredictiveScore:
    """A model's expected log predictive density of new data, in nats: higher is better.

    Attributes:
        elpd: the sum over units, with the standard error √(N var) over units.
        effective_parameters: log density of the data seen less elpd.
        pointwise: ``{name: [*units]}``.
        khats: k̂ of each unit's weights, shaped likewise; empty for WAIC.
        num_above: units whose k̂ is above the threshold; their terms are unreliable.
    """

    elpd: Estimate
    effective_parameters: float
    pointwise: dict[str, Tensor]
    khats: dict[str, Tensor]
    num_above: int


def loo(posterior: Posterior, num_samples: int = 2000, seed: int = 0) -> PredictiveScore:
    """PSIS-LOO of a fit; an approximation is corrected by its importance weights.

    Args:
        num_samples: draws from a fit with a density; a sampler's own draws are all used.
    """
    likelihood, log_ratios = _terms(posterior, num_samples, seed)
    efficiency = _efficiency(posterior)
    pointwise, khats, seen = {}, {}, 0.0
    for name, terms in likelihood.items():
        flat = terms.flatten(1)
        found = [_leave_one_out(flat[:, n], log_ratios, efficiency) for n in range(flat.shape[1])]
        pointwise[name] = (
            torch.tensor([elpd for elpd, _ in found]).double().reshape(terms.shape[1:])
        )
        khats[name] = torch.tensor([khat for _, khat in found]).double().reshape(terms.shape[1:])
        seen += float(_mean_density(flat, log_ratios).sum())
    limit = khat_threshold(len(log_ratios))
    above = sum(int((khat > limit).sum()) for khat in khats.values())
    elpd = _total(pointwise)
    return PredictiveScore(elpd, seen - elpd.value, pointwise, khats, above)


def waic(posterior: Posterior, num_samples: int = 2000, seed: int = 0) -> PredictiveScore:
    """log E p(x_n | θ) - Var log p(x_n | θ), summed; of draws of the fit as they are.

    It knows no correction for an approximation and no warning of its own: prefer :func:`loo`.
    """
    likelihood, log_ratios = _terms(posterior, num_samples, seed)
    pointwise, seen = {}, 0.0
    even = torch.zeros_like(log_ratios)
    for name, terms in likelihood.items():
        flat = terms.flatten(1)
        density = _mean_density(flat, even)
        pointwise[name] = (density - flat.var(0)).reshape(terms.shape[1:])
        seen += float(density.sum())
    elpd = _total(pointwise)
    return PredictiveScore(elpd, seen - elpd.value, pointwise, {}, 0)


def elpd_difference(one: PredictiveScore, other: PredictiveScore) -> Estimate:
    """elpd of ``one`` less that of ``other`` for the same data, with its paired standard error."""
    first, second = (
        torch.cat([value.flatten() for value in score.pointwise.values()]) for score in (one, other)
    )
    if len(first) != len(second):
        raise OptionError(
            f"expected scores of the same units of data, got {len(first)} and {len(second)} units."
        )
    return _total({"difference": first - second})


def _terms(posterior: Posterior, num_samples: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """log p(x_n | θ_i), ``{name: [n, *units]}``, and log r_i, ``[n]``."""
    problem = posterior.problem
    with torch.no_grad():
        if isinstance(posterior, DrawsPosterior):
            values = posterior.pooled()
            log_ratios = torch.zeros(len(next(iter(values.values())))).double()
        else:
            values, log_ratios = posterior.sample_with_log_weights(num_samples, seed)
            log_ratios = log_ratios.expand(num_samples)
        likelihood = problem.pointwise_log_likelihood(values)
    log_ratios = log_ratios.detach().cpu().double()
    if is_constant(log_ratios):
        log_ratios = torch.zeros_like(log_ratios)
    count = len(log_ratios)
    terms = {
        name: value.detach().cpu().double().expand((count, *value.shape[1:]))
        for name, value in likelihood.items()
    }
    return terms, log_ratios


def _efficiency(posterior: Posterior) -> float:
    """Effective sample size over number of draws, the mean of all entries; 1 where independent."""
    if not isinstance(posterior, DrawsPosterior):
        return 1.0
    chains, length = next(iter(posterior.draws.values())).shape[:2]
    if chains == 1:
        return 1.0
    entries = [
        v.detach().cpu().double().reshape(chains, length, -1) for v in posterior.draws.values()
    ]
    sizes = effective_sample_size(torch.cat(entries, -1))
    sizes = sizes.clamp(max=chains * length * math.log10(chains * length))  # as ArviZ does
    known = sizes[torch.isfinite(sizes)]
    return float(known.mean()) / (chains * length) if len(known) else 1.0


def _leave_one_out(terms: Tensor, log_ratios: Tensor, efficiency: float) -> tuple[float, float]:
    weights = smooth(log_ratios - terms, efficiency)
    return float((weights.log_weights + terms).logsumexp(0)), weights.khat.value


def _mean_density(terms: Tensor, log_ratios: Tensor) -> Tensor:
    """log Σ_i r_i p(x_n | θ_i) / Σ_i r_i: ``[n, N]`` to ``[N]``."""
    share = log_ratios if is_constant(log_ratios) else smooth(log_ratios).log_weights
    return (share[:, None] + terms).logsumexp(0) - share.logsumexp(0)


def _total(pointwise: dict[str, Tensor]) -> Estimate:
    terms = torch.cat([value.flatten() for value in pointwise.values()])
    if len(terms) < 2:
        return Estimate(float(terms.sum()), math.inf)
    return Estimate(float(terms.sum()), float((len(terms) * terms.var()).sqrt()))

"""What reweighting a fit's draws does to its moments: the judge that needs no reference.

With normalised weights w_i ∝ p(x, θ_i) / q(θ_i), smoothed, E_p h ≈ Σ w_i h(θ_i). Where k̂ is below
its threshold these are estimates of the posterior's own moments, from nothing but the fit and the
model. A mean field that is too narrow, or a mean that has not arrived yet, shows as a correction.
What no draw of the fit has seen (another mode) does not.

Errors are those of self-normalised importance sampling, Σ w_i² (h_i - h̄)². The fit's moments come
from the same draws, so most of the noise cancels in the difference.

Reference: Vehtari, Simpson, Gelman, Yao, Gabry, *Pareto smoothed importance sampling*, JMLR 25,
2024.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitools.diagnostics.reference.accuracy import Accuracy, Figures, summarise, varying_scale
from vitools.diagnostics.reference.moments import Moments
from vitools.diagnostics.weights.psis import SmoothedWeights


def psis_moments(draws: Mapping[str, Tensor], weights: SmoothedWeights) -> dict[str, Moments]:
    """The posterior's moments by importance sampling, with Monte Carlo errors.

    Of use only where ``weights.khat`` is below :func:`~vitools.diagnostics.weights.khat.khat_threshold`.

    Args:
        draws: quantities at the fit's draws, ``{name: [n, *shape]}``.
        weights: of those draws.

    Example:
        >>> from vitools.diagnostics import smooth
        >>> draws = torch.linspace(-1.0, 1.0, 101).double()
        >>> found = psis_moments({"mu": draws}, smooth(torch.zeros(101)))
        >>> round(float(found["mu"].sd), 3)
        0.583
    """
    return {name: _weighted(value.double(), weights.weights) for name, value in draws.items()}


def _weighted(draws: Tensor, weights: Tensor) -> Moments:
    share = _along(weights, draws)
    mean = (share * draws).sum(0)
    squares = (draws - mean).square()
    variance = (share * squares).sum(0)
    sd = variance.sqrt()
    mean_error = (share.square() * squares).sum(0).sqrt()
    variance_error = (share * (squares - variance)).square().sum(0).sqrt()
    return Moments(mean, sd, mean_error, torch.where(sd > 0, variance_error / (2 * sd), 0.0))


def measure_correction(draws: Mapping[str, Tensor], weights: SmoothedWeights) -> Accuracy | None:
    """The fit's own moments against the reweighted ones, read as an :class:`Accuracy`.

    ``mean_error`` is |mean_q - mean_w| in reweighted sds and ``sd_ratio`` is sd_q / sd_w: below one
    where the fit is too narrow. ``None`` if nothing varies.

    Args:
        draws: of the fit, ``{site: [n, *shape]}``.
        weights: of these draws, smoothed.
    """
    errors: Figures = {}
    ratios: Figures = {}
    for name, value in draws.items():
        value = value.double()
        w, even = _along(weights.weights, value), 1.0 / len(value)
        found = _weighted(value, weights.weights)
        own_mean, own_sd = value.mean(0), value.std(0, correction=0)
        scale = varying_scale(found.mean, found.sd)
        centred = (value - found.mean) / scale
        gap = (own_mean - found.mean) / scale
        ratio = own_sd / scale
        # influence of each draw on the difference; most of what both sides share cancels
        spread = w * (centred.square() - 1)
        of_gap = even * (value - own_mean) / scale - w * centred - gap * spread / 2
        own = ((value - own_mean) / torch.where(own_sd > 0, own_sd, torch.nan)).square() - 1
        of_ratio = (even * own - spread) / 2
        error, error_se = gap.abs(), of_gap.square().sum(0).sqrt()
        errors[name] = error, error_se
        ratios[name] = ratio, ratio * of_ratio.square().sum(0).sqrt()
    return summarise(errors, ratios)


def _along(weights: Tensor, draws: Tensor) -> Tensor:
    return weights.reshape((-1,) + (1,) * (draws.dim() - 1))

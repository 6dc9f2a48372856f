"""How far a fit's moments are from a reference's, in units of the reference's sd.

For each entry: the mean error |m_q - m_ref| / s_ref and the sd ratio s_q / s_ref, with the
Monte Carlo errors of both sides carried through (delta method).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.reference.moments import Moments
from vitools.posterior import Estimate

SURE = 2.0
"""Standard errors by which a deviation has to clear a limit before it counts."""

Figures = dict[str, tuple[Tensor, Tensor]]
"""Values and their standard errors, ``{name: ([*shape], [*shape])}``; NaN for constants."""

NEGLIGIBLE = 1e-10  # an sd this small relative to its mean is a constant, not an unknown


@dataclass(frozen=True)
class Accuracy:
    """The worst entries, and the figures of all.

    The worst is the entry whose deviation is largest beyond doubt (two standard errors less than
    estimated), so that a noisy entry does not hide a wrong one.

    Attributes:
        mean_error, sd_ratio: at the worst entry of each kind.
        mean_error_at, sd_ratio_at: the names of those entries, e.g. ``"rho[4,2]"``.
        all_mean_errors, all_sd_ratios: ``{name: [*shape]}``; NaN for constants.
    """

    mean_error: Estimate
    mean_error_at: str
    sd_ratio: Estimate
    sd_ratio_at: str
    all_mean_errors: dict[str, Tensor]
    all_sd_ratios: dict[str, Tensor]


def measure_accuracy(
    found: Mapping[str, Moments], reference: Mapping[str, Moments]
) -> Accuracy | None:
    """Compare moments with a reference's; ``None`` if nothing in the reference varies.

    Args:
        found: the fit's, by site.
        reference: those to compare with.

    Example:
        >>> q = {"mu": Moments.exact(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))}
        >>> p = {"mu": Moments.exact(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 4.0]))}
        >>> accuracy = measure_accuracy(q, p)
        >>> print(accuracy.mean_error, accuracy.mean_error_at)
        0.50 (exact) mu[0]
        >>> print(accuracy.sd_ratio, accuracy.sd_ratio_at)
        0.25 (exact) mu[1]
    """
    errors: Figures = {}
    ratios: Figures = {}
    for name, ref in reference.items():
        q = found[name]
        scale = varying_scale(ref.mean, ref.sd)
        varies = ~torch.isnan(scale)
        error, ratio = (q.mean - ref.mean).abs() / scale, q.sd / scale
        # A fit that left the numbers is infinitely wrong, not unknown.
        error, ratio = (torch.where(varies, x.nan_to_num(nan=torch.inf), x) for x in (error, ratio))
        doubt = (ref.sd_error / scale).square()
        error_se = ((q.mean_error**2 + ref.mean_error**2) / scale**2 + error**2 * doubt).sqrt()
        ratio_se = ((q.sd_error / scale).square() + ratio**2 * doubt).sqrt()
        error_se, ratio_se = (
            torch.where(torch.isinf(x), 0.0, se) for x, se in ((error, error_se), (ratio, ratio_se))
        )
        errors[name], ratios[name] = (error, error_se), (ratio, ratio_se)
    return summarise(errors, ratios)


def varying_scale(mean: Tensor, sd: Tensor) -> Tensor:
    """``sd``, NaN where the entry is a constant."""
    return torch.where(sd > NEGLIGIBLE * (1.0 + mean.abs()), sd, torch.nan)


def summarise(errors: Figures, ratios: Figures) -> Accuracy | None:
    """The worst entries of both kinds, and all; ``None`` where nothing varies."""
    worst_error = _worst(errors, lambda error, se: error - SURE * se)
    worst_ratio = _worst(ratios, lambda ratio, se: ratio.log().abs() - SURE * se / ratio)
    if worst_error is None or worst_ratio is None:
        return None
    return Accuracy(
        *worst_error,
        *worst_ratio,
        {name: value for name, (value, _) in errors.items()},
        {name: value for name, (value, _) in ratios.items()},
    )


def _worst(
    figures: Mapping[str, tuple[Tensor, Tensor]], badness: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Estimate, str] | None:
    best: tuple[float, Estimate, str] | None = None
    for name, (value, error) in figures.items():
        known = ~torch.isnan(value)
        if not bool(known.any()):
            continue
        bad = badness(value, error).nan_to_num(nan=torch.inf)
        bad = torch.where(known, bad, -torch.inf)
        index = tuple(int(i) for i in torch.unravel_index(bad.argmax(), bad.shape))
        if best is None or float(bad[index]) > best[0]:
            at = Estimate(float(value[index]), float(error[index]))
            best = (float(bad[index]), at, entry_name(name, index))
    return None if best is None else best[1:]


def entry_name(name: str, index: tuple[int, ...]) -> str:
    """``rho[4,2]``; a scalar keeps its bare name."""
    return f"{name}[{','.join(map(str, index))}]" if index else name

"""A verdict in words on one fit, by stated rules.

The worst of these decides. Of a mean, an sd and a k̂ that are equally bad, the one that is furthest
beyond its limit, as a factor, is named; else the first listed:

===============================  =================================================
do not use                       the engine diverged, or chains have not mixed
                                 a draw of the fit has zero or undefined density
                                 the evidence seen by the fit is a fraction of what is known
                                 a mean is off by more than 1 sd
                                 an sd is off by more than a factor of 3
                                 k̂ clearly (by 0.15, and two standard errors) above the threshold,
                                 and no reference to check against
                                 a scan finds modes with a tenth of the mass that it does not visit
use with care                    the engine stopped at its limit or was interrupted
                                 transitions of a sampler diverged (1 in 1000 if E-BFMI is above 0.5)
                                 a sampler's energies have not mixed (E-BFMI below 0.3)
                                 a mean is off by more than 0.2 sd
                                 an sd is off by more than 25 %
                                 k̂ above the threshold, though the reference confirms the moments
                                 k̂ above the threshold by less
                                 a figure within two standard errors of its limit at the last look
                                 a scan finds modes that it does not visit, with a fiftieth of the mass,
                                 or so far away that an sd is off by more than 25 % without them
trust                            otherwise
===============================  =================================================

Means and sds are held against the reference where there is one, else against the fit's own draws
reweighted towards the posterior (:mod:`~vitools.diagnostics.weights.correction`), which is possible where
k̂ is below its threshold min(1 - 1/log₁₀ S, 0.7) at S draws. Reweighting is itself an estimate, drawn
towards the fit: the limits are 0.175 sd and 20 % then, and shrink from k̂ = 0.5 on to half of those at
0.7 (unknown moments: ``use with care``). ``do not use`` is said of a deviation that clears its limit by
two standard errors, whatever k̂; ``trust`` only where the estimate itself is within.

More draws of the fit are taken until a figure's noise cannot change the grade, and in any case where
k̂ has a say (:mod:`~vitools.diagnostics.verdict.looks`): weights are drawn towards the fit the more the
fewer they are, and most where the fit lacks a tail. What the last look cannot tell is *use with care*,
and between *trust* and *do not use* lies a band of k̂ that no seed's luck leaps over. No k̂ above the
threshold is trusted, however equal the weights: a fit that lies inside a far wider tail has nearly
equal weights, too.

Weights see the fit's own draws only: a mode that the fit misses altogether leaves no trace in them,
which is why a reference outranks them, why a bound of another fit that lies above all that this
one can account for counts against it, and why no fit is trusted before other modes have been looked for
(:mod:`~vitools.diagnostics.modes.scan`).
"""

import math

from vitools.diagnostics.reference.accuracy import SURE, Accuracy
from vitools.diagnostics.reference.energy import EnergyMixing
from vitools.diagnostics.verdict.complaints import (
    MEAN_LIMIT,
    SD_TOLERANCE,
    Complaint,
    correction_limits,
    of_density,
    of_divergences,
    of_energy,
    of_khat,
    of_missing,
    of_moments,
    of_status,
    of_weights,
)
from vitools.diagnostics.verdict.grade import Grade, Verdict
from vitools.posterior import Estimate, Status

RICHER = "try a richer guide (full covariance, other families), or nuts()"


def reach_verdict(
    status: Status,
    *,
    detail: str = "",
    bound: Estimate | None = None,
    khat: Estimate | None = None,
    threshold: float = 0.7,
    deep_khat: Estimate | None = None,
    is_certain: bool = True,
    accuracy: Accuracy | None = None,
    correction: Accuracy | None = None,
    culprit: str = "",
    missing: Estimate | None = None,
    divergences: int = 0,
    energy: EnergyMixing | None = None,
    remedy: str = RICHER,
    advice: str = "",
) -> Verdict:
    """Apply the rules above to what is known of a fit.

    Args:
        detail: the engine's own words, e.g. ``"R-hat 1.00, ESS 3100"``.
        bound, khat: ``None`` for a fit without density.
        deep_khat: what sets the limits of reweighting, if not ``khat``.
        is_certain: whether ``khat`` can reject the fit.
        accuracy: ``None`` where there is no reference.
        correction: what reweighting does to the fit's moments; used where k̂ is below the
            threshold and there is no reference.
        culprit: the latent that makes the weights heavy, with its k̂.
        missing: log p(x), or a lower bound of it from elsewhere, less what this fit accounts for.
        divergences: transitions of a sampler that could not follow the density.
        energy: how a sampler's energies have mixed.
        remedy: the next thing to try where the shape of the fit is at fault.
        advice: the same where the engine's status is, if there is better than the status's own.

    Example:
        >>> verdict = reach_verdict(Status.CONVERGED, khat=Estimate(0.82, 0.1), culprit="tau")
        >>> print(verdict, "|", verdict.reason)
        use with care | k̂ 0.82 is above its threshold 0.70, on account of tau, give or take 0.10
    """
    lacking = of_missing(missing)
    found = [
        of_status(status, detail, advice),
        of_density(bound),
        None if lacking is None else Complaint(lacking),
        of_divergences(divergences, energy),
        of_energy(energy),
    ]
    is_checked = accuracy is not None
    if accuracy is not None:
        limits = (MEAN_LIMIT, SD_TOLERANCE)
        found += of_moments(accuracy, limits, ("the reference", "the reference's"), remedy)
    weighed: list[Complaint | None] = []
    if khat is not None and not is_checked:
        weighed = of_weights(deep_khat or khat, correction, remedy)
    if khat is not None and khat.value > threshold:
        found.append(of_khat(khat, threshold, is_checked, is_certain, culprit, remedy))
        # weights too heavy to measure a deviation still bear out one that rejects the fit
        weighed = [c for c in weighed if c and c.verdict.grade is Grade.REJECT]
    found += weighed
    complaints = [complaint for complaint in found if complaint is not None]
    if complaints:
        return max(complaints, key=lambda c: (c.verdict.grade.rank, c.excess)).verdict
    words = _praise(detail, khat, threshold, accuracy, correction)
    return Verdict(Grade.TRUST, words)


def undecided(
    khat: Estimate | None,
    threshold: float,
    accuracy: Accuracy | None,
    correction: Accuracy | None,
    deep_khat: Estimate | None = None,
) -> str:
    """The figure that lies within two standard errors of the limit of *trust*, in words; empty where
    none does."""
    found, (mean, sd) = accuracy, (MEAN_LIMIT, SD_TOLERANCE)
    if accuracy is None:
        if khat is None:
            return ""
        if _near(khat.value, khat.standard_error, threshold):
            return f"k̂ {khat.value:.2f} ± {khat.standard_error:.2f} of at most {threshold:.2f}"
        found, (mean, sd) = correction, correction_limits(deep_khat or khat)
    if found is None:
        return ""
    error, ratio = found.mean_error, found.sd_ratio
    if _near(error.value, error.standard_error, mean):
        return f"the mean of {found.mean_error_at} is {error} sd off, of at most {mean:.2g}"
    if any(_near(ratio.value, ratio.standard_error, limit) for limit in (1 - sd, 1 + sd)):
        return (
            f"the sd of {found.sd_ratio_at} is {ratio} times the right one, of {1 - sd:.2g} to "
            f"{1 + sd:.2g}"
        )
    return ""


def _near(value: float, standard_error: float, limit: float) -> bool:
    return math.isfinite(value) and abs(value - limit) < SURE * standard_error


def _praise(
    detail: str,
    khat: Estimate | None,
    threshold: float,
    accuracy: Accuracy | None,
    correction: Accuracy | None,
) -> str:
    parts = []
    if khat is not None:
        parts.append(f"k̂ {khat.value:.2f} of at most {threshold:.2f}")
    elif detail:
        parts.append(detail)
    if accuracy is not None:
        parts.append(f"means within {accuracy.mean_error.value:.2f} sd of the reference")
    elif correction is not None:
        parts.append(f"reweighting moves means by at most {correction.mean_error.value:.2f} sd")
        parts.append("no reference to check against")
    else:
        parts.append("no reference to check against")
    return ", ".join(parts)

"""A verdict in words on one fit, by stated rules.

The worst of these decides. Of a mean and an sd that are equally bad, the one that is further beyond
its limit is named; else the first listed:

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
from dataclasses import dataclass
from enum import Enum

from vitools.diagnostics.reference.accuracy import SURE, Accuracy
from vitools.diagnostics.reference.energy import LEAST_FRACTION, EnergyMixing
from vitools.posterior import Estimate, Status

MEAN_LIMIT, FATAL_MEAN_ERROR = 0.2, 1.0
SD_TOLERANCE = 0.25
CORRECTION_LIMITS = (0.175, 0.2)
"""Mean error and deviation of the sd ratio from one, as reweighting shows them."""
DOUBTFUL_KHAT = 0.5
"""Above it, moments that nothing confirms are not trusted."""
DOUBTFUL_KHATS = (0.5, 0.7)
"""Where these limits begin to shrink, and where they have come to half."""
CLEARLY = 0.15
"""What k̂ has to be above its threshold to reject a fit."""
SD_FACTOR_LIMIT = 3.0
LEAST_SHARE = 0.9
"""The share of the known evidence that a fit has to account for."""
STRAY = 0.001
"""The share of divergent transitions that says nothing by itself."""
LEAST_MISSED = 0.02
"""The share of the mass in unvisited modes (by Laplace's approximation) that is worth a word."""


class Grade(Enum):
    """How much to rely on a fit, best first."""

    TRUST = "trust"
    CARE = "use with care"
    REJECT = "do not use"

    @property
    def rank(self) -> int:
        """0 for the best."""
        return list(Grade).index(self)


@dataclass(frozen=True)
class Verdict:
    """A grade, the reason in one sentence, and the next thing to try (empty where all is well)."""

    grade: Grade
    reason: str
    advice: str = ""

    def __str__(self) -> str:
        return self.grade.value


@dataclass(frozen=True)
class _Complaint:
    """A reason not to trust a fit.

    Attributes:
        excess: how far beyond its limit the figure is for certain, as a factor; infinite where no
            figure is at fault.
    """

    verdict: Verdict
    excess: float = math.inf


REPARAMETERISE = "reparameterise (LocScaleReparam for a funnel), or warm up longer"
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
        _of_status(status, detail, advice),
        _of_density(bound),
        None if lacking is None else _Complaint(lacking),
        _of_divergences(divergences, energy),
        _of_energy(energy),
    ]
    is_checked = accuracy is not None
    if accuracy is not None:
        limits = (MEAN_LIMIT, SD_TOLERANCE)
        found += _of_moments(accuracy, limits, ("the reference", "the reference's"), remedy)
    of_weights: list[_Complaint | None] = []
    if khat is not None and not is_checked:
        of_weights = _of_weights(deep_khat or khat, correction, remedy)
    if khat is not None and khat.value > threshold:
        found.append(_of_khat(khat, threshold, is_checked, is_certain, culprit, remedy))
        # weights too heavy to measure a deviation still bear out one that rejects the fit
        of_weights = [c for c in of_weights if c and c.verdict.grade is Grade.REJECT]
    found += of_weights
    complaints = [complaint for complaint in found if complaint is not None]
    if complaints:
        return max(complaints, key=lambda c: (c.verdict.grade.rank, c.excess)).verdict
    words = _praise(detail, khat, threshold, accuracy, correction)
    return Verdict(Grade.TRUST, words)


def of_missed_modes(share: float, at: str, sd_ratio: float, sd_ratio_at: str) -> Verdict | None:
    """What is to be said of a fit that does not know modes with ``share`` of the mass.

    Args:
        at: where the largest of them is.
        sd_ratio: the fit's sd of ``sd_ratio_at`` over that with the modes put in.
    """
    is_far = sd_ratio < 1 - SD_TOLERANCE
    if not (share > LEAST_MISSED or is_far):
        return None
    said = f"its draws do not visit a mode near {at}; about {share:.2g} of the mass is missed"
    if is_far and share <= LEAST_MISSED:
        said += f", and with it the sd of {sd_ratio_at}: {sd_ratio:.2f} of the right one"
    return Verdict(
        Grade.REJECT if share > 1 - LEAST_SHARE else Grade.CARE,
        said,
        "start from several seeds, or use nuts() with starts in all modes",
    )


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


def correction_limits(khat: Estimate) -> tuple[float, float]:
    """What reweighting may do to means (in sds) and sds (from a ratio of one) of a fit to be trusted.

    >>> [correction_limits(Estimate(khat)) for khat in (0.5, 0.7)]
    [(0.175, 0.2), (0.0875, 0.1)]
    """
    low, high = DOUBTFUL_KHATS
    doubt = min(max((khat.value - low) / (high - low), 0.0), 1.0)
    mean, sd = CORRECTION_LIMITS
    return mean * (1 - doubt / 2), sd * (1 - doubt / 2)


def _near(value: float, standard_error: float, limit: float) -> bool:
    return math.isfinite(value) and abs(value - limit) < SURE * standard_error


def _of_status(status: Status, detail: str, advice: str) -> _Complaint | None:
    if status.is_good:
        return None
    grade = Grade.REJECT if status in (Status.DIVERGED, Status.NOT_MIXED) else Grade.CARE
    said = status.label + (f" ({detail})" if detail else "")
    return _Complaint(Verdict(grade, said, advice or status.advice))


def _of_divergences(count: int, energy: EnergyMixing | None) -> _Complaint | None:
    """A stray one in a thousand is only named, where the energies tell of no funnel."""
    is_stray = energy is not None and energy.is_free and count <= STRAY * energy.draws
    if not count or is_stray:
        return None
    said = (
        f"{count} transition{'s' * (count > 1)} diverged: where the density bends too sharply for the "
        "sampler, its draws are missing"
    )
    return _Complaint(Verdict(Grade.CARE, said, REPARAMETERISE), 0.0)


def _of_energy(energy: EnergyMixing | None) -> _Complaint | None:
    if energy is None or not energy.is_slow:
        return None
    said = (
        f"its energies have not mixed (E-BFMI {energy.fraction:.2f} of at least "
        f"{LEAST_FRACTION}, ESS {energy.ess:.0f}): a tail or the neck of a funnel may be missing"
    )
    return _Complaint(Verdict(Grade.CARE, said, REPARAMETERISE), 0.0)


def _of_density(bound: Estimate | None) -> _Complaint | None:
    if bound is None or math.isfinite(bound.value):
        return None
    return _Complaint(
        Verdict(
            Grade.REJECT,
            "some of its draws have zero or undefined density under the model",
            "choose a guide whose support is that of each site, or fit again with a smaller step",
        )
    )


def of_missing(missing: Estimate | None) -> Verdict | None:
    """What is to be said of a fit that lacks so many nats of log p(x)."""
    if missing is None or not missing.value - SURE * missing.standard_error > -math.log(
        LEAST_SHARE
    ):
        return None
    return Verdict(
        Grade.REJECT,
        f"its draws account for {math.exp(-missing.value):.2g} of the evidence that is known to "
        "be there",
        "start from several seeds (another mode holds the rest), or use nuts()",
    )


def _of_weights(
    khat: Estimate, correction: Accuracy | None, remedy: str
) -> list[_Complaint | None]:
    """What the fit's own weights say of its moments."""
    if correction is None:
        if not khat.value > DOUBTFUL_KHAT:
            return []
        said = f"k̂ {khat.value:.2f} is above {DOUBTFUL_KHAT}, and nothing confirms the moments"
        return [_Complaint(Verdict(Grade.CARE, said, remedy))]
    words = ("where its weights put it", "what its weights say")
    return _of_moments(correction, correction_limits(khat), words, remedy)


def _of_moments(
    accuracy: Accuracy, limits: tuple[float, float], against: tuple[str, str], remedy: str
) -> list[_Complaint | None]:
    where, whose = against
    return [
        _of_means(accuracy, limits[0], where, remedy),
        _of_sds(accuracy, limits[1], whose, remedy),
    ]


def _of_means(accuracy: Accuracy, limit: float, where: str, remedy: str) -> _Complaint | None:
    error = accuracy.mean_error
    if not error.value > limit:
        return None
    least = error.value - SURE * error.standard_error
    said = f"the mean of {accuracy.mean_error_at} is {error.value:.2f} sd from {where}"
    if least <= 0:
        said += f", give or take {error.standard_error:.2f}: too few draws to tell"
    is_fatal = least > FATAL_MEAN_ERROR
    grade = Grade.REJECT if is_fatal else Grade.CARE
    return _Complaint(
        Verdict(grade, said, remedy), least / (FATAL_MEAN_ERROR if is_fatal else limit)
    )


def _of_sds(accuracy: Accuracy, limit: float, whose: str, remedy: str) -> _Complaint | None:
    ratio = accuracy.sd_ratio
    if abs(ratio.value - 1.0) <= limit:
        return None
    if ratio.value in (0.0, math.inf):
        distance = math.inf
    else:
        distance = abs(math.log(ratio.value)) - SURE * ratio.standard_error / ratio.value
    is_fatal = distance > math.log(SD_FACTOR_LIMIT)
    is_narrow = ratio.value < 1.0
    said = (
        f"the sd of {accuracy.sd_ratio_at} is too {'narrow' if is_narrow else 'wide'}: "
        f"{ratio.value:.2f} of {whose}"
    )
    allowed = SD_FACTOR_LIMIT if is_fatal else 1.0 - limit if is_narrow else 1.0 + limit
    return _Complaint(
        Verdict(Grade.REJECT if is_fatal else Grade.CARE, said, remedy),
        distance / abs(math.log(allowed)),
    )


def _of_khat(
    khat: Estimate,
    threshold: float,
    is_checked: bool,
    is_certain: bool,
    culprit: str,
    remedy: str,
) -> _Complaint:
    said = f"k̂ {khat.value:.2f} is above its threshold {threshold:.2f}"
    if culprit:
        said += f", on account of {culprit}"
    if is_checked:
        said += ", so the joint density is off, though means and sds agree with the reference"
        advice = "use it for the moments of single entries; else " + remedy
        return _Complaint(Verdict(Grade.CARE, said, advice), 0.0)
    if not khat.value - threshold > max(CLEARLY, SURE * khat.standard_error):
        said += f", give or take {khat.standard_error:.2f}"
        return _Complaint(Verdict(Grade.CARE, said, remedy), 0.0)
    if not is_certain:
        said += ", though not at every number of draws"
        return _Complaint(Verdict(Grade.CARE, said, remedy), 0.0)
    return _Complaint(Verdict(Grade.REJECT, said, remedy), 0.0)


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

"""The reasons not to trust a fit, each with how far beyond its limit its figure is for certain."""

import math
from dataclasses import dataclass

from vitools.diagnostics.reference.accuracy import SURE, Accuracy
from vitools.diagnostics.reference.energy import LEAST_FRACTION, EnergyMixing
from vitools.diagnostics.verdict.grade import Grade, Verdict
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


@dataclass(frozen=True)
class Complaint:
    """A reason not to trust a fit.

    Attributes:
        excess: how far beyond its limit the figure is for certain, as a factor; infinite where no
            figure is at fault.
    """

    verdict: Verdict
    excess: float = math.inf


REPARAMETERISE = "reparameterise (LocScaleReparam for a funnel), or warm up longer"


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


def correction_limits(khat: Estimate) -> tuple[float, float]:
    """What reweighting may do to means (in sds) and sds (from a ratio of one) of a fit to be trusted.

    >>> [correction_limits(Estimate(khat)) for khat in (0.5, 0.7)]
    [(0.175, 0.2), (0.0875, 0.1)]
    """
    low, high = DOUBTFUL_KHATS
    doubt = min(max((khat.value - low) / (high - low), 0.0), 1.0)
    mean, sd = CORRECTION_LIMITS
    return mean * (1 - doubt / 2), sd * (1 - doubt / 2)


def of_status(status: Status, detail: str, advice: str) -> Complaint | None:
    if status.is_good:
        return None
    grade = Grade.REJECT if status in (Status.DIVERGED, Status.NOT_MIXED) else Grade.CARE
    said = status.label + (f" ({detail})" if detail else "")
    return Complaint(Verdict(grade, said, advice or status.advice))


def of_divergences(count: int, energy: EnergyMixing | None) -> Complaint | None:
    """A stray one in a thousand is only named, where the energies tell of no funnel."""
    is_stray = energy is not None and energy.is_free and count <= STRAY * energy.draws
    if not count or is_stray:
        return None
    said = (
        f"{count} transition{'s' * (count > 1)} diverged: where the density bends too sharply for the "
        "sampler, its draws are missing"
    )
    return Complaint(Verdict(Grade.CARE, said, REPARAMETERISE), 0.0)


def of_energy(energy: EnergyMixing | None) -> Complaint | None:
    if energy is None or not energy.is_slow:
        return None
    said = (
        f"its energies have not mixed (E-BFMI {energy.fraction:.2f} of at least "
        f"{LEAST_FRACTION}, ESS {energy.ess:.0f}): a tail or the neck of a funnel may be missing"
    )
    return Complaint(Verdict(Grade.CARE, said, REPARAMETERISE), 0.0)


def of_density(bound: Estimate | None) -> Complaint | None:
    if bound is None or math.isfinite(bound.value):
        return None
    return Complaint(
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


def of_weights(khat: Estimate, correction: Accuracy | None, remedy: str) -> list[Complaint | None]:
    """What the fit's own weights say of its moments."""
    if correction is None:
        if not khat.value > DOUBTFUL_KHAT:
            return []
        said = f"k̂ {khat.value:.2f} is above {DOUBTFUL_KHAT}, and nothing confirms the moments"
        return [Complaint(Verdict(Grade.CARE, said, remedy))]
    words = ("where its weights put it", "what its weights say")
    return of_moments(correction, correction_limits(khat), words, remedy)


def of_moments(
    accuracy: Accuracy, limits: tuple[float, float], against: tuple[str, str], remedy: str
) -> list[Complaint | None]:
    where, whose = against
    return [
        _of_means(accuracy, limits[0], where, remedy),
        _of_sds(accuracy, limits[1], whose, remedy),
    ]


def _of_means(accuracy: Accuracy, limit: float, where: str, remedy: str) -> Complaint | None:
    error = accuracy.mean_error
    if not error.value > limit:
        return None
    least = error.value - SURE * error.standard_error
    said = f"the mean of {accuracy.mean_error_at} is {error.value:.2f} sd from {where}"
    if least <= 0:
        said += f", give or take {error.standard_error:.2f}: too few draws to tell"
    is_fatal = least > FATAL_MEAN_ERROR
    grade = Grade.REJECT if is_fatal else Grade.CARE
    return Complaint(
        Verdict(grade, said, remedy), least / (FATAL_MEAN_ERROR if is_fatal else limit)
    )


def _of_sds(accuracy: Accuracy, limit: float, whose: str, remedy: str) -> Complaint | None:
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
    return Complaint(
        Verdict(Grade.REJECT if is_fatal else Grade.CARE, said, remedy),
        distance / abs(math.log(allowed)),
    )


def of_khat(
    khat: Estimate,
    threshold: float,
    is_checked: bool,
    is_certain: bool,
    culprit: str,
    remedy: str,
) -> Complaint:
    # a k̂ without a finite error says nothing for certain
    least = khat.value - SURE * khat.standard_error if math.isfinite(khat.standard_error) else 0.0
    excess = least / threshold
    said = f"k̂ {khat.value:.2f} is above its threshold {threshold:.2f}"
    if culprit:
        said += f", on account of {culprit}"
    if is_checked:
        said += ", so the joint density is off, though means and sds agree with the reference"
        advice = "use it for the moments of single entries; else " + remedy
        return Complaint(Verdict(Grade.CARE, said, advice), 0.0)
    if not khat.value - threshold > max(CLEARLY, SURE * khat.standard_error):
        said += f", give or take {khat.standard_error:.2f}"
        return Complaint(Verdict(Grade.CARE, said, remedy), excess)
    if not is_certain:
        said += ", though not at every number of draws"
        return Complaint(Verdict(Grade.CARE, said, remedy), excess)
    return Complaint(Verdict(Grade.REJECT, said, remedy), excess)

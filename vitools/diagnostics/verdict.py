"""A verdict in words on one fit, by stated rules.

The worst of these decides, the first listed among equals:

===============================  =================================================
do not use                       the engine diverged, or chains have not mixed
                                 a draw of the fit has zero or undefined density
                                 a mean is off by more than 1 reference sd
                                 an sd is off by more than a factor of 3
                                 k̂ above the threshold, and no reference to check against
use with care                    the engine stopped at its limit or was interrupted
                                 a mean is off by more than 1/4 of a reference sd
                                 an sd is off by more than a factor of 3/2
                                 k̂ above the threshold, though the reference confirms the moments
                                 k̂ between 1/2 and the threshold
trust                            otherwise
===============================  =================================================

Deviations from a reference count only where they clear their limit by two standard errors. The
threshold is min(1 - 1/log₁₀ S, 0.7) at S draws. k̂ sees the fit's own draws only: a mode that the
fit misses altogether leaves no trace in it, which is why a reference outranks it.
"""

import math
from dataclasses import dataclass
from enum import Enum

from vitools.diagnostics.accuracy import SURE, Accuracy
from vitools.posterior import Estimate, Status

GOOD_KHAT = 0.5
MEAN_ERROR_LIMITS = (0.25, 1.0)
SD_FACTOR_LIMITS = (1.5, 3.0)


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


RICHER = "try a richer guide (full covariance, other families), or nuts()"


def reach_verdict(
    status: Status,
    *,
    detail: str = "",
    bound: Estimate | None = None,
    khat: Estimate | None = None,
    threshold: float = 0.7,
    accuracy: Accuracy | None = None,
) -> Verdict:
    """Apply the rules above to what is known of a fit.

    Args:
        detail: the engine's own words, e.g. ``"R-hat 1.00, ESS 3100"``.
        bound, khat: ``None`` for a fit without density.
        accuracy: ``None`` where there is no reference.

    Example:
        >>> verdict = reach_verdict(Status.CONVERGED, khat=Estimate(0.62, 0.1))
        >>> print(verdict, "|", verdict.reason)
        use with care | k̂ 0.62 lies between 0.5 and its threshold 0.70
    """
    found = [_of_status(status, detail), _of_density(bound)]
    if accuracy is not None:
        found += [_of_means(accuracy), _of_sds(accuracy)]
    if khat is not None:
        found.append(_of_khat(khat, threshold, accuracy is not None))
    complaints = [verdict for verdict in found if verdict is not None]
    if complaints:
        return max(complaints, key=lambda verdict: verdict.grade.rank)
    return Verdict(Grade.TRUST, _praise(detail, khat, threshold, accuracy))


def _of_status(status: Status, detail: str) -> Verdict | None:
    if status.is_good:
        return None
    grade = Grade.REJECT if status in (Status.DIVERGED, Status.NOT_MIXED) else Grade.CARE
    return Verdict(grade, status.label + (f" ({detail})" if detail else ""), status.advice)


def _of_density(bound: Estimate | None) -> Verdict | None:
    if bound is None or math.isfinite(bound.value):
        return None
    return Verdict(
        Grade.REJECT,
        "some of its draws have zero or undefined density under the model",
        "choose a guide whose support is that of each site, or fit again with a smaller step",
    )


def _of_means(accuracy: Accuracy) -> Verdict | None:
    error = accuracy.mean_error
    grade = _grade(error.value - SURE * error.standard_error, MEAN_ERROR_LIMITS)
    if grade is None:
        return None
    return Verdict(
        grade,
        f"the mean of {accuracy.mean_error_at} is {error.value:.2f} sd from the reference",
        f"{RICHER}; another seed shows whether it is a second mode",
    )


def _of_sds(accuracy: Accuracy) -> Verdict | None:
    ratio = accuracy.sd_ratio
    if ratio.value in (0.0, math.inf):
        distance = math.inf
    else:
        distance = abs(math.log(ratio.value)) - SURE * ratio.standard_error / ratio.value
    low, high = SD_FACTOR_LIMITS
    grade = _grade(distance, (math.log(low), math.log(high)))
    if grade is None:
        return None
    kind = "narrow" if ratio.value < 1.0 else "wide"
    return Verdict(
        grade,
        f"the sd of {accuracy.sd_ratio_at} is too {kind}: {ratio.value:.2f} of the reference's",
        RICHER,
    )


def _of_khat(khat: Estimate, threshold: float, is_checked: bool) -> Verdict | None:
    if khat.value > threshold:
        said = f"k̂ {khat.value:.2f} is above its threshold {threshold:.2f}"
        if is_checked:
            said += ", so the joint density is off, though means and sds agree with the reference"
            return Verdict(
                Grade.CARE, said, "use it for the moments of single entries; else " + RICHER
            )
        return Verdict(Grade.REJECT, said, RICHER)
    if khat.value > GOOD_KHAT:
        said = f"k̂ {khat.value:.2f} lies between {GOOD_KHAT} and its threshold {threshold:.2f}"
        return Verdict(Grade.CARE, said, RICHER)
    return None


def _grade(excess: float, limits: tuple[float, float]) -> Grade | None:
    care, reject = limits
    if excess > reject:
        return Grade.REJECT
    return Grade.CARE if excess > care else None


def _praise(detail: str, khat: Estimate | None, threshold: float, accuracy: Accuracy | None) -> str:
    parts = []
    if khat is not None:
        parts.append(f"k̂ {khat.value:.2f} of at most {threshold:.2f}")
    elif detail:
        parts.append(detail)
    if accuracy is not None:
        parts.append(f"means within {accuracy.mean_error.value:.2f} sd of the reference")
    else:
        parts.append("no reference to check against")
    return ", ".join(parts)

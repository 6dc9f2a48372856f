"""Draws of a fit, and more of them, until their noise cannot change the verdict.

k̂ of S draws has a standard error of about (1 + k) S^(-1/4) / √3, and more draws are slow to sharpen it.
The mean over sixteen parts of S / 16 draws each uses four times the tail and has half the error, so that
is k̂ here, at the size of a part. k̂ of all draws at once may be another beyond doubt. Far below 1/2 it
shows weights to be bounded that few draws cannot show to be, and takes its place; a little below, it
may have missed the tail, and neither rejects nor vouches for the fit. Clearly above the threshold it is of
a tail that a part seldom sees, and the fit is not trusted; in between, it tightens the limits of what
reweighting may do to the moments, which is of all draws.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitools.diagnostics.reference.accuracy import SURE, Accuracy, measure_accuracy
from vitools.diagnostics.reference.moments import Moments, moments, quantities
from vitools.diagnostics.verdict.complaints import CLEARLY
from vitools.diagnostics.verdict.grade import Grade, Verdict
from vitools.diagnostics.verdict.verdict import undecided
from vitools.diagnostics.weights.correction import measure_correction
from vitools.diagnostics.weights.khat import differ_by_rounding, khat_estimate, khat_threshold
from vitools.diagnostics.weights.psis import smooth
from vitools.posterior import Estimate, Posterior

LOOKS = (4, 16, 64)
"""Times as many draws at the second look, the third, and the last."""

DEEP = 16
"""Where weights alone have a say, no look before this one is the last, and *trust* takes them all: few
draws seldom see the tail that a fit lacks, or show that its weights are bounded."""

PARTS = 16
CLEAR = 3.0
"""Standard errors by which a figure has to clear its limits before no further look is taken."""

DISTINCT = 3.0
"""Standard errors between k̂ of the parts and k̂ of all, for the latter to count."""

BOUNDED = 0.25
"""Below it, and beyond doubt, k̂ of all draws shows that their weights are bounded."""

MOST_BYTES = 1e9
"""What the densities of all draws may touch: a second or so."""

MOST_NUMBERS = 10_000_000
"""No further look draws more numbers than this."""

NO_TELLING = (
    "a reference decides: nuts(problem); or a richer guide, which is further from its limits"
)


@dataclass(frozen=True)
class Figures:
    """What some draws of a fit say of it.

    Attributes:
        num_samples: how many draws.
        khat, threshold: of their weights.
        deep_khat: the same, or k̂ of all draws at once where that is above beyond doubt.
        is_certain: whether k̂ of parts and of all agree.
        accuracy: against a reference; ``None`` without one.
        own: the same as if the reference were exact, with no error but the draws' own.
        correction: what reweighting does to the moments; ``None`` where nothing varies.
    """

    num_samples: int
    khat: Estimate
    threshold: float
    deep_khat: Estimate
    accuracy: Accuracy | None
    own: Accuracy | None
    correction: Accuracy | None
    is_certain: bool = True

    @property
    def alone(self) -> "Figures":
        """What they say without a reference."""
        return replace(self, accuracy=None, own=None)

    def weighed_as(self, other: "Figures") -> "Figures":
        """These moments, beside the weights of another look."""
        return replace(other, num_samples=self.num_samples, accuracy=self.accuracy, own=self.own)

    def shifted(self, errors: float) -> "Figures":
        """With all figures so many standard errors worse (better, if negative)."""
        return replace(
            self,
            khat=_shifted(self.khat, errors),
            deep_khat=_shifted(self.deep_khat, errors),
            accuracy=_worse(self.own, errors),
            correction=_worse(self.correction, errors),
        )


Rules = Callable[[Figures], Verdict]


def measured(
    posterior: Posterior,
    draws: Mapping[str, Tensor],
    log_weights: Tensor,
    reference: Mapping[str, Moments] | None,
    size: int,
) -> Figures:
    """Figures of judged quantities ``{name: [n, *shape]}`` and log weights ``[n]``.

    Args:
        size: of a part, at the least.
    """
    accuracy = own = None
    if reference is not None:
        found = moments(posterior, draws)
        accuracy = measure_accuracy(found, reference)
        exact = {name: Moments.exact(true.mean, true.sd) for name, true in reference.items()}
        own = measure_accuracy(found, exact)
    weights = smooth(log_weights)
    correction = measure_correction(draws, weights) if draws else None
    khat, threshold, deep, is_certain = _khats(log_weights, weights.khat, size)
    return Figures(len(log_weights), khat, threshold, deep, accuracy, own, correction, is_certain)


def _khats(
    log_weights: Tensor, of_all: Estimate, size: int
) -> tuple[Estimate, float, Estimate, bool]:
    """k̂, its threshold, the deeper k̂, and whether parts and all agree."""
    count = len(log_weights)
    part, of_count = max(size, count // PARTS), khat_threshold(count)
    if differ_by_rounding(log_weights) or part == count:
        return of_all, of_count, of_all, True
    khat = _of_parts([khat_estimate(x) for x in log_weights.split(part) if len(x) == part])
    threshold = khat_threshold(part)
    above = of_all.value - khat.value
    if abs(above) <= DISTINCT * math.hypot(of_all.standard_error, khat.standard_error):
        return khat, threshold, khat, True
    least = of_all.value - SURE * of_all.standard_error
    most = of_all.value + SURE * of_all.standard_error
    if above > 0:
        if least > of_count + CLEARLY:
            return of_all, of_count, of_all, False
        return khat, threshold, of_all, True
    if most < BOUNDED:
        return of_all, of_count, of_all, True
    return khat, threshold, khat, khat.value <= threshold or least > of_count


def _of_parts(khats: list[Estimate]) -> Estimate:
    count = len(khats)
    squares = sum(khat.standard_error**2 for khat in khats)
    return Estimate(sum(khat.value for khat in khats) / count, math.sqrt(squares) / count)


def look_on(
    posterior: Posterior,
    draws: dict[str, Tensor],
    log_weights: Tensor,
    reference: Mapping[str, Moments] | None,
    rules: Rules,
    seed: int,
) -> tuple[Verdict, Figures]:
    """The verdict at the last look, and the figures that decided.

    Weights are looked at until they settle what they say by themselves, so that k̂ and what reweighting
    does to the moments are the same whatever the fit is compared with. Where there is a reference, the
    moments alone may ask for more.

    Args:
        draws, log_weights: of the first look: quantities ``{name: [n, *shape]}``, and ``[n]``.
        rules: from figures to a verdict.
    """
    size = len(log_weights)
    found = measured(posterior, draws, log_weights, reference, size)
    weighed: Figures | None = None
    for times in LOOKS:
        if weighed is None and _is_settled(found.alone, rules, times, log_weights):
            weighed = found
        if weighed is not None and (
            reference is None or _is_settled(found.weighed_as(weighed), rules, times, log_weights)
        ):
            break
        if not _is_affordable(posterior, times * size):
            break
        more = times * size - len(log_weights)
        further = zlib.crc32(f"{seed} {times}".encode())
        with torch.no_grad():
            values, new = posterior.sample_with_log_weights(more, further)
            judged = quantities(posterior.problem, values) if values else {}
        draws = {name: torch.cat([x, judged[name].detach().cpu()]) for name, x in draws.items()}
        log_weights = torch.cat([log_weights, new.expand(more).to(log_weights)])
        if not bool(torch.isfinite(log_weights).all()):
            worst, count = Estimate(math.inf), len(log_weights)
            found = replace(found, num_samples=count, khat=worst, deep_khat=worst)
            weighed = None
            break
        found = measured(posterior, draws, log_weights, reference, size)
    found = found.weighed_as(weighed or found)
    verdict = rules(found)
    doubt = undecided(
        found.khat, found.threshold, found.accuracy, found.correction, found.deep_khat
    )
    if verdict.grade is Grade.TRUST and doubt:
        verdict = Verdict(Grade.CARE, f"undecided: {doubt}", NO_TELLING)
    if verdict.grade is Grade.TRUST or found.num_samples == size:
        return verdict, found
    return replace(verdict, reason=f"at {found.num_samples} draws, {verdict.reason}"), found


def _is_settled(found: Figures, rules: Rules, times: int, log_weights: Tensor) -> bool:
    """Whether no more draws could change the grade."""
    if differ_by_rounding(log_weights):
        return True
    best, worst = (rules(found.shifted(errors)).grade for errors in (-CLEAR, CLEAR))
    if best is not worst:
        return False
    if found.accuracy is not None:
        return True
    # rejected for something else than weights
    best_weights = replace(found, khat=Estimate(0.0), deep_khat=Estimate(0.0), correction=None)
    is_hopeless = rules(best_weights).grade is Grade.REJECT
    return is_hopeless or (
        times > DEEP
        and best is not Grade.TRUST
        and found.is_certain
        and found.khat == found.deep_khat
    )


def _is_affordable(posterior: Posterior, num_samples: int) -> bool:
    problem = posterior.problem
    numbers = sum(site.shape.numel() for site in problem.latents.values())
    bytes_of_one = max(problem.mapper.cost_per_draw, 8 * numbers)
    return num_samples * numbers <= MOST_NUMBERS and num_samples * bytes_of_one <= MOST_BYTES


def _shifted(figure: Estimate, errors: float) -> Estimate:
    if not math.isfinite(figure.value) or not math.isfinite(figure.standard_error):
        return figure
    return replace(figure, value=figure.value + errors * figure.standard_error)


def _worse(found: Accuracy | None, errors: float) -> Accuracy | None:
    """Means further from right by so many standard errors, sds further from a ratio of one."""
    if found is None:
        return None
    mean, ratio = _shifted(found.mean_error, errors), found.sd_ratio
    if 0.0 < ratio.value < math.inf:
        away = math.log(ratio.value)
        distance = max(0.0, abs(away) + errors * ratio.standard_error / ratio.value)
        ratio = replace(ratio, value=math.exp(math.copysign(distance, away)))
    return replace(found, mean_error=mean, sd_ratio=ratio)

"""All figures on one fit, from one set of draws, and further looks until they tell."""

import math
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vitools.diagnostics.convergence import Trend, trend
from vitools.diagnostics.evidence.evidence_bounds import Evidence, evidence_of, exact_log_evidence
from vitools.diagnostics.evidence.wasserstein_bounds import ErrorBounds, error_bounds
from vitools.diagnostics.modes.missed import Scan, scan_for
from vitools.diagnostics.reference.accuracy import SURE, Accuracy, measure_accuracy
from vitools.diagnostics.reference.distance import Distance, measure_distance
from vitools.diagnostics.reference.energy import measure_energy
from vitools.diagnostics.reference.moments import Moments, moments, quantities
from vitools.diagnostics.reference.relabelling import (
    advise,
    advise_chains,
    exchanged_plate,
    switched_plate,
)
from vitools.diagnostics.verdict.complaints import of_missed_modes, of_missing
from vitools.diagnostics.verdict.grade import Grade, Verdict
from vitools.diagnostics.verdict.looks import Figures, look_on
from vitools.diagnostics.verdict.remedy import suggest
from vitools.diagnostics.verdict.verdict import RICHER, reach_verdict
from vitools.diagnostics.weights.bounds import bound
from vitools.diagnostics.weights.correction import measure_correction, psis_moments
from vitools.diagnostics.weights.khat import khat_threshold
from vitools.diagnostics.weights.psis import SmoothedWeights, smooth
from vitools.diagnostics.weights.sampled_rows import SampledProblem, on_sampled_rows
from vitools.diagnostics.weights.site_khat import SiteKhat, site_khats
from vitools.errors import OptionError
from vitools.posterior import DrawsPosterior, Estimate, GridPosterior, Posterior, Status
from vitools.problem.sites import listed

CLEAR_KHAT = 0.4
"""A latent whose own k̂ is below this is not blamed by name."""


@dataclass(frozen=True)
class Judgement:
    """What the judge found.

    Attributes:
        bound: ``None`` for a fit without density.
        khat, khat_limit: of the weights of all draws that were looked at, and up to where it is usable
            at so many; ``None`` and NaN for a fit without density.
        accuracy: ``None`` without a reference.
        verdict: grade, reason and advice.
        draws: the judged quantities at the draws used, ``{name: [n, *shape]}``, on the CPU.
        moments: their moments, exact where the fit gives them.
        evidence: bounds on log p(x) for as many K as the draws allow; ``None`` without density.
        weights: smoothed importance weights of ``draws``, whose own k̂ may be another than that of
            all; ``None`` where undefined.
        accounted: log of the evidence that the draws account for; ``None`` where undefined.
        site_khats: the worst entry of each latent, ``{site: SiteKhat}``; empty where undefined.
        psis_moments: the posterior's moments as the weights have them, where k̂ is below its
            threshold; else empty.
        correction: the fit's moments against those; ``None`` where there are none.
        error_bounds: guaranteed limits to the errors of means and sds; ``None`` where k̂ ≥ 1/2.
        distance: from the reference's draws; ``None`` where none were given.
        trend: what the end of the fit's record says; of an engine that does not iterate, that there
            is none.
        scan: the modes looked for; ``None`` where there is a reference, or nothing to save.
        seconds: what judging took.
    """

    bound: Estimate | None
    khat: Estimate | None
    accuracy: Accuracy | None
    verdict: Verdict
    draws: dict[str, Tensor]
    moments: dict[str, Moments]
    evidence: Evidence | None = None
    weights: SmoothedWeights | None = None
    khat_limit: float = math.nan
    accounted: Estimate | None = None
    site_khats: dict[str, SiteKhat] = field(default_factory=dict)
    psis_moments: dict[str, Moments] = field(default_factory=dict)
    correction: Accuracy | None = None
    error_bounds: ErrorBounds | None = None
    distance: Distance | None = None
    trend: Trend | None = None
    scan: Scan | None = None
    seconds: float = 0.0


def judge(
    posterior: Posterior,
    reference: Mapping[str, Moments] | None = None,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    reference_draws: Mapping[str, Tensor] | None = None,
    least_evidence: Estimate | None = None,
    num_rows: int | None = None,
) -> Judgement:
    """Draw from a fit and compute everything the verdict rests on.

    The verdict takes more draws until their noise cannot change it
    (:func:`~vitools.diagnostics.verdict.looks.look_on`); what the last look cannot tell is ``use with
    care``. Where there is no reference, other modes are looked for, too
    (:func:`~vitools.diagnostics.modes.missed.scan_for`), unless the fit is rejected anyway. All other
    figures are of the first draws.

    Args:
        reference: moments to compare with, from :func:`~vitools.diagnostics.reference.moments.moments`.
        num_samples: draws from a fit with a density; a sampler's own draws are all used.
        seed: of these draws, with the numbers of the fit (:func:`draw_seed`): the same fit has the
            same figures by itself and in every comparison, under whatever name.
        reference_draws: draws of the same quantities ``{name: [n, *shape]}``, e.g. another
            judgement's ``draws``, for :class:`~vitools.diagnostics.reference.distance.Distance`.
        least_evidence: a lower bound on log p(x) from elsewhere (the bound of another fit). A fit
            that cannot account for nine tenths of it misses a mode (:func:`against_evidence`).
        num_rows: rows of data that the weights rest on, where there are more
            (:mod:`~vitools.diagnostics.weights.sampled_rows`); by default all, but 10 000 of a million and
            more, and as many more as the noise asks for. The verdict says how many. Other modes are then
            not looked for: against a mode that all rows together tell apart, some are no witness.
    """
    if not isinstance(posterior, Posterior):
        raise OptionError(f"expected a fit to judge, got {type(posterior).__name__}.")
    began = time.perf_counter()
    seed = draw_seed(seed, posterior)
    held, sample = on_sampled_rows(posterior, num_rows, seed)
    found = _look(held, reference, num_samples, seed, reference_draws)
    if sample is not None:
        found = _with_noise(found, sample.noise)
    found = against_evidence(posterior, found, least_evidence)
    if sample is not None:
        reason = f"{found.verdict.reason}, {sample}; other modes were not looked for"
        found = replace(found, verdict=replace(found.verdict, reason=reason))
    elif found.verdict.grade is not Grade.REJECT and found.accuracy is None:
        found = _with_scan(posterior, found, least_evidence, num_samples, seed)
    return replace(found, seconds=time.perf_counter() - began)


def draw_seed(seed: int, fit: Posterior) -> int:
    """The seed of one fit's draws: another for each fit, as standard errors of differences assume."""
    return seed + zlib.crc32(fit.fingerprint.encode())


def against_evidence(posterior: Posterior, found: Judgement, least: Estimate | None) -> Judgement:
    """The judgement, where log p(x) is known to be no less than ``least``.

    Not applied where the model's sites are not identified (``problem.invariants``): one of several equal
    modes is enough there.
    """
    if least is None or found.accounted is None or posterior.problem.invariants is not None:
        return found
    verdict = of_missing(difference(least, found.accounted))
    if verdict is None or found.verdict.grade is Grade.REJECT:
        return found
    return replace(found, verdict=verdict)


def _with_noise(found: Judgement, nats: float) -> Judgement:
    """Bounds whose standard errors hold that of the log density, the same for all draws."""

    def noisy(bound: Estimate | None) -> Estimate | None:
        if bound is None:
            return None
        return Estimate(bound.value, math.hypot(bound.standard_error, nats))

    return replace(
        found,
        bound=noisy(found.bound),
        accounted=noisy(found.accounted),
        evidence=None if found.evidence is None else found.evidence.with_noise(nats),
    )


def _with_scan(
    posterior: Posterior,
    found: Judgement,
    least_evidence: Estimate | None,
    num_samples: int,
    seed: int,
) -> Judgement:
    """The judgement after a look for modes that no draw has visited; exact fits need none."""
    if isinstance(posterior, GridPosterior) or not posterior.problem.continuous:
        return found
    if isinstance(posterior, DrawsPosterior):
        values = posterior.pooled()
    else:
        values = posterior.sample(num_samples, seed)
    lower = (found.bound, found.accounted, least_evidence)
    scan = scan_for(posterior, values, max(_at_least(each) for each in lower))
    missed = None
    if scan.missed:
        far = scan.sd_ratio, scan.sd_ratio_at
        missed = of_missed_modes(scan.missed_share, scan.missed_at, *far)
    if missed is not None:
        return replace(found, verdict=missed, scan=scan)
    verdict = found.verdict
    if verdict.grade is Grade.TRUST:
        verdict = replace(verdict, reason=f"{verdict.reason}, {scan.words}")
    return replace(found, verdict=verdict, scan=scan)


def _look(
    posterior: Posterior,
    reference: Mapping[str, Moments] | None,
    num_samples: int,
    seed: int,
    reference_draws: Mapping[str, Tensor] | None,
) -> Judgement:
    """What draws say, those of the first look wherever that is not said."""
    problem = posterior.problem
    with torch.no_grad():
        if isinstance(posterior, DrawsPosterior):
            values, log_weights = posterior.pooled(), None
        elif posterior.points:
            values, log_weights = posterior.sample(num_samples, seed), None
        else:
            values, log_weights = posterior.sample_with_log_weights(num_samples, seed)
            # without continuous latents there is one value for all draws
            log_weights = log_weights.expand(num_samples)
        judged = quantities(problem, values) if values else {}
        draws = {name: value.detach().cpu() for name, value in judged.items()}
        found = moments(posterior, draws)
    accuracy = None if reference is None else measure_accuracy(found, reference)
    distance = None if reference_draws is None else measure_distance(draws, reference_draws)
    record = trend(posterior.history)
    if log_weights is None or isinstance(posterior, GridPosterior):
        lower = posterior.log_evidence if isinstance(posterior, GridPosterior) else None
        khat = None if lower is None else Estimate(0.0)
        verdict = reach_verdict(
            posterior.status,
            detail=posterior.detail,
            bound=lower,
            khat=khat,
            accuracy=accuracy,
            divergences=getattr(posterior, "divergences", 0),
            energy=measure_energy(posterior) if isinstance(posterior, DrawsPosterior) else None,
            advice=_of_chains(posterior),
        )
        if posterior.points:
            verdict = _of_points(posterior.points)
        known = None if lower is None else Evidence({1: lower}, {}, lower, lower)
        return Judgement(
            lower, khat, accuracy, verdict, draws, found, known, distance=distance, trend=record
        )
    lower = bound(log_weights)
    exact = None if isinstance(problem, SampledProblem) else exact_log_evidence(problem)
    known = evidence_of(log_weights, exact)
    if not bool(torch.isfinite(log_weights).all()):
        verdict = reach_verdict(
            posterior.status, detail=posterior.detail, bound=lower, accuracy=accuracy
        )
        return Judgement(
            lower, None, accuracy, verdict, draws, found, known, distance=distance, trend=record
        )
    weights, khats = smooth(log_weights), site_khats(problem, values, log_weights)
    is_usable = weights.khat.value <= khat_threshold(num_samples)
    correction = measure_correction(draws, weights) if draws and is_usable else None
    remedy = suggest(posterior, values, weights, khats, correction) if values else RICHER
    plate = None if reference is None else exchanged_plate(problem, found, reference)
    accounted, missing = _accounted(log_weights), None
    if known.exact is not None and problem.invariants is None:
        missing = difference(known.exact, accounted)

    def rules(figures: Figures) -> Verdict:
        return reach_verdict(
            posterior.status,
            detail=posterior.detail,
            bound=lower,
            khat=figures.khat,
            threshold=figures.threshold,
            deep_khat=figures.deep_khat,
            is_certain=figures.is_certain,
            accuracy=figures.accuracy,
            correction=figures.correction,
            culprit=_culprit(khats),
            missing=missing,
            remedy=remedy if plate is None else advise(plate),
        )

    verdict, decisive = look_on(posterior, draws, log_weights, reference, rules, seed)
    return Judgement(
        lower,
        decisive.khat,
        accuracy,
        verdict,
        draws,
        found,
        known,
        weights,
        decisive.threshold,
        accounted,
        khats,
        psis_moments(draws, weights) if is_usable else {},
        correction,
        error_bounds(values, log_weights) if values else None,
        distance,
        record,
    )


def _of_points(points: tuple[str, ...]) -> Verdict:
    return Verdict(
        Grade.REJECT,
        f"a point estimate of {listed(points)}: it has no widths, and no density to judge",
        "laplace() gives widths around a mode; svi() with AutoMultivariate fits a distribution",
    )


def _of_chains(posterior: Posterior) -> str:
    """What ails chains that do not mix, where it is their labels."""
    if not isinstance(posterior, DrawsPosterior) or posterior.status is not Status.NOT_MIXED:
        return ""
    plate = switched_plate(posterior)
    return "" if plate is None else advise_chains(plate)


def _culprit(khats: Mapping[str, SiteKhat]) -> str:
    """The latent that makes the weights heavy, where one can be told from the rest."""
    worst = max(khats.values(), key=lambda found: found.value, default=None)
    return f"{worst.at} ({worst.value:.2f})" if worst and worst.value > CLEAR_KHAT else ""


def _at_least(lower: Estimate | None) -> float:
    """What a lower bound on log p(x) is for certain."""
    if lower is None or math.isnan(lower.value):
        return -math.inf
    return lower.value - SURE * lower.standard_error


def _accounted(log_weights: Tensor) -> Estimate:
    """log of the mean weight ``[n]``."""
    log_weights = log_weights.detach().double()
    level = log_weights.logsumexp(0) - math.log(len(log_weights))
    error = float((log_weights - level).exp().std()) / math.sqrt(len(log_weights))
    return Estimate(float(level), error)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Of independent estimates."""
    error = math.hypot(one.standard_error, other.standard_error)
    return Estimate(one.value - other.value, error)

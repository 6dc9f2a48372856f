"""A comparison for machines: plain numbers, strings, lists and objects, ``null`` for what is none."""

import math
from typing import Any

from vitools._version import __version__
from vitools.diagnostics.evidence.evidence_bounds import Evidence
from vitools.diagnostics.evidence.union import FitUnion
from vitools.diagnostics.reference.accuracy import entry_name
from vitools.diagnostics.reference.distance import Distance
from vitools.posterior import Estimate, Posterior
from vitools.reporting.comparison.entries import chosen_entries, moments_at
from vitools.reporting.comparison.record import JudgedFits

MOST_ENTRIES = 1000


def comparison_record(comparison: JudgedFits) -> dict[str, Any]:
    """Everything the table says, unrounded, and mean and sd of every entry under every fit.

    Of more than :data:`MOST_ENTRIES` entries, those on which the fits disagree most are kept.

    Keys: ``vitools`` (version), ``model``, ``num_samples``, ``seed``, ``reference``, ``best``,
    ``log_evidence``, ``union`` (what the fits say together, ``null`` where that is not known), ``fits``
    (``{name: figures}``), ``unjudged`` (fits that could not be judged,
    with the ``reason``) and ``moments``
    (``{entry: {fit: {"mean", "sd"}}}``). An estimate is ``{"value", "standard_error"}``. Of each fit,
    beside the table's figures: ``missed`` (mass), ``evidence`` (bounds on log p(x)), ``effective_size`` (of its weights),
    ``distance`` (from the reference), ``guaranteed`` (limits to errors, where k̂ < 1/2).
    """
    problem = next(iter(comparison.fits.values())).problem
    entries = chosen_entries(comparison.judgements, MOST_ENTRIES)
    return {
        "vitools": __version__,
        "model": problem.name,
        "num_samples": comparison.num_samples,
        "seed": comparison.seed,
        "reference": comparison.reference,
        "best": comparison.best,
        "log_evidence": _estimate(comparison.log_evidence),
        "union": _union(comparison.union),
        "fits": {name: _fit(comparison, name) for name in comparison.fits},
        "unjudged": {
            name: {**_run(other.fit), "reason": other.reason}
            for name, other in comparison.unjudged.items()
        },
        "moments": {
            entry_name(*entry): {
                name: dict(zip(("mean", "sd"), map(_number, moments_at(j, entry)), strict=True))
                for name, j in comparison.judgements.items()
            }
            for entry in entries
        },
    }


def _fit(comparison: JudgedFits, name: str) -> dict[str, Any]:
    fit, judgement = comparison.fits[name], comparison.judgements[name]
    verdict, accuracy = judgement.verdict, judgement.accuracy
    found: dict[str, Any] = {
        **_run(fit),
        "verdict": comparison.verdict_words(name),
        "reason": verdict.reason,
        "advice": verdict.advice,
        "bound": _estimate(judgement.bound),
        "khat": _estimate(judgement.khat),
        "missed": _estimate(comparison.missed.get(name)),
        "khat_limit": _number(judgement.khat_limit),
        "judge_seconds": judgement.seconds,
        "site_khats": {
            site: {"value": _number(found.value), "at": found.at}
            for site, found in judgement.site_khats.items()
        },
        "evidence": _evidence(judgement.evidence),
        "effective_size": judgement.weights.effective_size if judgement.weights else None,
        "mean_error": None,
        "sd_ratio": None,
        "distance": _distance(judgement.distance),
        "guaranteed": None,
    }
    if judgement.error_bounds is not None:
        found["guaranteed"] = {
            "mean_error": _number(judgement.error_bounds.mean_error),
            "sd_error": _number(judgement.error_bounds.sd_error),
        }
    if accuracy is not None:
        found["mean_error"] = {"at": accuracy.mean_error_at, **_known(accuracy.mean_error)}
        found["sd_ratio"] = {"at": accuracy.sd_ratio_at, **_known(accuracy.sd_ratio)}
    return found


def _run(fit: Posterior) -> dict[str, Any]:
    return {
        "engine": fit.engine,
        "status": fit.status.label,
        "detail": fit.detail,
        "seconds": fit.seconds,
        "seed": fit.seed,
    }


def _evidence(found: Evidence | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "lower": {str(k): _known(value) for k, value in found.lower.items()},
        "jackknife": {str(k): _known(value) for k, value in found.jackknife.items()},
        "upper": _estimate(found.upper),
        "exact": _estimate(found.exact),
    }


def _union(found: FitUnion | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "fits": list(found.names),
        "num_samples": found.num_samples,
        "least_evidence": _known(found.least_evidence),
        "khat": _known(found.khat),
        "is_usable": found.is_usable,
    }


def _distance(found: Distance | None) -> dict[str, Any] | None:
    if found is None:
        return None
    correlation = found.correlation_error
    return {
        "quantile_error": {"at": found.quantile_error_at, **_known(found.quantile_error)},
        "correlation_error": None
        if correlation is None
        else {"at": found.correlation_error_at, **_known(correlation)},
        "sliced_wasserstein": _known(found.sliced_wasserstein),
        "floor": _number(found.floor),
    }


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else _known(estimate)


def _known(estimate: Estimate) -> dict[str, float | None]:
    return {
        "value": _number(estimate.value),
        "standard_error": _number(estimate.standard_error),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

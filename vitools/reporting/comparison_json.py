"""A comparison for machines: plain numbers, strings, lists and objects, ``null`` for what is none."""

import math
from typing import TYPE_CHECKING, Any

from vitools._version import __version__
from vitools.diagnostics.accuracy import entry_name
from vitools.posterior import Estimate
from vitools.reporting.entries import chosen_entries, moments_at

if TYPE_CHECKING:
    from vitools.reporting.comparison import Comparison

MOST_ENTRIES = 1000


def comparison_record(comparison: "Comparison") -> dict[str, Any]:
    """Everything the table says, unrounded, and mean and sd of every entry under every fit.

    Of more than :data:`MOST_ENTRIES` entries, those on which the fits disagree most are kept.

    Keys: ``vitools`` (version), ``model``, ``num_samples``, ``seed``, ``reference``, ``best``,
    ``log_evidence``, ``fits`` (``{name: figures}``) and ``moments``
    (``{entry: {fit: {"mean", "sd"}}}``). An estimate is ``{"value", "standard_error"}``.
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
        "fits": {name: _fit(comparison, name) for name in comparison.fits},
        "moments": {
            entry_name(*entry): {
                name: dict(zip(("mean", "sd"), map(_number, moments_at(j, entry)), strict=True))
                for name, j in comparison.judgements.items()
            }
            for entry in entries
        },
    }


def _fit(comparison: "Comparison", name: str) -> dict[str, Any]:
    fit, judgement = comparison.fits[name], comparison.judgements[name]
    verdict, accuracy = judgement.verdict, judgement.accuracy
    found: dict[str, Any] = {
        "engine": fit.engine,
        "status": fit.status.label,
        "detail": fit.detail,
        "seconds": fit.seconds,
        "seed": fit.seed,
        "verdict": comparison.verdict_words(name),
        "reason": verdict.reason,
        "advice": verdict.advice,
        "bound": _estimate(judgement.bound),
        "khat": _estimate(judgement.khat),
        "site_khats": {
            site: {"value": _number(found.value), "at": found.at}
            for site, found in judgement.site_khats.items()
        },
        "mean_error": None,
        "sd_ratio": None,
    }
    if accuracy is not None:
        found["mean_error"] = {"at": accuracy.mean_error_at, **_known(accuracy.mean_error)}
        found["sd_ratio"] = {"at": accuracy.sd_ratio_at, **_known(accuracy.sd_ratio)}
    return found


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else _known(estimate)


def _known(estimate: Estimate) -> dict[str, float | None]:
    return {
        "value": _number(estimate.value),
        "standard_error": _number(estimate.standard_error),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

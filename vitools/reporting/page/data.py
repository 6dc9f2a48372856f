"""What the charts of the page draw, as plain numbers: small, and safe inside a script element.

Curves are stored on equal steps as integers 0-999 of their peak; draws as integers 0-999 of the
range their chart shows. At six fits an entry takes about 2.5 kB, and :data:`MOST_NUMBERS` keeps the
whole page well under 3 MB whatever the model.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitools.diagnostics.weights.khat import khat_threshold
from vitools.posterior import Estimate
from vitools.reporting.comparison.entries import (
    Entry,
    disagreements,
    draws_at,
    entry_words,
    moments_at,
)
from vitools.reporting.comparison.record import JudgedFits
from vitools.reporting.page.calibration import RankHistogram, panel
from vitools.reporting.page.pairs import correlated_pairs
from vitools.reporting.plots.curves import bound_limits, density, smoothed

CURVE_POINTS = 96
HISTORY_POINTS = 240
MOST_NUMBERS = 240_000
MOST_ENTRIES = 60
"""Of one site."""
LEVELS = 999


def page_data(comparison: JudgedFits, calibration: Sequence[RankHistogram] = ()) -> dict[str, Any]:
    """The object the script reads; fits are known by their place in ``fits``."""
    names = list(comparison.fits)
    yardstick = names.index(comparison.reference or comparison.best)
    sites = _sites(comparison)
    return {
        "fits": _fits(comparison),
        "reference": names.index(comparison.reference) if comparison.reference else None,
        "yardstick": yardstick,
        "threshold": _threshold(comparison),
        "evidence": number(comparison.log_evidence.value) if comparison.log_evidence else None,
        "bound": _bound(comparison),
        "sites": sites,
        "first_site": _first(comparison, [site["name"] for site in sites]),
        "calibration": [panel(ranks) for ranks in calibration],
        "pairs": correlated_pairs(comparison.judgements, names[yardstick], comparison.problem),
    }


def as_script_data(value: Any) -> str:
    """JSON in which no ``</script>`` can occur."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def number(value: float, digits: int = 6) -> float | None:
    """A float of few digits, ``None`` where JSON has no number for it."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _fits(comparison: JudgedFits) -> list[dict[str, Any]]:
    slots = iter(range(len(comparison.fits)))
    return [
        {
            "name": name,
            "slot": 0 if name == comparison.reference else next(slots),
            "seconds": number(fit.seconds),
            "bound": _pair(comparison.judgements[name].bound, 10),
            "khat": _pair(comparison.judgements[name].khat),
            "khat_limit": number(comparison.judgements[name].khat_limit),
        }
        for name, fit in comparison.fits.items()
    ]


def _threshold(comparison: JudgedFits) -> float | None:
    """Where the zone begins in which no fit's k̂ is usable."""
    limits = [judgement.khat_limit for judgement in comparison.judgements.values()]
    finite = [limit for limit in limits if math.isfinite(limit)]
    return number(max(finite, default=khat_threshold(comparison.num_samples)))


def _pair(estimate: Estimate | None, digits: int = 6) -> list[float | None] | None:
    if estimate is None or math.isnan(estimate.value):
        return None
    return [number(estimate.value, digits), number(estimate.standard_error) or 0.0]


def _bound(comparison: JudgedFits) -> dict[str, Any]:
    curves: list[dict[str, Any] | None] = []
    finals: list[float] = []
    visible: list[float] = []
    for name, fit in comparison.fits.items():
        judged = comparison.judgements[name].bound
        if judged is not None and math.isfinite(judged.value):
            finals.append(judged.value)
        if len(fit.history) < 2:
            curves.append(None)
            continue
        elbo = smoothed(np.array(fit.history.elbo))
        visible.append(float(np.nanquantile(elbo, 0.3)))
        kept = np.unique(np.geomspace(1, len(elbo), HISTORY_POINTS).astype(int) - 1)
        seconds = np.maximum(np.array(fit.history.seconds)[kept], 1e-3)
        curves.append(
            {
                "seconds": [number(s, 4) for s in seconds.tolist()],
                "elbo": [number(e, 9) for e in elbo[kept].tolist()],
            }
        )
    if comparison.log_evidence is not None:
        finals.append(comparison.log_evidence.value)
    low, high = bound_limits(finals, visible) if finals else (math.nan, math.nan)
    return {"low": number(low, 10), "high": number(high, 10), "curves": curves}


def _sites(comparison: JudgedFits) -> list[dict[str, Any]]:
    """Sites and the entries of each that are shown, those of largest disagreement first kept."""
    scores = disagreements(comparison.judgements)
    room = max(1, MOST_NUMBERS // (CURVE_POINTS * len(comparison.fits)))
    ranked = []
    for name, score in scores.items():
        flat = score.ravel()
        best = np.argsort(-flat, kind="stable")[:MOST_ENTRIES]
        ranked += [(float(flat[place]), name, int(place)) for place in best if flat[place] >= 0]
    kept = {row[1:] for row in sorted(ranked, key=lambda row: -row[0])[:room]}
    sites = []
    for name, score in scores.items():
        places = sorted(place for site, place in kept if site == name)
        if places:
            indices = [tuple(int(i) for i in np.unravel_index(p, score.shape)) for p in places]
            entries = [_entry(comparison, (name, index)) for index in indices]
            sites.append(
                {"name": name, "shape": score.shape, "total": score.size, "entries": entries}
            )
    return sites


def _entry(comparison: JudgedFits, entry: Entry) -> dict[str, Any]:
    judgements = comparison.judgements.values()
    return {
        "label": entry_words(comparison.problem, entry),
        "d": [_curve(draws_at(judgement, entry)) for judgement in judgements],
        "m": [_moments(*moments_at(judgement, entry)) for judgement in judgements],
    }


def _moments(mean: float, sd: float) -> list[float | None] | None:
    return [number(mean), number(sd)] if math.isfinite(mean) and math.isfinite(sd) else None


def _curve(draws: np.ndarray) -> dict[str, Any] | None:
    draws = draws[np.isfinite(draws)]
    if len(draws) < 2 or draws.min() == draws.max():
        return None
    where, heights = density(draws, CURVE_POINTS)
    peak = float(heights.max())
    return {
        "low": number(where[0]),
        "high": number(where[-1]),
        "peak": number(peak),
        "y": np.round(heights / peak * LEVELS).astype(int).tolist(),
    }


def _first(comparison: JudgedFits, names: list[str]) -> int:
    """The site on which the fits disagree most, which the page opens with."""
    scores = disagreements(comparison.judgements)
    return max(range(len(names)), key=lambda i: float(scores[names[i]].max()), default=0)

"""Two tables of the page that say more than the comparison: bounds on log p(x), and distances.

What the judge computed and the comparison has no room for: importance-weighted bounds, their
jackknife, the χ² upper bound where k̂ allows one; errors of quantiles and correlations, the sliced
Wasserstein distance, and the limits to any mean's error that bounds guarantee.
"""

from collections.abc import Mapping, Sequence

from vitools.posterior import Estimate
from vitools.reporting.comparison.record import JudgedFits
from vitools.reporting.page.template import part
from vitools.reporting.terminal import estimate_words

BOUNDS_CAPTION = (
    "The bound of one draw (K = 1) and importance-weighted bounds of K draws all lie below log p(x) "
    "and rise towards it; the jackknife takes most of the rest away but is no bound; the χ² bound "
    "lies above log p(x) and is given only where k̂ is below 0.5. Bounds of K draws that still rise "
    "mean that the fit is some way from the posterior."
)
DISTANCES_CAPTION = (
    "Errors at the worst entry, in sds of {reference}. The sliced Wasserstein distance compares joint "
    "distributions; two halves of {reference}’s own draws are {floor} apart, so what is about as near "
    "is as good as equal. Guaranteed limits follow from the bounds alone, in the units of the latents, "
    "where k̂ is below 0.5; they hold for every entry and are often wide."
)


def bounds_markup(comparison: JudgedFits) -> str:
    """A row for each fit with a density; empty where there is none."""
    known = {name: j.evidence for name, j in comparison.judgements.items() if j.evidence}
    if not known:
        return ""
    ks = sorted({k for found in known.values() for k in found.lower})
    largest = max((k for found in known.values() for k in found.jackknife), default=None)
    heads = [f"K = {k}" for k in ks]
    if largest is not None:
        heads.append(f"Jackknife, K = {largest}")
    rows = {}
    for name, found in known.items():
        shown = [found.lower.get(k) for k in ks]
        if largest is not None:
            shown.append(found.jackknife.get(largest))
        rows[name] = [(_words(bound), "") for bound in (*shown, found.upper)]
    return _table("Bounds on log p(x)", [*heads, "χ², from above"], rows, BOUNDS_CAPTION)


def distances_markup(comparison: JudgedFits) -> str:
    """A row for each fit that was held against the reference; empty without one."""
    rows, floor = {}, 0.0
    for name, judgement in comparison.judgements.items():
        found, limits = judgement.distance, judgement.error_bounds
        if found is None:
            continue
        floor = found.floor
        rows[name] = [
            (_words(found.quantile_error), f"at {found.quantile_error_at}"),
            (_words(found.correlation_error), f"at {found.correlation_error_at}"),
            (_words(found.sliced_wasserstein), ""),
            ("" if limits is None else f"{limits.mean_error:.2g}", ""),
        ]
    if not rows:
        return ""
    heads = ["Quantiles", "Correlations", "Sliced Wasserstein", "Guaranteed limit of means"]
    caption = DISTANCES_CAPTION.format(reference=comparison.reference, floor=f"{floor:.2f}")
    return _table(f"Distances from {comparison.reference}", heads, rows, caption)


def _table(
    title: str,
    heads: Sequence[str],
    rows: Mapping[str, Sequence[tuple[str, str]]],
    caption: str,
) -> str:
    """``rows``: of each fit its cells, a figure and the place it is from."""
    return part(
        "plain_table",
        title=title,
        heads="".join(part("plain_head", text=head) for head in heads),
        rows="".join(
            part("plain_row", name=name, cells="".join(map(_cell, cells)))
            for name, cells in rows.items()
        ),
        caption=caption,
    )


def _cell(content: tuple[str, str]) -> str:
    text, small = content
    small = small if text else ""
    return part("cell", key=text, kind=' class="number"', text=text, small=small)


def _words(estimate: Estimate | None) -> str:
    return " ".join(estimate_words(estimate)).strip().replace("-", "−")

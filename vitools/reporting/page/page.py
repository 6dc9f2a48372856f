"""A comparison as one HTML page that needs nothing else: verdicts, table, charts, model, origin."""

import base64
import hashlib
import math
import os
import platform
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from pathlib import Path

from vitools._version import __version__
from vitools.diagnostics import Grade
from vitools.diagnostics.weights.site_khat import SiteKhat
from vitools.errors import VitoolsError
from vitools.files.atomic import atomic_path
from vitools.posterior import Estimate
from vitools.problem import Problem
from vitools.reporting.comparison.record import JudgedFits
from vitools.reporting.comparison.text import general_notes
from vitools.reporting.page.calibration import RankHistogram
from vitools.reporting.page.data import as_script_data, page_data
from vitools.reporting.page.evidence import bounds_markup, distances_markup
from vitools.reporting.page.graph import graph_markup
from vitools.reporting.page.summary import counted, summary_markup
from vitools.reporting.page.template import asset, fill, part, script
from vitools.reporting.page.updates import updates_markup
from vitools.reporting.terminal import estimate_words, seconds_words

LOOKS = {
    Grade.TRUST: ("trust", "✓"),
    Grade.CARE: ("care", "!"),
    Grade.REJECT: ("reject", "✕"),
}
REFERENCE_LOOK = ("sound", "◆")
HEADS = ("Fit", "Verdict", "Bound", "k̂", "Mean error", "Sd ratio", "Seconds")


@dataclass(frozen=True)
class Origin:
    """Where a comparison comes from, as far as the fits do not know it themselves.

    Attributes:
        title: of the page; the model's name if empty.
        description: the data in one line.
        command: what to type to repeat it.
        failures: ``{fit: reason}`` of methods that gave no answer.
        calibration: rank histograms from simulated data, where they were made.
    """

    title: str = ""
    description: str = ""
    command: str = ""
    failures: Mapping[str, str] = field(default_factory=dict)
    calibration: Sequence[RankHistogram] = ()


def write_page(comparison: JudgedFits, path: str | os.PathLike[str], origin: Origin) -> None:
    """Write the page, whole or not at all."""
    text = page(comparison, origin)
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(comparison: JudgedFits, origin: Origin) -> str:
    """The HTML. It allows itself no network, and no script but its own (by its digest)."""
    problem = next(iter(comparison.fits.values())).problem
    code = script()
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return fill(
        asset("page.html"),
        version=__version__,
        script_hash=f"sha256-{digest}",
        model=origin.title or problem.name,
        count=counted(len(comparison.fits), "fit"),
        style=asset("page.css"),
        description=origin.description or repr(problem),
        summary=summary_markup(comparison),
        cards="\n".join(_card(comparison, i, name) for i, name in enumerate(comparison.fits)),
        failures="\n".join(
            [
                *(
                    part("failure", fit=fit, what="gave no answer", reason=reason)
                    for fit, reason in origin.failures.items()
                ),
                *(
                    part("failure", fit=fit, what="was not judged", reason=other.reason)
                    for fit, other in comparison.unjudged.items()
                ),
            ]
        ),
        heads="".join(
            part("head", name=name, kind=' class="number"' if i > 1 else "")
            for i, name in enumerate(HEADS)
        ),
        rows="\n".join(_row(comparison, i, name) for i, name in enumerate(comparison.fits)),
        notes="".join(part("note", text=_sentence(note)) for note in general_notes(comparison)),
        bounds=bounds_markup(comparison),
        distances=distances_markup(comparison),
        calibration_link=part("calibration_link") if origin.calibration else "",
        calibration=part("calibration") if origin.calibration else "",
        site_khats=_site_khats(comparison),
        graph=_graph(problem),
        updates=updates_markup(problem),
        command=part("command", text=origin.command) if origin.command else "",
        facts="\n".join(
            part("figure", name=name, value=value) for name, value in _facts(comparison).items()
        ),
        data=as_script_data(page_data(comparison, origin.calibration)),
        script=code,
        **_captions(comparison),
    )


def _card(comparison: JudgedFits, number: int, name: str) -> str:
    judgement = comparison.judgements[name]
    verdict, accuracy = judgement.verdict, judgement.accuracy
    grade, icon, words = _look(comparison, name)
    figures = {
        "bound": judgement.bound,
        "k̂": judgement.khat,
        "mean error": accuracy.mean_error if accuracy else None,
        "sd ratio": accuracy.sd_ratio if accuracy else None,
    }
    shown = {key: _words(value) for key, value in figures.items() if value}
    if "k̂" in shown and math.isfinite(judgement.khat_limit):
        shown["k̂"] += f" of at most {judgement.khat_limit:.2f}"
    seconds = {"seconds": seconds_words(comparison.fits[name].seconds)}
    shown = {k: shown.pop(k) for k in ("bound", "k̂") if k in shown} | seconds | shown
    return part(
        "card",
        swatch=part("swatch", number=number),
        fit=name,
        grade=grade,
        icon=icon,
        verdict=words,
        reason=_reason(comparison, name),
        advice=part("advice", advice=f"{verdict.advice.rstrip('.')}.") if verdict.advice else "",
        figures="".join(part("figure", name=key, value=value) for key, value in shown.items()),
    )


def _reason(comparison: JudgedFits, name: str) -> str:
    fit = comparison.fits[name]
    if comparison.verdict_words(name) == "reference":
        return _sentence(fit.detail or fit.status.label) + " The other fits are judged by it."
    return _sentence(comparison.judgements[name].verdict.reason)


def _row(comparison: JudgedFits, number: int, name: str) -> str:
    judgement = comparison.judgements[name]
    accuracy, seconds = judgement.accuracy, comparison.fits[name].seconds
    grade, icon, words = _look(comparison, name)
    rank = -1 if grade == REFERENCE_LOOK[0] else judgement.verdict.grade.rank
    cells = [
        part("verdict_cell", key=rank, grade=grade, icon=icon, text=words),
        _figure(judgement.bound),
        _figure(judgement.khat),
        _figure(
            accuracy.mean_error if accuracy else None, accuracy.mean_error_at if accuracy else ""
        ),
        _figure(accuracy.sd_ratio if accuracy else None, accuracy.sd_ratio_at if accuracy else ""),
        _cell(f"{seconds!r}", seconds_words(seconds)),
    ]
    return part("row", swatch=part("swatch", number=number), fit=name, cells="".join(cells))


def _figure(estimate: Estimate | None, where: str = "") -> str:
    if estimate is None:
        return _cell("", "")
    return _cell(f"{estimate.value!r}", _words(estimate), f"at {where}" if where else "")


def _words(estimate: Estimate) -> str:
    return " ".join(estimate_words(estimate)).replace("-", "−")


def _cell(key: str, text: str, small: str = "") -> str:
    return part("cell", key=key, kind=' class="number"', text=text, small=small)


def _look(comparison: JudgedFits, name: str) -> tuple[str, str, str]:
    """Class, sign and words of a verdict."""
    grade = comparison.judgements[name].verdict.grade
    words = comparison.verdict_words(name)
    return (*(REFERENCE_LOOK if words == "reference" else LOOKS[grade]), words)


def _sentence(text: str) -> str:
    text = text.strip()
    is_symbol = unicodedata.combining(text[1:2] or "x")  # k̂ keeps its case
    start = text[:1] if is_symbol else text[:1].upper()
    return f"{start}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"


def _site_khats(comparison: JudgedFits) -> str:
    """A row for each latent: k̂ of its worst entry under each fit that has them."""
    found = {name: j.site_khats for name, j in comparison.judgements.items() if j.site_khats}
    sites = dict.fromkeys(site for khats in found.values() for site in khats)
    if not sites:
        return ""
    rows = []
    for site in sites:
        shown = (khats.get(site) for khats in found.values())
        cells = (part("plain_cell", text=_site_khat(site, k) if k else "") for k in shown)
        rows.append(part("plain_row", name=site, cells="".join(cells)))
    return part(
        "site_khats",
        heads="".join(part("plain_head", text=name) for name in found),
        rows="".join(rows),
    )


def _site_khat(site: str, found: SiteKhat) -> str:
    where = "" if found.at == site else f" at {found.at}"
    return f"{found.value:.2f}{where}".replace("-", "−", 1)


def _captions(comparison: JudgedFits) -> dict[str, str]:
    yardstick = comparison.reference or comparison.best
    reference = comparison.reference
    limit = "the mark, min(1 − 1/log₁₀ S, 0.7) at as many draws S as were looked at"
    return {
        "against": f" against {yardstick}",
        "marginals_caption": "Smoothed densities of each fit’s draws"
        + (f"; the grey area is the reference, {reference}." if reference else "."),
        "moments_caption": f"Mean ± sd of each fit in units of {yardstick}, whose own mean ± sd is "
        "the grey band. A good fit has its marker near 0 and whiskers as wide as the band."
        + ("" if reference else f" There is no reference; {yardstick} only lends its scale."),
        "pairs_caption": f"Draws of each fit over those of {yardstick} in grey, and each fit’s "
        "correlation r. A fit that treats correlated quantities as independent may have every "
        "marginal right and their joint distribution wrong.",
        "khat_caption": "The shape of the largest importance weights p(x, θ)/q(θ) of each fit’s "
        f"draws. Below 0.5 the weights have a variance; above its limit ({limit}) not even "
        "importance sampling can repair the fit. k̂ sees the fit’s own draws only: of a mode that "
        "the fit misses it knows nothing, which is why a reference outranks it.",
    }


def _graph(problem: Problem) -> str:
    try:
        return part("graph", svg=graph_markup(problem))
    except VitoolsError as error:
        return part("note", text=f"No graph: {error}")


def _facts(comparison: JudgedFits) -> dict[str, str]:
    packages = {"pyro": "pyro-ppl", "torch": "torch", "numpy": "numpy", "ArviZ": "arviz"}
    versions = [f"{name} {version_of(package)}" for name, package in packages.items()]
    fits = [
        f"{name}: {fit.engine}, seed {fit.seed}, {fit.status.label}"
        + (f" ({fit.detail})" if fit.detail else "")
        for name, fit in comparison.fits.items()
    ]
    return {
        "Fits": "; ".join(fits),
        "Judged on": f"{comparison.num_samples} draws of each fit with a density, seed {comparison.seed}",
        "Versions": ", ".join(
            [f"vitools {__version__}", *versions, f"Python {platform.python_version()}"]
        ),
        "Platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "Data": repr(next(iter(comparison.fits.values())).problem),
    }

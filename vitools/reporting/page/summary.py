"""The page's first sentence: which fits may be relied on, and who says so."""

import html
import math

from vitools.diagnostics import Grade
from vitools.reporting.comparison.record import JudgedFits
from vitools.reporting.page.template import part


def summary_markup(comparison: JudgedFits) -> str:
    """Which fits may be relied on, best bound first. The reference is no candidate: it judges."""
    reference = comparison.reference
    if reference is None:
        judged = f"{counted(len(comparison.fits), 'fit')} judged without a reference."
        agreeing, rest = (
            "To rely on:",
            "None should be used: add a reference (nuts, exact) or other methods",
        )
    else:
        chosen = comparison.fits[reference]
        known = f"{reference} ({chosen.detail or chosen.status.label})"
        if len(comparison.fits) == 1:
            return f"{html.escape(known)}, and no other fit to judge by it."
        judged = f"{counted(len(comparison.fits) - 1, 'approximation')} judged against {known}."
        agreeing, rest = "Agreeing with it:", f"None should be used in place of {reference}"
    for grade, lead in (
        (Grade.TRUST, agreeing),
        (Grade.CARE, "None to trust outright; to be used with care:"),
    ):
        named = [
            name
            for name, judgement in comparison.judgements.items()
            if name != reference and judgement.verdict.grade is grade
        ]
        if named:
            named.sort(key=lambda name: -_bound(comparison, name))
            words = " (best bound first)." if len(named) > 1 else "."
            return part("summary", judged=f"{judged} {lead}", named=", ".join(named), words=words)
    return part("summary", judged=judged, named=rest, words=".")


def _bound(comparison: JudgedFits, name: str) -> float:
    found = comparison.judgements[name].bound
    return -math.inf if found is None or math.isnan(found.value) else found.value


def counted(number: int, what: str) -> str:
    """``"3 fits"``."""
    return f"{number} {what}{'s' * (number > 1)}"

"""What a factorisation loses (:mod:`vitools.calculus.blocks.dependence`), in words."""

from __future__ import annotations

from collections.abc import Sequence

from vitools.calculus.blocks.dependence import PriorSwitch
from vitools.calculus.words.tables import span


def in_words(group: Sequence[str]) -> str:
    """``q(z0) … q(z39) factorised, their dependence is lost``."""
    factors = [f"q({name})" for name in group]
    return f"{span(factors, ' · ')} factorised, their dependence is lost"


def switches_in_words(switches: Sequence[PriorSwitch]) -> str:
    """``q(z) · q(w) factorised though z selects the prior of w``."""
    selectors = list(dict.fromkeys(s.selector for s in switches))
    selected = list(dict.fromkeys(s.selected for s in switches))
    factors = span([f"q({name})" for name in [*selectors, *selected]], " · ")
    which, whose = span(selectors), span(selected)
    verb = "selects" if len(selectors) == 1 else "select"
    priors = "prior" if len(selected) == 1 else "priors"
    return (
        f"{factors} factorised though {which} {verb} the {priors} of {whose}: the bound can be many "
        "nats low"
    )


def switches_remedy(switches: Sequence[PriorSwitch]) -> str:
    """What to do instead."""
    selectors = span(list(dict.fromkeys(s.selector for s in switches)))
    return f"svi() and nuts() sum {selectors} out exactly; restarts=20 tries other cases of it"

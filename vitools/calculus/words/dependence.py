"""What a factorisation loses (:mod:`vitools.calculus.blocks.dependence`), in words."""

from __future__ import annotations

from collections.abc import Sequence

from vitools.calculus.blocks.dependence import (
    MOST_NUMBERS,
    NarrowScale,
    PriorSwitch,
    narrow_scales,
    num_observed,
)
from vitools.calculus.tracing.trace import ModelTrace
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


def nested_by_itself(trace: ModelTrace, name: str) -> str:
    """What is nested without being asked for."""
    scale = next(scale for scale in narrow_scales(trace) if scale.name == name)
    return (
        f"{name!r}: {_of_what(scale)}, so all other factors depend on its value, cell by cell; nested=() keeps "
        "them apart."
    )


def kept_narrow(trace: ModelTrace) -> list[str]:
    """Scales of few effects, or of increments, whose factors know nothing of them, and why."""
    found = narrow_scales(trace)
    if not found:
        return []
    if num_observed(trace) > MOST_NUMBERS:
        why = (
            f"not by itself from {MOST_NUMBERS} numbers of data on, as it takes some dozens of fits"
        )
        found = found[:1]
    else:
        why = "not by itself, as each must know of the others too: name one, or several"
    words = "; ".join(f"{scale.name!r}: {_of_what(scale)}" for scale in found)
    names = ", ".join(repr(scale.name) for scale in found)
    return [
        f"{words}, apart from {'it' if len(found) == 1 else 'them'} in q and so too narrow; nested=[{names}] "
        f"lets all depend on {'its value' if len(found) == 1 else 'their values'} ({why})."
    ]


def _of_what(scale: NarrowScale) -> str:
    if scale.effects:
        return f"the scale of few effects ({scale.effects} of {scale.of})"
    return f"the scale of the increments of {scale.of}"

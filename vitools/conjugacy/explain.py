"""Say in words what a model's coordinate updates are, or why a site has none."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import wrap
from typing import Any

from vitools.conjugacy.block import Block
from vitools.conjugacy.naming import DataNames
from vitools.conjugacy.symbolic import Refusal
from vitools.conjugacy.term import Unsupported
from vitools.conjugacy.terms import advice, expected_log_joint, log_density
from vitools.conjugacy.trace import ModelTrace, TracedSite, trace_model
from vitools.conjugacy.update import ConjugateModel
from vitools.conjugacy.wording import family, update
from vitools.errors import NotConjugate
from vitools.families import FAMILY_OF_PRIOR
from vitools.isolation import ParamState, full_plates, isolated, seeded
from vitools.program import Program, name_of

Row = tuple[str, str, str, str]
WIDTH = 100
"""Columns that a reason may take before it is broken."""


def explain(
    model: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    params: ParamState | None = None,
) -> str:
    """A table of the latents: family of q, parents, closed-form update (or the reason for none).

    ``q(z)`` are the probabilities of a discrete latent, ``1[x]`` the indicators of a category in the
    data; sums run over plates; what depends on data alone is written with the names of observed
    sites and arguments.

    Args:
        params: values of the model's ``pyro.param`` statements; their initial ones if omitted.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def coin(flips):
        ...     p = pyro.sample("p", dist.Beta(1.0, 1.0))
        ...     with pyro.plate("flips", len(flips)):
        ...         pyro.sample("heads", dist.Bernoulli(p), obs=flips)
        >>> print(explain(coin, (torch.tensor([1.0, 1.0, 0.0]),)))
        site  family  parents  update
        p     Beta    -        Beta(3, 2)
        1 of 1 latents have closed-form updates.
    """
    program = Program(model, args, kwargs or {}, name_of(model))
    with seeded(0), isolated(params, model), full_plates():
        try:
            conjugate = ConjugateModel(model, args, dict(program.kwargs))
        except NotConjugate as error:
            return _refusal(program, error)
    stated = expected_log_joint(conjugate.trace)
    names = DataNames(conjugate.trace, program.arguments())
    rows = [
        (
            ", ".join(block.names),
            family(block),
            _listed(_parents(conjugate.trace, block)),
            update(block, stated, names),
        )
        for block in conjugate.blocks
    ]
    count = len(conjugate.latents)
    enter = [
        f"; data enter as {len(distinct.multiplicity)} distinct rows of {len(distinct.inverse)} "
        f"({plate})"
        for plate, distinct in conjugate.rows.items()
    ]
    summary = f"{count} of {count} latents have closed-form updates{''.join(enter)}."
    return "\n".join([_table(rows), *names.legend(), summary])


def _refusal(program: Program, error: NotConjugate) -> str:
    """Which sites are at fault: those whose density, or a parent's use, has no rule."""
    try:
        trace = trace_model(program.model, program.args, dict(program.kwargs))
    except NotConjugate as raised:
        return f"no latent has a closed-form update: {raised}"
    simplex = frozenset(n for n, s in trace.sites.items() if s.distribution == "Dirichlet")
    faults: dict[str, str] = {}
    for site in trace.sites.values():
        try:
            log_density(site, simplex)
        except (NotConjugate, Unsupported) as raised:
            involved = {site.name} if site.is_latent else _sites_in(site)
            for name in involved:
                faults.setdefault(name, str(raised))
    latents = [site for site in trace.sites.values() if site.is_latent]
    if not faults:
        faults = {s.name: str(error) for s in latents if repr(s.name) in str(error)}
    rows = [
        (
            site.name,
            site.distribution,
            _listed(n for n in _sites_in(site) if n in trace.sites),
            _reason(site, trace, faults[site.name]) if site.name in faults else "closed form",
        )
        for site in latents
    ]
    good = sum(site.name not in faults for site in latents)
    return f"{_table(rows)}\n{good} of {len(latents)} latents have closed-form updates."


def _reason(site: TracedSite, trace: ModelTrace, fault: str) -> str:
    """Why there is no update, and on a line of its own what to use instead."""
    why, _, instead = fault.removeprefix(f"site {site.name!r}: ").rpartition("; ")
    if site.distribution not in FAMILY_OF_PRIOR:
        children = [
            f"{child.distribution} {child.name!r}"
            for child in trace.sites.values()
            if site.name in _sites_in(child)
        ]
        why = f"{site.distribution} is not conjugate to {', '.join(children) or 'anything'}"
        instead = f"{advice(site)}; or {instead}"
    lines = wrap(f"none: {why}", WIDTH, subsequent_indent="      ")
    return "\n".join([*lines, f"      {instead}"])


def _parents(trace: ModelTrace, block: Block) -> set[str]:
    found = {name for site in block.names for name in _sites_in(trace.sites[site])}
    return found - set(block.names)


def _sites_in(site: TracedSite) -> set[str]:
    """The latents that a site's distribution depends on."""
    found: set[str] = set()
    for argument in site.arguments.values():
        if isinstance(argument, Refusal):
            found |= argument.sites
        elif hasattr(argument, "sites"):
            found |= argument.sites()
    return found


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "-"


def _table(rows: list[Row]) -> str:
    cells = [("site", "family", "parents", "update"), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    lines = []
    for row in cells:
        start = "  ".join(text.ljust(w) for text, w in zip(row[:3], widths, strict=True)) + "  "
        lines.append(start + row[3].replace("\n", "\n" + " " * len(start)))
    return "\n".join(line.rstrip() for text in lines for line in text.split("\n"))

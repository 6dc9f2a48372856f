"""Say in words what a model's coordinate updates are, or why a site has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from textwrap import wrap
from typing import Any

import torch

from vitools.calculus.algebra.atoms import Unsupported
from vitools.calculus.blocks.block import Block
from vitools.calculus.blocks.dependence import kept_apart, scales_of_few
from vitools.calculus.blocks.free_form import FreeFormBlock
from vitools.calculus.blocks.markov_chain import is_markov_chain
from vitools.calculus.blocks.nodes.nodes_block import NodesBlock
from vitools.calculus.blocks.plan import make_blocks
from vitools.calculus.blocks.single import discrete_batch
from vitools.calculus.blocks.tree import TreeBlock
from vitools.calculus.densities.closed_terms import ClosedTerm, ExpectedLogJoint
from vitools.calculus.densities.log_joint import (
    advice,
    expected_log_joint,
    is_number,
    log_density,
    on_the_simplex,
)
from vitools.calculus.densities.surrogates import predictors
from vitools.calculus.lattices import can_stand_on_a_lattice, lattice_of_few
from vitools.calculus.model import ConjugateModel
from vitools.calculus.needed_values import needed_values
from vitools.calculus.start.on_nodes import with_nodes
from vitools.calculus.tracing.alternatives import alternative
from vitools.calculus.tracing.augmentation import with_mixtures
from vitools.calculus.tracing.symbolic import Refusal
from vitools.calculus.tracing.trace import ModelTrace, TracedSite, trace_model
from vitools.calculus.words.dependence import (
    in_words,
    kept_narrow,
    nested_by_itself,
    switches_in_words,
    switches_remedy,
)
from vitools.calculus.words.naming import DataNames
from vitools.calculus.words.nodes import cost
from vitools.calculus.words.predictors import PredictorNames
from vitools.calculus.words.structure import held, step_by_step, wider
from vitools.calculus.words.tables import Row, folded, span, table
from vitools.calculus.words.wording import family, update
from vitools.errors import NotConjugateError, clause
from vitools.isolation import full_plates, isolated, seeded
from vitools.notebook.markup import Text
from vitools.problem import Problem, check_problem
from vitools.problem.sites import listed

WIDTH = 100
"""Columns that a reason may take before it is broken."""
ON_VALUES = "values of a guide"
"""The family of a site that cavi() gives values, so that the others have a rule."""
ON_LATTICE = "values on a lattice"
"""The family of a site that cavi() nests, so that the others have a rule given its values."""
LARGEST_TABLE = 10_000
"""Cases of discrete latents whose joint table is small for every row."""


@torch.no_grad()
def explain(problem: Problem) -> Text:
    """A table of the latents: family of q, parents, closed-form update (or the reason for none).

    ``q(z)`` are the probabilities of a discrete latent, ``1[x]`` the indicators of a category in the
    data; sums run over plates; what depends on data alone is written with the names of observed
    sites and arguments. What is returned is a string that notebooks show as it is printed.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from vitools import Problem
        >>> def coin(flips):
        ...     p = pyro.sample("p", dist.Beta(1.0, 1.0))
        ...     with pyro.plate("flips", len(flips)):
        ...         pyro.sample("heads", dist.Bernoulli(p), obs=flips)
        >>> print(explain(Problem(coin, torch.tensor([1.0, 1.0, 0.0]))))
        site  family  parents  update
        p     Beta    -        Beta(3, 2)
        1 of 1 latents have closed-form updates.
    """
    check_problem(problem, "explain()")
    isolation = isolated(problem.params, problem.model)
    with seeded(0), isolation as store, full_plates():
        try:
            made = (problem.model, problem.args, problem.kwargs)
            conjugate = with_nodes(partial(ConjugateModel, *made), partial(trace_model, *made))
        except NotConjugateError as error:
            valued = needed_values(problem, error)
            return Text(_refusal(problem, error, valued, can_stand_on_a_lattice(problem, valued)))
    free = [name for name, value in store["params"].items() if value.requires_grad]
    trace = conjugate.trace
    stated = expected_log_joint(trace)
    names = DataNames(trace, problem.arguments)
    rows = _updates(trace, conjugate.blocks, stated, names)
    count = len(conjugate.latents)
    enter = [
        f"; data enter as {len(distinct.multiplicity)} distinct rows of {len(distinct.inverse)} "
        f"({plate})"
        for plate, distinct in conjugate.rows.items()
    ]
    summary = f"{count} of {count} latents have {_updates_are(conjugate.blocks, stated.terms)}{''.join(enter)}."
    apart = [
        f"{in_words(group)}; {_kept_by([trace.sites[name] for name in group], stated.terms)}."
        for group in kept_apart(conjugate.blocks, stated.terms)
    ]
    switches = conjugate.prior_switches
    if switches:
        apart.append(f"{switches_in_words(switches)}; {switches_remedy(switches)}.")
    apart += [wider(name, trace) for name in conjugate.latents if name in trace.auxiliary]
    apart += [step_by_step(stem, why, trace) for stem, why in trace.step_by_step.items()]
    nested, lattice = scales_of_few(trace), lattice_of_few(problem, conjugate)
    if lattice and not free:
        apart.append(
            f"{lattice[0]!r}: the covariance of few effects, so all other factors depend on its value, on a "
            "lattice of values; nested=() keeps them apart."
        )
    else:
        apart += [nested_by_itself(trace, name) for name in nested] or kept_narrow(trace)
    if any(site.distribution == "ImproperUniform" for site in trace.sites.values()):
        flat = [repr(s.name) for s in trace.sites.values() if s.distribution == "ImproperUniform"]
        apart.append(
            f"flat prior on {listed(flat)}: the constant of the bound is arbitrary, so it is no evidence."
        )
    if free:
        apart.append(
            f"parameters held at the values they have: {listed(free)}; cavi() and svi() train them."
        )
    on_nodes = [block for block in conjugate.blocks if isinstance(block, NodesBlock)]
    apart += [cost(block, stated.terms) for block in on_nodes]
    apart += [held(block) for block in conjugate.blocks if isinstance(block, TreeBlock)]
    curved = PredictorNames(stated.terms).notes()
    return Text("\n".join([table(folded(rows)), *names.legend(), *curved, *apart, summary]))


def _updates_are(blocks: Sequence[Block], terms: Sequence[ClosedTerm]) -> str:
    """Closed-form, or by integrals."""
    integrals = [repr(b.title) for b in blocks if isinstance(b, FreeFormBlock)]
    if integrals:
        return f"coordinate updates, {listed(integrals)} by one-dimensional integrals"
    is_curved = any(isinstance(b, NodesBlock) for b in blocks) or bool(
        predictors(atom for term in terms for atom in term.atoms)
    )
    return "coordinate updates" if is_curved else "closed-form updates"


def _kept_by(sites: list[TracedSite], terms: Sequence[ClosedTerm]) -> str:
    """How the dependence of discrete latents is kept."""
    cases = math.prod(site.support_size for site in sites)
    try:
        discrete_batch(sites)
        shared = is_markov_chain(sites, terms) or cases <= LARGEST_TABLE
    except Unsupported:
        shared = False
    if not shared:
        return "svi() and nuts() sum them out exactly"
    return f"joint=[({span([repr(site.name) for site in sites]).replace(' … ', ', …, ')})] keeps it"


def _updates(
    trace: ModelTrace, blocks: Sequence[Block], stated: ExpectedLogJoint, names: DataNames
) -> list[Row]:
    return [
        (
            ", ".join(block.names),
            family(block),
            _listed(_parents(trace, block)),
            update(block, stated, names, blocks),
        )
        for block in blocks
    ]


def _refusal(
    problem: Problem, error: NotConjugateError, on_values: Sequence[str], is_lattice: bool
) -> str:
    """The updates of the sites that have one, given the others; and why those have none."""
    try:
        trace = with_mixtures(trace_model(problem.model, problem.args, problem.kwargs))
    except NotConjugateError as raised:
        return f"no latent has a closed-form update: {raised}"
    faults, unstated = _faults(trace, error)
    sites = {n: s for n, s in trace.sites.items() if s.is_latent}
    stated = expected_log_joint(trace, without=unstated)
    names = DataNames(trace, problem.arguments)
    with_update = replace(trace, sites={n: s for n, s in sites.items() if n not in faults})
    blocks = make_blocks(with_update, stated.terms, None, None)
    updates = zip(blocks, _updates(trace, blocks, stated, names), strict=True)
    written = {name: row for block, row in updates for name in block.names}
    instead = alternative(trace)
    rows = [
        written[site.name]
        if site.name in written
        else (
            site.name,
            (ON_LATTICE if is_lattice else ON_VALUES)
            if site.name in on_values
            else site.distribution,
            _listed(n for n in _sites_in(site) if n in trace.sites),
            _reason(site, trace, faults[site.name], instead),
        )
        for site in sites.values()
    ]
    summary = f"{len(written)} of {len(sites)} latents have {_updates_are(blocks, ())}."
    return "\n".join([table(folded(list(dict.fromkeys(rows)))), *names.legend(), summary])


def _faults(trace: ModelTrace, error: NotConjugateError) -> tuple[dict[str, str], set[str]]:
    """Why latents have no update, and the sites whose density is no sum of terms."""
    simplex = on_the_simplex(trace)
    faults: dict[str, str] = {}
    unstated: set[str] = set()
    for site in trace.sites.values():
        try:
            log_density(site, simplex)
        except (NotConjugateError, Unsupported) as raised:
            unstated.add(site.name)
            for name in {*_sites_in(site), *([site.name] if site.is_latent else [])}:
                faults.setdefault(name, clause(raised))
        else:
            if site.is_latent and site.family is None and not is_number(site):
                faults[site.name] = f"{site.distribution} has no conjugate family"
    if not faults:
        words = clause(error.__cause__ or error)
        latents = [n for n, s in trace.sites.items() if s.is_latent]
        faults = {n: words for n in latents if repr(n) in words} or dict.fromkeys(latents, words)
    return faults, unstated


def _reason(site: TracedSite, trace: ModelTrace, fault: str, instead: str) -> str:
    """Why there is no update, and on a line of its own what to use instead."""
    why = fault.removeprefix(f"site {site.name!r}: ")
    if site.family is None and not is_number(site):
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
    own = [site for site in trace.sites.values() if site.name in block.names]
    found = {name for site in own for name in _sites_in(site)}
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

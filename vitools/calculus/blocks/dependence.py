"""Latents that the model ties together while q keeps them apart.

A fully factorised q over the states of a chain, or over two dice of one throw, is a choice that the
reader should know of: their dependence in the posterior is lost, and the bound with it.

So is q(z) q(w) where a discrete z selects the prior of a continuous w: 1[z = k] stands beside a
statistic of w in the density of w itself. In a spike and slab, E[1/var] under q(z) is that of the
spike almost whatever q(z) is, so each of the two holds the other where it began. A component mu[z] of
a mixture is no such case: there 1[z = k] stands beside mu in the density of the data, of which
coordinate ascent finds the components.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from vitools.calculus.algebra.atoms import Atom, Predictor
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.blocks.block import Block, plate_names
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.densities.masks import where_read
from vitools.calculus.tracing.trace import ModelTrace, TracedSite

FEW_GROUPS = 50
"""Below so many group effects a factor of their scale that knows none of them is far too narrow."""
FEW_CASES = 64
"""Joint cases of discrete latents up to which a Gaussian one has a normal in each of them."""
MOST_CASES = 100_000
"""The same over all elements, where nobody asked for it."""
MOST_TIED = 2000
"""The same where terms hold pairs of elements: of these there is a matrix."""
MOST_NUMBERS = 2000
"""Numbers of data up to which some dozens of fits are made without being asked for."""


def kept_apart(blocks: Sequence[Block], terms: Sequence[ClosedTerm]) -> list[list[str]]:
    """Groups of discrete latents that terms tie together and that stand in blocks of their own."""
    block_of = {name: block for block in blocks for name in block.names}
    on_nodes = {site.name for block in blocks for site in block.sites if site.nodes is not None}
    group_of = {name: [name] for name in block_of}
    for term in terms:
        tied = sorted(
            {a.site for a in term.atoms if a.function == "indicator" and a.site not in on_nodes}
        )
        if len({block_of[name].title for name in tied if name in block_of}) < 2:
            continue
        together = list(dict.fromkeys(n for name in tied for n in group_of[name]))
        group_of.update(dict.fromkeys(together, together))
    found = {id(group): group for group in group_of.values() if len(group) > 1}
    order = list(block_of)
    return [sorted(group, key=order.index) for group in found.values()]


@dataclass(frozen=True)
class PriorSwitch:
    """A discrete site on whose value the prior of a continuous one depends, in another factor."""

    selector: str
    selected: str


def prior_switches(
    block_of: Mapping[str, Block], terms: Sequence[ClosedTerm], trace: ModelTrace
) -> tuple[PriorSwitch, ...]:
    """The pairs (z, w) with 1[z] beside a statistic of w in the density of w, in the model's order.

    ``terms`` must not be folded yet: a sum of terms keeps the origin of one of them.
    """

    def matters(term: ClosedTerm, atom: Atom) -> bool:
        return bool(where_read(term, atom, trace.sites[atom.site]).any())

    found: dict[PriorSwitch, None] = {}
    for term in terms:
        own = [a for a in term.atoms if a.site == term.origin and a.function != "indicator"]
        cases = [
            a for a in term.atoms if a.function == "indicator" and not trace.sites[a.site].nodes
        ]
        if own and cases and matters(term, own[0]):
            own_factor = block_of[term.origin].names
            apart = [a for a in cases if a.site not in own_factor]
            switches = [PriorSwitch(a.site, term.origin) for a in apart if matters(term, a)]
            found.update(dict.fromkeys(switches))
    order = list(block_of)
    return tuple(sorted(found, key=lambda s: (order.index(s.selected), order.index(s.selector))))


def few_cases(
    trace: ModelTrace, terms: Sequence[ClosedTerm], but: Collection[str] = ()
) -> list[tuple[str, ...]]:
    """Discrete sites and the Gaussian one whose prior they select, where their table is small.

    Each element of the one has its own of the others, so that a factor of them is exact for independent
    elements; ``but`` stay apart. A discrete site that selects several is left to the first. States that
    follow each other under switches are left to a factor along time.
    """
    curved = {
        name
        for term in terms
        for atom in term.atoms
        if isinstance(atom.site, Predictor)
        for name in atom.site.expression.sites()
    }
    found: dict[str, tuple[str, ...]] = {}
    follows: dict[str, set[str]] = {}
    taken = {*but, *curved, *trace.auxiliary}
    for site in trace.sites.values():
        if site.name in taken or not _is_plain_normal(site):
            continue
        parents = {n for x in site.arguments.values() if hasattr(x, "sites") for n in x.sites()}
        selectors = [s for s in trace.sites.values() if s.name in parents and s.support_size]
        cases = math.prod(s.support_size for s in selectors)
        beside = all(
            _at_one_element(term, site.name, [s.name for s in selectors]) for term in terms
        )
        most = MOST_TIED if any(_ties(term, site.name) for term in terms) else MOST_CASES
        is_small = beside and 1 < cases <= FEW_CASES and cases * math.prod(site.shape) <= most
        if is_small and all(s.name not in taken and _side_by_side(s, site) for s in selectors):
            members = {site.name, *(s.name for s in selectors)}
            found[site.name] = tuple(name for name in trace.sites if name in members)
            follows[site.name] = parents
            taken |= members
    chained = {n for name in found for n in (name, *follows[name]) if follows[name] & set(found)}
    return [members for name, members in found.items() if name not in chained]


def _ties(term: ClosedTerm, name: str) -> bool:
    """Whether a term holds two elements of a site."""
    return len({atom.labels for atom in term.atoms if atom.site == name}) > 1


def _at_one_element(term: ClosedTerm, gated: str, selectors: Collection[str]) -> bool:
    """Whether every case in a term is of an element of the Gaussian site that stands there too."""
    own = [atom.labels for atom in term.atoms if atom.site == gated]
    cases = [(a.site, a.labels[:-1]) for a in term.atoms if a.site in selectors]
    return not own or (len(set(cases)) == len(cases) and all(labels in own for _, labels in cases))


def _is_plain_normal(site: TracedSite) -> bool:
    """A latent of scalars with normal factors, every element of it in the model."""
    return (
        site.is_latent
        and site.mask is None
        and not site.base_event_dim
        and site.family is not None
        and site.family.is_gaussian
    )


def _side_by_side(selector: TracedSite, site: TracedSite) -> bool:
    """Whether each element of the one has its own of the other."""
    own, other = (plate_names(s) for s in (selector, site))
    named = selector.distribution != "OneHotCategorical" and selector.mask is None
    return named and own == other and tuple(selector.shape) == tuple(site.shape)


@dataclass(frozen=True)
class NarrowScale:
    """A scalar that is alone the scale of normal latents, and of which its own factor is too sure.

    q(τ) q(u) of five groups has a τ whose sd is a third of the posterior's: how far the effects may
    lie apart is what they tell of τ, and the other way round. So it is with the increments of a chain however
    many they are: no step by itself tells much of where it goes.

    Attributes:
        effects: how many group effects; 0 of the increments of a chain.
        of: the latent whose scale it is.
    """

    name: str
    effects: int
    of: str


def narrow_scales(trace: ModelTrace, but: Collection[str] = ()) -> list[NarrowScale]:
    """Those of few group effects, the fewest first, then those of the increments of chains."""
    found: dict[str, NarrowScale] = {}
    for site in trace.sites.values():
        count, scale = _number_of_effects(site), site.arguments.get("scale")
        if _is_chain(site, trace):
            count, scale = 0, site.arguments.get("transition_scale", scale)
        elif not 1 < count < FEW_GROUPS:
            continue
        names = scale.sites() if isinstance(scale, Expression) else set()
        if not count and len(names) > 1:  # one for each part of the state
            names = {name for name in names if _is_one_number(trace.sites[name])}
        elif len(names) != 1:
            continue
        for name in sorted(names, key=list(trace.sites).index):
            if _is_one_number(trace.sites[name]) and name not in {*but, *trace.auxiliary}:
                known = found.get(name)
                if known is None or (0 < count < known.effects):
                    found[name] = NarrowScale(name, count, site.name)
    return sorted(found.values(), key=lambda scale: scale.effects or FEW_GROUPS)


def scales_of_few(trace: ModelTrace, but: Collection[str] = ()) -> tuple[str, ...]:
    """The scalar on whose value all else depends without being asked for, by counts.

    That of the fewest group effects; where there are none, that of the increments of a chain, if it is the
    only one: with two, each must know of the other too.
    """
    found = narrow_scales(trace, but)
    if not found or num_observed(trace) > MOST_NUMBERS:
        return ()
    if not found[0].effects and len(found) > 1:
        return ()
    return (found[0].name,)


def num_observed(trace: ModelTrace) -> int:
    """Numbers of data."""
    return sum(s.observed.numel() for s in trace.sites.values() if s.observed is not None)


def _is_chain(site: TracedSite, trace: ModelTrace) -> bool:
    """Whether it has the density of the steps of a Gaussian chain that the user wrote."""
    if site.name in trace.auxiliary or not (site.is_latent or site.is_part):
        return False
    loc = site.arguments.get("loc")
    follows = site.is_part and isinstance(loc, Expression) and site.name in loc.sites()
    return site.distribution == "GaussianMarkovChain" or follows


def held_to_cells(
    trace: ModelTrace, joint: Sequence[Sequence[str] | str] | None, cut: Sequence[str] | None
) -> tuple[str, ...]:
    """The scalars whose factor may be cut off at given values: those named, or the scale of few effects."""
    return scales_of_few(trace, but=sites_of(joint)) if cut is None else tuple(cut)


def sites_of(joint: Sequence[Sequence[str] | str] | None) -> set[str]:
    """The sites that ``joint`` names, as in ``"W[rows]"``."""
    entries = [[entry] if isinstance(entry, str) else entry for entry in joint or ()]
    return {name.partition("[")[0] for entry in entries for name in entry}


def _number_of_effects(site: TracedSite) -> int:
    """Of a latent in plates alone, else 0."""
    if not site.is_latent or site.support_size or len(site.plates) < len(site.shape):
        return 0
    return math.prod(site.shape)


def _is_one_number(site: TracedSite) -> bool:
    unmasked = site.mask is None and not site.support_size and not site.base_event_dim
    return unmasked and math.prod(site.shape) == 1

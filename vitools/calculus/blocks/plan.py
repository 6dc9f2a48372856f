"""Which sites share a factor of q: the user's joint blocks, and the axes that terms couple."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from vitools.calculus.algebra.atoms import Predictor, Unsupported
from vitools.calculus.blocks.block import Block, plate_names
from vitools.calculus.blocks.dependence import few_cases
from vitools.calculus.blocks.free_form import FreeFormBlock
from vitools.calculus.blocks.gates.gate import GateBlock
from vitools.calculus.blocks.gaussian import GaussianBlock
from vitools.calculus.blocks.grouping import LARGEST_DENSE, coupled_groups, joint_size
from vitools.calculus.blocks.levels import tree_of
from vitools.calculus.blocks.markov_chain import MarkovChainBlock, is_markov_chain
from vitools.calculus.blocks.nodes.nodes_block import NodesBlock
from vitools.calculus.blocks.single import DiscreteBlock, FamilyBlock
from vitools.calculus.blocks.trajectory import TrajectoryBlock
from vitools.calculus.blocks.tree import TreeBlock
from vitools.calculus.densities.closed_terms import ClosedTerm, ExpectedLogJoint
from vitools.calculus.reduction.rows import DistinctRows
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.errors import NotConjugateError, NotSupportedError, OptionError


def make_blocks(
    trace: ModelTrace,
    terms: Sequence[ClosedTerm],
    joint: Sequence[Sequence[str] | str] | None,
    factorised: Sequence[str] | Literal["all"] | None,
    cut: Sequence[str] = (),
) -> list[Block]:
    """The factors of q.

    ``joint``: the user's groups; with ``None`` also those that terms couple (:mod:`.grouping`).
    ``factorised``: Gaussian sites kept fully factorised, ``"all"`` for all of them.
    ``cut``: scalar sites that get a factor of any form, which can be cut off at given values.
    """
    latents = {name: site for name, site in trace.sites.items() if site.is_latent}
    factorised = _apart(latents, factorised)
    groups, along = _groups(latents, trace, terms, joint, {*factorised, *cut})
    group_of = {name: group for group in groups for name in group}
    blocks: list[Block] = []
    for name, _site in latents.items():
        group = group_of.get(name, (name,))
        if name != group[0]:
            continue
        members = [latents[n] for n in group]
        try:
            if name in cut and len(group) == 1:
                blocks.append(FreeFormBlock(members[0], is_cut=True))
            else:
                blocks.append(_block(members, trace, terms, along, factorised))
        except Unsupported as error:
            if len(group) == 1:
                raise NotConjugateError(f"site {name!r}: {error}", [name]) from error
            raise NotSupportedError(f"joint block {group}: {error}") from error
    return blocks


def shared_normals(
    trace: ModelTrace,
    terms: Sequence[ClosedTerm],
    joint: Sequence[Sequence[str] | str] | None,
    factorised: Sequence[str] | Literal["all"] | None,
    cut: Sequence[str] = (),
) -> frozenset[str]:
    """Scalars of normal priors that share a normal factor although the terms hold curved functions of them.

    A scalar that has a factor to itself takes the optimal one, an integral. One that a term ties to other
    Gaussian numbers (x_t ~ Normal(x_t-1, s) under a Poisson's exp(x_t)) loses more by being torn from them than by
    being normal; one that stands in a curved function with others (exp(a + b)) has to be. The arguments
    are those of :func:`make_blocks`.
    """
    latents = {name: site for name, site in trace.sites.items() if site.is_latent}
    apart = {*_apart(latents, factorised), *cut}
    curved = {
        name
        for name, site in latents.items()
        if _may_be_normal(site) and needs_an_integral(site, terms)
    }
    if not curved:
        return frozenset()
    groups, along = _groups(latents, trace, terms, joint, apart, curved)
    tied = {
        name for group in groups if all(_is_gaussian(latents[n]) for n in group) for name in group
    }
    tied |= {name for name in curved if along.get(name)}
    tied |= {name for name in curved if _joint_axes([latents[name]], terms, {})[name]}
    below = {
        name
        for term in terms
        for atom in term.atoms
        if isinstance(atom.site, Predictor) and atom.site.is_curved
        for name in atom.site.expression.sites()
    }
    return frozenset(curved & (tied | below))


def _may_be_normal(site: TracedSite) -> bool:
    """Whether a scalar's factor may be normal, and normal together with others."""
    return _is_gaussian(site) and site.mask is None and not site.base_event_dim


def _is_gaussian(site: TracedSite) -> bool:
    return site.family is not None and site.family.is_gaussian


def _apart(
    latents: Mapping[str, TracedSite], factorised: Sequence[str] | Literal["all"] | None
) -> Sequence[str]:
    """The sites that are to be fully factorised."""
    factorised = list(latents) if factorised == "all" else factorised or ()
    for name in factorised:
        if name not in latents:
            raise OptionError(f"factorised: no latent site {name!r}; latents are {list(latents)}")
    return factorised


def _groups(
    latents: Mapping[str, TracedSite],
    trace: ModelTrace,
    terms: Sequence[ClosedTerm],
    joint: Sequence[Sequence[str] | str] | None,
    apart: Collection[str],
    also: Collection[str] = (),
) -> tuple[list[tuple[str, ...]], dict[str, set[int]]]:
    """Sites that share a factor, and the axes along which the user wants one to have a covariance.

    Args:
        apart: sites that are not to be joined unless asked for.
        also: Gaussian scalars that may be joined although curved functions of them stand in the terms.
    """
    groups, along = _parse_joint(joint or (), latents)
    if joint is not None:
        return groups, along
    gates = few_cases(
        trace, terms, but={*apart, *(n for n, s in latents.items() if needs_an_integral(s, terms))}
    )
    apart = {*apart, *(name for gate in gates for name in gate)}
    free = {
        n: s
        for n, s in latents.items()
        if n not in apart and (n in also or can_be_joined(s, terms))
    }

    def fits(names: Sequence[str]) -> bool:
        members = [latents[n] for n in names]
        numbers = joint_size(members, _joint_axes(members, terms, {}))
        return numbers <= LARGEST_DENSE or tree_of(members, terms, numbers) is not None

    return [*coupled_groups(free, terms, fits), *gates, *tabled_pairs(latents, terms)], along


def tabled_pairs(
    latents: Mapping[str, TracedSite], terms: Sequence[ClosedTerm]
) -> list[tuple[str, ...]]:
    """Scalars on nodes that a term couples, two of the same plates."""
    found: dict[tuple[str, ...], None] = {}
    taken: set[str] = set()
    for term in terms:
        tied = tuple(
            n for n in latents if any(a.site == n for a in term.atoms) and latents[n].nodes
        )
        if len(tied) == 2 and not taken & set(tied) and same_plates(*(latents[n] for n in tied)):
            found[tied] = None
            taken |= set(tied)
    return list(found)


def same_plates(*sites: TracedSite) -> bool:
    """Whether each element of the one site has its own of the others."""
    return len({(*site.shape, *plate_names(site)) for site in sites}) == 1


def _block(
    members: list[TracedSite],
    trace: ModelTrace,
    terms: Sequence[ClosedTerm],
    along: dict[str, set[int]],
    factorised: Sequence[str],
) -> Block:
    if len(members) == 1 and needs_an_integral(members[0], terms):
        return FreeFormBlock(members[0])
    families = [site.family for site in members]
    if all(site.nodes is not None for site in members):
        return NodesBlock(members)
    if all(family is not None and family.is_discrete for family in families):
        if any(site.nodes is not None for site in members):
            raise Unsupported("a scalar on nodes shares its factor with no discrete site")
        if any(is_trajectory(site, trace) for site in members):
            if len(members) > 1:
                raise Unsupported("a trajectory shares its factor with no other site")
            return TrajectoryBlock(members[0])
        return (
            MarkovChainBlock(members) if is_markov_chain(members, terms) else DiscreteBlock(members)
        )
    if all(family is not None and family.is_gaussian for family in families):
        axes = _joint_axes(members, terms, along)
        if len(members) > 1 or any(axes.values()):
            elementwise = members[0].name in factorised
            numbers = joint_size(members, axes)
            levels = None if elementwise or along else tree_of(members, terms, numbers)
            if levels is not None:
                return TreeBlock(members, levels)
            return GaussianBlock(members, axes, elementwise)
        return FamilyBlock(members[0])
    if len(members) > 1:
        return _gate(members, terms)
    return FamilyBlock(members[0])


def _gate(members: list[TracedSite], terms: Sequence[ClosedTerm]) -> GateBlock:
    """Discrete sites and one Gaussian site."""
    continuous = [site for site in members if not site.support_size]
    family = continuous[0].family if len(continuous) == 1 else None
    if family is None or not family.is_gaussian or needs_an_integral(continuous[0], terms):
        raise Unsupported(
            "joint factors exist for discrete sites, for Gaussian sites, for discrete sites with one "
            "Gaussian site, and for two scalars of the same plates, up to 100 elements each"
        )
    (tied,) = _joint_axes(continuous, terms, {}).values()
    return GateBlock(members, tied)


def is_trajectory(site: TracedSite, trace: ModelTrace) -> bool:
    """Whether the last axis of a discrete site is time."""
    return site.distribution == "CategoricalMarkovChain" or site.name in trace.rolled


def can_be_joined(site: TracedSite, terms: Sequence[ClosedTerm]) -> bool:
    """Whether a site may share a normal factor."""
    return _is_gaussian(site) and site.mask is None and not needs_an_integral(site, terms)


def needs_an_integral(site: TracedSite, terms: Sequence[ClosedTerm]) -> bool:
    """Whether the terms hold a function of the site that no family of its support offers."""
    if site.base_event_dim or site.support_size:
        return False
    if site.family is None:
        return True
    offered = site.family.statistics
    return any(
        atom.site == site.name and atom.function not in offered
        for term in terms
        for atom in term.atoms
    )


def _joint_axes(
    members: list[TracedSite], terms: Sequence[ClosedTerm], along: dict[str, set[int]]
) -> dict[str, tuple[int, ...]]:
    """The axes along which the members share one covariance: asked for, or coupled by a term."""
    names = [site.name for site in members]
    if len(members) == 1:
        coupled = set(along.get(names[0], ()))
        for term in terms:
            atoms = [a for a in term.atoms if a.site == names[0] and a.function == 1.0]
            for first in atoms:
                for second in atoms:
                    coupled |= {
                        i
                        for i, (x, y) in enumerate(zip(first.labels, second.labels, strict=True))
                        if x != y
                    }
        return {names[0]: tuple(sorted(coupled))}
    # Several sites: the plates that all share stay independent unless some term couples them.
    shared = set.intersection(*({p.name for p in site.plates.values()} for site in members))
    axis = {s.name: {p.name: d for d, p in s.plates.items()} for s in members}
    for term in terms:
        atoms = [a for a in term.atoms if a.site in names and a.function == 1.0]
        for first in atoms:
            for second in atoms:
                shared -= {
                    plate
                    for plate in shared
                    if first.labels[axis[first.site][plate]]
                    != second.labels[axis[second.site][plate]]
                }
    return {
        site.name: tuple(
            d for d in range(len(site.shape)) if d not in {axis[site.name][p] for p in shared}
        )
        for site in members
    }


def _parse_joint(
    joint: Sequence[Sequence[str] | str], latents: Mapping[str, TracedSite]
) -> tuple[list[tuple[str, ...]], dict[str, set[int]]]:
    groups: list[tuple[str, ...]] = []
    along: dict[str, set[int]] = {}
    for entry in joint:
        names = [entry] if isinstance(entry, str) else list(entry)
        members = []
        for text in names:
            name, bracket, plate = text.partition("[")
            if name not in latents:
                raise OptionError(f"joint: no latent site {name!r}; latents are {list(latents)}")
            if bracket:
                site = latents[name]
                axes = {d for d, p in site.plates.items() if p.name == plate.rstrip("]")}
                if not axes:
                    known = [p.name for p in site.plates.values()]
                    raise OptionError(
                        f"joint: site {name!r} is not in plate {plate.rstrip(']')!r}; its plates "
                        f"are {known}"
                    )
                along.setdefault(name, set()).update(axes)
            members.append(name)
        if len(set(members)) == 1 and not along.get(members[0]):
            raise OptionError(
                f"joint: {entry!r} names one site; name several, as in ('z1', 'z2'), or a plate of "
                "the site, as in 'W[columns]'"
            )
        if len(members) > 1:
            groups.append(tuple(n for n in latents if n in members))
    flat = [name for group in groups for name in group]
    if len(flat) != len(set(flat)):
        raise OptionError("joint: a site stands in two blocks")
    return groups, along


def ties_rows(
    trace: ModelTrace,
    joint: ExpectedLogJoint,
    rows: Mapping[str, DistinctRows],
    together: Sequence[Sequence[str] | str] | None,
    factorised: Sequence[str] | Literal["all"] | None,
) -> bool:
    """Whether a factor ties rows that are to count as one: given what they share, they are not equal."""
    return any(
        plate.name in rows and plate.name not in block.batch_plates
        for block in make_blocks(trace, joint.terms, together, factorised)
        for site in block.sites
        for plate in site.plates.values()
    )

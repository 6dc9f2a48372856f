"""Which scalars go on nodes, and where the nodes stand.

A scalar goes on nodes where the model has no closed form, and no integral over it alone, but has once the
scalar is a table (:mod:`vitools.calculus.blocks.nodes.nodes_block`). As few as will do are chosen, those that could not
stand in a predictor before those that could. A first look spans all scales; what q makes of it says where
nodes are needed, until every one of its sums stands.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from vitools.calculus.algebra.atoms import Predictor
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.blocks.free_form import FreeFormBlock
from vitools.calculus.blocks.nodes.nodes_block import NodesBlock, below_top
from vitools.calculus.blocks.plan import same_plates
from vitools.calculus.densities.log_joint import is_number
from vitools.calculus.densities.whole import log_prob_of
from vitools.calculus.model import ConjugateModel
from vitools.calculus.tracing.augmentation import MIXTURES
from vitools.calculus.tracing.components import COMPONENTS
from vitools.calculus.tracing.inner import opened
from vitools.calculus.tracing.symbolic import Refusal
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.distributions.free_form.nodes import Nodes
from vitools.errors import NotConjugateError, NumericalError, VitoolsError
from vitools.families.free_form import bounds_of
from vitools.problem.sites import support_of
from vitools.supports import bounds

FIRST_LOOK, LOOK_AT_PAIRS, CLOSEST_LOOK, LOOKS = 41, 21, 201, 100_000
"""Nodes of a first look at one scalar, and at each of two, at least; at most; and densities of a row in all of it."""
ENOUGH = 25
"""Nodes of a window about a density that is nearly normal."""
MOST_NODES, MOST_PAIRS, FARTHEST = 4000, 1_000_000, 200.0
"""Nodes of a site, of two together and all elements, and how far out in u, beyond which q has no place."""
SEEN = 15.0
"""Nats below the top of a density up to which its modes are counted."""
MOST_SITES = 2
"""Scalars on nodes."""
MOST_INSTEAD = 2_500_000
"""Expectations a sweep up to which nodes take the place of a mixture of normals."""
MOST_ELEMENTS = 100
"""Elements of a site on nodes."""

Make = Callable[..., ConjugateModel]


def with_nodes(
    make: Make,
    trace: Callable[[], ModelTrace],
    joint: Sequence[Sequence[str] | str] | None = None,
    *,
    pairs: bool = True,
) -> ConjugateModel:
    """The model as it is, or with as few scalars on nodes as it takes.

    Args:
        make: the model, with ``nodes=`` where sites are on nodes.
        trace: of the model, read without any.
        joint: the user's groups, of which one may be a pair of scalars.
        pairs: whether two scalars that each have a factor may share a table instead.
    """

    def tried(
        choices: Iterable[tuple[str, ...]], sites: Mapping[str, TracedSite]
    ) -> ConjugateModel | None:
        for names in choices:
            count = _look(names, sites)
            try:
                model = make(nodes={name: first_look(sites[name], count) for name in names})
            except VitoolsError:
                continue
            return look_roughly(model, True)
        return None

    read: ModelTrace | None = None
    if joint:
        read = trace()
        found = tried(_asked_for(joint, read), read.sites)
        if found is not None:
            return found
    try:
        model = make()
        instead = list(_tied_scalars(model)) if pairs and joint is None else []
        if not model.trace.auxiliary and not instead:
            return model
        read = read or trace()
        return tried((*_instead_of_mixtures(read), *instead), read.sites) or model
    except NotConjugateError:
        read = read or trace()
        if any(_has_moving_ends(site) for site in read.sites.values()):
            raise  # a density that breaks off is no smooth function of what moves its ends
        found = tried((*_instead_of_mixtures(read), *_choices(read)), read.sites)
        if found is None:
            raise
        return found


def _instead_of_mixtures(trace: ModelTrace) -> Iterator[tuple[str, ...]]:
    """The scalars by which an observed site would be a mixture, a wider model's bound."""
    for site in trace.sites.values():
        if site.is_latent or site.distribution not in (*MIXTURES, *COMPONENTS):
            continue
        found: set[str] = set()
        for name, argument in opened(site).arguments.items():
            of_predictor = name == "loc" and site.distribution in MIXTURES
            if isinstance(argument, Expression | Discrete) and not of_predictor:
                found |= argument.sites()
        names = tuple(name for name in trace.sites if name in found)
        able = all(_can_be(trace.sites[n]) and not _is_gaussian(trace.sites[n]) for n in names)
        numbers = math.prod(site.shape) * ENOUGH ** len(names)
        if names and able and len(names) <= MOST_SITES and numbers <= MOST_INSTEAD:
            yield names


def _asked_for(
    joint: Sequence[Sequence[str] | str], trace: ModelTrace
) -> Iterator[tuple[str, ...]]:
    """Two scalars that are to share a factor, and no normal one."""
    for entry in joint:
        names = () if isinstance(entry, str) else tuple(entry)
        sites = [trace.sites[name] for name in names if name in trace.sites]
        is_pair = len(sites) == len(set(names)) == MOST_SITES and all(map(_can_be, sites))
        if is_pair and not all(map(_is_gaussian, sites)) and same_plates(*sites):
            yield names


def _tied_scalars(model: ConjugateModel) -> Iterator[tuple[str, ...]]:
    """Two scalars that a term ties, one of which has an integral of its own: r log(1 - p), a log b.

    q(r) q(p) is far too narrow where data say more of what both make together than of either; one joint table
    of them costs little. Locations are not among them, which share normal factors, nor are scalars that are
    tied to a third of their plates: of the steps of a loop no two stand out.
    """
    numbers = sum(s.observed.numel() for s in model.trace.sites.values() if s.observed is not None)
    if model.cut or numbers * ENOUGH > MOST_INSTEAD:
        return
    free = {
        block.names[0]: block.sites[0]
        for block in model.blocks
        if len(block.names) == 1 and _can_be(block.sites[0]) and not _is_gaussian(block.sites[0])
    }
    tied = {
        tuple(name for name in free if any(atom.site == name for atom in term.atoms)): None
        for term in model.joint.terms
    }
    for names in tied:
        thirds = {
            m for others in tied if set(others) & set(names) for m in set(others) - set(names)
        }
        alone = not any(same_plates(free[n], free[m]) for n in names for m in thirds)
        integrals = [n for n in names if isinstance(model.block_of[n], FreeFormBlock)]
        if (
            len(names) == MOST_SITES
            and alone
            and integrals
            and same_plates(*(free[n] for n in names))
        ):
            yield names


def look_roughly(model: ConjugateModel, roughly: bool) -> ConjugateModel:
    """Whether expectations at nodes are only to say where the nodes should be."""
    for node in model.predictors:
        node.is_rough = roughly
    return model


def _look(names: Sequence[str], sites: Mapping[str, TracedSite]) -> int:
    """Nodes of each site in a first look, an odd number.

    Where nothing else is latent, so that a density is all that a node costs, more, that few peaks are missed.
    """
    least = FIRST_LOOK if len(names) == 1 else LOOK_AT_PAIRS
    if any(site.is_latent and site.name not in names for site in sites.values()):
        return least
    numbers = sum(s.observed.numel() for s in sites.values() if s.observed is not None)
    most = int((LOOKS / max(numbers, 1)) ** (1 / len(names)))
    return min(max(least, most), CLOSEST_LOOK) // 2 * 2 + 1


def first_look(site: TracedSite, count: int) -> Nodes:
    is_known = not any(isinstance(a, Expression | Discrete) for a in site.arguments.values())
    is_known = is_known and site.distribution != "ImproperUniform"
    log_prior = log_prob_of(site) if is_known else None
    return Nodes.first_look(bounds_of(support_of(site.fn)), site.shape, count, log_prior)


def _choices(trace: ModelTrace) -> Iterator[tuple[str, ...]]:
    """Sets of scalars, small before large; without those that may be below a predictor before with."""
    able = [name for name, site in trace.sites.items() if _can_be(site)]
    others = [n for n in able if not _is_gaussian(trace.sites[n])]
    tried: set[tuple[str, ...]] = set()
    for names in (others, able):
        for count in range(1, MOST_SITES + 1):
            for chosen in itertools.combinations(names, count):
                if chosen not in tried:
                    tried.add(chosen)
                    yield chosen


def _can_be(site: TracedSite) -> bool:
    if not site.is_latent or site.support_size or not is_number(site) or site.mask is not None:
        return False
    return math.prod(site.shape) <= MOST_ELEMENTS and _has_line(site)


def _has_line(site: TracedSite) -> bool:
    """Whether the ends of its support are numbers."""
    if any(isinstance(a, Refusal) for a in site.arguments.values()):
        return False
    try:
        bounds = bounds_of(support_of(site.fn))
    except VitoolsError:
        return False
    return not any(bound.is_meta for bound in bounds)


def _has_moving_ends(site: TracedSite) -> bool:
    """Whether data are observed of a distribution whose support hangs on latents."""
    if site.is_latent or site.distribution == "Unit":
        return False
    return any(isinstance(end, Tensor) and end.is_meta for end in bounds(site.fn.support))


def _is_gaussian(site: TracedSite) -> bool:
    return site.family is not None and site.family.is_gaussian


# ---- where they stand ------------------------------------------------------------------------


def refined(model: ConjugateModel) -> dict[str, Nodes]:
    """All nodes anew where some do not hold their q; empty where all do."""
    found: dict[str, Nodes] = {}
    for block in model.blocks:
        if isinstance(block, NodesBlock):
            averaged = {name: averaged_over(model, block, name) for name in block.names}
            found |= block.refined(averaged, ENOUGH)
    for name, nodes in found.items():
        others = [n for other, n in (model.nodes | found).items() if other != name]
        elements = max(n.coordinates[..., 0].numel() for n in (nodes, *others))
        beside = elements * math.prod(n.count for n in others)
        check_place(model, name, nodes, min(MOST_NODES, MOST_PAIRS // beside))
    return model.nodes | found if found else {}


def check_place(model: ConjugateModel, name: str, nodes: Nodes, most: int = MOST_NODES) -> None:
    """NumericalError where a site's next nodes would be more than ``most``, or too far out."""
    if not bool((nodes.coordinates[..., [0, -1]].abs() < FARTHEST).all()):
        raise NumericalError(
            f"site {name!r}: q has no place that a quadrature holds: the posterior may be improper, or an "
            "expectation of it infinite. Give it a tighter prior"
        )
    if nodes.count <= most:
        return
    block = model.block_of[name]
    assert isinstance(block, NodesBlock)
    log_density = below_top(block.log_marginal(block.names.index(name)))
    middle = log_density[..., 1:-1]
    peaks = (middle > log_density[..., :-2]) & (middle >= log_density[..., 2:]) & (middle > -SEEN)
    count = int(peaks.sum(-1).max())
    held = (
        f"{count} modes far apart for their width"
        if count > 1
        else "a mode too narrow beside its tails"
    )
    raise NumericalError(
        f"site {name!r}: q has {held}, which more than {most} nodes would hold. Give {name!r} a prior about "
        "one mode (Uniform about it), or sample it: nuts() and svi() need no nodes"
    )


def averaged_over(model: ConjugateModel, block: NodesBlock, name: str) -> list[Tensor]:
    """The sizes ``[*batch, K]`` of what terms average over a site's nodes for other factors."""
    number = block.names.index(name)
    count = block.supports[number]
    found = []
    for term in model.joint.terms:
        own = next((a for a in term.atoms if a.site == name and a.function == "indicator"), None)
        if own is None or all(a.site in block.names for a in term.atoms):
            continue
        label = own.labels[-1]
        size = torch.ones(count, dtype=torch.float64)
        for constant in term.constants:
            if label in constant.labels:
                size = size * _largest(constant.tensor, constant.labels, label)
        for atom in term.atoms:
            if isinstance(atom.site, Predictor) and label in atom.labels:
                node = next(p for p in model.predictors if p.name == atom.site)
                resolved = node.resolve([atom])
                size = size * _largest(node.moments[resolved.key], resolved.labels, label)
        if bool((size > 0).any()):
            found.append(size.expand(*block.batch_shape, count))
    return found


def _largest(tensor: Tensor, labels: tuple[int, ...], label: int) -> Tensor:
    """|x| along one label, the largest along the others."""
    axes = [i for i, x in enumerate(labels) if x != label]
    return tensor.double().abs().amax(axes) if axes else tensor.double().abs()


def carried_over(model: ConjugateModel, other: ConjugateModel) -> ConjugateModel:
    """The other model, of the same sites at other nodes, with the factors of the first; rough."""
    look_roughly(other, True)
    for node in other.predictors:
        node.start()
    for block, before in zip(other.blocks, model.blocks, strict=True):
        if not isinstance(block, NodesBlock):
            block.restore(before.natural)
    for block in other.blocks:
        if isinstance(block, NodesBlock):
            block.start(other.messages(block, given=()), None)
    settle(other)
    settle(other)
    return other


def settle(model: ConjugateModel) -> None:
    """q at the nodes from what predictors say there, and they from q."""
    for node in model.predictors:
        node.update(model.messages(node))
    for block in model.blocks:
        if isinstance(block, NodesBlock):
            model.update(block)
    for node in model.predictors:
        node.update(model.messages(node))


def exact(model: ConjugateModel) -> ConjugateModel:
    """The model with expectations that are to be reported."""
    look_roughly(model, False)
    settle(model)
    return model

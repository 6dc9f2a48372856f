"""Blocks of one site in its family, and of discrete sites."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.calculus.algebra.atoms import Atom, Unsupported
from vitools.calculus.blocks.block import (
    Block,
    DenseBlock,
    Resolved,
    batch_mask,
    describe,
    describe_function,
    moved,
    plate_names,
    with_event,
)
from vitools.calculus.tracing.trace import TracedSite
from vitools.families.categorical import CategoricalFamily
from vitools.families.moments import SiteMoments


class FamilyBlock(DenseBlock):
    """One site in one exponential family whose statistics act elementwise on the site's axes."""

    def __init__(self, site: TracedSite):
        super().__init__([site])
        assert site.family is not None
        self.family = site.family.of_elements
        event = max(self.family.event_dims)
        self.batch_shape = site.shape[: len(site.shape) - event]
        self.event_shape = site.shape[len(site.shape) - event :]
        self.batch_plates = plate_names(site)[: len(self.batch_shape)]
        self.mask = batch_mask(site, self.batch_shape)

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        name = self.sites[0].name
        if len(atoms) > 1:
            what = " · ".join(describe(atom) for atom in atoms)
            raise Unsupported(f"the product {what} of statistics of {name!r}")
        (atom,) = atoms
        key = self.family.statistic_of(atom.function, self.event_shape)
        if key is None:
            known = ", ".join(describe_function(s, name) for s in self.family.statistics)
            raise Unsupported(
                f"{describe(atom)}, where a {self.family.name} site offers only {known}"
            )
        return Resolved(key, atom.labels[: len(self.statistic_shape(key))])

    def statistics(self) -> Iterable[Any]:
        return self.family.statistics

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        return self.component_shape(self.component(key))

    def component_shape(self, component: int) -> tuple[int, ...]:
        return self.batch_shape + self.event_shape[: self.family.event_dims[component]]

    def component(self, key: Any) -> int:
        return self.family.statistics.index(key)

    def embed(self, key: Any, message: Tensor) -> Tensor:
        return message

    def extract(self, key: Any, mean: Tensor) -> Tensor:
        return mean

    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        return FamilyBlock(sites[0])

    def starting_point(
        self, prior: Mapping[Any, Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        if (
            self.sites[0].reference is not None
        ):  # where the data lie, rather than where the prior does
            prior = {key: x for key, x in prior.items() if self.component(key)}
        return super().starting_point(prior, generator)

    def place(self, given: Mapping[str, SiteMoments]) -> None:
        moments = given[self.title]
        self.restore(self.family.with_moments(moments.mean, moments.variance))

    def distribution(self, name: str) -> Distribution:
        (site,) = self.sites
        plain = moved(self.family.to_distribution(self.natural), site.reference)
        return with_event(plain, site, self.mask)


class DiscreteBlock(DenseBlock):
    """One discrete site, or several of the same plates with their joint table.

    η = logits of the joint cases, the last site fastest.
    """

    def __init__(self, sites: Sequence[TracedSite]):
        super().__init__(sites)
        self.family: CategoricalFamily = CategoricalFamily()
        self.batch_shape = discrete_batch(sites)
        self.batch_plates = plate_names(sites[0])[: len(self.batch_shape)]
        self.supports = tuple(site.support_size for site in sites)
        self.cases = math.prod(self.supports)
        single = len(sites) == 1
        self.mask = batch_mask(sites[0], self.batch_shape) if single else None
        self.masked_entropy = masked_entropy(() if single else sites, self.batch_shape)

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        return one_atom_each(atoms, self.names)

    def entropies(self) -> Tensor:
        return super().entropies() - self.masked_entropy

    def statistics(self) -> Iterable[Any]:
        """Every subset of the sites, by its joint indicator."""
        for count in range(1, len(self.names) + 1):
            yield from itertools.combinations(self.names, count)

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        sizes = dict(zip(self.names, self.supports, strict=True))
        return (*self.batch_shape, *(sizes[name] for name in key))

    def component_shape(self, component: int) -> tuple[int, ...]:
        return (*self.batch_shape, self.cases)

    def component(self, key: Any) -> int:
        return 0

    def embed(self, key: Any, message: Tensor) -> Tensor:
        """Spread a message about some of the sites over all joint cases."""
        if key == self.names:
            return message.flatten(-len(key)) if len(key) > 1 else message
        lead = message.shape[: message.dim() - len(key)]
        pairs = zip(self.names, self.supports, strict=True)
        view = [size if name in key else 1 for name, size in pairs]
        return message.reshape((*lead, *view)).expand(*lead, *self.supports).reshape((*lead, -1))

    def extract(self, key: Any, mean: Tensor) -> Tensor:
        table = mean.reshape((*mean.shape[:-1], *self.supports))
        away = [i - len(self.names) for i, name in enumerate(self.names) if name not in key]
        return table.sum(away) if away else table

    def set_factor(self, natural: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """From logits of any normalisation, of the joint cases or of the sites' supports."""
        logits = natural[0].reshape(self.component_shape(0))
        log_table = logits - torch.logsumexp(logits, -1, keepdim=True)
        return super().set_factor((log_table,))

    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        return DiscreteBlock(sites)

    def place(self, given: Mapping[str, SiteMoments]) -> None:
        self.restore(logits_with(self, given))

    def joint_distribution(self) -> Distribution:
        """A Categorical over the product of supports, the last site fastest."""
        return self.family.to_distribution(self.natural)

    def distribution(self, name: str) -> Distribution:
        site = next(site for site in self.sites if site.name == name)
        (logits,) = self.natural
        if len(self.names) > 1:
            logits = self.moments[(name,)].clamp(min=1e-300).log()
        return with_event(self.family.like(site.distribution, (logits,)), site, self.mask)


def logits_with(block: DenseBlock, given: Mapping[str, SiteMoments]) -> tuple[Tensor]:
    """η of a block of discrete sites, independent of each other, with the probabilities given."""
    total = torch.zeros(block.component_shape(0), dtype=torch.float64)
    for name in block.names:
        if name in given:
            (logits,) = CategoricalFamily().with_moments(given[name].mean, None)
            total = total + block.embed((name,), logits.expand(block.statistic_shape((name,))))
    return (total,)


def one_atom_each(atoms: Sequence[Atom], names: Sequence[str]) -> Resolved:
    """The joint indicator of the discrete sites among ``names`` that the atoms are of."""
    found: dict[str, Atom] = {}
    for atom in atoms:
        if atom.function != "indicator":
            raise Unsupported(f"{describe(atom)} of a discrete site")
        if atom.site in found:
            raise Unsupported(f"two different elements of discrete site {atom.site!r}")
        found[atom.site] = atom
    present = [name for name in names if name in found]
    batch = found[present[0]].labels[:-1]
    if any(found[name].labels[:-1] != batch for name in present):
        raise Unsupported(f"different elements of the discrete sites {tuple(present)}")
    return Resolved(tuple(present), (*batch, *(found[name].labels[-1] for name in present)))


def discrete_batch(sites: Sequence[TracedSite]) -> tuple[int, ...]:
    """The batch shape that all the sites share, plate for plate."""
    kinds = set()
    for site in sites:
        batch = site.shape[:-1] if site.distribution == "OneHotCategorical" else site.shape
        kinds.add((tuple(batch), plate_names(site)[: len(batch)]))
    if len(kinds) > 1:
        names = tuple(site.name for site in sites)
        raise Unsupported(f"sites {names} stand in different plates, so they have no joint table")
    ((batch, _),) = kinds
    return batch


def masked_entropy(sites: Sequence[TracedSite], batch_shape: tuple[int, ...]) -> Tensor:
    """What masked elements of sites in one block, spread evenly by q, add to its entropy."""
    total = torch.zeros((), dtype=torch.float64)
    for site in sites:
        mask = batch_mask(site, batch_shape)
        if mask is not None:
            total = total + math.log(site.support_size) * (~mask).double()
    return total


__all__ = [
    "Block",
    "DiscreteBlock",
    "FamilyBlock",
    "Resolved",
    "describe",
    "discrete_batch",
    "masked_entropy",
    "one_atom_each",
    "plate_names",
    "with_event",
]

"""A block of discrete sites that follow one another: exact by forward and backward recursions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from vitools.calculus.algebra.atoms import Atom, Unsupported
from vitools.calculus.blocks.block import DenseBlock, Resolved, batch_mask, plate_names, with_event
from vitools.calculus.blocks.single import (
    discrete_batch,
    logits_with,
    masked_entropy,
    one_atom_each,
)
from vitools.calculus.densities.closed_terms import ClosedTerm
from vitools.calculus.tracing.trace import TracedSite
from vitools.families.markov_chain import MarkovChain, MarkovChainFamily
from vitools.families.moments import SiteMoments

SHORTEST = 3
"""Sites from which a chain is cheaper than the table of all cases."""


def is_markov_chain(sites: Sequence[TracedSite], terms: Sequence[ClosedTerm]) -> bool:
    """Whether no term holds more of the sites than two neighbours."""
    place = {site.name: i for i, site in enumerate(sites)}
    for term in terms:
        at = sorted({place[atom.site] for atom in term.atoms if atom.site in place})
        if len(at) > 2 or (len(at) == 2 and at[1] - at[0] != 1):
            return False
    return len(sites) >= SHORTEST


class MarkovChainBlock(DenseBlock):
    """Discrete sites of the same plates, each tied to its neighbours alone."""

    def __init__(self, sites: Sequence[TracedSite]):
        super().__init__(sites)
        self.batch_shape = discrete_batch(sites)
        self.batch_plates = plate_names(sites[0])[: len(self.batch_shape)]
        self.supports = tuple(site.support_size for site in sites)
        self.family: MarkovChainFamily = MarkovChainFamily(self.supports)
        keys = [*((name,) for name in self.names), *pairwise(self.names)]
        self._number = {key: i for i, key in enumerate(keys)}
        self.masked_entropy = masked_entropy(sites, self.batch_shape)

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        resolved = one_atom_each(atoms, self.names)
        if resolved.key not in self._number:
            raise Unsupported(f"states of the chain that are no neighbours: {resolved.key}")
        return resolved

    def statistics(self) -> Iterable[Any]:
        return self._number

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        return (*self.batch_shape, *self.family.shapes[self._number[key]])

    def component(self, key: Any) -> int:
        return 0

    def component_shape(self, component: int) -> tuple[int, ...]:
        return (*self.batch_shape, self.family.width)

    def embed(self, key: Any, message: Tensor) -> Tensor:
        place = self.family.places[self._number[key]]
        flat = message.flatten(-len(key)) if len(key) > 1 else message
        return torch.nn.functional.pad(flat, (place.start, self.family.width - place.stop))

    def extract(self, key: Any, mean: Tensor) -> Tensor:
        number = self._number[key]
        shape = self.family.shapes[number]
        return mean[..., self.family.places[number]].reshape((*mean.shape[:-1], *shape))

    def entropies(self) -> Tensor:
        return self._entropies - self.masked_entropy

    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        return MarkovChainBlock(sites)

    def place(self, given: Mapping[str, SiteMoments]) -> None:
        self.restore(logits_with(self, given))

    def joint_distribution(self) -> Distribution:
        return MarkovChain(self.natural[0], torch.tensor(self.supports))

    def distribution(self, name: str) -> Distribution:
        place = self.names.index(name)
        (means,) = self.family.mean_parameters(self.natural)
        site = self.sites[place]
        plain = Categorical(probs=self.family.parts(means)[0][place], validate_args=False)
        return with_event(plain, site, batch_mask(site, self.batch_shape))

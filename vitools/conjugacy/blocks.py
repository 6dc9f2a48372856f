"""Blocks: the factors of q, each with the statistics that terms may ask of it.

A block holds one site, or several sites jointly. :meth:`Block.resolve` maps the atoms of a term to
one statistic of the block, or refuses. :meth:`Block.update` takes the coefficient of every
statistic in E_q log p, which are the natural parameters of the optimal factor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, OneHotCategorical

from vitools.conjugacy.term import Atom, Unsupported
from vitools.conjugacy.trace import TracedSite
from vitools.errors import NumericalError
from vitools.families import FAMILIES, FAMILY_OF_PRIOR, Family

_versions = count(1)


@dataclass(frozen=True)
class Resolved:
    """A statistic of a block and the label on each of its axes."""

    key: Any
    labels: tuple[int, ...]


class Block(ABC):
    sites: tuple[TracedSite, ...]
    moments: dict[Any, Tensor]
    batch_plates: tuple[str | None, ...]  # the plate of each batch dim of the factor

    def __init__(self, sites: Sequence[TracedSite]):
        self.sites = tuple(sites)
        self.moments = {}
        self.version = 0
        self.natural: tuple[Tensor, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites)

    @property
    def title(self) -> str:
        return ", ".join(self.names)

    @abstractmethod
    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        """The shape of a statistic's expectation."""

    @abstractmethod
    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        """The one statistic that a product of atoms of this block amounts to."""

    @abstractmethod
    def update(self, messages: dict[Any, Tensor]) -> None:
        """Set the factor to exp(Σ messages · statistics), normalised."""

    @abstractmethod
    def restore(self, natural: tuple[Tensor, ...]) -> None:
        """Set the factor from natural parameters."""

    @abstractmethod
    def entropies(self) -> Tensor:
        """Entropy of each independent member, of the block's batch shape."""

    @abstractmethod
    def distribution(self, name: str) -> Distribution:
        """The marginal of one site."""

    def joint_distribution(self) -> Distribution:
        """The factor of a block of several sites."""
        raise NotImplementedError

    def spread(self, axis: int, index: Tensor, sites: Sequence[TracedSite]) -> Block:
        """The block whose member ``i`` along a batch axis is this one's member ``index[i]``."""
        raise NotImplementedError

    def changed(self) -> None:
        self.version = next(_versions)


class FamilyBlock(Block):
    """One site in one exponential family whose statistics act elementwise on the site's axes."""

    def __init__(self, site: TracedSite):
        super().__init__([site])
        self.family: Family = FAMILIES[FAMILY_OF_PRIOR[site.distribution]]
        if self.family.name == "MultivariateNormal":
            self.family = FAMILIES["Normal"]
        event = max(self.family.event_dims)
        self.batch_shape = site.shape[: len(site.shape) - event]
        self.event_shape = site.shape[len(site.shape) - event :]
        self.batch_plates = plate_names(site)[: len(self.batch_shape)]
        self.mask = _mask(site, self.batch_shape)

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        name = self.sites[0].name
        if len(atoms) > 1:
            what = " · ".join(describe(atom) for atom in atoms)
            raise Unsupported(f"the product {what} of statistics of {name!r}")
        (atom,) = atoms
        if atom.function not in self.family.statistics:
            known = ", ".join(describe_function(s, name) for s in self.family.statistics)
            raise Unsupported(
                f"{describe(atom)}, where a {self.family.name} site offers only {known}"
            )
        return Resolved(atom.function, atom.labels)

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        dims = self.family.event_dims[self.family.statistics.index(key)]
        return self.batch_shape + self.event_shape[:dims]

    def update(self, messages: dict[Any, Tensor]) -> None:
        natural = []
        for statistic in self.family.statistics:
            shape = self.statistic_shape(statistic)
            message = messages.get(statistic)
            if message is None:
                message = torch.zeros((), dtype=torch.float64)
            natural.append(message.expand(shape))
        self.restore(tuple(natural))

    def restore(self, natural: tuple[Tensor, ...]) -> None:
        if self.mask is not None:
            natural = self._masked(natural)
        proper = self.family.proper(natural)
        if not bool(proper.all()):
            raise NumericalError(
                f"site {self.title!r}: the update is not a proper {self.family.name} "
                f"(natural parameters {_extremes(natural)}); the prior may be improper"
            )
        self.natural = natural
        mean = self.family.mean_parameters(natural)
        self.moments = dict(zip(self.family.statistics, mean, strict=True))
        self.changed()

    def _masked(self, natural: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Elements that the mask removes take part in nothing: give them any proper value."""
        assert self.mask is not None
        stand_in = {"Normal": (0.0, -0.5), "Gamma": (0.0, -1.0), "InverseGamma": (-2.0, -1.0),
                    "Wishart": None}.get(self.family.name, (0.0, 0.0))  # fmt: skip
        if stand_in is None:
            raise NumericalError(f"site {self.title!r}: a masked Wishart site is not supported")
        result = []
        for eta, dims, value in zip(natural, self.family.event_dims, stand_in, strict=False):
            mask = self.mask.reshape(tuple(self.mask.shape) + (1,) * dims)
            result.append(torch.where(mask, eta, torch.full_like(eta, value)))
        return tuple(result)

    def entropies(self) -> Tensor:
        mean = tuple(self.moments[statistic] for statistic in self.family.statistics)
        entropy = self.family.entropy(self.natural, mean)
        return entropy if self.mask is None else entropy * self.mask

    def spread(self, axis: int, index: Tensor, sites: Sequence[TracedSite]) -> Block:
        full = FamilyBlock(sites[0])
        full.restore(tuple(eta.index_select(axis, index) for eta in self.natural))
        return full

    def distribution(self, name: str) -> Distribution:
        return with_event(self.family.to_distribution(self.natural), self.sites[0], self.mask)


class DiscreteBlock(Block):
    """One discrete site, or several of the same plates with their joint table."""

    def __init__(self, sites: Sequence[TracedSite]):
        super().__init__(sites)
        self.family = FAMILIES["Categorical"]
        batches = [_discrete_batch(site) for site in sites]
        self.batch_shape = batches[0]
        self.batch_plates = plate_names(sites[0])[: len(self.batch_shape)]
        for site, batch in zip(sites, batches, strict=True):
            if batch != self.batch_shape or plate_names(site)[: len(batch)] != self.batch_plates:
                raise Unsupported(
                    f"sites {self.names} stand in different plates, so they have no joint table"
                )
        self.supports = tuple(site.support_size for site in sites)
        self.mask = _mask(sites[0], self.batch_shape) if len(sites) == 1 else None

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        found: dict[str, Atom] = {}
        for atom in atoms:
            if atom.function != "indicator":
                raise Unsupported(f"{describe(atom)} of a discrete site")
            if atom.site in found:
                raise Unsupported(f"two different elements of discrete site {atom.site!r}")
            found[atom.site] = atom
        present = [name for name in self.names if name in found]
        batch = found[present[0]].labels[:-1]
        if any(found[name].labels[:-1] != batch for name in present):
            raise Unsupported(f"different elements of the discrete sites {tuple(present)}")
        return Resolved(tuple(present), (*batch, *(found[name].labels[-1] for name in present)))

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        sizes = dict(zip(self.names, self.supports, strict=True))
        return (*self.batch_shape, *(sizes[name] for name in key))

    def update(self, messages: dict[Any, Tensor]) -> None:
        logits = torch.zeros((), dtype=torch.float64)
        for key, message in messages.items():
            batch = message.shape[: message.dim() - len(key)]
            view = [
                message.shape[len(batch) + key.index(name)] if name in key else 1
                for name in self.names
            ]
            logits = logits + message.reshape(*batch, *view)
        self.restore((logits.expand(*self.batch_shape, *self.supports),))

    def restore(self, natural: tuple[Tensor, ...]) -> None:
        (logits,) = natural
        flat = logits.reshape(*self.batch_shape, -1)
        flat = flat - torch.logsumexp(flat, -1, keepdim=True)
        if bool(flat.isnan().any()):
            raise NumericalError(f"site {self.title!r}: the probabilities became nan")
        self.natural = (flat.reshape(logits.shape),)
        self.changed()
        self._set_moments(flat.exp().reshape(logits.shape))

    def set_probabilities(self, table: Tensor) -> None:
        self.natural = (table.clamp(min=1e-300).log(),)
        self.changed()
        self._set_moments(table)

    def _set_moments(self, table: Tensor) -> None:
        first = len(self.batch_shape)
        self.moments = {self.names: table}
        for mask in range(1, 2 ** len(self.names) - 1):
            key = tuple(name for i, name in enumerate(self.names) if mask >> i & 1)
            dims = tuple(first + i for i in range(len(self.names)) if not mask >> i & 1)
            self.moments[key] = table.sum(dims)

    def entropies(self) -> Tensor:
        table, log_table = self.moments[self.names], self.natural[0]
        dims = tuple(range(-len(self.supports), 0))
        entropy = -(table * log_table).sum(dims)
        return entropy if self.mask is None else entropy * self.mask

    def joint_distribution(self) -> Distribution:
        """A Categorical over the product of supports, the last site fastest."""
        return self.family.to_distribution((self.natural[0].reshape(*self.batch_shape, -1),))

    def spread(self, axis: int, index: Tensor, sites: Sequence[TracedSite]) -> Block:
        full = DiscreteBlock(sites)
        full.restore((self.natural[0].index_select(axis, index),))
        return full

    def distribution(self, name: str) -> Distribution:
        site = next(site for site in self.sites if site.name == name)
        key = (name,)
        if len(self.names) == 1:
            logits = self.natural[0]
        else:
            logits = self.moments[key].clamp(min=1e-300).log()
        if site.distribution == "Bernoulli":
            plain: Distribution = Bernoulli(
                logits=logits[..., 1] - logits[..., 0], validate_args=False
            )
        elif site.distribution == "OneHotCategorical":
            plain = OneHotCategorical(logits=logits, validate_args=False)
        else:
            plain = self.family.to_distribution((logits,))
        return with_event(plain, site, self.mask)


def plate_names(site: TracedSite) -> tuple[str | None, ...]:
    """The plate on each axis of a site's value (None: an event axis or no plate)."""
    return tuple(
        site.plates[dim].name if dim in site.plates else None for dim in range(len(site.shape))
    )


def with_event(
    distribution: Distribution, site: TracedSite, mask: Tensor | None = None
) -> Distribution:
    """Declare the axes that the model made event dims (to_event) as such; hide masked elements."""
    if mask is not None:
        distribution = MaskedDistribution(distribution, mask)
    outer = len(site.batch_shape) - site.to_event
    extra = len(distribution.batch_shape) - outer
    return Independent(distribution, extra, validate_args=False) if extra > 0 else distribution


def _discrete_batch(site: TracedSite) -> tuple[int, ...]:
    return site.shape[:-1] if site.distribution == "OneHotCategorical" else site.shape


def _mask(site: TracedSite, batch_shape: tuple[int, ...]) -> Tensor | None:
    if site.mask is None:
        return None
    extra = len(batch_shape) - len(site.batch_shape)
    return site.mask.reshape(tuple(site.mask.shape) + (1,) * extra).expand(batch_shape)


def describe(atom: Atom) -> str:
    return describe_function(atom.function, atom.site)


def describe_function(function: float | str, name: str) -> str:
    words = {
        "log": f"log {name}",
        "log1m": f"log(1-{name})",
        "indicator": f"1[{name}=k]",
        "log_determinant": f"log|{name}|",
    }
    if isinstance(function, str):
        return words.get(function, function)
    return name if function == 1 else f"{name}^{function:g}"


def _extremes(natural: tuple[Tensor, ...]) -> str:
    return ", ".join(f"from {float(eta.min()):.3g} to {float(eta.max()):.3g}" for eta in natural)

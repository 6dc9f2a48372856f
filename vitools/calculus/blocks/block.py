"""What all blocks share: a block is one factor of q, a member of an exponential family.

A block holds one site, or several sites jointly. :meth:`Block.resolve` maps the atoms of a term to
one statistic of the block, or refuses. :meth:`Block.update` takes the coefficient of every
statistic in E_q log p, which are the natural parameters of the optimal factor.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vitools.calculus.algebra.atoms import Atom, Constant, Function, Predictor
from vitools.calculus.densities.closed_terms import ClosedTerm, Selection
from vitools.calculus.tracing.trace import TracedSite
from vitools.errors import NumericalError
from vitools.families import Family
from vitools.families.moments import SiteMoments

_versions = itertools.count(1)


def next_version() -> int:
    """Later than all before."""
    return next(_versions)


@dataclass(frozen=True)
class Resolved:
    """A statistic of a block and the label on each of its axes."""

    key: Any
    labels: tuple[int, ...]


class Block(ABC):
    """One factor of q."""

    runs_together: ClassVar[bool] = True
    """Whether updates look at no value, so that many runs can be mapped over at once."""

    integrates: ClassVar[bool] = False
    """Whether numerical integrals stand in for closed forms."""

    sites: tuple[TracedSite, ...]
    family: Family
    moments: dict[Any, Tensor]
    batch_shape: tuple[int, ...]
    batch_plates: tuple[str | None, ...]  # the plate of each batch dim of the factor

    def __init__(self, sites: Sequence[TracedSite]):
        self.sites = tuple(sites)
        self.moments = {}
        self.version = 0
        self.natural: tuple[Tensor, ...] = ()
        self.mask: Tensor | None = None

    def check_determined(self) -> None:
        """NumericalError where the factor at the end of a fit is proper by rounding alone."""
        return None

    def integral_error(self, messages: Mapping[Any, Tensor]) -> float:
        """Estimated error of the bound, in nats, by its numerical integrals."""
        return 0.0

    def moments_of_values(self, messages: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        """Statistics in whose functions values stand, with their gradient with respect to these.

        Args:
            messages: to the block, with theirs.
        """
        return {}

    @property
    def member_family(self) -> Family:
        """The family of the block's independent members."""
        return self.family

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites)

    @property
    def title(self) -> str:
        return ", ".join(self.names)

    @abstractmethod
    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        """The one statistic that a product of atoms of this block amounts to."""

    def resolve_term(
        self, term: ClosedTerm, atoms: Sequence[Atom]
    ) -> tuple[Resolved, list[Constant], list[Selection]]:
        """The statistic of a term, and the constants and selections that are not part of it."""
        return self.resolve(atoms), list(term.constants), list(term.selections)

    @abstractmethod
    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        """The shape of a statistic's expectation."""

    @abstractmethod
    def update(self, messages: dict[Any, Tensor]) -> None:
        """Set the factor to exp(Σ messages · statistics), normalised."""

    @abstractmethod
    def restore(self, natural: tuple[Tensor, ...]) -> None:
        """Set the factor from natural parameters.

        Where they give no density, the entropy is nan, and with it the bound; :meth:`check` says
        so in words. No value is looked at here, so a batch of factors can be set at once.
        """

    @abstractmethod
    def check(self) -> None:
        """Refuse natural parameters that are not those of a density."""

    @abstractmethod
    def entropies(self) -> Tensor:
        """Entropy of each independent member, of the block's batch shape."""

    @abstractmethod
    def distribution(self, name: str) -> Distribution:
        """The marginal of one site."""

    def joint_distribution(self) -> Distribution:
        """The factor of a block of several sites."""
        raise NotImplementedError

    @property
    def adds_messages(self) -> bool:
        """Whether natural parameters are sums of what terms say: not where elements move one by one."""
        return True

    def factors(self) -> dict[str | tuple[str, ...], Distribution]:
        """The block as a posterior has it: by its site, or by all its sites."""
        if len(self.names) > 1:
            return {self.names: self.joint_distribution()}
        (name,) = self.names
        return {name: self.distribution(name)}

    def spread(self, axis: int, index: Tensor, sites: Sequence[TracedSite]) -> Block:
        """The block whose member ``i`` along a batch axis is this one's member ``index[i]``."""
        raise NotImplementedError

    def changed(self) -> None:
        self.version = next_version()


class Between(Block):
    """A quantity between factors, such as a predictor: no factor of q, but in the way of messages like one."""

    def __init__(self, name: Predictor):
        self.name = name
        self.moments, self.version, self.natural, self.mask = {}, 0, (), None
        self.batch_shape = tuple(name.expression.shape)
        self.batch_plates = (None,) * len(self.batch_shape)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def sites(self) -> set[str]:  # type: ignore[override]
        """The latents below it."""
        return self.name.expression.sites()

    @property
    def title(self) -> str:
        return self.name.shown

    @abstractmethod
    def start(self, generator: torch.Generator | None = None) -> None:
        """Any moments to begin with."""

    def restore(self, natural: tuple[Tensor, ...]) -> None:
        raise NotImplementedError("it follows from its latents")

    def check(self) -> None:
        pass

    def entropies(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def distribution(self, name: str) -> Distribution:
        raise NotImplementedError("it is no factor of q")


class DenseBlock(Block):
    """A factor whose statistics are parts of the mean parameters of one family, all in memory.

    A statistic of the block belongs to one component of the family's statistics.
    :meth:`embed` puts its coefficient at its place in that component's natural parameters, and
    :meth:`extract` reads its expectation from the component's mean parameters. Both are linear and
    act on the last dims, whatever dims lead.
    """

    def __init__(self, sites: Sequence[TracedSite]):
        super().__init__(sites)
        self._entropies = torch.zeros((), dtype=torch.float64)

    @abstractmethod
    def statistics(self) -> Iterable[Any]:
        """The keys of all statistics that :meth:`resolve` may name."""

    @abstractmethod
    def component(self, key: Any) -> int:
        """Which of the family's statistics a statistic of the block is part of."""

    @abstractmethod
    def component_shape(self, component: int) -> tuple[int, ...]:
        """The shape of one component of the natural parameters."""

    @abstractmethod
    def embed(self, key: Any, message: Tensor) -> Tensor:
        """[…, *statistic_shape] → […, *component_shape]."""

    @abstractmethod
    def extract(self, key: Any, mean: Tensor) -> Tensor:
        """[…, *component_shape] → […, *statistic_shape]."""

    @abstractmethod
    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        """A block of this kind over the same sites with other lengths of their plates."""

    def gathered(self, messages: Mapping[Any, Tensor]) -> tuple[Tensor, ...]:
        """The natural parameters that the coefficients of all statistics add up to."""
        total = self._sums(messages)
        return tuple(
            total[i] if i in total else torch.zeros(self.component_shape(i), dtype=torch.float64)
            for i in range(len(self.family.statistics))
        )

    def _sums(self, messages: Mapping[Any, Tensor]) -> dict[int, Tensor]:
        """The components of η that the messages speak of."""
        total: dict[int, Tensor] = {}
        for key, message in messages.items():
            component = self.component(key)
            part = self.embed(key, message.expand(self.statistic_shape(key)))
            total[component] = total[component] + part if component in total else part
        return total

    # ---- where it begins -----------------------------------------------------------------

    def starting_point(
        self, prior: Mapping[Any, Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        """Natural parameters to begin with, from what the prior alone says."""
        said = self._sums(prior)
        natural = []
        for i in range(len(self.family.statistics)):
            shape = self.component_shape(i)
            part = said[i] if i in said else filler(self.family, i, shape)
            natural.append(part.expand(shape))
        return self.family.start(tuple(natural), generator)

    def start(self, prior: Mapping[Any, Tensor], generator: torch.Generator | None) -> None:
        """Set the factor to where it begins."""
        self.restore(self.starting_point(prior, generator))

    @abstractmethod
    def place(self, given: Mapping[str, SiteMoments]) -> None:
        """Set the factor so that the sites named have these moments; others stay where they are."""

    def update(self, messages: dict[Any, Tensor]) -> None:
        self.restore(self.gathered(messages))

    def restore(self, natural: tuple[Tensor, ...]) -> None:
        mean = self.set_factor(natural)
        self.moments = {
            key: self.extract(key, mean[self.component(key)]) for key in self.statistics()
        }
        self.changed()

    def set_factor(self, natural: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Set the factor without its statistics; the mean parameters are returned."""
        self.natural = stand_in(natural, self.mask, self.family)
        log_normaliser, mean = self.family.normalised(self.natural)
        self._entropies = log_normaliser - self.family.inner(self.natural, mean)
        return mean

    def check(self) -> None:
        if not bool(self.family.proper(self.natural).all()):
            raise NumericalError(
                f"site {self.title!r}: the update is not a proper {self.family.name} "
                f"(natural parameters {_extremes(self.natural)}); the prior may be improper"
            )

    def entropies(self) -> Tensor:
        return self._entropies if self.mask is None else self._entropies * self.mask

    def spread(self, axis: int, index: Tensor, sites: Sequence[TracedSite]) -> Block:
        full = self.made_of(sites)
        count = self.batch_shape[axis]
        full.set_factor(
            tuple(
                eta.index_select(axis, index) if eta.shape[axis] == count else eta
                for eta in self.natural
            )
        )
        return full


def stand_in(
    natural: tuple[Tensor, ...], mask: Tensor | None, family: Family
) -> tuple[Tensor, ...]:
    """Elements that a mask removes take part in nothing: give them any proper value."""
    if mask is None:
        return natural
    result = []
    for i, (eta, dims) in enumerate(zip(natural, family.event_dims, strict=True)):
        wide = mask.reshape(tuple(mask.shape) + (1,) * dims)
        result.append(torch.where(wide, eta, filler(family, i, eta.shape)))
    return tuple(result)


def filler(family: Family, component: int, shape: Sequence[int]) -> Tensor:
    """One component of η where nothing is said, to be broadcast to this shape."""
    value = torch.full((), family.filler[component], dtype=torch.float64)
    if family.event_dims[component] == 2:
        value = value * torch.eye(shape[-1], dtype=torch.float64)
    return value


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


def moved(distribution: Distribution, reference: Tensor | None) -> Distribution:
    """A normal distribution of x - c as that of x."""
    if reference is None:
        return distribution
    assert isinstance(distribution, Normal)
    return Normal(distribution.loc + reference, distribution.scale, validate_args=False)


def batch_mask(site: TracedSite, batch_shape: tuple[int, ...]) -> Tensor | None:
    if site.mask is None:
        return None
    extra = len(batch_shape) - len(site.batch_shape)
    return site.mask.reshape(tuple(site.mask.shape) + (1,) * extra).expand(batch_shape)


def describe(atom: Atom) -> str:
    name = atom.site.shown if isinstance(atom.site, Predictor) else atom.site
    return describe_function(atom.function, name)


def describe_function(function: float | str | Function, name: str) -> str:
    if isinstance(function, Function):
        return function.said_of(name)
    words = {
        "log": f"log {name}",
        "log1m": f"log(1-{name})",
        "indicator": f"1[{name}=k]",
        "log_determinant": f"log|{name}|",
        "log_sum_exp": f"log Σ exp {name}",
    }
    if isinstance(function, str):
        return words.get(function, function)
    return name if function == 1 else f"{name}^{function:g}"


def _extremes(natural: tuple[Tensor, ...]) -> str:
    return ", ".join(f"from {float(eta.min()):.3g} to {float(eta.max()):.3g}" for eta in natural)

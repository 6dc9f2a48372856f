"""Blocks of a scalar latent with any prior: the optimal factor is a one-dimensional integral away.

    q(s) ∝ exp(Σ_k η_k t_k(s)),    t_k any function that stands in the terms: log s, s⁻², log p(s), …

is an exponential family like every other: natural parameters are the coefficients, mean parameters
E t_k and the log-normaliser are integrals over s (:mod:`vitools.families.free_form`). Elements of a
site are independent of one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.calculus.algebra.atoms import Atom, Unsupported, is_open
from vitools.calculus.algebra.functions import as_function
from vitools.calculus.blocks.block import DenseBlock, Resolved, describe, plate_names, with_event
from vitools.calculus.tracing.trace import TracedSite
from vitools.errors import NumericalError
from vitools.families.free_form import OPEN, FreeFormFamily
from vitools.families.moments import SiteMoments
from vitools.problem.sites import support_of

ROWS_AT_ONCE = 2**22
"""Numbers (nodes times rows of data) of a function with data that are formed at once."""


class FreeFormBlock(DenseBlock):
    """One scalar site whose statistics are whatever functions of it the terms hold."""

    integrates = True

    def __init__(self, site: TracedSite, *, is_cut: bool = False):
        super().__init__([site])
        if site.mask is not None:
            raise Unsupported(
                "its factor is an integral, which has no masks; leave the masked elements out of "
                "its plate"
            )
        self.batch_shape = tuple(site.shape)
        self.batch_plates = plate_names(site)
        self.is_cut = is_cut
        self._functions: dict[Any, Any] = {}
        self._family: FreeFormFamily | None = None

    @property
    def has_data(self) -> bool:
        """Whether data of many rows stand inside its functions."""
        return any(function.summed_dims for function in self._functions.values())

    def cut(self, low: float, high: float) -> None:
        """Cut the factor off at these values from its next update on; infinite for no cut."""
        ends = (
            torch.full(self.batch_shape, self.family.coordinate(x)).double() for x in (low, high)
        )
        self.natural = (*self.natural[:-2], *ends)
        self.changed()

    # ---- statistics ------------------------------------------------------------------------

    def resolve(self, atoms: Sequence[Atom]) -> Resolved:
        if len(atoms) > 1:
            what = " · ".join(describe(atom) for atom in atoms)
            raise Unsupported(f"the product {what} of different elements of {self.title!r}")
        (atom,) = atoms
        if atom.function in ("indicator", "log_determinant"):
            raise Unsupported(f"{describe(atom)} of a number")
        laid_out = _LaidOut(atom, len(self.batch_shape))
        if laid_out.extra_shape:
            raise Unsupported(f"{describe(atom)} for every row of data, beside other latents")
        self._check_defined(atom, laid_out)
        self._functions.setdefault(laid_out.key, laid_out)
        return Resolved(laid_out.key, atom.labels)

    def _check_defined(self, atom: Atom, function: _LaidOut) -> None:
        """Refuse log s, √s, … where s may be negative: the model has no density there."""
        probes = torch.tensor([-2.0, -0.5, 0.5, 2.0], dtype=torch.float64)
        onto = torch.distributions.transform_to(support_of(self.sites[0].fn))
        values = onto(probes.reshape(-1, *(1,) * len(self.batch_shape)))
        values = values.expand(-1, *self.batch_shape).movedim(0, -1)
        missing = function(values).isnan()
        if bool(missing.any()):
            at = float(values[missing.expand(values.shape)][0])
            raise Unsupported(
                f"{describe(atom)}, which is no number at {atom.site} = {at:.3g}; the prior of "
                f"{self.title!r} must not reach there"
            )

    @property
    def family(self) -> FreeFormFamily:  # type: ignore[override]
        """Made once all terms have named their statistics."""
        if self._family is None or len(self._family.functions) != len(self._functions):
            self._family = FreeFormFamily(
                tuple(self._functions),
                tuple(self._functions.values()),
                support_of(self.sites[0].fn),
                is_cut=self.is_cut,
            )
        return self._family

    def statistics(self) -> Iterable[Any]:
        return self._functions

    def statistic_shape(self, key: Any) -> tuple[int, ...]:
        return self.batch_shape

    def component_shape(self, component: int) -> tuple[int, ...]:
        return self.batch_shape

    def component(self, key: Any) -> int:
        return list(self._functions).index(key)

    def embed(self, key: Any, message: Tensor) -> Tensor:
        return message

    def extract(self, key: Any, mean: Tensor) -> Tensor:
        return mean

    def gathered(self, messages: Mapping[Any, Tensor]) -> tuple[Tensor, ...]:
        natural = super().gathered(messages)
        return (*natural[:-2], *self.natural[-2:]) if self.is_cut else natural

    def integral_error(self, messages: Mapping[Any, Tensor]) -> float:
        return float(self.family.error(self.natural).sum())

    def moments_of_values(self, messages: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        """d E f(s; d) = E df: q is held, so the nodes and weights of its quadrature are."""
        moving = {key: f for key, f in self._functions.items() if f.moves}
        if not moving:
            return {}
        with torch.no_grad():
            nodes, _, weights = self.family.to_distribution(self.natural).quadrature()  # type: ignore[attr-defined]
            mass = torch.where(weights > 0, weights, 0.0)
        found = {}
        for key, function in moving.items():
            value = (mass * torch.where(mass > 0, function.of_values(nodes), 0.0)).sum(-1)
            found[key] = self.moments[key] + value - value.detach()
        return found

    # ---- the factor ------------------------------------------------------------------------

    def start(self, prior: Mapping[Any, Tensor], generator: torch.Generator | None) -> None:
        at = _ordinary_value(self.sites[0])
        self._put(self.family.middle(torch.Size(self.batch_shape)) if at is None else at)

    def place(self, given: Mapping[str, SiteMoments]) -> None:
        self._put(given[self.title].mean)

    def _put(self, at: Tensor) -> None:
        """All mass at one value; what is learnt from it replaces the factor at once."""
        at = at.expand(self.batch_shape)
        self.moments = {key: f(at.unsqueeze(-1)).squeeze(-1) for key, f in self._functions.items()}
        zero = torch.zeros(self.batch_shape, dtype=torch.float64)
        cuts = (zero - OPEN, zero + OPEN) if self.is_cut else ()
        self.natural = (*(zero for _ in self.moments), *cuts)
        self._entropies = torch.zeros(self.batch_shape, dtype=torch.float64)
        self.changed()

    def check(self) -> None:
        if not bool(self.family.proper(self.natural).all()):
            raise NumericalError(
                f"site {self.title!r}: its factor cannot be normalised: given the others the "
                "posterior is improper. Give it a proper prior, or more data"
            )

    def made_of(self, sites: Sequence[TracedSite]) -> DenseBlock:
        full = FreeFormBlock(sites[0], is_cut=self.is_cut)
        full._functions = self._functions
        return full

    def distribution(self, name: str) -> Distribution:
        return with_event(self.family.to_distribution(self.natural), self.sites[0])


def _ordinary_value(site: TracedSite) -> Tensor | None:
    """The prior's median or mean, where it tells one."""
    for tell in (lambda: site.fn.icdf(torch.tensor(0.5)), lambda: site.fn.mean):
        try:
            value = torch.as_tensor(tell(), dtype=torch.float64)
        except (NotImplementedError, AttributeError):
            continue
        if not value.is_meta and bool(value.isfinite().all()):  # meta: the prior has latents in it
            return value
    return None


class _LaidOut:
    """An atom's function of nodes ``[*batch, nodes]``, its data laid out beside them.

    The value has the axes of data that remain (labels of other atoms) behind the nodes; labels that
    are summed inside the function are gone.
    """

    def __init__(self, atom: Atom, rank: int):
        self.function = as_function(atom.function)
        summed = self.function.summed
        extras = atom.labels[rank:]
        order = [*atom.labels[:rank], None, *extras, *summed]
        self.extra_dims, self.summed_dims = len(extras), len(summed)
        sizes: dict[int, int] = {}
        layout: list[tuple[int, ...]] = []
        for constant in self.function.data:
            sizes.update(zip(constant.labels, constant.tensor.shape, strict=True))
            layout.append(tuple(order.index(label) for label in constant.labels))
        self.layout, self.rank = layout, len(order)
        self.data = self._laid_out()
        self.extra_shape = tuple(sizes[label] for label in extras)
        self.summed_size = 1
        for label in summed:
            self.summed_size *= sizes[label]
        ids = tuple(id(constant.tensor) for constant in self.function.data)
        name = self.function.name
        self.key = (name, ids, tuple(layout)) if self.data else name

    @property
    def moves(self) -> bool:
        """Whether values that move stand among the data."""
        return any(is_open(constant.tensor) for constant in self.function.data)

    def of_values(self, x: Tensor) -> Tensor:
        """The same with the gradient of the data."""
        lifted = x.reshape(*x.shape, *[1] * (self.extra_dims + self.summed_dims))
        value = self.function.evaluate(lifted, *self._laid_out())
        return value.sum(tuple(range(-self.summed_dims, 0))) if self.summed_dims else value

    def _laid_out(self) -> list[Tensor]:
        data = []
        for constant, places in zip(self.function.data, self.layout, strict=True):
            by_place = sorted(range(len(places)), key=lambda i: places[i])
            view = [1] * self.rank
            for i in by_place:
                view[places[i]] = constant.tensor.shape[i]
            data.append(constant.tensor.double().permute(by_place).reshape(view))
        return data

    def __call__(self, x: Tensor) -> Tensor:
        """[*batch, nodes] → [*batch, nodes, *extra]."""
        lifted = x.reshape(*x.shape, *[1] * (self.extra_dims + self.summed_dims))
        if not self.summed_dims:
            return self.function.evaluate(lifted, *self.data)
        pieces = max(1, -(-x.numel() * self.summed_size // ROWS_AT_ONCE))
        total: Tensor | None = None
        for part in _pieces(self.data, pieces):
            value = self.function.evaluate(lifted, *part)
            value = value.sum(tuple(range(-self.summed_dims, 0)))
            total = value if total is None else total + value
        assert total is not None
        return total


def _pieces(data: Sequence[Tensor], count: int) -> Iterable[list[Tensor]]:
    """The data cut along their last axis, which is summed over."""
    length = max(tensor.shape[-1] for tensor in data)
    step = -(-length // count)
    for start in range(0, length, step):
        yield [
            tensor if tensor.shape[-1] == 1 else tensor[..., start : start + step]
            for tensor in data
        ]

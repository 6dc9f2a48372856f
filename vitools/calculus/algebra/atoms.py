"""Atoms: statistics of one latent, and the constants beside them, with a label on every axis."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

_counter = itertools.count()

# log 0 of a constant probability: a finite stand-in, so that 0 · log 0 is 0 and not nan.
LOG_ZERO = -1e300
BEYOND = 1e250
"""What stands for infinity in a case that has no probability."""


def is_open(tensor: Tensor) -> bool:
    """Whether a constant's numbers may move: it follows from values that a gradient is wanted of.

    What is decided when the model is read must not look at them.
    """
    return tensor.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def fresh() -> int:
    """A label that no other axis carries."""
    return next(_counter)


NO_VALUE = (
    "an attribute of a distribution of latents, which has no value here (write it with the latents "
    "that the distribution was given)"
)


class Unsupported(Exception):
    """An operation has no rule in the calculus; the text says which and why."""


@dataclass(frozen=True, eq=False)
class Gather:
    """An axis read at the positions ``index`` (integers), whose own axes carry ``labels``."""

    index: Tensor
    labels: tuple[int, ...]

    def rename(self, names: dict[int, int]) -> Gather:
        return Gather(self.index, tuple(names.get(label, label) for label in self.labels))

    def same(self, other: Gather) -> bool:
        if self.labels != other.labels:
            return False
        return self.index is other.index or torch.equal(self.index, other.index)


Index = int | Gather


def same_index(a: Index, b: Index) -> bool:
    if isinstance(a, Gather) and isinstance(b, Gather):
        return a.same(b)
    return not isinstance(a, Gather) and not isinstance(b, Gather) and a == b


@dataclass(frozen=True, eq=False)
class Constant:
    """``words`` say how a function of discrete latents was written, where that is known."""

    tensor: Tensor
    labels: tuple[int, ...]
    selects: bool = False
    words: str = ""

    def rename(self, names: dict[int, int]) -> Constant:
        labels = tuple(names.get(label, label) for label in self.labels)
        return Constant(self.tensor, labels, self.selects, self.words)


@dataclass(frozen=True, eq=False)
class Function:
    """f(x; d₁, d₂, …), a function of one scalar latent and of data that stand inside it.

    ``evaluate`` takes x and the data, laid out so that they broadcast; functions of equal ``name``
    compute the same. ``words`` have {} in place of x. Over labels in ``summed``, which stand on data
    alone, the function is a sum: Σ_n log Γ(y_n + x). ``inside`` is what a named function without data
    was applied to.
    """

    name: Hashable
    evaluate: Callable[..., Tensor]
    words: str
    data: tuple[Constant, ...] = ()
    summed: tuple[int, ...] = ()
    inner: float | str | Function | None = None
    """What an elementwise function is taken of, where it is one."""
    parts: tuple[tuple[float, tuple[Constant, ...], Function | None], ...] = ()
    """What a sum is made of: a number times data times a function."""

    def rename(self, names: dict[int, int]) -> Function:
        if not self.data:
            return self
        inner = self.inner.rename(names) if isinstance(self.inner, Function) else self.inner
        parts = tuple(
            (c, tuple(d.rename(names) for d in constants), f and f.rename(names))
            for c, constants, f in self.parts
        )
        data = tuple(d.rename(names) for d in self.data)
        return replace(self, data=data, inner=inner, parts=parts)

    def said_of(self, name: str) -> str:
        return self.words.replace("{}", name)

    def __str__(self) -> str:
        return str((self.name, *(id(d.tensor) for d in self.data)))


class Predictor(str):
    """The name of a quantity that the model computes from several latents, and what it is.

    It stands in an atom where else a site does. ``expression`` is data plus data times latents;
    ``shown`` is what a reader knows it by.
    """

    expression: Any
    shown: str
    is_vector: bool
    """Whether what is wanted of it is log Σ exp over its last axis."""
    is_sum: bool
    """Whether it is a sum of positive products, of which the logarithm is wanted."""
    is_factor: bool
    """Whether it is the logarithm of a factor of such a product."""

    @property
    def is_curved(self) -> bool:
        """Whether curved functions of it are expected, under a normal distribution."""
        return not (self.is_sum or self.is_factor)

    @staticmethod
    def of(
        expression: Any, *, is_vector: bool = False, is_sum: bool = False, is_factor: bool = False
    ) -> Predictor:
        made = Predictor(f"predictor {fresh()}")
        made.expression, made.is_vector = expression, is_vector
        made.is_sum, made.is_factor = is_sum, is_factor
        made.shown = " + ".join(sorted(expression.sites()))
        return made


@dataclass(frozen=True, eq=False)
class Atom:
    """A statistic of one latent: ``function`` is a power (a float), 'log', 'log1m', 'indicator',
    'log_determinant', or a :class:`Function`.

    The last index of an indicator is the label of its support.
    """

    site: str
    function: float | str | Function
    indices: tuple[Index, ...]
    cases: int = 0
    """Of an indicator: how many there are; 0 where the site's shape says it."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Those of the site's axes, then those that only data inside the function carry."""
        found: list[int] = []
        for index in self.indices:
            found.extend(index.labels if isinstance(index, Gather) else (index,))
        for label in self.data_labels:
            if label not in found:
                found.append(label)
        return tuple(found)

    @property
    def data(self) -> tuple[Constant, ...]:
        return self.function.data if isinstance(self.function, Function) else ()

    @property
    def data_labels(self) -> tuple[int, ...]:
        """Of the axes of data inside the function, less those that it sums over."""
        if not isinstance(self.function, Function):
            return ()
        inside = dict.fromkeys(label for d in self.data for label in d.labels)
        return tuple(label for label in inside if label not in self.function.summed)

    def rename(self, names: dict[int, int]) -> Atom:
        if not self.indices and not isinstance(self.function, Function):
            return self
        indices = tuple(
            i.rename(names) if isinstance(i, Gather) else names.get(i, i) for i in self.indices
        )
        function = self.function
        return Atom(
            self.site,
            function.rename(names) if isinstance(function, Function) else function,
            indices,
            self.cases,
        )

    def same_place(self, other: Atom) -> bool:
        return (
            self.site == other.site
            and len(self.indices) == len(other.indices)
            and all(same_index(a, b) for a, b in zip(self.indices, other.indices, strict=True))
        )

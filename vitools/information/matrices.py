"""Records: a matrix with the errors of its entries, and of what is computed from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vitools.errors import NumericalError, OptionError
from vitools.posterior import Estimate

SINGULAR = 1e-10
"""Smallest eigenvalue of a scaled information matrix that still counts as information."""


@dataclass(frozen=True)
class Point:
    """Parameters as one vector ``[P]`` in float64.

    Attributes:
        shapes: of each, in order; one of the name "" where they were given as one tensor.
    """

    vector: Tensor
    shapes: dict[str, torch.Size]

    @classmethod
    def of(cls, at: Any) -> "Point":
        """From a number, a tensor, or ``{name: value}``."""
        given = at if isinstance(at, Mapping) else {"": at}
        if not given:
            raise OptionError("at: expected a value of the parameters, got none.")
        values = {str(k): _as_numbers(f"at['{k}']" if k else "at", v) for k, v in given.items()}
        vector = torch.cat([v.flatten() for v in values.values()])
        return cls(vector, {k: v.shape for k, v in values.items()})

    @staticmethod
    def of_traced(value: Any) -> Tensor:
        """``[P]`` of what a function of parameters gave, for its derivative."""
        parts = value.values() if isinstance(value, Mapping) else [value]
        return torch.cat([torch.as_tensor(part).reshape(-1) for part in parts])

    @property
    def size(self) -> int:
        return len(self.vector)

    @property
    def is_named(self) -> bool:
        return list(self.shapes) != [""]

    @property
    def slices(self) -> dict[str, slice]:
        """Where each name's entries are."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            found[name] = slice(start, start + shape.numel())
            start += shape.numel()
        return found

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """``{name: value}`` of a vector."""
        return {k: vector[own].reshape(self.shapes[k]) for k, own in self.slices.items()}

    def shaped(self, vector: Tensor) -> Tensor:
        """The one tensor that was given without a name."""
        return vector.reshape(self.shapes[""])

    def read(self, vector: Tensor) -> Any:
        """As it was given."""
        return self.named(vector) if self.is_named else self.shaped(vector)

    def entry(self, number: int) -> str:
        """What entry ``number`` is called."""
        for name, own in self.slices.items():
            if own.start <= number < own.stop:
                single = self.shapes[name].numel() == 1
                return (name or "the parameter") + ("" if single else f"[{number - own.start}]")
        raise IndexError(number)


def _as_numbers(what: str, value: Any) -> Tensor:
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"{what}: expected a number or a tensor, got {type(value).__name__}."
        ) from error
    if found.is_complex() or not bool(torch.isfinite(found).all()) or not found.numel():
        raise OptionError(f"{what}: expected finite real numbers, got {value!r}.")
    return found.detach().double()


@dataclass(frozen=True, eq=False)
class MatrixEstimate:
    """A symmetric matrix ``[P, P]`` and the standard errors of its entries; 0 means exact.

    Attributes:
        standard_error: of each entry; 0 means exact.
        matrix: symmetric.
    """

    matrix: Tensor
    standard_error: Tensor

    @property
    def is_exact(self) -> bool:
        """Whether no draws went into it: its error is that of rounding and quadrature."""
        return bool((self.standard_error <= 1e-7 * self.matrix.abs().max()).all())

    def __getitem__(self, at: tuple[int, int]) -> Estimate:
        return Estimate(float(self.matrix[at]), float(self.standard_error[at]))

    @property
    def sd(self) -> Tensor:
        """Square roots of the diagonal, ``[P]``."""
        return self.matrix.diagonal().sqrt()


@dataclass(frozen=True, eq=False)
class FisherInformation(MatrixEstimate):
    """F, and where it is.

    Attributes:
        parts: ``[B, P, P]``, means over parts of the simulated data, where there were some.
        point: the parameters.
    """

    parts: Tensor | None = None
    point: Point = field(default_factory=lambda: Point(torch.zeros(0), {}))

    def log_det(self) -> Estimate:
        """log det F with its error."""
        self.refuse_singular()
        value, error = self.function(lambda matrix: torch.linalg.slogdet(matrix).logabsdet)
        return Estimate(float(value), float(error))

    def function(self, of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """A smooth function of F with its error: by the jackknife over parts, or to first order."""
        value = of(self.matrix)
        if self.parts is None:
            slope = torch.func.jacrev(of)(self.matrix)
            return value, (slope.abs() * self.standard_error).sum((-2, -1))
        count = len(self.parts)
        whole = self.parts.mean(0)
        left = torch.stack([of((count * whole - part) / (count - 1)) for part in self.parts])
        spread = (left - left.mean(0)).square().sum(0)
        return value, (spread * (count - 1) / count).sqrt()

    def refuse_singular(self) -> None:
        """Raise where some direction of the parameters leaves the data as they are."""
        scale = self.matrix.diagonal().clamp(min=0).sqrt()
        dead = scale <= 0
        if not bool(dead.any()):
            correlation = self.matrix / torch.outer(scale, scale)
            values, vectors = torch.linalg.eigh(correlation)
            if float(values[0]) > SINGULAR:
                return
            worst = int((vectors[:, 0] / scale).abs().argmax())
        else:
            worst = int(dead.nonzero()[0])
        raise NumericalError(
            "Fisher's information is singular: the data do not tell all parameters apart, "
            f"'{self.point.entry(worst)}' among them. Leave it out, or measure what depends on it."
        )

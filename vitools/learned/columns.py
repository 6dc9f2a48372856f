"""How samples and contexts were given, checked, and the support that each column of the samples lives on."""

import math
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from vitools.errors import DataError, OptionError
from vitools.supports import from_reals


class Columns:
    """The shapes, dtype and supports of samples ``[n, D]`` or ``[n]`` and their contexts."""

    def __init__(self, samples: Any, context: Any, support: Any) -> None:
        x = _numbers("samples", samples)
        c = None if context is None else _numbers("context", context)
        for name, found in (("samples", x), ("context", c)):
            if found is not None and (found.dim() not in (1, 2) or 0 in found.shape):
                raise DataError(f"{name}: expected rows [n, …] or [n], got {list(found.shape)}.")
        if c is not None and len(c) != len(x):
            raise DataError(f"context: expected {len(x)} rows, one a sample, got {len(c)}.")
        self.dtype = x.dtype
        self.is_flat, self.is_flat_given = x.dim() == 1, c is not None and c.dim() == 1
        self.size = 1 if x.dim() == 1 else x.shape[1]
        self.num_given = 0 if c is None else 1 if c.dim() == 1 else c.shape[1]
        self.supports = _supports(support, self.size)

    @classmethod
    def of(cls, **known: Any) -> Self:
        """Those of samples that are not at hand, from all attributes that are plain."""
        made = cls.__new__(cls)
        vars(made).update(known)
        return made

    @cached_property
    def transforms(self) -> list[Transform | None]:
        """From the reals to each column's support."""
        return [None if one is None else _transform(one) for one in self.supports]

    def checked(self, samples: Any, context: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Samples on the reals ``[n, D]``, contexts ``[n, C]``, log |∂x/∂u| ``[n]``."""
        x, c = self.pairs(samples, context)
        c = c.expand(len(x), -1)
        for d in range(self.size):
            different = len(x[:, d].unique())
            if different < 0.5 * len(x):
                raise DataError(
                    f"samples: column {d} (counting from 0) has {different} different values in {len(x)} rows, "
                    "and the density of values that repeat has no upper limit. Add uniform noise as wide as "
                    "the step between values, or leave the column out."
                )
        inside, reals, log_det = self.to_reals(x)
        if not bool(inside.all()):
            raise DataError(
                f"samples: row {int((~inside).nonzero()[0])} (counting from 0) is outside its support."
            )
        if not bool(reals.isfinite().all()):
            row = int((~reals.isfinite().all(1)).nonzero()[0])
            raise DataError(
                f"samples: row {row} (counting from 0) is on the edge of its support. Widen the support."
            )
        return reals, c, log_det

    def pairs(self, x: Any, context: Any) -> tuple[Tensor, Tensor]:
        """``[…, D]`` and ``[…, C]`` in double precision."""
        points = _numbers("x", x)
        points = points.unsqueeze(-1) if self.is_flat else points
        if not points.dim() or points.shape[-1] != self.size:
            raise DataError(
                f"x: expected {self.size} numbers in the last dim, got {list(points.shape)}."
            )
        return points.double(), self.context(context)

    def context(self, context: Any) -> Tensor:
        """``[…, C]``."""
        if (context is None) != (self.num_given == 0):
            raise OptionError(
                f"context: the density was learnt {'without' if context is not None else 'with'} a context. "
                f"{'Leave it out' if context is not None else f'Give {self.num_given} numbers'}."
            )
        if context is None:
            return torch.zeros(0, dtype=torch.float64)
        given = _numbers("context", context)
        given = given.unsqueeze(-1) if self.is_flat_given else given
        if not given.dim() or given.shape[-1] != self.num_given:
            raise DataError(
                f"context: expected {self.num_given} numbers in the last dim, got {list(given.shape)}."
            )
        return given.double()

    def spelt(self, context: Tensor) -> Tensor | None:
        """A context as its owner writes it."""
        if not self.num_given:
            return None
        return context.squeeze(-1) if self.is_flat_given else context

    def shaped(self, x: Tensor) -> Tensor:
        """Rows as their owner writes them."""
        return x.squeeze(-1) if self.is_flat else x

    def event(self, rows: Tensor) -> tuple[int, ...]:
        """The dims of one sample."""
        return () if self.is_flat else (rows.shape[-1],)

    def to_reals(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which rows ``[n, D]`` are inside, where on the reals they lie (0 if outside), log |∂x/∂u|."""
        inside = torch.ones_like(x, dtype=torch.bool)
        reals, log_det = x.clone(), torch.zeros_like(x)
        for d, transform in enumerate(self.transforms):
            if transform is None:
                continue
            inside[:, d] = self.supports[d].check(x[:, d])  # type: ignore[union-attr]
            middle = transform(torch.zeros_like(x[:, d]))
            safe = torch.where(inside[:, d], x[:, d], middle)
            u = transform.inv(safe)
            reals[:, d], log_det[:, d] = u, transform.log_abs_det_jacobian(u, safe)
        return inside.all(1), reals, log_det.sum(1)

    def from_reals(self, reals: Tensor) -> Tensor:
        """Rows in their supports."""
        parts = [
            reals[:, d] if one is None else one(reals[:, d])
            for d, one in enumerate(self.transforms)
        ]
        return torch.stack(parts, 1).to(self.dtype)


def as_rows(x: Tensor) -> Tensor:
    """``[…, D]`` as ``[n, D]``, where D may be 0."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _numbers(name: str, values: Any) -> Tensor:
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name}: expected a tensor or an array, got {type(values).__name__}."
        ) from error
    if not found.dtype.is_floating_point:
        if name == "context":
            found = found.double()
        else:
            raise DataError(
                f"{name}: expected floating-point numbers, got {found.dtype}; whole numbers have no density. "
                "Add uniform noise as wide as the step between them."
            )
    if not bool(found.isfinite().all()):
        row = (~found.isfinite()).nonzero()[0].tolist()
        raise DataError(
            f"{name}: expected finite numbers, got {float(found[tuple(row)])} at {row}."
        )
    return found.detach() if name != "x" else found


def _supports(support: Any, size: int) -> list[Constraint | None]:
    """One for each column; None for the whole line."""
    found = list(support) if isinstance(support, (list, tuple)) else [support] * size
    if len(found) != size:
        raise OptionError(f"support: expected {size}, one for each column, got {len(found)}.")
    for one in found:
        if one is not None and (
            not isinstance(one, Constraint) or one.event_dim or one.is_discrete
        ):
            raise OptionError(
                "support: expected constraints of single real numbers such as "
                f"torch.distributions.constraints.positive, one for each column, or None, got {one!r}."
            )
    return found


def _transform(support: Constraint) -> Transform:
    try:
        return from_reals(support)
    except NotImplementedError as error:
        raise OptionError(
            f"support: no map from the reals to {support!r} is known. Use an interval or a half-line."
        ) from error

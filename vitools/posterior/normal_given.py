"""One normal distribution over several sites, stated as that of each site given those before it.

x_k | x_<k ~ N(m_k + L_k< L_<<⁻¹ (x_<k - m_<k), L_kk L_kkᵀ),        Σ = L Lᵀ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.distributions.shaped_normal import ShapedNormal
from vitools.problem.sites import Site


@dataclass(frozen=True)
class NormalGiven:
    """x ~ N(m + Σ_e C_e (x_e - m_e), P⁻¹), with x_e the sites before it.

    Attributes:
        loc: m, of the shape S of x.
        precision: P, [*S, *S].
        given: for each site before it C_e, [*S, *S_e], and m_e.
        transforms: by site, where a value is no x itself but T(x).
    """

    name: str
    loc: Tensor
    precision: Tensor
    given: Mapping[str, tuple[Tensor, Tensor]]
    transforms: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_joint(self) -> bool:
        return True

    def stated(self, site: Site, values: Mapping[str, Tensor]) -> Any:
        loc = self.loc
        for name, (slope, centre) in self.given.items():
            x = values[name]
            if name in self.transforms:
                x = self.transforms[name].inv(x)
            part = slope * (x - centre)
            for _ in range(centre.dim()):
                part = part.sum(-1)
            loc = loc + part
        scalar = not self.loc.dim()
        made: Any = (
            dist.Normal(loc, self.precision.rsqrt())
            if scalar
            else ShapedNormal(loc, self.precision)
        )
        if self.name in self.transforms:
            made = dist.TransformedDistribution(made, [self.transforms[self.name]])
        return made


def chained(
    mean: Tensor,
    covariance: Tensor,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    transforms: Mapping[str, Any] | None = None,
) -> dict[str, NormalGiven]:
    """The sites of a normal vector in turn.

    Args:
        mean: [D], the elements of the sites one after the other.
        covariance: [D, D].
        shapes: of each site's part.
        dtype: of what is stated.
        transforms: see :class:`NormalGiven`.
    """
    root = torch.linalg.cholesky(covariance)
    made: dict[str, NormalGiven] = {}
    before: list[tuple[str, int, int]] = []
    start = 0
    for name, shape in shapes.items():
        count = torch.Size(shape).numel()
        own = slice(start, start + count)
        inverse = torch.linalg.solve_triangular(
            root[own, own], torch.eye(count, dtype=root.dtype), upper=False
        )
        precision = (inverse.mT @ inverse).reshape((*shape, *shape))
        given: dict[str, tuple[Tensor, Tensor]] = {}
        if start:
            slope = torch.linalg.solve_triangular(
                root[:start, :start], root[own, :start], upper=False, left=False
            )
            for other, first, last in before:
                part = slope[:, first:last].reshape((*shape, *shapes[other]))
                centre = mean[first:last].reshape(shapes[other])
                given[other] = cast(part, dtype), cast(centre, dtype)
        loc = mean[own].reshape(shape)
        made[name] = NormalGiven(
            name, cast(loc, dtype), cast(precision, dtype), given, dict(transforms or {})
        )
        before.append((name, start, start + count))
        start += count
    return made


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Numbers with a fraction in this type."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

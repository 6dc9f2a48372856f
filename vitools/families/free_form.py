"""Free form: q(s) = exp(Σ_k η_k t_k(s) - A(η)), t_k any functions of one scalar s.

A(η) = log ∫ exp(Σ η t) ds is a one-dimensional integral, and so is every E t_k; nothing else sets it
apart from a family of the textbooks. Integrals run in the coordinate u of
:mod:`vitools.distributions.free_form.line`; log ds/du belongs to the base measure, so that the entropy is
A - Σ η E t as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.distributions.boxed import BoxedCorrelation, BoxedCovariance
from vitools.distributions.free_form import FreeForm, FreeFormPair
from vitools.distributions.free_form.line import line_of
from vitools.errors import NotSupportedError, NumericalError
from vitools.families.family import Family, Natural
from vitools.families.quadrature.adaptive import TOLERANCE, AdaptiveIntegral
from vitools.families.quadrature.panels import MATTERS, Integrals, Panels

OPEN = 1e4
"""A coordinate beyond all lines: where a density is cut off that is not."""


class FreeFormFamily(Family):
    """The exponential family of given functions of one scalar, made for one site.

    Args:
        statistics: a key for each function.
        functions: t_k, elementwise from s ``[*batch, n]`` to the same shape; parameters of shape
            ``[*batch, 1]`` inside broadcast. A function may be -inf where the density is 0.
        support: real, or with bounds on either side; bounds may have the batch's shape.
        is_cut: the density is cut off at two further parameters, the coordinates u of a lowest and
            of a highest value; :data:`OPEN` there where it is not. No statistic belongs to them.

    A moment that does not exist is ±inf, or nan where it is +inf at one end and -inf at the other;
    where the density does not exist the log-normaliser is nan. Everything is float64 and without
    gradients: ∇A are the mean parameters.

    >>> from torch.distributions import constraints
    >>> family = FreeFormFamily(("log", 1), (torch.log, lambda s: s), constraints.positive)
    >>> log_normaliser, (mean_log, mean) = family.normalised((torch.tensor(2.0), torch.tensor(-4.0)))
    >>> print(f"{mean:.6f}")  # Gamma(3, 4)
    0.750000
    """

    name = "FreeForm"
    title = "free form"
    members = {  # noqa: RUF012
        FreeForm: ("edges", "log_density", "lower", "upper", "tail_slopes"),
        FreeFormPair: ("log_density", "lower", "upper", "first", "step"),
        BoxedCovariance: ("edges", "log_density"),
        BoxedCorrelation: ("edges", "log_density"),
    }

    def __init__(
        self,
        statistics: Sequence[Hashable],
        functions: Sequence[Callable[[Tensor], Tensor]],
        support: Any,
        *,
        is_cut: bool = False,
    ):
        if len(statistics) != len(functions):
            raise NotSupportedError(
                f"a free-form family has {len(statistics)} statistics and {len(functions)} "
                "functions. Expected: one function for each."
            )
        cuts = ("lowest", "highest") if is_cut else ()
        self.statistics = (*statistics, *cuts)  # type: ignore[misc, arg-type]
        self.event_dims = (0,) * len(self.statistics)  # type: ignore[misc]
        self.support = support  # type: ignore[misc]
        self.functions = tuple(functions)
        self.is_cut = is_cut
        self._bounds = bounds_of(support)
        self._kept: dict[torch.Size, tuple[Tensor, AdaptiveIntegral]] = {}
        self._last: tuple[Tensor, torch.Size, Integrals] | None = None

    def middle(self, batch: torch.Size) -> Tensor:
        """An ordinary value of s: 0, 1 from a bound, or half-way between two."""
        line = line_of(*self._bounds, batch)
        return line.value(torch.zeros(*batch, 1, dtype=torch.float64)).squeeze(-1)

    def log_normaliser(self, natural: Natural) -> Tensor:
        return self.normalised(natural)[0]

    def mean_parameters(self, natural: Natural) -> Natural:
        return self.normalised(natural)[1]

    def proper(self, natural: Natural) -> Tensor:
        return ~self.log_normaliser(natural).isnan()

    def normalised(self, natural: Natural) -> tuple[Tensor, Natural]:
        log_normaliser, *means = _Integrated.apply(self, *natural)
        return log_normaliser, tuple(means)

    def integrated(self, natural: Natural) -> tuple[Tensor, ...]:
        """The log-normaliser and the mean parameters, panels chosen by the values."""
        stacked, batch = self._stacked(natural)
        found = self._integrals(stacked, batch)
        means = (found.log_normaliser, *found.moments)
        zeros = [torch.zeros(batch, dtype=torch.float64)] * (2 * self.is_cut)
        return (*(mean.reshape(batch) for mean in means), *zeros)

    def coordinate(self, s: float) -> float:
        """u of a value, :data:`OPEN` in size where it is infinite."""
        if math.isinf(s):
            return math.copysign(OPEN, s)
        line = line_of(*self._bounds, torch.Size())
        return float(line.coordinate(torch.tensor([s], dtype=torch.float64)))

    def converged(self, natural: Natural) -> Tensor:
        """Where the error estimates met their tolerance (booleans of the batch shape)."""
        stacked, batch = self._stacked(natural)
        return (self._integrals(stacked, batch).excess <= 1).reshape(batch)

    def error(self, natural: Natural) -> Tensor:
        """Estimated error of the log-normaliser and, relative, of moments; infinite where unknown."""
        stacked, batch = self._stacked(natural)
        found = self._integrals(stacked, batch)
        return (found.excess * found.noise.clamp(min=TOLERANCE)).reshape(batch)

    def inner(self, natural: Natural, mean: Natural) -> Tensor:
        """η·μ; a statistic of weight 0 adds nothing even where its moment is infinite."""
        pairs = zip(natural, mean, strict=True)
        return sum((torch.where(e == 0, 0.0, e * m) for e, m in pairs), torch.zeros(()))

    def to_distribution(self, natural: Natural) -> Distribution:
        stacked, batch = self._stacked(natural)
        with torch.no_grad():
            panels, found = self._adaptive(batch, stacked).interpolated(self._weights(stacked))
            if bool(found.log_normaliser.isnan().any()):
                raise NumericalError(
                    f"q with statistics {self.statistics} is no density for these natural "
                    "parameters: its integral is infinite or undefined."
                )
            return _distribution(panels, found)

    def from_distribution(self, distribution: Distribution) -> Natural:
        """η of a :class:`FreeForm` whose log density is linear in the statistics, by least squares."""
        if not isinstance(distribution, FreeForm):
            raise NotSupportedError(
                f"a free-form factor cannot be read from a {type(distribution).__name__}. "
                "Expected: a FreeForm."
            )
        s, density, weights = distribution.quadrature()
        line = line_of(*self._bounds, distribution.batch_shape)
        low, high = line.resolved(2.0**-30)
        u = line.coordinate(s)
        weights = torch.where((u > low) & (u < high), weights, 0.0)
        t = self._evaluate(s)
        rows = torch.cat([t, torch.ones_like(t[:1])]).movedim(0, -1)
        scale = weights.sqrt().unsqueeze(-1)
        rows, density = (
            torch.where(scale > 1e-12, rows, 0.0),
            torch.where(weights > 0, density, 0.0),
        )
        size = (rows * scale).norm(dim=-2, keepdim=True).clamp(min=1e-300)
        solved = torch.linalg.lstsq(
            rows / size * scale, density.unsqueeze(-1) * scale, driver="gelsd"
        ).solution
        natural = solved.squeeze(-1) / size.squeeze(-2)
        cuts = [torch.full(natural.shape[:-1], at).double() for at in (-OPEN, OPEN)]
        return (*natural[..., :-1].unbind(-1), *(cuts if self.is_cut else ()))

    def _stacked(self, natural: Natural) -> tuple[Tensor, torch.Size]:
        """All parameters [K, B] and the batch shape."""
        parameters = torch.broadcast_tensors(*(eta.detach().double() for eta in natural))
        batch = torch.broadcast_shapes(parameters[0].shape, *(b.shape for b in self._bounds))
        return torch.stack([eta.expand(batch).reshape(-1) for eta in parameters]), batch

    def _evaluate(self, s: Tensor) -> Tensor:
        return torch.stack([function(s).expand(s.shape) for function in self.functions])

    def _integrals(self, natural: Tensor, batch: torch.Size) -> Integrals:
        if self._last is not None:
            before, shape, found = self._last
            if shape == batch and torch.equal(before, natural):
                return found
        with torch.no_grad():
            found = self._adaptive(batch, natural).integrals(self._weights(natural))
        self._last = (natural, batch, found)
        return found

    def _weights(self, natural: Tensor) -> Tensor:
        """η of the statistics."""
        return natural[: len(self.functions)]

    def _adaptive(self, batch: torch.Size, natural: Tensor) -> AdaptiveIntegral:
        """The panels of a batch, new ones where the density is cut off elsewhere than before."""
        cuts = natural[len(self.functions) :]
        kept = self._kept.get(batch)
        if kept is None or not torch.equal(kept[0], cuts):
            line = line_of(*self._bounds, batch)
            window = (cuts[0], cuts[1]) if self.is_cut else None
            with torch.no_grad():
                kept = (cuts, AdaptiveIntegral(line, self._evaluate, batch, window))
            self._kept[batch] = kept
        return kept[1]


class _Integrated(torch.autograd.Function):
    """:meth:`FreeFormFamily.integrated` of many runs at once under ``torch.vmap``.

    Panels are chosen by looking at values, which vmap hides; here the runs are one more dimension
    of the batch instead.
    """

    @staticmethod
    def forward(family: FreeFormFamily, *natural: Tensor) -> tuple[Tensor, ...]:
        return family.integrated(natural)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[int | None], family: FreeFormFamily, *natural: Tensor
    ) -> tuple[tuple[Tensor, ...], int]:
        pairs = list(zip(natural, in_dims[1:], strict=True))
        rank = max(eta.dim() - (dim is not None) for eta, dim in pairs)
        runs = [
            eta if dim is None else _spread(eta.movedim(dim, 0), rank + 1) for eta, dim in pairs
        ]
        return _Integrated.apply(family, *runs), 0


def _spread(eta: Tensor, rank: int) -> Tensor:
    """[R, …] with dims of one put in behind the first."""
    return eta.reshape(len(eta), *(1,) * (rank - eta.dim()), *eta.shape[1:])


def _distribution(panels: Panels, found: Integrals) -> FreeForm:
    """The panels that hold q as a distribution of their own."""
    batch = panels.batch
    matters = (found.log_density.amax(-1) > (found.top - 2 * MATTERS).unsqueeze(-1)).long()
    first = matters.argmax(-1)
    last = matters.shape[-1] - 1 - matters.flip(-1).argmax(-1)
    # where q falls as a power, its moments may lie anywhere up to the edge
    open_ends = found.tail.slope.isfinite()
    first = torch.where(open_ends[0], 0, first).unsqueeze(-1)
    last = torch.where(open_ends[1], panels.count - 1, last).unsqueeze(-1)
    place = first + torch.arange(int((last - first).max()) + 2)
    edges = torch.cat([panels.left, panels.right[:, -1:]], -1)
    edges = edges.gather(1, place.minimum(last + 1))
    log_density = found.log_density - found.log_normaliser[:, None, None]
    panel = place[:, :-1].minimum(last).unsqueeze(-1).expand(-1, -1, log_density.shape[-1])
    log_density = log_density.gather(1, panel)
    # not where panels of no weight lie between them and the window's edge
    outermost = (edges[:, 0] == panels.ends[0].edge, edges[:, -1] == panels.ends[1].edge)
    cut = torch.stack(outermost, -1) & panels.cut
    slopes = torch.where(cut, torch.inf, found.tail.slope.T)
    return FreeForm(
        edges.reshape(*batch, -1),
        log_density.reshape(*batch, *log_density.shape[1:]),
        panels.line.lower.squeeze(-1),
        panels.line.upper.squeeze(-1),
        slopes.reshape(*batch, 2),
    )


def bounds_of(support: Any) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of a continuous scalar support, infinite where there is none."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    lower, upper = (getattr(support, f"{name}_bound", None) for name in ("lower", "upper"))
    if support.is_discrete or (lower is None and upper is None and support != constraints.real):
        raise NotSupportedError(
            f"a free-form factor has no coordinate for the support {support}. Expected: real, "
            "greater_than, less_than or interval, or one of their special cases."
        )
    found = []
    for bound, infinite in ((lower, -math.inf), (upper, math.inf)):
        value = torch.as_tensor(infinite if bound is None else bound, dtype=torch.float64)
        if value.isfinite().any() and not value.isfinite().all():
            raise NotSupportedError(
                f"an end of the support is bounded in some elements only: {value.flatten()[:5]}. "
                "Expected: all elements or none. Split the site."
            )
        found.append(value)
    return found[0], found[1]

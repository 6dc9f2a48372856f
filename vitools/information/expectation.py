"""E_p[f(x)] without draws: sums over what can be listed, the trapezoid rule in one and two dims.

A support is mapped from the real line, x = T(u), and the line once more by

    u = m + s sinh(t)

with m and s the middle and the spread of p there. Densities that fall like a power of u fall
exponentially in t and those that fall exponentially do so doubly, so that the trapezoid rule in t
converges exponentially fast for smooth integrands (Takahasi and Mori 1974; Trefethen and Weideman
2014). What every second node gives beside all of them is the error of the former, and a generous one of
the latter; the mass of p that the nodes miss is added to it.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.isolation import seeded
from vitools.supports import base_support, from_reals

Function = Callable[[Tensor], Tensor]

TOLERANCE, ROUNDINGS = 1e-11, 64
"""Of an error relative to 1 and the value; or so many roundings of p's own number type, if that is more."""
FEWEST, MOST_ON_LINE, MOST_ON_PLANE = 65, 2**15 + 1, 2**10 + 1
"""Nodes along an axis."""
MOST_TOGETHER = 2**21
"""Nodes on the line of all elements of a batch."""
NEGLIGIBLE = 42.0
"""Nats below the top at which an integrand is left out."""
WIDEST = 60.0
"""How far in t a window is stretched: sinh 60 is 6e25 spreads away."""
PROBES = 400
WRONG_MASS = 1e-3
LONGEST_LIST = 2**18


def expectation(p: Distribution, f: Function) -> tuple[Tensor, Tensor] | None:
    """E_p[f(x)] of each element of p's batch and its error, or None where it needs draws.

    Args:
        p: over a finite list, the natural numbers, a scalar, or (with an empty batch) a pair.
        f: from values ``[n, *batch, *event]`` to ``[n, *batch, *more]``.

    Returns:
        Both ``[*batch, *more]``. The error of a finite sum is 0.
    """
    if p.has_enumerate_support and not p.event_shape:
        found = _listed(p, f)
        if found is not None:
            return found
    elif _is_count(p):
        return _counted(p, f)
    if base_support(_support(p)) is None or _is_discrete(p):
        return None
    if not p.event_shape:
        return _quadrature(p, f, 1)
    if p.batch_shape or len(p.event_shape) > 1:
        return None
    try:
        dims = from_reals(p.support).inverse_shape(p.event_shape).numel()
    except NotImplementedError:  # a support that no map leads onto
        return None
    return _quadrature(p, f, dims) if dims <= 2 else None


def weighted(log_p: Tensor, values: Tensor) -> Tensor:
    """p f with 0 · ∞ = 0, ``[n, *batch, *more]`` from ``[n, *batch]`` and ``[n, *batch, *more]``."""
    mass = log_p.exp().reshape(log_p.shape + (1,) * (values.dim() - log_p.dim()))
    return torch.where(mass > 0, mass * torch.where(mass > 0, values, 0.0), 0.0)


def _support(p: Distribution) -> object:
    try:
        return p.support
    except (NotImplementedError, AttributeError):
        return None


def _is_discrete(p: Distribution) -> bool:
    return bool(getattr(_support(p), "is_discrete", True))


def _is_count(p: Distribution) -> bool:
    """Whether its values are 0, 1, 2, … without end."""
    return not p.event_shape and base_support(_support(p)) is constraints.nonnegative_integer


def _listed(p: Distribution, f: Function) -> tuple[Tensor, Tensor] | None:
    try:
        values = p.enumerate_support(expand=True)
    except NotImplementedError:  # binomials of different sizes have no common list
        return _common_list(p, f)
    total = weighted(p.log_prob(values).double(), f(values)).sum(0)
    return total, torch.zeros_like(total)


def _common_list(p: Distribution, f: Function) -> tuple[Tensor, Tensor] | None:
    """0 … the largest of all, where the smaller have probability 0 beyond their own."""
    top = getattr(_support(p), "upper_bound", None)
    if not isinstance(top, Tensor):
        return None
    numbers = torch.arange(int(top.max()) + 1, dtype=torch.float64)
    values = numbers.reshape((-1,) + (1,) * len(p.batch_shape)).expand(-1, *p.batch_shape)
    inside = values <= top
    log_p = torch.where(inside, p.log_prob(torch.minimum(values, top)).double(), -torch.inf)
    total = weighted(log_p, f(torch.minimum(values, top))).sum(0)
    return total, torch.zeros_like(total)


def _counted(p: Distribution, f: Function) -> tuple[Tensor, Tensor] | None:
    """The sum up to where it no longer changes; None where the tail is too long to be added up."""
    previous: Tensor | None = None
    size = 64
    farthest = float((p.mean + 8 * p.variance.sqrt()).max())
    longest = LONGEST_LIST // max(1, math.prod(p.batch_shape))
    while size <= longest and farthest < longest:
        numbers = torch.arange(size, dtype=torch.float64)
        values = numbers.reshape((-1,) + (1,) * len(p.batch_shape)).expand(-1, *p.batch_shape)
        density = p.log_prob(values)
        log_p = density.double()
        total = weighted(log_p, f(values)).sum(0)
        missed = (1 - log_p.exp().sum(0)).abs()
        if previous is not None:
            error = (total - previous).abs() + _wide(missed, total) * (1 + total.abs())
            if bool((error <= _tolerance(density) * (1 + total.abs())).all()):
                return total, error
        previous, size = total, 2 * size
    return None


def _tolerance(density: Tensor) -> float:
    return max(TOLERANCE, ROUNDINGS * torch.finfo(density.dtype).eps)


def _wide(x: Tensor, like: Tensor) -> Tensor:
    """With dims of size one to the right, as many as the other has."""
    return x.reshape(x.shape + (1,) * (like.dim() - x.dim()))


def _quadrature(p: Distribution, f: Function, dims: int) -> tuple[Tensor, Tensor] | None:
    try:
        line = _Line(p, dims, f)
    except NotImplementedError:  # as above, or it cannot be drawn from
        return None
    most = MOST_ON_LINE if dims == 1 else MOST_ON_PLANE
    most = max(4 * FEWEST, min(most, MOST_TOGETHER // max(1, math.prod(p.batch_shape))))
    previous: Tensor | None = None
    for count in _doubled(FEWEST, most):
        values, log_mass = line.nodes(count)
        mass = log_mass.exp().sum(0)
        integrand = f(values)
        total = weighted(log_mass, integrand).sum(0)
        if previous is not None:
            missed = _wide((1 - mass).abs(), total)
            size = torch.where(total.isfinite(), total.abs(), 0.0)
            # what is lost beyond the last number before a bound, lies where f may be large
            counts = _wide(log_mass > log_mass.amax(0) - NEGLIGIBLE, integrand)
            largest = torch.where(counts & integrand.isfinite(), integrand.abs(), 0.0).amax(0)
            largest = torch.where(missed > line.tolerance / 10, largest, size)
            change = torch.where(total == previous, 0.0, (total - previous).abs())
            error = change + missed * largest + line.rounding * (1 + size)
            if bool((error <= line.tolerance * (1 + total.abs())).all()):
                break
        previous = total
    if bool((missed > WRONG_MASS).any()):  # no density on what it says is its support
        return None
    return total, error


def _doubled(first: int, most: int) -> Iterator[int]:
    count = first
    while count <= most:
        yield count
        count = 2 * count - 1


class _Line:
    """Nodes on the line, or the plane, where p is."""

    def __init__(self, p: Distribution, dims: int, f: Function) -> None:
        self.p, self.dims = p, dims
        self.transform = from_reals(p.support)
        with seeded(0), torch.no_grad():
            draws = self.transform.inv(p.sample(torch.Size([PROBES]))).double()
        draws = draws if p.event_shape else draws.unsqueeze(-1)  # [probes, *batch, dims]
        # quartiles: a heavy tail has no variance
        ordered = draws.sort(0).values
        low, middle, high = (ordered[int(q * PROBES)] for q in (0.25, 0.5, 0.75))
        spread = (high - low).clamp(min=1e-30) / 1.35
        spread = torch.where(spread.isfinite(), spread, 1.0)
        self.middle = torch.where(middle.isfinite(), middle, 0.0)
        scaled = ((draws - self.middle) / spread).clamp(-4, 4)
        if dims == 1:
            root = torch.ones_like(spread).unsqueeze(-1)
        else:
            root = torch.linalg.cholesky(scaled.mT @ scaled / PROBES)
        self.root = spread.unsqueeze(-1) * root  # [*batch, dims, dims]
        self.tolerance, self.rounding = TOLERANCE, 0.0
        self.low = torch.full((dims,), -4.0)
        self.high = torch.full((dims,), 4.0)
        self._widen(f)

    def _widen(self, f: Function) -> None:
        """Stretch the window until nothing is left at its edges of p or of p f, each side for itself."""
        while True:
            values, log_mass = self.nodes(FEWEST)
            size = f(values).detach().abs()
            size = size.flatten(log_mass.dim()).amax(-1) if size.dim() > log_mass.dim() else size
            size = torch.where((log_mass > -torch.inf) & size.isfinite(), size, 1.0)
            weight = log_mass + size.clamp(min=1.0).log()
            grid = weight.reshape((FEWEST,) * self.dims + log_mass.shape[1:])
            top = weight.max(0).values
            stretched = False
            for d in range(self.dims):
                for edge, at in ((0, self.low), (FEWEST - 1, self.high)):
                    left = grid.select(d, edge)
                    if bool((left > top - NEGLIGIBLE).any()) and float(at[d].abs()) < WIDEST:
                        at[d] *= 1.25
                        stretched = True
            if not stretched:
                return

    def nodes(self, count: int) -> tuple[Tensor, Tensor]:
        """Values ``[n, *batch, *event]`` and the log mass ``[n, *batch]`` of each."""
        axes = [
            torch.linspace(float(a), float(b), count, dtype=torch.float64)
            for a, b in zip(self.low, self.high, strict=True)
        ]
        t = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.dims)
        step = ((self.high - self.low) / (count - 1)).double().log().sum()
        batch = len(self.p.batch_shape)
        wide = t.reshape((-1,) + (1,) * batch + (self.dims,))
        u = self.middle + (self.root @ wide.sinh().unsqueeze(-1)).squeeze(-1)
        log_stretch = wide.cosh().log().sum(-1) + self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        u = u if self.p.event_shape else u.squeeze(-1)
        values = self.transform(u)
        log_det = self.transform.log_abs_det_jacobian(u, values)
        density = self.p.log_prob(values)
        self.tolerance, self.rounding = _tolerance(density), torch.finfo(density.dtype).eps
        log_mass = density.double() + log_det + log_stretch + step
        finite = values.isfinite() if not self.p.event_shape else values.isfinite().all(-1)
        usable = finite & (log_mass < torch.inf)  # false for NaN
        return values, torch.where(usable, log_mass, -torch.inf)

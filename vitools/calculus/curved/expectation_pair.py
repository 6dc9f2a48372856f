"""E f(η₁, η₂) for two Gaussian predictors, η ~ N(m, Σ), with the derivatives of the sum itself.

A tensor grid of trapezoid rules in z, η = m + L z, Σ = L Lᵀ: F = Σ w f(m + L z), ∂F/∂m = Σ w ∇f,
∂F/∂L = Σ w ∇f zᵀ, and from that ∂F/∂Σ by the derivative of the Cholesky factor; it tends to ½ E ∇²f,
which serves where L is so small that the quotients are rounding. Steps come from the distances of
f's singularities where known, else each axis is halved until value and derivatives stand. The window
and what counts as infinite are those of one predictor.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitools.calculus.curved.expectation_conditional import expected_conditional
from vitools.calculus.curved.nodes import FARTHEST, exponent, normal_density
from vitools.calculus.curved.pair_function import ExpectedPair, PairFunction
from vitools.errors import NumericalError

NUMBERS_AT_ONCE = 1 << 16
MOST_HALVINGS = 5


def expected_pair(
    function: PairFunction | Callable[[Tensor, Tensor], Tensor],
    mean: Tensor,
    covariance: Tensor,
    *,
    tolerance: float = 1e-10,
) -> ExpectedPair:
    """F, ∂F/∂m and ∂F/∂Σ for mean [N, 2] and covariance [N, 2, 2].

    A plain callable takes η₁ and η₂ [rows, nodes] and knows nothing of rows: data go into a
    :class:`PairFunction`.
    """
    mean, covariance = mean.detach().double(), covariance.detach().double()
    _check(mean, covariance)
    if not isinstance(function, PairFunction):
        function = PairFunction(function)
    if function.rule is not None:
        return _by_rule(function, mean, covariance)
    if function.inner is not None:
        return expected_conditional(function, function.inner, mean, covariance, tolerance)
    result = ExpectedPair(
        mean.new_empty(len(mean)),
        torch.empty_like(mean),
        torch.empty_like(covariance),
        mean.new_empty(len(mean)),
    )
    cholesky = _cholesky(covariance)
    for rows, steps in _first_steps(function, cholesky, exponent(tolerance)):
        for some in rows.split(max(1, NUMBERS_AT_ONCE // 1024)):
            grid = _Grid(function.at(some), mean[some], cholesky[some], tolerance)
            for whole, part in zip(result, grid.expectation(steps), strict=True):
                whole[some] = part
    return result


def _check(mean: Tensor, covariance: Tensor) -> None:
    shapes = mean.dim() == 2 and mean.shape[1:] == (2,) and covariance.shape == (len(mean), 2, 2)
    if not shapes:
        raise NumericalError(
            "the expectation over two predictors takes means [N, 2] and covariances [N, 2, 2]; "
            f"got {tuple(mean.shape)} and {tuple(covariance.shape)}."
        )
    a, b, c = covariance[:, 0, 0], covariance[:, 1, 0], covariance[:, 1, 1]
    fine = mean.isfinite().all(-1) & (a >= 0) & (c >= 0) & (b**2 <= a * c * (1 + 1e-9))
    if not bool(fine.all()):
        worst = int((~fine).nonzero()[0])
        raise NumericalError(
            "the expectation over two predictors takes finite means and covariances that are positive "
            f"semidefinite; got {mean[worst].tolist()} and {covariance[worst].tolist()} in row {worst}."
        )


def _by_rule(function: PairFunction, mean: Tensor, covariance: Tensor) -> ExpectedPair:
    with torch.enable_grad():
        m, c = mean.requires_grad_(), covariance.requires_grad_()
        value = function.rule(m, c, *function.data)  # type: ignore[misc]
        d_mean, d_covariance = torch.autograd.grad(value.sum(), (m, c))
    error = torch.full_like(value, torch.finfo(value.dtype).eps)
    return ExpectedPair(
        value.detach(), d_mean, (d_covariance + d_covariance.mT) / 2, error.detach()
    )


def _cholesky(covariance: Tensor) -> Tensor:
    """L₁₁, L₂₁, L₂₂ as [N, 3]; zeros where the covariance is singular."""
    first = covariance[:, 0, 0].sqrt()
    cross = torch.where(first > 0, covariance[:, 1, 0] / first, 0.0)
    return torch.stack([first, cross, (covariance[:, 1, 1] - cross**2).clamp(min=0.0).sqrt()], -1)


def _first_steps(
    function: PairFunction, cholesky: Tensor, accuracy: float
) -> list[tuple[Tensor, tuple[float, float] | None]]:
    """Rows that share steps, in halves of a power of √2; None where they must be searched."""
    rows = torch.arange(len(cholesky), device=cholesky.device)
    if function.distances is None:
        return [(rows, None)] if len(rows) else []
    reach = math.sqrt(2 * accuracy)
    first, second = function.distances
    strips = torch.minimum(first / cholesky[:, 0], second / cholesky[:, 1].abs())
    edges = torch.stack([strips, second / cholesky[:, 2]], -1).clamp(max=reach)
    steps = 2 * math.pi * edges / (accuracy + edges**2 / 2)
    levels = (2 * steps.log2()).floor()
    return [
        ((levels == level).all(-1).nonzero().squeeze(-1), tuple((2 ** (level / 2)).tolist()))
        for level in levels.unique(dim=0)
    ]


class _Grid:
    """The sums of a few rows: F, ∂F/∂m (2), ∂F/∂L (11, 21, 22), E ∇²f (11, 21, 22) as [rows, 9]."""

    def __init__(self, function: PairFunction, mean: Tensor, cholesky: Tensor, tolerance: float):
        self.function, self.mean, self.cholesky = function, mean, cholesky
        self.tolerance, self.accuracy = tolerance, exponent(tolerance)
        size = 1 + mean.abs().amax(-1)
        self.second = bool((cholesky[:, [0, 2]].amin(-1) < 1e-3 * size).any())

    def some(self, rows: Tensor) -> "_Grid":
        """Of some of the rows."""
        return _Grid(self.function.at(rows), self.mean[rows], self.cholesky[rows], self.tolerance)

    def expectation(self, steps: tuple[float, float] | None) -> ExpectedPair:
        """Widened as far as it must be; refined where the steps are not known."""
        reach = math.sqrt(2 * self.accuracy)
        known = steps is not None
        steps = steps or (2 * math.pi / reach,) * 2
        rows = torch.arange(len(self.mean), device=self.mean.device)
        sums = self.mean.new_empty(len(rows), 9)
        sizes, error = torch.empty_like(sums), torch.empty_like(self.mean[:, 0])
        grid, width = self, reach
        while len(rows):
            total, size, edge = grid.sums(steps, (0.0, 0.0), width)
            open_ = (edge[:, 1] > self.tolerance * size[:, 0]) & total[:, 0].isfinite()
            if width == FARTHEST:
                total[:, 0] = torch.where(open_, edge[:, 0].sign() * math.inf, total[:, 0])
                open_ = torch.zeros_like(open_)
            done = (~open_).nonzero().squeeze(-1)
            finished = (
                total[done],
                size[done],
                torch.full_like(edge[done, 0], math.exp(-self.accuracy)),
            )
            if not known and len(done):
                finished = grid.some(done).refined(*finished[:2], steps, width)
            sums[rows[done]], sizes[rows[done]], error[rows[done]] = finished
            rows, grid = rows[open_], grid.some(open_.nonzero().squeeze(-1))
            width = min(width + reach, FARTHEST)
        return self.finish(sums, sizes, error)

    def refined(self, sums, sizes, steps, width, axis: int = 0, halvings: int = 0):
        """One axis after the other halved until nothing moves; sums, sizes and error."""
        shift = (steps[0] / 2, 0.0) if axis == 0 else (0.0, steps[1] / 2)
        between, size, _ = self.sums(steps, shift, width)
        new, sizes = (sums + between) / 2, (sizes + size) / 2
        change = (new - sums).abs()[:, :6] / sizes[:, :6].clamp(min=torch.finfo(sums.dtype).tiny)
        error = change.amax(-1).nan_to_num(nan=0.0, posinf=0.0)
        new = torch.where(sums[:, :1].isfinite(), new, sums)
        steps = (steps[0] / 2, steps[1]) if axis == 0 else (steps[0], steps[1] / 2)
        moves = (error > self.tolerance) & (halvings < MOST_HALVINGS)
        for rows, next_axis, count in ((moves, axis, halvings + 1), (~moves, axis + 1, 0)):
            rows = rows.nonzero().squeeze(-1)
            if len(rows) and next_axis < 2:
                more = self.some(rows).refined(
                    new[rows], sizes[rows], steps, width, next_axis, count
                )
                new[rows], sizes[rows] = more[:2]
                settled = next_axis == axis
                error[rows] = more[2] if settled else torch.maximum(more[2], error[rows])
        return new, sizes, error

    def sums(self, steps, shift, width) -> tuple[Tensor, Tensor, Tensor]:
        """Sums and sums of absolute terms [rows, 9], and f's terms on the edge, their sum and size [rows, 2]."""
        axes = []
        for step, offset in zip(steps, shift, strict=True):
            half = math.floor(width / step)
            index = torch.arange(-half, half + 1, dtype=self.mean.dtype, device=self.mean.device)
            axes.append(index * step + offset)
        z1, z2 = (z.flatten() for z in torch.meshgrid(*axes, indexing="ij"))
        radius = torch.hypot(z1, z2)
        inside = radius <= width
        z1, z2, radius = z1[inside], z2[inside], radius[inside]
        weights = normal_density(z1) * normal_density(z2) * (steps[0] * steps[1])
        on_edge = radius > width - max(steps)
        result = self.mean.new_zeros(3, len(self.mean), 9)
        at_once = max(1, NUMBERS_AT_ONCE // max(1, len(self.mean)))
        pieces = (x.split(at_once) for x in (z1, z2, weights, on_edge))
        for a, b, w, edge in zip(*pieces, strict=True):
            self._add(result, a, b, w, edge)
        return result[0], result[1], result[2, :, :2]

    def _add(self, result: Tensor, z1: Tensor, z2: Tensor, weights: Tensor, edge: Tensor) -> None:
        """Adds the nodes z [nodes] to sums, sums of absolute terms and the edge's."""
        (m1, m2), (l11, l21, l22) = (
            self.mean.unsqueeze(-1).unbind(1),
            self.cholesky.unsqueeze(-1).unbind(1),
        )
        f, *f1 = self.function.derivatives((m1 + l11 * z1, m2 + l21 * z1 + l22 * z2), self.second)
        terms = [(f, weights), (f1[0], weights), (f1[1], weights)]
        terms += [(f1[0], weights * z1), (f1[1], weights * z1), (f1[1], weights * z2)]
        terms += [(h, weights) for h in f1[2:]]
        for k, (values, by) in enumerate(terms):
            result[0, :, k] += values @ by
            result[1, :, k] += values.abs() @ by.abs()
        if bool(edge.any()):
            outer = f[:, edge] * weights[edge]
            result[2, :, 0] += outer.sum(-1)
            result[2, :, 1] += outer.abs().sum(-1)

    def finish(self, sums: Tensor, sizes: Tensor, error: Tensor) -> ExpectedPair:
        """∂F/∂Σ from ∂F/∂L: entries 11, 21 (as one parameter) and 22."""
        l11, l21, l22 = self.cholesky.unbind(-1)
        g11, g21, g22 = sums[:, 3:6].unbind(-1)
        slope, bend = l21 / l22, l21 / (2 * l11)
        cross = (g21 - slope * g22) / l11
        ascent = torch.stack([g11 / (2 * l11) - bend * cross, cross, g22 / (2 * l22)], -1)
        if self.second:
            curvature = sums[:, 6:] * sums.new_tensor([0.5, 1.0, 0.5])
            reach = self.mean.abs().amax(-1) * sizes[:, 6:].amax(-1)
            noise = (sizes[:, 3:6] + reach.unsqueeze(-1)) * 64 * torch.finfo(sums.dtype).eps
            n11, n21, n22 = noise.unbind(-1)
            cross = (n21 + slope.abs() * n22) / l11
            noise = torch.stack([n11 / (2 * l11) + bend.abs() * cross, cross, n22 / (2 * l22)], -1)
            takes = ~((ascent - curvature).abs() > noise)  # nan where L is singular
            small = self.cholesky[:, [0, 2]].amin(-1) < 1e-3 * (1 + self.mean.abs().amax(-1))
            ascent = torch.where(takes & small.unsqueeze(-1), curvature, ascent)
        s11, s21, s22 = ascent.unbind(-1)
        d_covariance = torch.stack([s11, s21 / 2, s21 / 2, s22], -1).unflatten(-1, (2, 2))
        value, d_mean = sums[:, 0], sums[:, 1:3]
        endless = value.isinf()
        d_mean = torch.where(endless.unsqueeze(-1), value.unsqueeze(-1), d_mean)
        d_covariance = torch.where(endless[:, None, None], value[:, None, None], d_covariance)
        return ExpectedPair(value, d_mean, d_covariance, error)

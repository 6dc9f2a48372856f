"""log f at many points of ℝ^P, its gradients, and products with its Hessian.

For whatever climbs or samples a density: one function of one point, recorded once, compiled where
so many evaluations repay it (:mod:`vitools.graphs.over_draws`; once for all who evaluate it), and
otherwise run by torch on many points at a time.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vitools.graphs.over_draws import OverDraws
from vitools.isolation import lazy, seeded
from vitools.problem.coordinates.singular import where_defined
from vitools.problem.density.vectorise import WORTH_RECORDING
from vitools.problem.problem import Problem

NEARBY = 0.1  # where a compiled density is tried beside its example
PASSES = 3  # of a density with its gradient, in passes of the density alone


class Density:
    """log f of points ``[n, P]``, from a differentiable function of one point ``[P]``.

    Args:
        at: log f of one point, a scalar.
        example: a point of finite density.
        problem: runs ``at`` on many points where it is not compiled.
        num_points: about how many there will be.
    """

    def __init__(
        self, at: Callable[[Tensor], Tensor], example: Tensor, problem: Problem, num_points: int
    ) -> None:
        self.at, self.problem, self.num_points = at, problem, num_points
        self.example = example.detach().clone()

    def gradients(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """log f ``[n]`` and ∇ log f ``[n, P]``."""
        run = self._compiled_gradients or self._gradients
        values, slopes = run(points)
        return values, slopes

    def defined_gradients(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`gradients`; -inf and NaN at points at which a matrix of the model is singular."""

        def nothing(points: Tensor) -> tuple[Tensor, Tensor]:
            return torch.full_like(points[:, 0], -torch.inf), torch.full_like(points, torch.nan)

        values, slopes = where_defined(self.gradients, nothing, points)
        return values, slopes

    def products(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """∇ log f and (∇² log f) d at each point with its direction d: ``[n, P]`` each."""
        run = self._compiled_products or self._products
        slopes, products = run(points, directions)
        return slopes, products

    def __call__(self, points: Tensor) -> Tensor:
        """log f ``[n]``, through which autograd finds the gradient of what follows, once."""
        return _WithGradients.apply(points, self)

    def _gradients(self, points: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self._gradients_of_chunk(part) for part in self._chunks(points)]
        values, slopes = (torch.cat(column) for column in zip(*parts, strict=True))
        return values, slopes

    def _gradients_of_chunk(self, points: Tensor) -> tuple[Tensor, Tensor]:
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            values = self.problem.map_draws(self.at, points)
            if not values.requires_grad:  # a flat density
                return values, torch.zeros_like(points)
            (slopes,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), slopes

    def _products(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        chunks = zip(self._chunks(points), self._chunks(directions), strict=True)
        parts = [self._products_of_chunk(*chunk) for chunk in chunks]
        slopes, products = (torch.cat(column) for column in zip(*parts, strict=True))
        return slopes, products

    def _products_of_chunk(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            values = self.problem.map_draws(self.at, points)
            if not values.requires_grad:
                return torch.zeros_like(points), torch.zeros_like(points)
            (slopes,) = torch.autograd.grad(values.sum(), points, create_graph=True)
            if not slopes.requires_grad:  # a density that is linear
                return slopes, torch.zeros_like(points)
            (products,) = torch.autograd.grad((slopes * directions).sum(), points)
        return slopes.detach(), products

    def _chunks(self, points: Tensor) -> tuple[Tensor, ...]:
        """A gradient keeps the memory of all its points until it is taken."""
        return points.split(self.problem.mapper.chunk)

    # ---- compiled ------------------------------------------------------------------------

    @lazy
    def _compiled_gradients(self) -> OverDraws | None:
        function = value_and_gradient(self.at)
        return self._compiled("gradients", function, self._gradients, self._tried)

    @lazy
    def _compiled_products(self) -> OverDraws | None:
        def product(point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                leaf = point.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.at(leaf), leaf, create_graph=True)
                (along,) = torch.autograd.grad(slope @ direction, leaf)
            return slope.detach(), along

        tried = self._tried
        return self._compiled("products", product, self._products, tried, torch.ones_like(tried))

    @property
    def _tried(self) -> Tensor:
        return torch.stack([self.example, self.example + NEARBY])

    def _compiled(
        self,
        name: str,
        function: Callable[..., Any],
        by_torch: Callable[..., Any],
        *tried: Tensor,
    ) -> OverDraws | None:
        work = PASSES * self.num_points * self.problem.mapper.bytes_per_draw
        if work < WORTH_RECORDING:
            return None
        expected = by_torch(*tried)
        if not self.problem.mapper.can_vmap:  # it reads numbers out of its point
            return None
        with seeded(0):
            programs = self.problem.mapper.programs
            return programs.over_draws(name, function, tried, expected, self.num_points)


def value_and_gradient(
    at: Callable[[Tensor], Tensor],
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From a point ``[P]`` to ``at`` there and its gradient ``[P]``, as a function to be recorded."""

    def both(point: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            value = at(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    return both


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, density: Density) -> Tensor:
        values, slopes = density.gradients(points)
        ctx.save_for_backward(slopes)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return grads[0].unsqueeze(-1) * slopes, None

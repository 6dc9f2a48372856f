"""Damped Newton for a batch of independent minimisations in two unknowns each.

    x ← x - (H + λI)⁻¹ ∇f(x),  λ falling after a step that lowers f, and rising otherwise

Every element of the batch has a damping λ of its own, and keeps its point where a step fails.
K. Levenberg (1944); J. Nocedal and S. Wright (2006), "Numerical Optimization", ch. 4.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def minimise_pairs(
    function: Callable[[Tensor], Tensor], start: Tensor, num_steps: int = 60
) -> Tensor:
    """The minimiser of ``function``, elementwise over a batch; no gradient flows through it.

    Args:
        function: twice differentiable, from ``[2, batch]`` to ``[batch]``, each element of the
            result depending on its own column alone.
        start: ``[2, batch]``.
    """
    x = start.detach()
    damping = torch.full_like(x[0], 1e-2)
    for _ in range(num_steps):
        value, gradient, hessian = _derivatives(function, x)
        if gradient.abs().max() < 1e-10:
            break
        step = _step(gradient, hessian, damping)
        with torch.no_grad():
            better = function(x + step) <= value
        x = torch.where(better, x + step, x)
        damping = torch.where(better, damping * 0.2, (damping * 10).clamp(max=1e6))
    return x


def _derivatives(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """f, ∇f ``[2, batch]``, and (∂²f/∂x₀², ∂²f/∂x₁², ∂²f/∂x₀∂x₁)."""
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        value = function(point)
        (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=True)
        rows = [torch.autograd.grad(g.sum(), point, retain_graph=True)[0] for g in gradient]
    return value.detach(), gradient.detach(), (rows[0][0], rows[1][1], rows[0][1])


def _step(gradient: Tensor, hessian: tuple[Tensor, Tensor, Tensor], damping: Tensor) -> Tensor:
    """-(H + λI)⁻¹ ∇f, at most 1 in each unknown."""
    first, second, mixed = hessian
    # The smallest shift that makes the 2×2 Hessian positive definite, plus the damping.
    smallest = (first + second) / 2 - ((first - second).square() / 4 + mixed.square()).sqrt()
    shift = damping + (-smallest).clamp(min=0.0)
    first, second = first + shift, second + shift
    determinant = first * second - mixed * mixed
    step = torch.stack(
        [mixed * gradient[1] - second * gradient[0], mixed * gradient[0] - first * gradient[1]]
    )
    return (step / determinant).clamp(-1.0, 1.0)

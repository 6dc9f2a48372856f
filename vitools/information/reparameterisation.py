"""The same in other parameters: Fisher's information and densities under a map θ = h(φ).

    F_φ = Jᵀ F_θ J,    p_φ(φ) = p_θ(h(φ)) |det J|,    J = ∂h/∂φ

so that Jeffreys' density √det F is of the second kind: it says the same whatever the parameter
(H. Jeffreys 1946).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.information.derivatives import jacobian
from vitools.information.matrices import FisherInformation, Point


def reparameterised(
    fisher: FisherInformation, to_theta: Callable[[Any], Any], at: Any
) -> FisherInformation:
    """F_φ from F_θ at θ = h(φ).

    Args:
        to_theta: h, a function or a torch transform, which takes and gives parameters in the form
            of ``at`` and of ``fisher``'s. It may have fewer parameters than θ: a curve, or a plane.
        at: φ, with h(φ) the point of ``fisher``.

    Example:
        >>> from vitools.information import fisher_information
        >>> by_odds = reparameterised(
        ...     fisher_information(lambda p: torch.distributions.Bernoulli(p), 0.5), torch.sigmoid, 0.0)
        >>> float(by_odds.matrix)  # p (1 - p)
        0.25
    """
    if not callable(to_theta):
        raise OptionError(f"to_theta: expected a function, got {type(to_theta).__name__}.")
    point = Point.of(at)

    def flat(vector: Tensor) -> Tensor:
        return Point.of_traced(to_theta(point.read(vector)))

    reached = flat(point.vector)
    if reached.shape != fisher.point.vector.shape or not torch.allclose(
        reached.double(), fisher.point.vector, rtol=1e-6, atol=1e-9
    ):
        raise OptionError(
            f"at: expected a point that to_theta maps to {fisher.point.vector.tolist()}, where the "
            f"information was taken, got one that it maps to {reached.tolist()}."
        )
    slope = jacobian(flat, point.vector).double()
    parts = None if fisher.parts is None else slope.mT @ fisher.parts @ slope
    value, error = fisher.function(lambda matrix: slope.mT @ matrix @ slope)
    return FisherInformation(value, error, parts=parts, point=point)


def reparameterised_log_density(
    log_density: Callable[[Any], Tensor], to_theta: Callable[[Any], Any], at: Any
) -> Tensor:
    """log p_φ(φ) = log p_θ(h(φ)) + log |det J| at one φ.

    Args:
        log_density: log p_θ.
        to_theta: h, with as many parameters as θ.
    """
    point = Point.of(at)

    def flat(vector: Tensor) -> Tensor:
        return Point.of_traced(to_theta(point.read(vector)))

    slope = jacobian(flat, point.vector)
    if slope.shape[0] != slope.shape[1]:
        raise OptionError(
            f"to_theta: expected as many parameters as it is given ({slope.shape[1]}), got "
            f"{slope.shape[0]}."
        )
    log_det = torch.linalg.slogdet(slope).logabsdet
    return torch.as_tensor(log_density(to_theta(point.read(point.vector)))) + log_det

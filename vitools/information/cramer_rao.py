"""How little an unbiased estimator can vary: Cramér and Rao's bound.

    Cov(ĝ) ≥ J F⁻¹ Jᵀ,   J = ∂g/∂θ   (H. Cramér 1946, C. R. Rao 1945)

The same with J + ∂b/∂θ for an estimator whose bias is b(θ).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.information.derivatives import jacobian
from vitools.information.matrices import FisherInformation, MatrixEstimate


def cramer_rao(
    fisher: FisherInformation,
    estimand: Callable[[Any], Tensor] | None = None,
    bias: Callable[[Any], Tensor] | None = None,
) -> MatrixEstimate:
    """The least covariance ``[Q, Q]`` that an estimator of g(θ) can have at this θ.

    Args:
        fisher: of :func:`~vitools.information.fisher_information`.
        estimand: g, differentiable, from the parameters in the form they were given in; θ itself
            if omitted.
        bias: b, as g; none if omitted.

    Raises:
        NumericalError: F is singular, so that nothing bounds some direction; a parameter is named.

    Example:
        >>> from vitools.information import fisher_information
        >>> fisher = fisher_information(lambda p: torch.distributions.Binomial(100, p), 0.5)
        >>> round(float(cramer_rao(fisher).sd), 6)  # √(p (1 - p) / 100)
        0.05
    """
    if not isinstance(fisher, FisherInformation):
        raise OptionError(
            f"fisher: expected the result of fisher_information(), got {type(fisher).__name__}."
        )
    fisher.refuse_singular()
    slope = _slope("estimand", estimand, fisher)
    if slope is None:
        slope = torch.eye(len(fisher.matrix), dtype=torch.float64)
    shift = _slope("bias", bias, fisher)
    if shift is not None:
        if shift.shape != slope.shape:
            raise OptionError(
                f"bias: expected {len(slope)} numbers as the estimand has, got {len(shift)}."
            )
        slope = slope + shift
    value, error = fisher.function(lambda matrix: slope @ torch.linalg.solve(matrix, slope.mT))
    return MatrixEstimate(value, error)


def _slope(
    name: str, of: Callable[[Any], Tensor] | None, fisher: FisherInformation
) -> Tensor | None:
    """``[Q, P]``."""
    if of is None:
        return None
    if not callable(of):
        raise OptionError(f"{name}: expected a function of the parameters, got {of!r}.")

    def flat(vector: Tensor) -> Tensor:
        made = of(fisher.point.read(vector))
        if not isinstance(made, Tensor):
            raise OptionError(
                f"{name}: expected a function that returns a tensor, got {type(made).__name__}."
            )
        return made.reshape(-1)

    return jacobian(flat, fisher.point.vector).double()

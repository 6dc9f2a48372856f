"""The map from the reals onto the simplex by stick-breaking, computed in log-space.

    v_k = sigmoid(x_k - log(K - k)),   π_k = v_k ∏_{j<k} (1 - v_j),   k = 1 … K-1
    log |∂π/∂x| = Σ_k [log v_k + (K - k) log(1 - v_k)]

It is the map that torch and Stan use (x = 0 is the centre of the simplex), whose own code takes
products of 1 - v: in single precision every entry after a stick of 1 - 10⁻⁸ would be 0, where the
density of a sparse Dirichlet is infinite.
"""

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import IndependentTransform, Transform

from vitools.distributions.log_space import log_and_log1m
from vitools.distributions.stick_breaking import logits_from_simplex, simplex_from_sticks


class SimplexMap(Transform):
    """``[…, K-1]`` reals to ``[…, K]`` on the simplex, no entry below the smallest normal number.

    >>> SimplexMap()(torch.zeros(3))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SimplexMap)

    def _call(self, x: Tensor) -> Tensor:
        return simplex_from_sticks(*log_and_log1m(x - _left(x).log()))

    def _inverse(self, y: Tensor) -> Tensor:
        logits = logits_from_simplex(y)
        return logits + _left(logits).log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        left = _left(x)
        log_v, log1m = log_and_log1m(x - left.log())
        return (log_v + left * log1m).sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return shape[:-1] + (shape[-1] + 1,)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return shape[:-1] + (shape[-1] - 1,)


def onto(support: Constraint) -> Transform:
    """The bijection from the reals onto ``support``.

    Raises:
        NotImplementedError: torch knows none.
    """
    if isinstance(support, constraints.independent):
        return IndependentTransform(
            onto(support.base_constraint), support.reinterpreted_batch_ndims
        )
    is_simplex = isinstance(support, type(constraints.simplex))  # a pickled fit has its own
    return SimplexMap() if is_simplex else biject_to(support)


def _left(x: Tensor) -> Tensor:
    """K - k: how many entries are still to come after the k-th."""
    return torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device)

"""A Gaussian on the problem's unconstrained space, N(m, LLᵀ) pushed through θ = T(u)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vitools.isolation import seeded
from vitools.posterior.base import Posterior, Saved
from vitools.posterior.results import check_count
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.supports import base_support


class GaussianPosterior(Posterior):
    """u ~ N(m, LLᵀ) with θ = T(u).

    T is that of :class:`~vitools.problem.coordinates.unconstrained.UnconstrainedSpace`.

    Args:
        location: m, ``[P]``.
        scale_tril: L, ``[P, P]``; diagonal for a mean field.
        location_error: ``[P]``, standard errors of m from the fit's own Monte Carlo; zeros if it
            used none.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        location: Tensor,
        scale_tril: Tensor,
        location_error: Tensor,
        **common: Any,
    ) -> None:
        super().__init__(problem, **common)
        self.location, self.scale_tril = location, scale_tril
        self.location_error = location_error
        self.space = UnconstrainedSpace(problem)
        self._gaussian = MultivariateNormal(location, scale_tril=scale_tril, validate_args=False)

    def sample_with_log_prob(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        check_count(num_samples)
        with seeded(seed), torch.no_grad():
            vectors = self._gaussian.sample(torch.Size((num_samples,)))
            log_q = self._gaussian.log_prob(vectors) - self.space.log_jacobian(vectors)
            return self.space.to_values(vectors), log_q

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        flat, sample_shape = self.problem.checked_draws(values)
        with torch.no_grad():
            vectors = self.space.from_values(flat)
            log_q = self._gaussian.log_prob(vectors) - self.space.log_jacobian(vectors)
        return log_q.reshape(sample_shape)

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        site = self.problem.latents[name]
        if base_support(site.support) is not torch.distributions.constraints.real:
            return super()._moments(name)
        own = self.space.slices[name]
        sd = self.scale_tril[own].square().sum(-1).sqrt()
        return self.location[own].reshape(site.shape), sd.reshape(site.shape)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        names = ("location", "scale_tril", "location_error")
        return {name: getattr(self, name) for name in names}, {}

    @classmethod
    def _restore(cls, saved: Saved) -> "GaussianPosterior":
        return cls(saved.problem, **saved.tensors, **saved.common)

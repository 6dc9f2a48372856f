"""The exact posterior of a small problem: quadrature over continuous latents, sums over discrete."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitools.isolation import seeded
from vitools.posterior.base import Posterior, Saved
from vitools.posterior.results import Estimate, check_count
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace


class GridPosterior(Posterior):
    """p(θ | x) on the nodes of a regular grid in unconstrained, whitened space.

    Args:
        nodes: ``[M, P]`` unconstrained points (``[1, 0]`` where all latents are discrete).
        log_masses: ``[M]``, normalised: log of each node's share of the posterior.
        cell: ``[P, P]``, columns spanning the parallelepiped that a node stands for.
        log_evidence: log p(x) with its quadrature error.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        nodes: Tensor,
        log_masses: Tensor,
        cell: Tensor,
        log_evidence: Estimate,
        **common: Any,
    ) -> None:
        super().__init__(problem, **common)
        self.nodes, self.log_masses, self.cell = nodes, log_masses, cell
        self.log_evidence = log_evidence
        self._space = UnconstrainedSpace(problem)

    def elbo(self, num_samples: int = 1000, seed: int = 0) -> Estimate:
        """log p(x): the bound is tight. The standard error is the quadrature's."""
        return self.log_evidence

    def sample_with_log_prob(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Nodes by mass, spread uniformly over their cells (error of the order of cell²)."""
        check_count(num_samples)
        with seeded(seed), torch.no_grad():
            chosen = torch.multinomial(self.log_masses.exp(), num_samples, replacement=True)
            jitter = torch.rand((num_samples, self.nodes.shape[1]), dtype=self.nodes.dtype) - 0.5
            vectors = self.nodes[chosen] + jitter @ self.cell.mT
        values = self._space.to_values(vectors)
        if not values:
            return values, vectors.new_zeros(num_samples)
        log_prob = self.log_prob(values)
        is_beyond = log_prob == -torch.inf  # of a cell at the edge of the support: back to its node
        if bool(is_beyond.any()):
            vectors = torch.where(is_beyond.unsqueeze(-1), self.nodes[chosen], vectors)
            values = self._space.to_values(vectors)
            log_prob = self.log_prob(values)
        return values, log_prob

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        continuous = {k: v for k, v in values.items() if k not in self.problem.discrete}
        with torch.no_grad():
            return self.problem.log_joint(continuous) - self.log_evidence.value

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        values = self._space.to_values(self.nodes)[name].double()
        weights = self.log_masses.exp().reshape((-1,) + (1,) * (values.dim() - 1))
        mean = (weights * values).sum(0)
        return mean, (weights * (values - mean) ** 2).sum(0).sqrt()

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {"nodes": self.nodes, "log_masses": self.log_masses, "cell": self.cell}
        evidence = self.log_evidence
        return tensors, {"log_evidence": [evidence.value, evidence.standard_error]}

    @classmethod
    def _restore(cls, saved: Saved) -> "GridPosterior":
        return cls(
            saved.problem,
            log_evidence=Estimate(*saved.meta["log_evidence"]),
            **saved.tensors,
            **saved.common,
        )

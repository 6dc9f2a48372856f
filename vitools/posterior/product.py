"""A product of posteriors of disjoint sites of one problem: q(θ) = ∏_k q_k(θ_k)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitools.errors import NotSupportedError
from vitools.isolation import seeded
from vitools.posterior.base import Posterior, Saved
from vitools.posterior.results import Estimate, check_count
from vitools.problem import Problem


def part_of(problem: Problem, sites: Collection[str]) -> Problem:
    """The problem of some latents alone, the others held at a draw from their priors."""
    drawn = problem.starting_draws(1)
    return problem.given({k: v[0] for k, v in drawn.items() if k not in sites})


class ProductPosterior(Posterior):
    """Independent parts, each a posterior of some of the problem's latents.

    Args:
        parts: posteriors of :func:`part_of` the problem; together they have each latent once.
        bound, bound_error: the engine's own bound and its standard error.
    """

    def __init__(
        self,
        problem: Problem,
        parts: Sequence[Posterior],
        bound: float,
        bound_error: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(problem, **common)
        self.parts = list(parts)
        self.bound, self.bound_error = bound, bound_error
        covered = sorted(name for part in parts for name in part.problem.latents)
        if covered != sorted(problem.latents):
            raise NotSupportedError(
                f"the parts have the sites {covered}, expected each latent once: "
                f"{sorted(problem.latents)}."
            )

    @property
    def points(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(name for part in self.parts for name in part.points)

    def elbo(self, num_samples: int = 1000, seed: int = 0) -> Estimate:
        """The engine's bound, discrete factors included, as it was estimated from fresh draws."""
        return Estimate(self.bound, self.bound_error)

    def sample_with_log_prob(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        values: dict[str, Tensor] = {}
        total = torch.zeros(num_samples, dtype=torch.float64)
        for part, own in zip(self._drawn, self._seeds(seed), strict=True):
            drawn, log_q = part.sample_with_log_prob(num_samples, own)
            values, total = values | drawn, total + log_q
        return values, total

    def _draw(self, num_samples: int, seed: int) -> dict[str, Tensor]:
        check_count(num_samples)
        values: dict[str, Tensor] = {}
        for part, own in zip(self._drawn, self._seeds(seed), strict=True):
            values |= part._draw(num_samples, own)
        return values

    @property
    def _drawn(self) -> list[Posterior]:
        """The parts that have more than latents that are summed out."""
        return [part for part in self.parts if part.problem.drawn]

    def _seeds(self, seed: int) -> list[int]:
        with seeded(seed):
            return torch.randint(2**31, (len(self._drawn),)).tolist()

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        flat, shape = self.problem.checked_draws(values)
        total = torch.zeros(shape.numel(), dtype=torch.float64)
        for part in self._drawn:
            total = total + part.log_prob({name: flat[name] for name in part.problem.drawn})
        return total.reshape(shape)

    def _part(self, site: str) -> Posterior:
        self._latent(site)
        return next(part for part in self.parts if site in part.problem.latents)

    def marginal(self, site: str) -> Any:
        """q(site), where its part knows it in closed form."""
        return self._part(site).marginal(site)

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        return self._part(name)._moments(name)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors: dict[str, Tensor] = {}
        described = []
        for k, part in enumerate(self.parts):
            state, meta = part._state()
            tensors |= {f"{k}.{name}": value for name, value in state.items()}
            sites = list(part.problem.latents)
            described.append({"kind": type(part).__name__, "meta": meta, "sites": sites})
        bounds = {"bound": self.bound, "bound_error": self.bound_error}
        return tensors, {"parts": described, **bounds}

    @classmethod
    def _restore(cls, saved: Saved) -> "ProductPosterior":
        parts = [
            saved.part(k, described, part_of(saved.problem, described["sites"]))
            for k, described in enumerate(saved.meta["parts"])
        ]
        bounds = (saved.meta["bound"], saved.meta["bound_error"])
        return cls(saved.problem, parts, *bounds, **saved.common)

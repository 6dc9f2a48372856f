"""Draws from a sampler: a reference without a density."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitools.errors import NotSupportedError, OptionError
from vitools.isolation import seeded
from vitools.posterior.base import Posterior, Saved
from vitools.posterior.results import Estimate, check_count
from vitools.problem import Problem


class DrawsPosterior(Posterior):
    """Markov chain draws ``{site: [chains, draws, *shape]}`` of the continuous latents.

    Attributes:
        draws: as above.
        rhat, ess: ``{site or invariant: worst value over its entries}``.
        divergences: number of divergent transitions after warm-up.
    """

    def __init__(
        self,
        problem: Problem,
        draws: Mapping[str, Tensor],
        *,
        rhat: Mapping[str, float] | None = None,
        ess: Mapping[str, float] | None = None,
        divergences: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(problem, **common)
        for name, site in problem.continuous.items():
            if name not in draws or draws[name].shape[2:] != site.shape:
                found = tuple(draws[name].shape) if name in draws else "none"
                raise OptionError(
                    f"site '{name}': expected draws of shape "
                    f"[{', '.join(['chains', 'draws', *map(str, site.shape)])}], got {found}."
                )
        self.draws = dict(draws)
        self.rhat, self.ess = dict(rhat or {}), dict(ess or {})
        self.divergences = divergences

    def pooled(self) -> dict[str, Tensor]:
        """All draws of all chains: ``{site: [chains * draws, *shape]}``."""
        return {k: v.flatten(0, 1) for k, v in self.draws.items()}

    def _draw(self, num_samples: int, seed: int) -> dict[str, Tensor]:
        check_count(num_samples)
        pooled = self.pooled()
        total = next(iter(pooled.values())).shape[0]
        with seeded(seed):
            order = torch.cat(
                [torch.randperm(total) for _ in range(math.ceil(num_samples / total))]
            )[:num_samples]
        return {k: v[order] for k, v in pooled.items()}

    def _moment_draws(self) -> dict[str, Tensor]:
        return self.pooled()

    def sample_with_log_prob(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        raise NotSupportedError(f"{self.engine} gives draws, not a density; use sample(n).")

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        raise NotSupportedError(
            f"{self.engine} gives draws, not a density; use an SVI or CAVI fit."
        )

    def elbo(self, num_samples: int = 1000, seed: int = 0) -> Estimate:
        raise NotSupportedError(f"{self.engine} gives draws, which have no bound.")

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return dict(self.draws), {
            "rhat": self.rhat,
            "ess": self.ess,
            "divergences": self.divergences,
        }

    @classmethod
    def _restore(cls, saved: Saved) -> "DrawsPosterior":
        return cls(
            saved.problem,
            saved.tensors,
            rhat=saved.meta["rhat"],
            ess=saved.meta["ess"],
            divergences=saved.meta["divergences"],
            **saved.common,
        )

"""A mixture of posteriors of one problem: q(θ) = Σ_k w_k q_k(θ)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitools.distributions.boxed import BoxedMatrix
from vitools.distributions.free_form import FreeForm
from vitools.distributions.layers import base_distribution
from vitools.distributions.mixture import Mixture
from vitools.errors import NotSupportedError, OptionError
from vitools.isolation import seeded
from vitools.posterior.base import Posterior, Saved
from vitools.posterior.draws import DrawsPosterior
from vitools.posterior.results import Estimate, check_count


class MixturePosterior(Posterior):
    """Draws come from one component or another; the density is the weighted sum of theirs.

    Args:
        weights: ``[K]``, at least 0, of any sum.
        components: K posteriors of ``problem``, each with a density.
        apart: latents by whose values at most one component is possible (components that live on
            disjoint cells of these): then only that component's density is worked out.
        bound: the engine's own bound where it has one; else it is estimated from draws.
        bound_error: by how much ``bound`` may be off.
        restart_bounds: the bounds that several starts of the engine reached; also an attribute.
        weight_errors: ``[K]``, standard errors of the weights where these are estimates; also an
            attribute, zeros where they are none.
        least_evidence: log p(x) as far as the components reach, which is no more than all of it but for its
            standard error; also an attribute.
    """

    def __init__(
        self,
        problem: Any,
        weights: Tensor | Sequence[float],
        components: Sequence[Posterior],
        *,
        apart: Sequence[str] = (),
        bound: float | None = None,
        bound_error: float = 0.0,
        restart_bounds: Sequence[float] = (),
        weight_errors: Tensor | Sequence[float] | None = None,
        least_evidence: Estimate | None = None,
        **common: Any,
    ) -> None:
        super().__init__(problem, **common)
        weights = torch.as_tensor(weights, dtype=torch.float64)
        _check(problem, weights, components)
        self.weights = weights / weights.sum()
        self.components = list(components)
        self.apart = tuple(apart)
        self.bound, self.bound_error = bound, bound_error
        self.restart_bounds = list(restart_bounds)
        errors = torch.zeros_like(self.weights) if weight_errors is None else weight_errors
        self.weight_errors = torch.as_tensor(errors, dtype=torch.float64)
        self.least_evidence = least_evidence

    def elbo(self, num_samples: int = 1000, seed: int = 0) -> Estimate:
        """The engine's bound where it has one; else an estimate, discrete latents summed out."""
        if self.bound is None:
            return super().elbo(num_samples, seed)
        return Estimate(self.bound, self.bound_error)

    def sample_with_log_prob(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        values = self._draw(num_samples, seed)
        with torch.no_grad():
            return values, self.log_prob(values).expand(num_samples)

    def _draw(self, num_samples: int, seed: int) -> dict[str, Tensor]:
        check_count(num_samples)
        with seeded(seed):
            chosen = torch.multinomial(self.weights, num_samples, replacement=True)
            seeds = torch.randint(2**31, (len(self.components),)).tolist()
        values: dict[str, Tensor] = {}
        for k, component in enumerate(self.components):
            rows = (chosen == k).nonzero().flatten()
            if not len(rows):
                continue
            for name, drawn in component._draw(len(rows), seeds[k]).items():
                if name not in values:
                    values[name] = drawn.new_empty((num_samples, *drawn.shape[1:]))
                values[name][rows] = drawn
        return values

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        flat, shape = self.problem.checked_draws(values)
        count = shape.numel()
        total: Tensor | None = None
        for weight, component in zip(self.weights, self.components, strict=True):
            rows = self._possible(component, flat, count)
            if weight == 0 or not len(rows):
                continue
            part = component.log_prob({name: value[rows] for name, value in flat.items()})
            if total is None:
                total = part.new_full((count,), -math.inf)
            part = weight.log() + part.expand(len(rows))
            total = total.index_copy(0, rows, torch.logaddexp(total[rows], part.to(total)))
        if total is None:
            total = torch.full((count,), -math.inf, dtype=torch.float64)
        return total.reshape(shape)

    def _possible(self, component: Posterior, flat: Mapping[str, Tensor], count: int) -> Tensor:
        """The numbers of the draws that a component could have made, as far as ``apart`` tells."""
        possible = torch.ones(count, dtype=torch.bool)
        for name in self.apart:
            if name in flat:
                possible &= (
                    _reaches(component.marginal(name), flat[name]).reshape(count, -1).all(-1)
                )
        return possible.nonzero().flatten()

    def marginal(self, site: str) -> Any:
        """q(site), the mixture of the components' marginals where these are known in closed form."""
        if self._steps(site) is None:
            self._latent(site)
        return Mixture(
            self.weights, [c.marginal(site) for c in self.components], validate_args=False
        )

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        found = [component._moments(name) for component in self.components]
        mean = _average(self.weights, [mean for mean, _ in found])
        variance = _average(self.weights, [sd**2 + (m - mean) ** 2 for m, sd in found])
        return mean, variance.sqrt()

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {"weights": self.weights, "weight_errors": self.weight_errors}
        described = []
        for k, component in enumerate(self.components):
            state, meta = component._state()
            tensors |= {f"{k}.{name}": value for name, value in state.items()}
            described.append({"kind": type(component).__name__, "meta": meta})
        bounds = {
            "bound": self.bound,
            "bound_error": self.bound_error,
            "restart_bounds": self.restart_bounds,
        }
        known = self.least_evidence
        evidence = None if known is None else [known.value, known.standard_error]
        meta = {"components": described, "apart": self.apart, "least_evidence": evidence}
        return tensors, meta | bounds

    @classmethod
    def _restore(cls, saved: Saved) -> "MixturePosterior":
        described = enumerate(saved.meta["components"])
        components = [saved.part(k, each, saved.problem) for k, each in described]
        evidence = saved.meta.get("least_evidence")
        fit = cls(
            components[0].problem,  # with the values of the model's own parameters
            saved.tensors["weights"],
            components,
            apart=saved.meta["apart"],
            bound=saved.meta["bound"],
            bound_error=saved.meta["bound_error"],
            restart_bounds=saved.meta["restart_bounds"],
            weight_errors=saved.tensors.get("weight_errors"),
            least_evidence=None if evidence is None else Estimate(*evidence),
            **saved.common,
        )
        fit.weights = saved.tensors["weights"]  # to the last bit: a second division may round
        return fit


def _check(problem: Any, weights: Tensor, components: Sequence[Posterior]) -> None:
    if weights.dim() != 1 or not len(weights) or len(weights) != len(components):
        raise OptionError(
            f"weights: expected one for each of {len(components)} posteriors, "
            f"got shape {tuple(weights.shape)}."
        )
    if not bool((weights >= 0).all() and weights.sum() > 0 and weights.isfinite().all()):
        raise OptionError(
            f"weights: expected numbers from 0 up, not all 0, got {weights.tolist()}."
        )
    for component in components:
        if component.problem.fingerprint != problem.fingerprint:
            raise OptionError(
                f"a fit of model '{component.problem.name}' to other data or sites cannot be mixed "
                f"into a posterior of '{problem.name}'. Give fits of one Problem."
            )
        if component.points or isinstance(component, DrawsPosterior):
            raise NotSupportedError(
                f"the {component.engine} fit has no density, which a mixture needs. Leave it out."
            )


def _reaches(distribution: Any, value: Tensor) -> Tensor:
    """Where a value is between the ends of a density that has some."""
    base = base_distribution(distribution)
    if isinstance(base, FreeForm | BoxedMatrix):
        return base.reaches(value)
    return distribution.support.check(value)


def _average(weights: Tensor, values: Sequence[Tensor]) -> Tensor:
    pairs = zip(weights, values, strict=True)
    # what has no weight may be infinite
    return sum((w * v for w, v in pairs if w > 0), torch.zeros_like(values[0]))

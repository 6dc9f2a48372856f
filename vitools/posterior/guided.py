"""A fitted Pyro guide with its own parameters, independent of the global store."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoContinuous
from pyro.poutine import Trace
from torch import Tensor

from vitools.errors import NotSupportedError
from vitools.isolation import ParamState, full_plates, isolated, seeded
from vitools.posterior.base import Posterior, check_count
from vitools.problem import Problem
from vitools.sites import is_subsample
from vitools.unconstrained import UnconstrainedSpace
from vitools.vectorise import DrawMapper, split_draws


def snapshot(params: ParamState) -> ParamState:
    """A copy of a parameter store's state that no further step can change."""
    copies = {k: torch.nn.Parameter(v.detach().clone()) for k, v in params["params"].items()}
    return {"params": copies, "constraints": dict(params["constraints"])}


def guide_log_density(run: Trace) -> Tensor:
    """log q of the values in a trace of a guide (auxiliary sites and Jacobians included)."""
    run.compute_log_prob()
    terms = [
        node["log_prob_sum"]
        for node in run.nodes.values()
        if node["type"] == "sample" and not is_subsample(node)
    ]
    return torch.stack(terms).sum() if terms else torch.zeros(())


class GuidePosterior(Posterior):
    """q(θ) given by any Pyro guide at fixed parameters.

    Args:
        problem: the fitted problem.
        guide: a Pyro guide called with the problem's arguments.
        params: state of a parameter store holding the fitted values of guide and model.
    """

    def __init__(self, problem: Problem, guide: Any, params: ParamState, **common: Any) -> None:
        super().__init__(problem.with_params(params), **common)
        self.guide = guide
        self.params = params
        self._mapper = DrawMapper(None, 8 * sum(s.shape.numel() for s in problem.latents.values()))

    def run_guide(self, data: Mapping[str, Tensor] | None = None) -> Trace:
        """One trace of the guide over the full data, optionally with sites held at ``data``."""
        guide = poutine.condition(self.guide, data=dict(data)) if data else self.guide
        with isolated(self.params), full_plates():
            return poutine.trace(guide).get_trace(*self.problem.args, **self.problem.kwargs)

    def sample_with_log_prob(self, n: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        check_count(n)
        names = list(self.problem.continuous)

        def once(_: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            run = self.run_guide()
            return {k: run.nodes[k]["value"] for k in names}, guide_log_density(run)

        with seeded(seed), torch.no_grad():
            return self._mapper(once, torch.zeros(n), randomness="different")

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        sites = self.problem.continuous
        flat, sample_shape = split_draws(values, {k: len(sites[k].shape) for k in values})
        with torch.no_grad():
            if isinstance(self.guide, AutoContinuous):
                return self._log_prob_of_vector(flat).reshape(sample_shape)
            with seeded(0):
                run = self.run_guide()
            drawn = {k for k, n in run.nodes.items() if n["type"] == "sample" and k in sites}
            deltas = {k for k in drawn if type(run.nodes[k]["fn"]).__name__ == "Delta"}
            others = {
                k for k, n in run.nodes.items() if n["type"] == "sample" and not is_subsample(n)
            } - drawn
            if deltas or others or drawn != set(sites):
                raise NotSupportedError(
                    f"guide {type(self.guide).__name__} draws {', '.join(sorted(others | deltas))} "
                    "through a transformation, so its density at given values is not available; "
                    "sample_with_log_prob() gives it at the guide's own draws."
                )
            result = self._mapper(lambda draw: guide_log_density(self.run_guide(draw)), flat)
        return result.reshape(sample_shape)

    def _log_prob_of_vector(self, values: Mapping[str, Tensor]) -> Tensor:
        space = UnconstrainedSpace(self.problem)
        vector = space.from_values(values)
        with isolated(self.params):
            base = self.guide.get_posterior()
        return base.log_prob(vector) - space.log_jacobian(vector)

    def marginal(self, site: str) -> Any:
        self._latent(site)
        if not hasattr(self.guide, "marginal"):
            return super().marginal(site)
        with seeded(0):
            self.run_guide()  # a module guide takes its parameters from the store when it runs
        with isolated(self.params), torch.no_grad():
            return self.guide.marginal(site)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        kind = type(self.guide)
        meta = {
            "guide": f"{kind.__module__}:{kind.__qualname__}",
            "options": getattr(self.guide, "options", {}),
        }
        return {k: v.detach() for k, v in self.params["params"].items()}, meta

    @classmethod
    def _restore(
        cls,
        problem: Problem,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        common: dict[str, Any],
        guide: Any,
    ) -> "GuidePosterior":
        made = build_guide(problem, guide or _known_guide(meta["guide"]), **meta["options"])
        with seeded(0), isolated() as params, torch.no_grad():
            made(*problem.args, **problem.kwargs)  # registers names and constraints
            problem.call()
        expected = {k: tuple(v.shape) for k, v in params["params"].items()}
        found = {k: tuple(v.shape) for k, v in tensors.items()}
        if expected != found:
            raise NotSupportedError(
                f"the saved parameters {found} are not those of guide {type(made).__name__}: "
                f"{expected}. Pass guide= as it was when the fit was made."
            )
        params["params"] = {k: torch.nn.Parameter(v) for k, v in tensors.items()}
        return cls(problem, made, params, **common)


def build_guide(problem: Problem, guide: Any, **options: Any) -> Any:
    """A guide as it is, or a guide class called with the problem's model."""
    return guide(problem.model, **options) if isinstance(guide, type) else guide


def _known_guide(path: str) -> Any:
    """A guide class by the name in a saved file, from vitools and Pyro only."""
    module, _, name = path.partition(":")
    found = None
    if module.startswith("vitools.guides"):
        found = getattr(import_module("vitools.guides"), name, None)
    elif module.startswith("pyro."):
        found = getattr(pyro.infer.autoguide, name, None)
    if found is None:
        raise NotSupportedError(
            f"this fit used the guide {name} of {module}; pass it: Posterior.load(path, problem, "
            "guide=…)."
        )
    return found

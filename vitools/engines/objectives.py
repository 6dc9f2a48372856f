"""The negative bound as a differentiable function of a guide's parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor

from vitools.enumeration import FactorGraph
from vitools.errors import NotSupportedError
from vitools.posterior.guided import guide_log_density
from vitools.problem import Problem
from vitools.sites import is_subsample


@dataclass(frozen=True)
class Objective:
    """A loss to call without arguments, and whether it can be recorded as a graph."""

    loss: Callable[[], Tensor]
    is_recordable: bool


def negative_elbo(problem: Problem, guide: Any, num_particles: int) -> Objective:
    """-E_q[log p(x, θ) - log q(θ)] by ``num_particles`` draws, discrete latents summed out.

    Where every draw of the guide is reparameterised the estimate is differentiated
    through the draws (pathwise; Kingma & Welling 2014). A guide with other draws goes
    to Pyro's ``TraceEnum_ELBO``, which uses the score function for them.
    """
    args, kwargs = problem.args, problem.kwargs
    run = poutine.trace(guide).get_trace(*args, **kwargs)
    drawn = [n for n in run.nodes.values() if n["type"] == "sample" and not is_subsample(n)]
    if drawn and all(_is_point(node) for node in drawn):
        raise NotSupportedError(
            f"guide {type(guide).__name__} is a point estimate: it has no density to compare or "
            "trust. Use a guide with spread, e.g. AutoLogisticNormal or AutoNormal."
        )
    if not all(node["fn"].has_rsample for node in drawn):
        elbo = TraceEnum_ELBO(
            num_particles=num_particles,
            max_plate_nesting=problem.max_plate_nesting,
            strict_enumeration_warning=False,
        )
        model = config_enumerate(lambda *args, **kwargs: problem.call(), "parallel")
        return Objective(lambda: elbo.differentiable_loss(model, guide, *args, **kwargs), False)

    def once() -> Tensor:
        guide_run = poutine.trace(guide).get_trace(*args, **kwargs)
        replayed = poutine.replay(problem.call, trace=guide_run)
        log_joint = FactorGraph(replayed, problem.max_plate_nesting).log_density()
        return guide_log_density(guide_run) - log_joint

    if num_particles == 1:
        return Objective(once, True)
    return Objective(lambda: torch.stack([once() for _ in range(num_particles)]).mean(), True)


def _is_point(node: Any) -> bool:
    fn = node["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__ == "Delta" and not bool(torch.as_tensor(fn.log_density).any())

"""Which parameter or site left the finite numbers? Asked after a step was lost."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import TransformedDistribution

from vitools.distributions.layers import base_distribution
from vitools.isolation import ParamState, isolated
from vitools.problem import Problem
from vitools.problem.sites import is_subsample

ATTEMPTS = 20  # the noise that broke the step is gone; a few draws find it again


def find_culprit(problem: Problem, guide: Any, state: ParamState) -> str:
    """The first non-finite quantity in words: a parameter, else a site of the guide or model."""
    for name, parameter in state["params"].items():
        if not bool(torch.isfinite(parameter).all()):
            return f"parameter '{name}' became {_worst(parameter)}"
    for who, name, node in _scored_sites(problem, guide, state):
        for what, tensor in (("value", node["value"]), ("log density", node["log_prob"])):
            if not bool(torch.isfinite(tensor).all()):
                return (
                    f"{what} of site '{name}' in the {who} became {_worst(tensor)}"
                    f"{_parameters(node['fn'])}"
                )
    return "the bound became non-finite, at no single site"


def find_bad_gradient(problem: Problem, guide: Any, state: ParamState) -> str:
    """The first site whose log density is finite and its gradient is not, in words; or nothing.

    Asked at the parameters before the lost step: one number that is not finite in a gradient is
    enough to spoil a parameter, and then all sites.
    """
    parameters = [p for p in state["params"].values() if p.requires_grad]
    for who, name, node in _scored_sites(problem, guide, state, with_gradients=True):
        total = node["log_prob"].sum()
        if not (total.requires_grad and math.isfinite(float(total.detach()))):
            continue
        slopes = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
        for slope in slopes:
            if slope is not None and not bool(torch.isfinite(slope).all()):
                return (
                    f": the gradient of site '{name}' in the {who} is {_worst(slope)}, "
                    "though its log density is finite (as of a root or a norm at 0, or of "
                    "the branch that a torch.where does not take)"
                )
    return ""


def _scored_sites(
    problem: Problem, guide: Any, state: ParamState, *, with_gradients: bool = False
) -> Iterator[tuple[str, str, Any]]:
    """Whose site, its name and its scored node, of guide and model, at several draws."""
    for _ in range(ATTEMPTS):
        with isolated(state), torch.set_grad_enabled(with_gradients):
            guide_run = poutine.trace(guide).get_trace(*problem.args, **problem.kwargs)
            model_run = poutine.trace(poutine.replay(problem.call, trace=guide_run)).get_trace()
            guide_run.compute_log_prob()
            model_run.compute_log_prob()
        for who, run in (("guide", guide_run), ("model", model_run)):
            for name, node in run.nodes.items():
                if node["type"] == "sample" and not is_subsample(node):
                    yield who, name, node


def _worst(tensor: Tensor) -> str:
    bad = tensor[~torch.isfinite(tensor)].detach()
    return str(float(bad.flatten()[0])) if bad.numel() else "finite"


def _parameters(fn: Any) -> str:
    base = base_distribution(fn)
    while isinstance(base, TransformedDistribution):
        base = base_distribution(base.base_dist)
    parts = []
    for name, constraint in getattr(base, "arg_constraints", {}).items():
        value = base.__dict__.get(name)
        if isinstance(value, Tensor):
            value = value.detach()
            low, high = float(value.min()), float(value.max())
            words = f"{name} {low:.3g}" if low == high else f"{name} {low:.3g} to {high:.3g}"
            least = getattr(constraint, "lower_bound", None)
            if isinstance(least, int | float) and low < least:
                words += f", below {least:g}: its prior needs a support that excludes such values"
            parts.append(words)
    return f" ({', '.join(parts)})" if parts else ""

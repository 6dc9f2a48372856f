"""Pyro's hidden Markov models as observed sites: their states are latents of a wider model.

A site ``DiscreteHMM`` or ``GaussianHMM`` has its states integrated out. Where its parameters are latents that has
no closed form; with the states as a latent trajectory it has, and their factor is exact by elimination. Pyro's
chains begin with a state that is not observed: of T observations there are T + 1 states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.tracing.constructors import base_and_mask, written
from vitools.calculus.tracing.operations.matrices import matmul_expressions
from vitools.calculus.tracing.symbolic import Refusal, SymbolicTensor
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.distributions.markov_chains import CategoricalMarkovChain, GaussianMarkovChain


class _Unread(Exception):
    """A part of a chain that is none of those known here."""


def with_hidden_chains(trace: ModelTrace) -> ModelTrace:
    """The same model, with the states of its observed chains as latents."""
    sites: dict[str, TracedSite] = {}
    auxiliary = set(trace.auxiliary)
    for name, site in trace.sites.items():
        read = CHAINS.get(site.distribution)
        if read is None or site.is_latent or not _depends_on_latents(site):
            sites[name] = site
            continue
        try:
            states, emission = read(site)
        except _Unread:  # its parameters stay what has no closed form, and are said to be
            sites[name] = site
            continue
        sites |= {states.name: states, name: emission}
        auxiliary.add(states.name)
    return replace(trace, sites=sites, auxiliary=frozenset(auxiliary))


def _depends_on_latents(site: TracedSite) -> bool:
    return any(isinstance(x, Expression | Discrete | Refusal) for x in site.arguments.values())


def _steps(site: TracedSite) -> int:
    return site.shape[len(site.batch_shape)]


def _states(
    site: TracedSite,
    value: Expression | Discrete,
    shape: tuple[int, ...],
    arguments: Mapping[str, Any],
    fn: Any,
    name: str,
) -> TracedSite:
    given = {key: x for key, x in arguments.items() if x is not None}
    return replace(
        site,
        name=name,
        distribution=type(fn).__name__,
        arguments=given,
        shape=shape,
        base_event_dim=len(fn.event_shape),
        to_event=0,
        observed=None,
        value=value,
        mask=None,
        support_size=fn.num_states if isinstance(fn, CategoricalMarkovChain) else 0,
        fn=fn,
    )


def _discrete(site: TracedSite) -> tuple[TracedSite, TracedSite]:
    """z_t ~ P_t[z_t-1], y_t ~ the observation's distribution of z_t."""
    given = written(site.fn)[1]
    initial, transition = (_node(given[f"{k}_logits"]) for k in ("initial", "transition"))
    size, steps, name = initial.shape[-1], _steps(site), f"states of {site.name}"
    shape = (*site.batch_shape, steps + 1)
    states = Discrete.latent(name, shape, torch.arange(size))
    flat = torch.full((size,), 1 / size)
    fn = CategoricalMarkovChain(flat, flat.expand(size, size), steps + 1).expand(site.batch_shape)
    parameters = {"initial_logits": initial, "transition_logits": transition}
    latent = _states(site, states, shape, parameters, fn, name)

    base, to_event, arguments = _observation(given["observation_dist"])
    seen = states.restructured(lambda e: e.take(torch.arange(1, steps + 1), -1)).one_hot(size)
    at_states = {}
    for key, argument in arguments.items():
        own = _own_dims(base, key) + to_event
        node = _node(argument)
        if node.dim > own and node.shape[-1 - own] == size:
            chosen = seen
            for _ in range(own):
                chosen = chosen.unsqueeze(-1)
            node = (node * chosen).sum(-1 - own)
        elif node.dim > own and node.shape[-1 - own] == 1:
            node = node.take(0, -1 - own)
        at_states[key] = node
    return latent, _emission(site, base, to_event, at_states)


def _gaussian(site: TracedSite) -> tuple[TracedSite, TracedSite]:
    """z_t = z_t-1 F + w_t, y_t = z_t H + v_t."""
    given = written(site.fn)[1]
    matrix, loading = _node(given["transition_matrix"]), _node(given["observation_matrix"])
    size, steps, name = matrix.shape[-1], _steps(site), f"states of {site.name}"
    shape = (*site.batch_shape, steps + 1, size)
    states = Expression.latent(name, shape)
    first, noise = _normal(given["initial_dist"], size), _normal(given["transition_dist"], size)
    order = [*range(matrix.dim - 2), matrix.dim - 1, matrix.dim - 2]
    parameters = {
        "initial_loc": first.pop("loc"),
        "transition_matrix": matrix.permute(order),
        "transition_offset": noise.pop("loc"),
        **{f"initial_{key}": x for key, x in first.items()},
        **{f"transition_{key}": x for key, x in noise.items()},
    }
    fn = GaussianMarkovChain(torch.zeros(size), 1.0, 1.0, num_steps=steps + 1)
    latent = _states(site, states, shape, parameters, fn.expand(site.batch_shape), name)

    base, to_event, arguments = _observation(given["observation_dist"])
    seen = states.take(torch.arange(1, steps + 1), -2).unsqueeze(-2)
    at_states = {key: _node(x) for key, x in arguments.items() if x is not None}
    at_states["loc"] = matmul_expressions(seen, loading).squeeze(-2) + at_states["loc"]
    return latent, _emission(site, base, to_event, at_states)


CHAINS = {"DiscreteHMM": _discrete, "GaussianHMM": _gaussian}


def _node(value: Any) -> Expression:
    if isinstance(value, SymbolicTensor):
        if isinstance(value.node, Expression):
            return value.node
        raise _Unread
    if isinstance(value, Tensor | int | float):
        return Expression.constant(value)
    raise _Unread


def _observation(fn: Any) -> tuple[Any, int, dict[str, Any]]:
    """The distribution of one time, how many of its dims are events by declaration, its arguments."""
    base, mask = base_and_mask(fn)
    if mask is not None:
        raise _Unread
    arguments = {
        k: x for k, x in written(base)[1].items() if k != "validate_args" and x is not None
    }
    return base, len(fn.event_shape) - len(base.event_shape), arguments


def _own_dims(base: Any, key: str) -> int:
    constraint = base.arg_constraints.get(key)
    if constraint is None:
        raise _Unread
    return int(constraint.event_dim)


def _normal(fn: Distribution, size: int) -> dict[str, Expression]:
    """Location and standard deviations, or Cholesky factor, of the noise."""
    base, _, arguments = _observation(fn)
    kind = written(base)[0]
    if kind == "Normal":
        loc, scale = (_node(arguments[k]) for k in ("loc", "scale"))
        wide = Expression.constant(torch.zeros(size))
        return {"loc": loc + wide, "scale": scale}
    if kind == "MultivariateNormal" and isinstance(base, MultivariateNormal):
        symbolic = [k for k, x in arguments.items() if isinstance(x, SymbolicTensor) and k != "loc"]
        if symbolic:
            raise _Unread
        return {"loc": _node(arguments["loc"]), "scale_tril": _node(base.scale_tril)}
    raise _Unread


def _emission(
    site: TracedSite, base: Any, to_event: int, arguments: Mapping[str, Any]
) -> TracedSite:
    event = len(base.event_shape)
    batch = site.shape[: len(site.shape) - event]
    mask = site.mask
    if mask is not None:
        mask = mask.reshape(*mask.shape, *(1,) * (len(batch) - len(site.batch_shape)))
    return replace(
        site,
        distribution=written(base)[0],
        arguments=dict(arguments),
        batch_shape=tuple(batch),
        base_event_dim=event,
        to_event=1 + to_event,
        mask=mask,
        fn=base,
    )

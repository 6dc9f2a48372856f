"""Pyro's hidden Markov models as observed sites: their states are latents of a wider model.

A site ``DiscreteHMM``, ``GaussianHMM`` or ``LinearHMM`` has its states integrated out. Where its parameters are latents that has
no closed form; with the states as a latent trajectory it has, and their factor is exact by elimination. Pyro's
chains begin with a state that is not observed: of T observations there are T + 1 states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.distributions import Distribution, MultivariateNormal

from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.tracing.constructors import written
from vitools.calculus.tracing.inner import Unread, at_cases, node_of, own_dims, read_inside
from vitools.calculus.tracing.operations.matrices import matmul_expressions
from vitools.calculus.tracing.symbolic import Refusal, SymbolicTensor
from vitools.calculus.tracing.trace import ModelTrace, TracedSite
from vitools.distributions.markov_chains import CategoricalMarkovChain, GaussianMarkovChain


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
        except Unread:  # its parameters stay what has no closed form, and are said to be
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
    initial, transition = (node_of(given[f"{k}_logits"]) for k in ("initial", "transition"))
    size, steps, name = initial.shape[-1], _steps(site), f"states of {site.name}"
    shape = (*site.batch_shape, steps + 1)
    states = Discrete.latent(name, shape, torch.arange(size))
    flat = torch.full((size,), 1 / size)
    fn = CategoricalMarkovChain(flat, flat.expand(size, size), steps + 1).expand(site.batch_shape)
    parameters = {"initial_logits": initial, "transition_logits": transition}
    latent = _states(site, states, shape, parameters, fn, name)

    base, to_event, arguments = read_inside(given["observation_dist"])
    seen = states.restructured(lambda e: e.take(torch.arange(1, steps + 1), -1)).one_hot(size)
    at_states = {}
    for key, argument in arguments.items():
        own = own_dims(base, key) + to_event
        at_states[key] = at_cases(node_of(argument), own, seen)
    return latent, _emission(site, base, to_event, at_states)


def _gaussian(site: TracedSite) -> tuple[TracedSite, TracedSite]:
    """z_t = z_t-1 F + w_t, y_t = z_t H + v_t."""
    given = written(site.fn)[1]
    matrix, loading = node_of(given["transition_matrix"]), node_of(given["observation_matrix"])
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

    base, to_event, arguments = read_inside(given["observation_dist"])
    seen = states.take(torch.arange(1, steps + 1), -2).unsqueeze(-2)
    at_states = {key: node_of(x) for key, x in arguments.items() if x is not None}
    at_states["loc"] = matmul_expressions(seen, loading).squeeze(-2) + at_states["loc"]
    return latent, _emission(site, base, to_event, at_states)


CHAINS = {"DiscreteHMM": _discrete, "GaussianHMM": _gaussian, "LinearHMM": _gaussian}


def _normal(fn: Distribution, size: int) -> dict[str, Expression]:
    """Location and standard deviations, or Cholesky factor, of the noise."""
    base, _, arguments = read_inside(fn)
    kind = written(base)[0]
    if kind == "Normal":
        loc, scale = (node_of(arguments[k]) for k in ("loc", "scale"))
        wide = Expression.constant(torch.zeros(size))
        return {"loc": loc + wide, "scale": scale}
    if kind == "MultivariateNormal" and isinstance(base, MultivariateNormal):
        symbolic = [k for k, x in arguments.items() if isinstance(x, SymbolicTensor) and k != "loc"]
        if symbolic:
            raise Unread
        return {"loc": node_of(arguments["loc"]), "scale_tril": node_of(base.scale_tril)}
    raise Unread


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
